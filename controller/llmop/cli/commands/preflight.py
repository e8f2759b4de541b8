"""llmctl preflight."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Duration, Session, common_options, say


@click.command("preflight")
@click.argument("arguments", nargs=-1, metavar="[cl/NAME | md/NAME]")
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE",
    help="Manifests that need not be applied yet; they stand over stored objects of the same name.",
)
@click.option(
    "--wait",
    type=Duration(),
    default="5m",
    metavar="DURATION",
    help="How long the job on a node may wait for its turn, 5m by default.",
)
@click.option(
    "--skip-node", is_flag=True, help="Send no job: only what can be seen from the controller's host."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="table or json.")
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    filenames: tuple[str, ...],
    wait: float,
    skip_node: bool,
    output: str,
) -> None:
    """Check a cluster, or what a deployment needs there, before anything is started.

    Looks at partition, limits, account and QOS, asks sbatch --test-only with the options that a replica would have, and sends a short
    job that looks at a node: Python, Apptainer, image, GPUs, files, and the network both ways. Nothing is stored;
    the shared directory is made where it is missing.
    Exits with 217 when a check failed.
    """
    from llmop.api.v1 import admin_pb2
    from llmop.cli import checks, files

    if not 1 <= wait <= 86_400:
        raise UsageError("--wait: from 1s to 24h")
    documents = files.read(filenames, recursive=False, namespace=session.namespace) if filenames else []
    cluster, deployment = _named(arguments)
    request = admin_pb2.PreflightRequest(
        cluster=cluster,
        namespace=session.effective_namespace,
        deployment=deployment,
        manifests_json=[json.dumps(document.data) for document in documents],
        skip_node=skip_node,
        wait_seconds=int(wait),
    )

    def found() -> Iterator[Any]:
        for answer in session.client.stream(session.client.admin.Preflight, request):
            if output == "table" and sys.stderr.isatty():  # the job on a node may wait for minutes
                say(f"{checks.word(answer.check)} {answer.check.subject}: {answer.check.name}")
            yield answer.check

    checks.show(found(), output)


def _named(arguments: tuple[str, ...]) -> tuple[str, str]:
    """(cluster, deployment); one of them at most is not empty."""
    from llmop.cli import targets
    from llmop.domain import resources

    if not arguments:
        return "", ""
    target = targets.one(arguments)
    if target.kind.name == resources.CLUSTER:
        return target.name, ""
    if target.kind.name == resources.MODEL_DEPLOYMENT:
        return "", target.name
    raise UsageError(f"{target.kind.plural} have no preflight; clusters and deployments do")
