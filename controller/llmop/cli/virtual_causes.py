"""Why is a tribunal or an assistant as it is? Its own state, and that of the deployment behind each model that it asks.

Pure, as `causes` is: documents in the shape of manifests, read at one moment.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmop.cli import advice
from llmop.cli.causes import Cause, Document, Explanation


def explain(virtual: Document, deployments: Sequence[Document]) -> Explanation:
    """`deployments` are those of all namespaces: models are named, which are public."""
    name = str(virtual["metadata"]["name"])
    ready = _ready(virtual)
    if ready.get("reason") == "SpecRefused":
        return refused(virtual, ready, advice.OF_VIRTUAL["SpecRefused"])
    # Of two that claim a name one serves.
    behind = {_model(each): each for each in sorted(deployments, key=_serves)}
    members = {model: (", ".join(who), behind.get(model)) for model, who in _members(virtual["spec"]).items()}
    troubled = {model: each for model, each in members.items() if not _serves(each[1])}
    causes = []
    if ready and ready.get("status") != "True":
        causes.append(Cause(depth=0, text=f"Ready is {ready.get('status')}: {_sentence(ready)}"))
    causes += [Cause(depth=1, text=_trouble(model, *each)) for model, each in troubled.items()]
    given = [
        *_advice(name, ready, troubled),
        *_stores_advice(name, ready, is_assistant=_is_assistant(virtual)),
    ]
    return Explanation(
        summary=_summary(name, ready, len(members), len(troubled), is_assistant=_is_assistant(virtual)),
        causes=tuple(causes),
        advice=tuple(dict.fromkeys(given)),
    )


def refused(document: Document, condition: Mapping[str, Any], words: str) -> Explanation:
    """Of an object whose stored spec the controller refuses; `condition` says so, `words` what to do."""
    name = str(document["metadata"]["name"])
    text = f"{condition.get('type')} is {condition.get('status')}: {_sentence(condition)}"
    return Explanation(
        summary=f"{name} is held as it is: its spec was stored by another version, or is damaged, and this version refuses it.",
        causes=(Cause(depth=0, text=text),),
        advice=(words,),
    )


def _members(spec: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each model is asked for: in a tribunal as transcripts call it, in the order of the manifest; an assistant has a writer."""
    found: dict[str, list[str]] = {}
    if "judge" not in spec:
        return {str(spec["model"]): ["writer"]}
    for role, field in (("drafter", "drafters"), ("critic", "critics")):
        for number, member in enumerate(spec.get(field) or (), 1):
            found.setdefault(str(member["model"]), []).append(f"{role}-{number}")
    found.setdefault(str(spec["judge"]["model"]), []).append("judge")
    return found


def _is_assistant(virtual: Document) -> bool:
    return "judge" not in virtual["spec"]


def _summary(name: str, ready: Mapping[str, Any], members: int, troubled: int, *, is_assistant: bool) -> str:
    if not ready:
        return f"{name} has not been looked at by the controller yet."
    if ready.get("reason") == "NameConflict":
        return f"{name} is not asked by anybody: another object has its name."
    if not troubled and is_assistant:
        return f"{name}: its model is served; whether its vector stores are there is not known here."
    if not troubled:
        return f"{name} answers: all of its models are served."
    if members == 1:
        return f"{name} does not answer: its model is not served."
    how = (
        "answers with those that are left, where they are enough" if troubled < members else "does not answer"
    )
    return f"{name} {how}: {troubled} of its {members} models {'is' if troubled == 1 else 'are'} not served."


def _trouble(model: str, who: str, deployment: Document | None) -> str:
    if deployment is None:
        return f"{model} ({who}): no deployment serves it"
    ready = _ready(deployment)
    words = _sentence(ready) if ready else "the controller has not looked at it yet."
    return f"{model} ({who}): deployment {deployment['metadata']['name']} is not ready: {words}"


def _advice(
    name: str, ready: Mapping[str, Any], troubled: Mapping[str, tuple[str, Document | None]]
) -> Iterator[str]:
    if words := advice.OF_VIRTUAL.get(str(ready.get("reason"))):
        yield words.format(name=name)
    for model, (_, deployment) in troubled.items():
        if deployment is not None:
            metadata = deployment["metadata"]
            yield f"See llmctl why md/{metadata['name']} -n {metadata.get('namespace') or 'default'}."
        elif ready.get("reason") == "MembersExist":
            yield f"Wait some seconds, or apply a deployment that serves {model}."


def _stores_advice(name: str, ready: Mapping[str, Any], *, is_assistant: bool) -> Iterator[str]:
    """What an assistant asks besides, which the controller does not know."""
    if is_assistant and ready.get("reason") == "MembersExist":
        yield advice.OF_STORES.format(name=name)


def _serves(deployment: Document | None) -> bool:
    """One that waits at zero for its first request serves too."""
    return deployment is not None and _ready(deployment).get("status") == "True"


def _model(deployment: Document) -> str:
    model = deployment["spec"].get("model") or {}
    return str(model.get("name") or deployment["metadata"]["name"])


def _ready(document: Document) -> Mapping[str, Any]:
    found = (document.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == "Ready"), {})


def _sentence(words: Mapping[str, Any]) -> str:
    message = str(words.get("message") or "")
    return f"{words.get('reason')}: {message}" if message else str(words.get("reason"))
