"""llmctl logs."""

import json
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Duration, Session, common_options, complete_objects, say


@click.command("logs")
@click.argument(
    "arguments", nargs=-1, metavar="REPLICA | rep/NAME | md/NAME", shell_complete=complete_objects
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on until the replica has ended, or the deployment is gone."
)
@click.option(
    "-p",
    "--previous",
    is_flag=True,
    help="Of a deployment: the replica that ended last. Of a replica: its engine before it was restarted.",
)
@click.option(
    "--tail",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Begin with the last N lines; -1 = all.",
)
@click.option(
    "--since",
    type=Duration(),
    metavar="DURATION",
    help="Only what the engine wrote in this time, like 10m; to within some seconds.",
)
@click.option(
    "--prefix/--no-prefix", default=None, help="Which replica wrote a line; with md/NAME by default."
)
@click.option(
    "--source",
    type=click.Choice(["engine", "job"]),
    default="engine",
    help="The output of the engine, or that of the batch job around it.",
)
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    follow: bool,
    previous: bool,
    tail: int,
    since: float | None,
    prefix: bool | None,
    source: str,
) -> None:
    """Print the log of a replica, or those of all replicas of a deployment.

    With -f the replicas that come join, and those that end leave, until the deployment is gone. Logs are kept for some days after the
    end of a replica; of a deployment without replicas the last one is shown.
    """
    from llmop.api.v1 import logs_pb2
    from llmop.cli import following
    from llmop.domain import resources

    kind, name = _named(arguments)
    if previous and follow:
        raise UsageError("-p shows what is over; there is nothing to follow")
    if since is not None and since < 0:
        raise UsageError("--since must be 0 or more")
    is_deployment = kind == resources.MODEL_DEPLOYMENT
    wanted = following.Wanted(
        namespace=session.effective_namespace,
        source=logs_pb2.TailRequest.SOURCE_JOB if source == "job" else logs_pb2.TailRequest.SOURCE_ENGINE,
        lines=tail if tail >= 0 else None,
        since=session.clock.now() - since if since is not None else 0.0,
        previous=previous and not is_deployment,
    )
    printer = following.Printer(prefixed=is_deployment if prefix is None else prefix)
    if is_deployment and follow:
        session.client.get(resources.MODEL_DEPLOYMENT, session.effective_namespace, name)
        following.Follower(session.client, wanted, name, printer).run()
        return
    replicas = _replicas(session, name, previous=previous) if is_deployment else [name]
    problems: list[CliError] = []
    for replica in replicas:
        try:
            following.read(session.client, wanted, replica, printer, follow=follow)
        except CliError as error:
            if error.code is not ExitCode.NOT_FOUND or len(replicas) == 1:
                raise
            problems.append(error)  # one that waits in the queue has no log yet
    for problem in problems:
        say(str(problem))
    if len(problems) == len(replicas):
        raise CliError("error: no replica has a log", ExitCode.NOT_FOUND)


def _named(arguments: tuple[str, ...]) -> tuple[str, str]:
    from llmop.cli import targets
    from llmop.domain import resources

    if len(arguments) == 1 and "/" not in arguments[0]:
        return resources.REPLICA, arguments[0]
    target = targets.one(arguments)
    if target.kind.name not in (resources.REPLICA, resources.MODEL_DEPLOYMENT):
        raise UsageError(f"{target.kind.plural} have no log; replicas and deployments do")
    return target.kind.name, target.name


def _replicas(session: Session, deployment: str, *, previous: bool) -> list[str]:
    """The replicas whose logs are meant, the oldest first."""
    from llmop.cli import following
    from llmop.domain import resources, times

    namespace = session.effective_namespace
    owner = session.client.get(resources.MODEL_DEPLOYMENT, namespace, deployment).object
    rows = session.client.list(resources.REPLICA, namespace)[0]
    living = [row.object for row in rows if _lives(row.object, deployment)]
    if living and not previous:
        return [item.metadata.name for item in sorted(living, key=_age)]
    events = session.client.list(resources.EVENT, namespace)[0]
    over = following.gone(rows, events, owner)
    if not over:
        words = "no replica has ended that is known" if previous else "there is no replica now"
        raise CliError(
            f'error: deployment "{deployment}": {words}; llmctl why md/{deployment} says how it is',
            ExitCode.NOT_FOUND,
        )
    at, name = over[-1]
    if not previous:
        say(
            f"no replica runs now; this is the last one, {name}, of {times.human(session.clock.now() - at)} ago"
        )
    return [name]


def _lives(item: Any, deployment: str) -> bool:
    is_mine = json.loads(item.spec_json).get("deployment") == deployment
    return is_mine and not json.loads(item.status_json).get("end")


def _age(item: Any) -> tuple[int, int, str]:
    created = item.metadata.creation_time
    return (created.seconds, created.nanos, item.metadata.name)
