"""llmctl artifacts."""

from collections.abc import Sequence
from typing import Any

import click

from llmop.cli.session import Session, common_options, out, say

PATIENCE_S = 3600.0


@click.command("artifacts")
@click.argument("verb", required=False, default="list", type=click.Choice(["list", "prune"]))
@click.option("--cluster", default="", metavar="NAME", help="Only this cluster.")
@click.option("--dry-run", is_flag=True, help="For prune: only print what would go.")
@common_options
@click.pass_obj
def command(session: Session, verb: str, cluster: str, dry_run: bool) -> None:
    """List the images and weights on the clusters, or remove what no revision uses.

    Each line shows what an artifact was staged for, its size, its age, and the revisions that use it as namespace/deployment:number.
    """
    from llmop.api.v1 import artifacts_pb2
    from llmop.cli.errors import UsageError

    if verb == "list":
        if dry_run:
            raise UsageError("--dry-run is for prune: llmctl artifacts prune --dry-run")
        answer = session.client.call(
            session.client.artifacts.List, artifacts_pb2.ListArtifactsRequest(cluster=cluster)
        )
        _list(session, answer.artifacts)
    else:
        request = artifacts_pb2.PruneArtifactsRequest(cluster=cluster, dry_run=dry_run)
        # Removing a large model takes a parallel file system a while.
        answer = session.client.call(session.client.artifacts.Prune, request, timeout_s=PATIENCE_S)
        _pruned(answer.removed, " (dry run)" if dry_run else "")
    for problem in answer.problems:
        say(f"warning: {problem}")


def _list(session: Session, artifacts: Sequence[Any]) -> None:
    from llmop.cli import printing
    from llmop.domain import staging, times

    if not artifacts:
        say("No artifacts found.")
        return
    now = session.clock.now()
    header = ["CLUSTER", "KIND", "REFERENCE", "DIGEST", "SIZE", "AGE", "USED BY"]
    rows = [
        [
            each.cluster,
            each.kind,
            "<unfinished>" if each.unfinished else each.reference or each.path,
            each.digest.removeprefix("sha256:")[:12] or "<none>",
            staging.amount(each.size_bytes),
            times.human(now - times.from_rfc3339(each.staged_at)) if each.staged_at else "<unknown>",
            ",".join(each.used_by) or "<none>",
        ]
        for each in artifacts
    ]
    out("\n".join(printing.table([header, *rows])))


def _pruned(removed: Sequence[Any], suffix: str) -> None:
    from llmop.domain import staging

    for each in removed:
        what = each.reference or f"unfinished {each.path}"
        out(f"{each.cluster}: {what} ({staging.amount(each.size_bytes)}) removed{suffix}")
    total = staging.amount(sum(each.size_bytes for each in removed))
    count = "1 artifact" if len(removed) == 1 else f"{len(removed)} artifacts"
    say(f"{total} in {count}{suffix}" if removed else f"Nothing to remove{suffix}.")
