"""llmctl logs."""

import json
import sys
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, common_options, say


@click.command("logs")
@click.argument("arguments", nargs=-1, metavar="REPLICA | rep/NAME | md/NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on until the replica has ended.")
@click.option(
    "--tail",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Begin with the last N lines; -1 = all.",
)
@click.option(
    "--source",
    type=click.Choice(["engine", "job"]),
    default="engine",
    help="The output of the engine, or that of the batch job around it.",
)
@common_options
@click.pass_obj
def command(session: Session, arguments: tuple[str, ...], follow: bool, tail: int, source: str) -> None:
    """Print the log of a replica; of a deployment that of its newest one."""
    from llmop.api.v1 import logs_pb2
    from llmop.domain import resources

    kind, name = _named(arguments)
    if kind == resources.MODEL_DEPLOYMENT:
        name = _newest(session, name)
    request = logs_pb2.TailRequest(
        namespace=session.effective_namespace,
        replica=name,
        source=logs_pb2.TailRequest.SOURCE_JOB if source == "job" else logs_pb2.TailRequest.SOURCE_ENGINE,
        lines=tail if tail >= 0 else None,
        follow=follow,
    )
    for answer in session.client.stream(session.client.logs.Tail, request):
        sys.stdout.buffer.write(answer.data)
        sys.stdout.buffer.flush()


def _named(arguments: tuple[str, ...]) -> tuple[str, str]:
    from llmop.cli import targets
    from llmop.domain import resources

    if len(arguments) == 1 and "/" not in arguments[0]:
        return resources.REPLICA, arguments[0]
    target = targets.one(arguments)
    if target.kind.name not in (resources.REPLICA, resources.MODEL_DEPLOYMENT):
        raise UsageError(f"{target.kind.plural} have no log; replicas and deployments do")
    return target.kind.name, target.name


def _newest(session: Session, deployment: str) -> str:
    from llmop.domain import resources

    session.client.get(resources.MODEL_DEPLOYMENT, session.effective_namespace, deployment)
    rows = session.client.list(resources.REPLICA, session.effective_namespace)[0]
    mine = [row.object for row in rows if json.loads(row.object.spec_json).get("deployment") == deployment]
    if not mine:
        raise CliError(
            f'error: deployment "{deployment}" has no replica now; llmctl describe md {deployment} shows its last failure',
            ExitCode.NOT_FOUND,
        )
    newest = max(mine, key=_age)
    if len(mine) > 1:
        say(f"{len(mine)} replicas; this is the newest, {newest.metadata.name}")
    return str(newest.metadata.name)


def _age(item: Any) -> tuple[int, int, str]:
    created = item.metadata.creation_time
    return (created.seconds, created.nanos, item.metadata.name)
