"""llmctl autoscale."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Session, common_options, complete_deployments, dry_run_option, out


@click.command("autoscale")
@click.argument("arguments", nargs=-1, metavar="md NAME... | md/NAME...", shell_complete=complete_deployments)
@click.option("--min", "least", type=click.IntRange(min=0), metavar="N", help="Never fewer replicas.")
@click.option("--max", "most", type=click.IntRange(min=1), metavar="N", help="Never more replicas.")
@click.option(
    "--target",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests in flight that one replica is meant for.",
)
@click.option("--off", is_flag=True, help="Fix the number of replicas at what it is now.")
@dry_run_option
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    least: int | None,
    most: int | None,
    target: int | None,
    off: bool,
    dry_run: str,
) -> None:
    """Show how a deployment follows its load, or change the bounds.

    Without an option: the load now, what is decided by it, and the last changes with their reasons. What --min, --max, --target and
    --off write is then owned by the manager "scale": a later apply that names another value is a conflict.
    """
    from llmop.cli import targets
    from llmop.domain import resources

    found = targets.parse(arguments)
    if any(each.kind.name != resources.MODEL_DEPLOYMENT or not each.name for each in found):
        raise UsageError("only deployments can be scaled by their load: llmctl autoscale md/NAME")
    changes = any(value is not None for value in (least, most, target))
    if off and changes:
        raise UsageError("--off excludes --min, --max and --target")
    names = [each.name for each in found]
    if off or changes:
        _change(session, names, {"min_replicas": least, "max_replicas": most, "target": target}, off, dry_run)
    else:
        out("\n\n".join("\n".join(_shown(session, name)) for name in names))


def _change(
    session: Session, names: Sequence[str], wanted: Mapping[str, int | None], off: bool, dry_run: str
) -> None:
    from llmop.api.v1 import rollout_pb2
    from llmop.cli import targets

    for name in names:
        request = rollout_pb2.AutoscaleRequest(
            namespace=session.effective_namespace,
            name=name,
            off=off,
            dry_run=dry_run == "server",
            **{field: value for field, value in wanted.items() if value is not None},
        )
        answer = session.client.call(session.client.rollout.Autoscale, request)
        word = "fixed" if off else "autoscaled"
        out(f"{targets.label_of(answer.object)} {word}{' (server dry run)' if dry_run == 'server' else ''}")


def _shown(session: Session, name: str) -> list[str]:
    from llmop.api.v1 import rollout_pb2
    from llmop.cli import printing
    from llmop.domain import rollouts

    request = rollout_pb2.ScalingStatusRequest(namespace=session.effective_namespace, name=name)
    answer = session.client.call(session.client.rollout.ScalingStatus, request)
    spec, status = json.loads(answer.object.spec_json), json.loads(answer.object.status_json)
    rows = [["Name:", name]]
    bounds = rollouts.bounds(spec)
    if not bounds:
        rows.append(["Replicas:", f"{rollouts.wanted(spec, status)}, fixed by spec.replicas"])
        return [*printing.table(rows), *engines(answer.engines)]
    rows.append(["Bounds:", f"{bounds} replicas"])
    ready, coming = answer.scaling.ready, answer.scaling.coming
    wanted = rollouts.wanted(spec, status)
    if not answer.HasField("scaling"):
        rows += [["Desired:", str(wanted)], ["Load:", "this controller does not know it (yet)"]]
        return [*printing.table(rows), *engines(answer.engines), *history(status, session.clock.now())]
    scaling = answer.scaling
    rows.append(["Desired:", f"{scaling.desired} | {ready} ready | {coming} on the way"])
    rows.append(["Reason:", f"{scaling.reason}: {scaling.message}"])
    if scaling.HasField("recommended"):
        panic = " (the load rose at once)" if scaling.panic else ""
        rows.append(["By the load:", f"{scaling.recommended}{panic}"])
    rows.append(["Load:", "known" if scaling.known else "not known in full: nothing is given up"])
    if scaling.HasField("lead_s"):
        from llmop.domain import times

        rows.append(["Lead time:", times.human(scaling.lead_s)])
    metrics = [["  METRIC", "TARGET", "AVERAGE", "PEAK", "FORECAST", "REPLICAS"]]
    for each in scaling.metrics:
        values = [_number(each, field) for field in ("average", "peak", "forecast")]
        replicas = str(each.replicas) if each.HasField("replicas") else _UNKNOWN
        metrics.append([f"  {each.type}", str(each.target), *values, replicas])
    lines = [*printing.table(rows), "Metrics:", *printing.table(metrics)]
    return [*lines, *engines(answer.engines), *history(status, session.clock.now())]


_UNKNOWN = "<unknown>"


def _number(metric: Any, field: str) -> str:
    return f"{getattr(metric, field):.1f}" if metric.HasField(field) else _UNKNOWN


def engines(loads: Sequence[Any]) -> list[str]:
    """What the engines of the replicas say of their own load."""
    from llmop.cli import printing
    from llmop.domain import times

    if not loads:
        return []
    rows = [["  REPLICA", "WAITING", "RUNNING", "KV-CACHE", "AGE"]]
    for each in loads:
        numbers = [
            str(getattr(each, field)) if each.HasField(field) else _UNKNOWN for field in ("queued", "running")
        ]
        cache = f"{each.kv_cache_usage:.0%}" if each.HasField("kv_cache_usage") else _UNKNOWN
        age = times.human(each.age_s) if each.HasField("age_s") else _UNKNOWN
        rows.append([f"  {each.replica}", *numbers, cache, age])
    return ["Engines:", *printing.table(rows)]


def history(status: Mapping[str, Any], now: float) -> list[str]:
    """The last changes, the newest first."""
    from llmop.cli import printing
    from llmop.domain import times

    steps = status.get("scalingHistory") or ()
    if not steps:
        return []
    rows = [["  AGE", "FROM", "TO", "REASON", "MESSAGE"]]
    for each in reversed(steps):
        age = times.human(now - times.from_rfc3339(each["time"]))
        rows.append([f"  {age}", str(each["from"]), str(each["to"]), each["reason"], each["message"]])
    return ["Scaling History:", *printing.table(rows)]
