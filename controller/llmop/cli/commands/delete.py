"""llmctl delete."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Duration, Session, common_options, out, say


@click.command("delete")
@click.argument("arguments", nargs=-1, metavar="[TYPE NAME... | TYPE/NAME...]")
@click.option(
    "-f", "--filename", "names", multiple=True, metavar="FILE", help="Delete what these manifests name."
)
@click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a folder too.")
@click.option(
    "--all", "everything", is_flag=True, help="All objects of the type in the namespace; asks first."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait until the objects, and the jobs that belong to them, are gone.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="-1s",
    metavar="DURATION",
    help="For --wait; by default as long as it takes.",
)
@click.option("--ignore-not-found", is_flag=True, help="What does not exist is deleted already.")
@click.option(
    "--dry-run",
    type=click.Choice(["none", "server"]),
    default="none",
    help="server: only say what would be deleted.",
)
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    names: tuple[str, ...],
    recursive: bool,
    everything: bool,
    yes: bool,
    wait: bool,
    timeout: float,
    ignore_not_found: bool,
    dry_run: str,
) -> None:
    """Delete objects.

    A deployment is gone when its jobs are: delete waits for that and says what it still waits for. Deleting a replica drains it and lets a new one
    take its place.
    """
    from llmop.cli import targets, waiting
    from llmop.cli.client import ServerError
    from llmop.cli.watching import Interest
    from llmop.domain import resources

    chosen = _chosen(session, arguments, names, recursive=recursive, everything=everything)
    if everything and dry_run == "none" and not yes:
        _confirm(chosen)
    goals = []
    problems: list[CliError] = []
    for kind, namespace, name in chosen:
        try:
            item = _delete(session, kind, namespace, name, dry_run=dry_run == "server")
        except ServerError as error:
            if error.code is ExitCode.NOT_FOUND and ignore_not_found:
                continue
            if error.code is ExitCode.NETWORK:
                raise
            problems.append(error)
            continue
        where = f" from {namespace} namespace" if namespace else ""
        label = targets.label(kind, name).replace("/", ' "') + '"'
        if dry_run == "server":
            out(f"{label} deleted{where} (server dry run)")
        elif wait and (item.metadata.finalizers or kind == resources.REPLICA):
            goals.append(waiting.gone(item, done=f"{label} deleted{where}"))
        else:
            out(f"{label} deleted{where}")
    namespaces = {goal.namespace for goal in goals}
    extra = [Interest(kind=resources.REPLICA, namespace=namespace) for namespace in sorted(namespaces)]
    waiting.wait(session, goals, timeout, extra=extra)
    if problems:
        raise CliError("\n".join(str(each) for each in problems), problems[0].code)


def _delete(session: Session, kind: str, namespace: str, name: str, *, dry_run: bool) -> Any:
    from llmop.api.v1 import resources_pb2

    request = resources_pb2.DeleteRequest(kind=kind, namespace=namespace, name=name, dry_run=dry_run)
    return session.client.call(session.client.resources.Delete, request).object


def _chosen(
    session: Session, arguments: Sequence[str], names: Sequence[str], *, recursive: bool, everything: bool
) -> list[tuple[str, str, str]]:
    """(kind, namespace, name), users before what they use."""
    from llmop.cli import files, targets

    if names:
        if arguments or everything:
            raise UsageError("-f stands alone: it says by itself what to delete")
        documents = files.read(names, recursive=recursive, namespace=session.namespace)
        return [files.key(each, session.namespace) for each in reversed(documents)]
    found = targets.parse(arguments)
    chosen = []
    for target in found:
        namespace = session.effective_namespace if target.kind.namespaced else ""
        if target.name and everything:
            raise UsageError("--all and names exclude each other")
        if not target.name and not everything:
            raise UsageError(f"name what to delete, or say --all for all {target.kind.plural}")
        if target.name:
            chosen.append((target.kind.name, namespace, target.name))
        else:
            rows = session.client.list(target.kind.name, namespace)[0]
            chosen += [(target.kind.name, namespace, row.object.metadata.name) for row in rows]
    if everything and not chosen:
        say("No resources found.")
    return chosen


def _confirm(chosen: Sequence[tuple[str, str, str]]) -> None:
    """--all asks on a terminal, and needs --yes where nobody can be asked."""
    from llmop.cli import targets

    if not chosen:
        return
    say("This deletes:")
    for kind, namespace, name in chosen:
        say(f"  {targets.label(kind, name)}" + (f" (namespace {namespace})" if namespace else ""))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CliError("error: nothing was deleted; say --yes where nobody can be asked", ExitCode.USAGE)
    print("Delete them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("nothing was deleted", ExitCode.USAGE)
