"""Why is it as it is? One paragraph and the chain of causes, out of objects that were read at one moment.

A pure function: documents in the shape of manifests (`printing.document`), `now` in epoch seconds. It says nothing that is not in them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmop.cli import advice
from llmop.domain import rollouts, times

Document = Mapping[str, Any]

_MOST_REPLICAS = 5
_MOST_EVENTS = 5
_SERVING = ("Ready",)
# Which replicas explain most: those that ended badly, then those that cannot start, then those on their way.
_PHASE_ORDER = (
    "Ended",
    "Blocked",
    "Unreachable",
    "Suspended",
    "Unknown",
    "Suspect",
    "OrphanAlive",
    "Pending",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """An event: when it was last, how often, about what and what."""

    at: float
    count: int
    about: str  # replica/chat-abcde
    is_warning: bool
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """`replicas` are those of the deployment; `focus` is the replica that is asked about, "" = the deployment itself."""

    now: float
    deployment: Document | None = None
    replicas: tuple[Document, ...] = ()
    cluster: Document | None = None
    events: tuple[Happening, ...] = ()
    focus: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One link: the deeper, the nearer to the root."""

    depth: int
    text: str
    log: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    summary: str
    causes: tuple[Cause, ...] = ()
    events: tuple[Happening, ...] = ()
    advice: tuple[str, ...] = ()


def explain(situation: Situation) -> Explanation:
    if situation.focus:
        return _of_replica(situation)
    return _of_deployment(situation)


def lines(explanation: Explanation, now: float) -> list[str]:
    """The text of `llmctl why`."""
    found = [explanation.summary]
    if explanation.causes:
        found += ["", "Because:"]
    for cause in explanation.causes:
        indent = "  " * (cause.depth + 1)
        found.append(f"{indent}{cause.text}")
        found += [f"{indent}  | {line}" for line in cause.log]
    if explanation.events:
        found += ["", "What happened last:"]
        found += [f"  {_event_line(each, now)}" for each in explanation.events]
    if explanation.advice:
        found += ["", "What to do:"]
        found += [f"  - {words}" for words in explanation.advice]
    return found


def _event_line(each: Happening, now: float) -> str:
    often = f" ({each.count} times)" if each.count > 1 else ""
    words = f"{each.reason}: {each.message}" if each.message else each.reason
    return f"{times.human(now - each.at)} ago{often}  {each.about}  {words}"


# Deployments


def _of_deployment(situation: Situation) -> Explanation:
    deployment = situation.deployment
    assert deployment is not None
    shown = sorted((each for each in situation.replicas if _explains(each, deployment)), key=_order)
    causes = [*_condition_causes(situation), *_cluster_causes(situation)]
    causes += [_replica_cause(each, situation.now, depth=1) for each in shown[:_MOST_REPLICAS]]
    if len(shown) > _MOST_REPLICAS:
        causes.append(
            Cause(depth=1, text=f"and {len(shown) - _MOST_REPLICAS} more replicas that do not serve")
        )
    if (failure := _failure_cause(situation)) is not None:
        causes.append(failure)
    is_fine = _condition(deployment, "Ready").get("status") == "True" and not shown
    return Explanation(
        summary=" ".join(sentence for sentence in _summary(situation) if sentence),
        causes=() if is_fine else tuple(causes),
        events=() if is_fine else _recent(situation.events),
        advice=_said_once(_deployment_advice(situation, shown)),
    )


