"""llmctl describe."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Session, common_options, complete_objects, out, say, selector_options


@click.command("describe")
@click.argument("arguments", nargs=-1, metavar="TYPE NAME | TYPE/NAME...", shell_complete=complete_objects)
@selector_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@common_options
@click.pass_obj
def command(
    session: Session, arguments: tuple[str, ...], selector: str, field_selector: str, all_namespaces: bool
) -> None:
    """Show objects with everything that is known about them: conditions, replicas, the last failure, events."""
    from llmop.cli import targets

    found = targets.parse(arguments)
    if (selector or field_selector or all_namespaces) and any(target.name for target in found):
        raise UsageError("-l, --field-selector and -A exclude names")
    texts = []
    for target in found:
        kind = target.kind
        namespace = session.effective_namespace if kind.namespaced and not all_namespaces else ""
        if target.name:
            items = [session.client.get(kind.name, namespace, target.name).object]
        else:
            rows = session.client.list(kind.name, namespace, selector, field_selector)[0]
            items = [row.object for row in rows]
        texts += ["\n".join(_describe(session, item)) for item in items]
    if texts:
        out("\n\n\n".join(texts))
    else:
        say("No resources found.")


def _describe(session: Session, item: Any) -> list[str]:
    from llmop.cli import happenings, printing
    from llmop.cli.commands import autoscale
    from llmop.domain import resources

    now = session.clock.now()
    spec, status = json.loads(item.spec_json), json.loads(item.status_json)
    lines = printing.table(_head(item, spec, status, now))
    if item.kind == resources.MODEL_DEPLOYMENT:
        lines += _last_failure(status.get("lastFailure") or {}, now)
    elif item.kind == resources.REPLICA:
        lines += _last_failure(status.get("end") or {}, now, title="End")
    lines += _section("Spec", spec)
    rest = {
        key: value
        for key, value in status.items()
        if key not in _SHOWN_STATUS and value not in (None, "", [], {})
    }
    if "leadTime" in rest:  # without its samples, which are pairs of numbers without a name
        rest["leadTime"] = {key: value for key, value in rest["leadTime"].items() if key != "last"}
    lines += _section("Status", rest) if rest else []
    lines += _conditions(status.get("conditions") or (), now)
    lines += autoscale.history(status, now)
    replicas: list[Any] = []
    if item.kind == resources.MODEL_DEPLOYMENT:
        replicas, columns = session.client.list(resources.REPLICA, item.metadata.namespace)
        lines += _replicas(replicas, columns, item)
        lines += _engines(session, item)
    if item.kind != resources.EVENT:
        namespace = item.metadata.namespace if resources.KINDS[item.kind].namespaced else ""
        rows = session.client.list(resources.EVENT, namespace)[0]
        found = happenings.about(rows, item.kind, item.metadata.name, item.metadata.uid)
        if item.kind == resources.MODEL_DEPLOYMENT:
            found += happenings.about_replicas(rows, item, [row.object for row in replicas])
        lines += _events(sorted(found, key=happenings.last_seen), now)
    return lines


# What stands elsewhere in the description, and the planner's own books.
_SHOWN_STATUS = (
    "backoff",
    "conditions",
    "lastFailure",
    "end",
    "observedGeneration",
    "replicas",
    "readyReplicas",
    "updatedReplicas",
    "pendingReplicas",
    "availableReplicas",
    "url",
    "pending",
    "retryAt",
    "scaling",
    "scalingHistory",
)


def _head(item: Any, spec: Mapping[str, Any], status: Mapping[str, Any], now: float) -> list[list[str]]:
    from llmop.cli import waiting
    from llmop.domain import resources, rollouts

    metadata = item.metadata
    rows = [["Name:", metadata.name]]
    if metadata.namespace:
        rows.append(["Namespace:", metadata.namespace])
    rows += _pairs("Labels:", metadata.labels) + _pairs("Annotations:", metadata.annotations)
    if metadata.HasField("owner"):
        rows.append(["Owner:", f"{metadata.owner.kind}/{metadata.owner.name}"])
    rows.append(["Created:", _when(metadata.creation_time.seconds, now)])
    if metadata.HasField("deletion_time"):
        held = waiting.waits_for(metadata)
        rows.append(["Deleting:", f"since {_when(metadata.deletion_time.seconds, now)}; waits for {held}"])
    if item.kind == resources.MODEL_DEPLOYMENT:
        counts = [f"{rollouts.wanted(spec, status)} desired"]
        if bounds := rollouts.bounds(spec):
            counts[0] += f" ({bounds} by the load)"
        for word, field in _COUNTS:
            counts.append(f"{status.get(field) or 0} {word}")
        rows.append(["Replicas:", " | ".join(counts)])
        rows.append(["URL:", str(status.get("url") or "<none>")])
        if int(status.get("observedGeneration") or 0) < metadata.generation:
            rows.append(["Observed:", "the controller has not looked at the newest version yet"])
    if status.get("pending"):
        pending = status["pending"]
        source = f" (by {pending['source']})" if pending.get("source") else ""
        rows.append(["Estimated start:", _text_when(pending.get("estimatedStartTime"), now) + source])
    if status.get("retryAt"):
        rows.append(["Next attempt:", _text_when(status["retryAt"], now)])
    return rows


_COUNTS = (
    ("updated", "updatedReplicas"),
    ("total", "replicas"),
    ("ready", "readyReplicas"),
    ("available", "availableReplicas"),
    ("pending", "pendingReplicas"),
)


def _pairs(title: str, values: Mapping[str, str]) -> list[list[str]]:
    if not values:
        return [[title, "<none>"]]
    pairs = [f"{key}={value}" for key, value in sorted(values.items())]
    return [[title if index == 0 else "", pair] for index, pair in enumerate(pairs)]


def _when(at: float, now: float) -> str:
    from llmop.domain import times

    text = times.to_rfc3339(at)
    if at > now:
        return f"{text} (in {times.human(at - now)})"
    return f"{text} ({times.human(now - at)} ago)"


def _text_when(text: str | None, now: float) -> str:
    from llmop.domain import times

    if not text:
        return "<unknown>"
    try:
        return _when(times.from_rfc3339(text), now)
    except ValueError:
        return text


def _last_failure(failure: Mapping[str, Any], now: float, title: str = "Last Failure") -> list[str]:
    from llmop.cli import printing

    if not failure:
        return []
    rows = [["  Reason:", str(failure.get("reason", ""))]]
    if failure.get("exitCode") is not None:
        rows.append(["  Exit Code:", str(failure["exitCode"])])
    if failure.get("node"):
        rows.append(["  Node:", str(failure["node"])])
    rows.append(["  Time:", _text_when(failure.get("time") or failure.get("at"), now)])
    if failure.get("message"):
        rows.append(["  Message:", str(failure["message"])])
    lines = [f"{title}:", *printing.table(rows)]
    if failure.get("logTail"):
        lines += ["  Log:", *(f"    {printing.multi_line(line)}" for line in failure["logTail"])]
    return lines


def _section(title: str, value: Mapping[str, Any]) -> list[str]:
    from llmop.cli import printing

    if not value:
        return [f"{title}: <none>"]
    return [f"{title}:", *(f"  {line}" for line in printing.to_yaml(value).splitlines())]


def _conditions(conditions: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    from llmop.cli import printing
    from llmop.domain import times

    if not conditions:
        return []
    rows = [["  TYPE", "STATUS", "REASON", "AGE", "MESSAGE"]]
    for each in sorted(conditions, key=lambda each: str(each.get("type"))):
        changed = each.get("lastTransitionTime")
        age = times.human(now - times.from_rfc3339(changed)) if changed else "<unknown>"
        words = [str(each.get(key, "")) for key in ("type", "status", "reason")]
        rows.append([f"  {words[0]}", *words[1:], age, str(each.get("message", ""))])
    return ["Conditions:", *printing.table(rows)]


def _replicas(rows: Sequence[Any], columns: Sequence[Any], item: Any) -> list[str]:
    from llmop.cli import printing

    mine = [row for row in rows if json.loads(row.object.spec_json).get("deployment") == item.metadata.name]
    if not mine:
        return ["Replicas: <none>"]
    kept = [index for index, column in enumerate(columns) if not column.wide]
    table = [[columns[index].name for index in kept], *([row.cells[index] for index in kept] for row in mine)]
    return ["Replicas:", *(f"  {line}" for line in printing.table(table))]


def _engines(session: Session, item: Any) -> list[str]:
    from llmop.api.v1 import rollout_pb2
    from llmop.cli.commands import autoscale

    request = rollout_pb2.ScalingStatusRequest(namespace=item.metadata.namespace, name=item.metadata.name)
    return autoscale.engines(session.client.call(session.client.rollout.ScalingStatus, request).engines)


# A deployment whose replicas crash for a week has thousands.
_MAX_EVENTS = 25


def _events(rows: Sequence[Any], now: float) -> list[str]:
    from llmop.cli import happenings, printing

    if not rows:
        return ["Events: <none>"]
    title = "Events:"
    if len(rows) > _MAX_EVENTS:
        title = f"Events (the last {_MAX_EVENTS} of {len(rows)}; llmctl events shows all):"
    lines = [["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    lines += [happenings.line(row, now) for row in rows[-_MAX_EVENTS:]]
    return [title, *(f"  {line}" for line in printing.table(lines))]
