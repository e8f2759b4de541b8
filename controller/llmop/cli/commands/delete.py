"""llmctl delete."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Duration, Session, common_options, complete_objects, out, say, selector_options

if TYPE_CHECKING:
    from llmop.cli.waiting import Goal


@click.command("delete")
@click.argument(
    "arguments", nargs=-1, metavar="[TYPE NAME... | TYPE/NAME...]", shell_complete=complete_objects
)
@click.option(
    "-f", "--filename", "names", multiple=True, metavar="FILE", help="Delete what these manifests name."
)
@click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a folder too.")
@click.option(
    "--all", "everything", is_flag=True, help="All objects of the type in the namespace; asks first."
)
@selector_options
@click.option("-A", "--all-namespaces", is_flag=True, help="With --all or a selector: in all namespaces.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait until the objects, and the jobs that belong to them, are gone; the default.",
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
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="Only say what would be deleted; server also checks that it may be.",
)
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    names: tuple[str, ...],
    recursive: bool,
    everything: bool,
    selector: str,
    field_selector: str,
    all_namespaces: bool,
    yes: bool,
    wait: bool,
    timeout: float,
    ignore_not_found: bool,
    dry_run: str,
) -> None:
    """Delete objects.

    What -l, --field-selector or --all choose is listed and asked for first; --yes answers that. A deployment is gone when its jobs
    are: delete waits for that and says what it still waits for. Deleting a replica drains it and lets a new one take its place.
    """
    from llmop.cli import files, waiting
    from llmop.cli.watching import Interest
    from llmop.domain import resources

    many = _Many(
        everything=everything,
        selector=selector,
        field_selector=field_selector,
        all_namespaces=all_namespaces,
    )
    chosen = _chosen(session, arguments, names, recursive=recursive, many=many)
    if many.is_asked_for and dry_run == "none" and not yes:
        _confirm(chosen)
    problems: list[CliError] = []
    for _, same in itertools.groupby(
        chosen, key=lambda each: files.rank(each[0])
    ):  # what uses others is gone first
        goals = []
        for key in same:
            try:
                goal = _delete(session, *key, dry_run=dry_run, wait=wait)
            except CliError as error:
                if error.code is ExitCode.NETWORK:
                    raise
                if not (error.code is ExitCode.NOT_FOUND and ignore_not_found):
                    problems.append(error)
                continue
            if goal is not None:
                goals.append(goal)
        namespaces = {goal.namespace for goal in goals}
        extra = [Interest(kind=resources.REPLICA, namespace=namespace) for namespace in sorted(namespaces)]
        waiting.wait(session, goals, timeout, extra=extra)
    if problems:
        raise CliError("\n".join(str(each) for each in problems), problems[0].code)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Many:
    """Several objects of a type at once."""

    everything: bool
    selector: str
    field_selector: str
    all_namespaces: bool

    @property
    def is_asked_for(self) -> bool:
        return self.everything or bool(self.selector) or bool(self.field_selector)


def _delete(
    session: Session, kind: str, namespace: str, name: str, *, dry_run: str, wait: bool
) -> "Goal | None":
    """Asks for the deletion; the goal to wait for when the object is not gone at once."""
    from llmop.api.v1 import resources_pb2
    from llmop.cli import targets, waiting
    from llmop.domain import resources

    request = resources_pb2.DeleteRequest(
        kind=kind, namespace=namespace, name=name, dry_run=dry_run == "server"
    )
    if dry_run == "client":
        item = session.client.get(kind, namespace, name).object
    else:
        item = session.client.call(session.client.resources.Delete, request).object
    where = f" from {namespace} namespace" if namespace else ""
    word, _, _ = targets.label(kind, name).partition("/")
    text = f'{word} "{name}" deleted{where}'
    if dry_run != "none":
        out(f"{text} ({'server dry run' if dry_run == 'server' else 'dry run'})")
    elif wait and (item.metadata.finalizers or kind == resources.REPLICA):
        return waiting.gone(item, done=text)
    else:
        out(text)
    return None


def _chosen(
    session: Session, arguments: Sequence[str], names: Sequence[str], *, recursive: bool, many: _Many
) -> list[tuple[str, str, str]]:
    """(kind, namespace, name), users before what they use."""
    from llmop.cli import files, targets

    if names:
        if arguments or many.is_asked_for or many.all_namespaces:
            raise UsageError("-f stands alone: it says by itself what to delete")
        documents = files.read(names, recursive=recursive, namespace=session.namespace)
        return [files.key(each, session.effective_namespace) for each in reversed(documents)]
    found = targets.parse(arguments)
    chosen = []
    for target in found:
        namespace = session.effective_namespace if target.kind.namespaced else ""
        if target.name and (many.is_asked_for or many.all_namespaces):
            raise UsageError("--all, -l, --field-selector and -A exclude names")
        if not target.name and not many.is_asked_for:
            raise UsageError(
                f"name what to delete, choose with -l, or say --all for all {target.kind.plural}"
            )
        if target.name:
            chosen.append((target.kind.name, namespace, target.name))
        else:
            scope = "" if many.all_namespaces else namespace
            rows = session.client.list(target.kind.name, scope, many.selector, many.field_selector)[0]
            items = [row.object.metadata for row in rows]
            chosen += [(target.kind.name, item.namespace, item.name) for item in items]
    if many.is_asked_for and not chosen:
        say("No resources found.")
    return chosen


def _confirm(chosen: Sequence[tuple[str, str, str]]) -> None:
    """Several at once: asks on a terminal, and needs --yes where nobody can be asked."""
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