def _summary(situation: Situation) -> Iterator[str]:
    deployment = situation.deployment
    assert deployment is not None
    name, spec, status = _name(deployment), deployment["spec"], deployment["status"]
    wanted = rollouts.wanted(spec, status)
    available = int(status.get("availableReplicas") or 0)
    if _is_deleting(deployment):
        left = len([each for each in situation.replicas if not each["status"].get("end")])
        waits = f"waits for {_plural(left, 'replica')} to end" if left else "waits for the controller"
        asked = _ago(deployment["metadata"]["deletionTime"], situation.now)
        yield f"{name} is being deleted, as was asked {asked}, and {waits}."
        return
    if int(status.get("observedGeneration") or 0) < int(deployment["metadata"].get("generation") or 0):
        yield f"{name} was changed, and the controller has not looked at the newest version yet."
        yield "What follows is about the version before." if status.get("conditions") else ""
        return
    ready, stalled = _condition(deployment, "Ready"), _condition(deployment, "Stalled")
    if ready.get("status") == "True" and not wanted and spec.get("scaling"):
        yield f"{name} has no replicas, because no request comes: the first one starts one."
        return
    if ready.get("status") == "True" and not wanted:
        yield f"{name} is scaled to 0 replicas, and has none: nobody is served, as it is wanted."
        return
    if ready.get("status") == "True":
        is_fine = not any(_explains(each, deployment) for each in situation.replicas)
        rest = "nothing is wrong" if is_fine else "but not all is as it should be"
        yield f"{name} serves with {available} of {_plural(wanted, 'replica')}; {rest}."
        return
    if available:
        yield f"{name} serves with {available} of {_plural(wanted, 'replica')}."
    elif wanted == 1:
        yield f"{name} does not serve: its only replica is not available."
    else:
        yield f"{name} does not serve: none of its {wanted} replicas is available."
    if stalled.get("status") == "True":
        yield f"It is stalled: {_sentence(stalled)}"
    else:
        yield f"It is not ready because of {_sentence(ready)}"
    yield from _times_ahead(status, situation.now)


def _times_ahead(status: Mapping[str, Any], now: float) -> Iterator[str]:
    pending = status.get("pending") or {}
    if pending.get("estimatedStartTime"):
        yield f"{pending.get('source') or 'Slurm'} estimates a start {_in(pending['estimatedStartTime'], now)}."
    if status.get("retryAt") and times.from_rfc3339(status["retryAt"]) > now:
        yield f"The next attempt is {_in(status['retryAt'], now)}."


def _condition_causes(situation: Situation) -> Iterator[Cause]:
    """The conditions that are not as they should be; the same reason once. Available only says what the counts say."""
    deployment = situation.deployment
    assert deployment is not None
    said: set[object] = set()
    for kind, good in (
        ("Stalled", "False"),
        ("Ready", "True"),
        ("CapacityAvailable", "True"),
        ("ArtifactsReady", "True"),
        ("Progressing", "True"),
    ):
        found = _condition(deployment, kind)
        if not found or found.get("status") == good or found.get("reason") in said:
            continue
        said.add(found.get("reason"))
        text = f"{kind} is {found.get('status')} for {_since(found, situation.now)}: {_sentence(found)}"
        yield Cause(depth=0, text=text)


def _cluster_causes(situation: Situation) -> Iterator[Cause]:
    if situation.cluster is None:
        return
    for kind in ("Reachable", "SharedDirectory"):
        found = _condition(situation.cluster, kind)
        if found and found.get("status") != "True":
            text = f"cluster {_name(situation.cluster)}: {kind} is {found.get('status')} for {_since(found, situation.now)}"
            yield Cause(depth=1, text=f"{text}: {_sentence(found)}")


def _failure_cause(situation: Situation) -> Cause | None:
    """The last failure, unless the replica that ended so stands there itself."""
    deployment = situation.deployment
    assert deployment is not None
    last = deployment["status"].get("lastFailure")
    if not last or _condition(deployment, "Ready").get("status") == "True":
        return None
    for each in situation.replicas:
        end = each["status"].get("end") or {}
        if (end.get("reason"), end.get("message"), end.get("node")) == tuple(
            last.get(key) for key in ("reason", "message", "node")
        ):
            return None
    at = f" {_ago(last['time'], situation.now)}" if last.get("time") else ""
    return Cause(depth=1, text=f"a replica that is gone ended{at}{_how(last)}", log=_log(last))


_Advice = tuple[str, Mapping[str, Any]]  # words, and what stands in their braces


def _said_once(found: Iterator[_Advice]) -> tuple[str, ...]:
    """The same advice about several replicas is given for the first of them."""
    first: dict[str, str] = {}
    for words, known in found:
        if words and words not in first:
            first[words] = words.format(**known)
    return tuple(first.values())


