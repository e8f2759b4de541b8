"""llmctl scale."""

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Duration, Session, common_options, complete_deployments, dry_run_option, out


@click.command("scale")
@click.argument("arguments", nargs=-1, metavar="md NAME... | md/NAME...", shell_complete=complete_deployments)
@click.option("--replicas", type=click.IntRange(min=0), required=True, metavar="N", help="How many.")
@click.option("--current-replicas", type=click.IntRange(min=0), metavar="N", help="Only if there are N now.")
@click.option(
    "--resource-version", type=click.IntRange(min=1), metavar="V", help="Only if this is the version now."
)
@dry_run_option
@click.option("--wait", is_flag=True, help="Wait until that many are ready.")
@click.option(
    "--timeout", type=Duration(), default="30m", metavar="DURATION", help="For --wait, 30m by default."
)
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    replicas: int,
    current_replicas: int | None,
    resource_version: int | None,
    dry_run: str,
    wait: bool,
    timeout: float,
) -> None:
    """Set the number of replicas of a deployment.

    The number is then owned by the manager "scale": a later apply of a manifest without `replicas` keeps it.
    """
    from llmop.api.v1 import rollout_pb2
    from llmop.cli import targets, waiting
    from llmop.domain import resources

    goals = []
    for target in targets.parse(arguments):
        if target.kind.name != resources.MODEL_DEPLOYMENT or not target.name:
            raise UsageError("only deployments can be scaled: llmctl scale md NAME --replicas N")
        answer = session.client.call(
            session.client.rollout.Scale,
            rollout_pb2.ScaleRequest(
                namespace=session.effective_namespace,
                name=target.name,
                replicas=replicas,
                current_replicas=current_replicas,
                resource_version=resource_version or 0,
                dry_run=dry_run == "server",
            ),
        )
        out(f"{targets.label_of(answer.object)} scaled{' (server dry run)' if dry_run == 'server' else ''}")
        goals.append(waiting.ready(answer.object))
    if wait and dry_run == "none":
        waiting.wait(session, goals, timeout)
