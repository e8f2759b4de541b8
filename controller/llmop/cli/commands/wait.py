"""llmctl wait."""

import time
from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Duration, Session, common_options, complete_objects


@click.command("wait")
@click.argument("arguments", nargs=-1, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=complete_objects)
@click.option(
    "--for",
    "wanted",
    multiple=True,
    required=True,
    metavar="WHAT",
    help="condition=TYPE[=STATUS], jsonpath={PATH}[=VALUE], create or delete; may be repeated, then all are waited for.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    metavar="DURATION",
    help="30s by default; 0 looks once, a negative one waits a week.",
)
@common_options
@click.pass_obj
def command(session: Session, arguments: tuple[str, ...], wanted: tuple[str, ...], timeout: float) -> None:
    """Wait for a condition, a field, a creation or a deletion.

    An object that does not exist yet is waited for. A condition counts only when it is about the newest version of the
    object. The exit code is 208 when the time is over and 217 when the deployment stalls.
    """
    from llmop.cli import targets, waiting

    found = targets.parse(arguments)
    if not all(target.name for target in found):
        raise UsageError("name what to wait for: TYPE NAME or TYPE/NAME")
    started = time.monotonic()
    for what in wanted:
        goals = []
        for target in found:
            namespace = session.effective_namespace if target.kind.namespaced else ""
            goals.append(_goal(what, target.kind.name, namespace, target.name))
        left = timeout if timeout <= 0 else max(0.0, timeout - (time.monotonic() - started))
        waiting.wait(session, goals, left)


def _goal(what: str, kind: str, namespace: str, name: str) -> Any:
    from llmop.cli import targets, waiting

    label = targets.label(kind, name)
    word, _, rest = what.partition("=")
    if what == "create":
        return waiting.Goal(
            kind=kind,
            namespace=namespace,
            name=name,
            met=lambda item: item is not None,
            done=f"{label} condition met",
            text="the creation of",
        )
    if what == "delete":
        return waiting.Goal(
            kind=kind,
            namespace=namespace,
            name=name,
            met=lambda item: item is None,
            done=f"{label} condition met",
            text="the deletion of",
            progress=lambda item, extra: waiting.blocking(item, extra) if _is_going(item) else "",
        )
    if word == "condition" and rest:
        return _condition(rest, kind, namespace, name)
    if word == "jsonpath" and rest:
        return _field(rest, kind, namespace, name)
    raise UsageError(
        f'--for "{what}": write condition=TYPE, condition=TYPE=STATUS, jsonpath={{PATH}}=VALUE, create or delete'
    )


def _field(text: str, kind: str, namespace: str, name: str) -> Any:
    from llmop.cli import conditions, jsonpath, printing, targets, waiting

    expression, closing, rest = text.rpartition("}")
    value = rest.removeprefix("=")
    if not closing or (rest and not rest.startswith("=")):
        raise UsageError(f'--for "jsonpath={text}": write jsonpath={{.status.phase}}=Ready')
    try:
        path = jsonpath.path(expression + closing)
    except jsonpath.JsonPathError as error:
        raise UsageError(f"--for {error}") from error

    def met(item: Any | None) -> bool:
        if item is None:
            return False
        found = [jsonpath.show(each) for each in path.find(printing.document(item)) if each is not None]
        return value in found if rest else bool(found)

    def progress(item: Any | None, extra: Any) -> str:
        return "does not exist yet" if item is None else conditions.state(item).progress()

    return waiting.Goal(
        kind=kind,
        namespace=namespace,
        name=name,
        met=met,
        progress=progress,
        details=waiting.failure,
        done=f"{targets.label(kind, name)} condition met",
        text=f"{expression}{closing}{rest} on",
    )


def _is_going(item: Any | None) -> bool:
    return item is not None and item.metadata.HasField("deletion_time")


def _condition(text: str, kind: str, namespace: str, name: str) -> Any:
    from llmop.cli import conditions, targets, waiting

    condition_type, _, value = text.partition("=")
    status = (value or "True").lower()

    def met(item: Any | None) -> bool:
        if item is None:
            return False
        return str(conditions.state(item).condition(condition_type).get("status", "")).lower() == status

    def hopeless(item: Any | None) -> str:
        if item is None or condition_type.lower() == "stalled":
            return ""
        return waiting.stalled(item)

    def progress(item: Any | None, extra: Any) -> str:
        return "does not exist yet" if item is None else conditions.state(item).progress()

    return waiting.Goal(
        kind=kind,
        namespace=namespace,
        name=name,
        met=met,
        hopeless=hopeless,
        progress=progress,
        details=lambda item: waiting.unknown_condition(item, condition_type) or waiting.failure(item),
        done=f"{targets.label(kind, name)} condition met",
        text=f"the condition {condition_type} on",
    )
