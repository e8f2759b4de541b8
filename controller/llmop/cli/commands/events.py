"""llmctl events."""

from collections.abc import Iterator
from typing import Any

import click

from llmop.cli.session import Session, common_options, out, say


@click.command("events")
@click.option("--for", "about", metavar="TYPE/NAME", help="Only what happened to this object.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Events of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on with every new event until Ctrl-C.")
@click.option("--no-headers", is_flag=True, help="The table without its first line.")
@common_options
@click.pass_obj
def command(session: Session, about: str | None, all_namespaces: bool, watch: bool, no_headers: bool) -> None:
    """List what happened, the latest last. Events are kept for seven days."""
    from llmop.cli import happenings, printing, targets

    target = targets.one([about]) if about else None
    namespace = (
        "" if all_namespaces or (target and not target.kind.namespaced) else session.effective_namespace
    )
    widths: list[int] = []
    header = [] if no_headers else [["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for rows in _batches(session, namespace, watch=watch):
        kept = happenings.about(rows, target.kind.name, target.name) if target else rows
        if not kept:
            continue
        lines = [happenings.line(row, session.clock.now()) for row in sorted(kept, key=happenings.last_seen)]
        table = [*header, *lines]
        widths = printing.column_widths(table, widths)
        out("\n".join(printing.table(table, widths)))
        header = []
    if not widths and not watch:
        where = f" in {namespace} namespace" if namespace else ""
        say(f"No events found{where}.")


def _batches(session: Session, namespace: str, *, watch: bool) -> Iterator[list[Any]]:
    from llmop.domain import resources

    if not watch:
        yield session.client.list(resources.EVENT, namespace)[0]
        return
    first: list[Any] | None = []
    for change in session.client.watch(resources.EVENT, namespace, lost=say):
        if change.type == "SYNCED":
            yield first or []
            first = None
        elif change.type != "DELETED":
            if first is not None:
                first.append(change.row)
            else:
                yield [change.row]