def _deployment_advice(situation: Situation, shown: Sequence[Document]) -> Iterator[_Advice]:
    deployment = situation.deployment
    assert deployment is not None
    known = {
        "name": _name(deployment),
        "cluster": _name(situation.cluster) if situation.cluster is not None else "NAME",
    }
    if _is_deleting(deployment):
        yield advice.OF_DELETION, known
        return
    for kind in ("Stalled", "CapacityAvailable", "Progressing", "Ready"):
        found = _condition(deployment, kind)
        if found.get("status") != ("False" if kind == "Stalled" else "True"):
            yield advice.OF_CONDITIONS.get(str(found.get("reason")), ""), known
    for each in shown[:_MOST_REPLICAS]:
        yield from _replica_advice(each)
    last = deployment["status"].get("lastFailure") or {}
    is_ready = _condition(deployment, "Ready").get("status") == "True"
    if last and not is_ready and not any(each["status"].get("end") for each in shown):
        yield from _end_advice(last, {"replica": "NAME", "node": last.get("node") or "NODE", "job": "ID"})


# Replicas


def _of_replica(situation: Situation) -> Explanation:
    found = next((each for each in situation.replicas if _name(each) == situation.focus), None)
    events = tuple(each for each in situation.events if each.about == f"replica/{situation.focus}")
    if found is None:
        return Explanation(
            summary=f"{situation.focus} is gone: it has ended, and was removed.",
            events=_recent(events),
            advice=(f"Its log is kept for some days: llmctl logs rep/{situation.focus}.",),
        )
    status = found["status"]
    phase = str(status.get("phase") or "Unknown")
    causes = [] if phase == "Ready" else [_replica_cause(found, situation.now, depth=0)]
    causes += _cluster_causes(situation)
    if (drain := found["spec"].get("drain")) is not None:
        why = DRAINS.get(drain["reason"], drain["reason"])
        asked = _ago(drain["requestedAt"], situation.now)
        text = f"it was told to end {asked}, because {why}; it is cancelled {_in(drain['deadline'], situation.now)}"
        causes.append(Cause(depth=1, text=text))
    return Explanation(
        summary=_replica_summary(found, situation.now),
        causes=tuple(causes),
        events=_recent(events) if phase != "Ready" else (),
        advice=_said_once(_replica_advice(found)),
    )


DRAINS = {
    "ScaledDown": "fewer replicas are wanted",
    "Replaced": "a newer revision takes its place",
    "Deleted": "it, or its deployment, was deleted",
    "Walltime": "its time limit is near",
    "Unreachable": "its agent has been silent for too long",
    "NeverRuns": "Slurm will not run its job as it is",
    "LaunchFailed": "Slurm could not start its job, and holds it",
    "StartupTimeout": "its job runs, and its agent was never heard",
}

PHASES = {
    "Submitting": "is being submitted to Slurm",
    "Pending": "waits in Slurm's queue",
    "Blocked": "waits in Slurm's queue, and cannot start as it is",
    "Starting": "has its node, and its agent starts",
    "Loading": "runs, and its engine loads or does not answer yet",
    "Ready": "serves; nothing is wrong",
    "Suspect": "serves, but its agent reports late",
    "Unreachable": "runs as far as Slurm knows, but its agent does not report",
    "Draining": "ends: it takes nothing new, and lets its open requests end",
    "Suspended": "is suspended by Slurm",
    "Ended": "has ended",
    "OrphanAlive": "serves, though Slurm has lost its job",
    "Unknown": "is in a state that llmop does not know",
}


def _replica_summary(found: Document, now: float) -> str:
    status = found["status"]
    phase = str(status.get("phase") or "Unknown")
    node = f" on {status['node']}" if status.get("node") else ""
    job = f" (job {status['jobId']}{node})" if status.get("jobId") else ""
    text = f"{_name(found)}{job} {PHASES.get(phase, 'is ' + phase)}."
    if phase == "Ended" and status.get("end"):
        end = status["end"]
        return f"{_name(found)}{job} ended {_ago(end['at'], now)}: {end.get('reason')}: {end.get('message')}."
    if status.get("message"):
        text += f" {_sentence(status)}"
    if status.get("estimatedStartTime"):
        text += f" Slurm estimates a start {_in(status['estimatedStartTime'], now)}."
    if status.get("endsAt") and phase in _SERVING:
        text += f" Its time limit is reached {_in(status['endsAt'], now)}."
    if status.get("restarts"):
        text += f" Its engine was restarted {_plural(int(status['restarts']), 'time')}."
    return text


def _replica_cause(each: Document, now: float, depth: int) -> Cause:
    status = each["status"]
    phase = str(status.get("phase") or "Unknown")
    job = f" (job {status['jobId']})" if status.get("jobId") else ""
    if end := status.get("end"):
        return Cause(
            depth=depth, text=f"{_name(each)}{job} ended {_ago(end['at'], now)}{_how(end)}", log=_log(end)
        )
    node = f" on {status['node']}" if status.get("node") else ""
    words = f": {_sentence(status)}" if status.get("reason") else ""
    age = f" for {times.human(now - times.from_rfc3339(at))}" if (at := _phase_since(each)) else ""
    return Cause(depth=depth, text=f"{_name(each)}{job} is {phase}{node}{age}{words}")


def _phase_since(each: Document) -> str:
    """Since when it is in its phase, as far as the object says that; "" when it does not."""
    status = each["status"]
    fields = {"Starting": "startedAt", "Loading": "startedAt", "Blocked": "blockedSince"}
    if (phase := status.get("phase")) in ("Pending", "Submitting"):
        return str(each["metadata"].get("creationTime") or "")
    return str(status.get(fields.get(str(phase), "")) or "")


def _replica_advice(each: Document) -> Iterator[_Advice]:
    status, spec = each["status"], each["spec"]
    phase, reason = str(status.get("phase")), str(status.get("reason"))
    known = {
        "replica": _name(each),
        "node": status.get("node") or "NODE",
        "job": status.get("jobId") or "ID",
        "name": spec.get("deployment"),
        "cluster": spec.get("cluster"),
    }
    if end := status.get("end"):
        yield from _end_advice(end, known)
    elif phase in ("Pending", "Blocked", "Submitting"):
        yield advice.of_waiting(reason) or advice.OF_CONDITIONS.get(reason, ""), known
    else:
        yield advice.OF_PHASES.get(phase, ""), known


def _end_advice(end: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[_Advice]:
    for words in advice.of_log(_log(end)):
        yield words, known
    yield advice.OF_ENDS.get(str(end.get("reason")), ""), known


# Words


def _explains(each: Document, deployment: Document) -> bool:
    """Whether the replica is part of why its deployment is as it is. How a replica of a template that is left ended is the past."""
    status = deployment["status"]
    is_ready = _condition(deployment, "Ready").get("status") == "True"
    is_past = bool(each["status"].get("end")) and each["spec"].get("revision") != status.get("updateRevision")
    return each["status"].get("phase") not in _SERVING and not (is_ready and is_past)


def _order(each: Document) -> tuple[int, str]:
    phase = each["status"].get("phase")
    return (_PHASE_ORDER.index(phase) if phase in _PHASE_ORDER else len(_PHASE_ORDER), _name(each))


def _recent(events: Sequence[Happening]) -> tuple[Happening, ...]:
    """The latest, warnings before what is normal; oldest first."""
    chosen = sorted(events, key=lambda each: (each.is_warning, each.at))[-_MOST_EVENTS:]
    return tuple(sorted(chosen, key=lambda each: (each.at, each.about)))


def _condition(document: Document, kind: str) -> Mapping[str, Any]:
    for each in document["status"].get("conditions") or ():
        if each.get("type") == kind:
            return dict(each)
    return {}


def _sentence(words: Mapping[str, Any]) -> str:
    reason, message = words.get("reason") or "Unknown", str(words.get("message") or "")
    text = f"{reason}: {message}" if message else str(reason)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _how(end: Mapping[str, Any]) -> str:
    where = f" on {end['node']}" if end.get("node") else ""
    code = f" (exit code {end['exitCode']})" if end.get("exitCode") is not None else ""
    message = f": {end['message']}" if end.get("message") else ""
    return f"{where}: {end.get('reason')}{code}{message}"


def _log(end: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(line) for line in end.get("logTail") or ())


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _is_deleting(document: Document) -> bool:
    return bool(document["metadata"].get("deletionTime"))


def _since(condition: Mapping[str, Any], now: float) -> str:
    changed = condition.get("lastTransitionTime")
    return times.human(now - times.from_rfc3339(changed)) if changed else "some time"


def _ago(text: str, now: float) -> str:
    return f"{times.human(now - times.from_rfc3339(text))} ago"


def _in(text: str, now: float) -> str:
    at = times.from_rfc3339(text)
    return f"in {times.human(at - now)}" if at > now else f"{times.human(now - at)} ago"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
