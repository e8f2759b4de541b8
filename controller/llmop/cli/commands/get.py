"""llmctl get."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from llmop.cli.errors import CliError, UsageError
from llmop.cli.session import Session, common_options, complete_objects, say, selector_options


@click.command("get")
@click.argument(
    "arguments",
    nargs=-1,
    metavar="TYPE[,TYPE...] [NAME...] | TYPE/NAME...",
    shell_complete=complete_objects,
)
@click.option(
    "-o",
    "--output",
    "form",
    metavar="FORM",
    help="wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...",
)
@selector_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on with every change until Ctrl-C.")
@click.option("--sort-by", metavar="PATH", help="Sort by what this JSONPath finds: .metadata.name.")
@click.option("--show-labels", is_flag=True, help="One more column with all labels.")
@click.option("-L", "--label-columns", metavar="KEYS", help="A column for each of these labels: team,tier.")
@click.option("--no-headers", is_flag=True, help="Tables without their first line.")
@click.option("--ignore-not-found", is_flag=True, help="An object that does not exist is no error.")
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    form: str | None,
    selector: str,
    field_selector: str,
    all_namespaces: bool,
    watch: bool,
    sort_by: str | None,
    show_labels: bool,
    label_columns: str | None,
    no_headers: bool,
    ignore_not_found: bool,
) -> None:
    """List objects, or show those that are named."""
    from llmop.cli import outputs, targets
    from llmop.cli.views import View

    found = targets.parse(arguments)
    if (selector or field_selector) and any(target.name for target in found):
        raise UsageError("-l and --field-selector exclude names")
    output = outputs.parse(form)
    keys = tuple(key.strip() for key in label_columns.split(",")) if label_columns else ()
    if (show_labels or keys) and not output.is_table:
        raise UsageError(
            "--show-labels and -L add columns to the usual tables; they exclude -o " + output.word
        )
    view = View(
        output,
        namespace=session.effective_namespace,
        all_namespaces=all_namespaces,
        headers=not no_headers,
        show_labels=show_labels,
        label_columns=keys,
    )
    query = _Query(session, view, selector, field_selector)
    if watch:
        if sort_by:
            raise UsageError("--sort-by needs all objects; it excludes -w")
        query.watch(found)
        return
    blocks, problems = query.read(found, ignore_not_found=ignore_not_found)
    if sort_by:
        blocks = [(kind, view.ordered(rows, sort_by), columns) for kind, rows, columns in blocks]
    view.show(blocks, named=all(target.name for target in found))
    if problems:
        raise CliError("\n".join(str(each) for each in problems), problems[0].code)


class _Query:
    """What is asked of the server."""

    def __init__(self, session: Session, view: Any, selector: str, field_selector: str) -> None:
        self._client = session.client
        self._view = view
        self._selector = selector
        self._field_selector = field_selector

    def read(
        self, found: Sequence[Any], *, ignore_not_found: bool
    ) -> tuple[list[tuple[Any, list[Any], list[Any]]], list[CliError]]:
        from llmop.api.v1 import resources_pb2
        from llmop.cli.client import ServerError
        from llmop.cli.errors import ExitCode

        blocks: dict[str, tuple[Any, list[Any], list[Any]]] = {}
        problems: list[CliError] = []
        for target in found:
            kind = target.kind
            if not target.name:
                rows, columns = self._client.list(
                    kind.name, self._view.scope(kind), self._selector, self._field_selector
                )
                blocks[kind.name] = (kind, _sorted(kind.name, rows), columns)
                continue
            block = blocks.setdefault(kind.name, (kind, [], []))
            if self._view.all_namespaces and kind.namespaced:
                raise UsageError("-A lists all namespaces; an object by its name needs -n")
            try:
                answer = self._client.get(kind.name, self._view.scope(kind), target.name)
            except ServerError as error:
                if error.code is not ExitCode.NOT_FOUND:
                    raise
                if not ignore_not_found:
                    problems.append(error)
                continue
            block[1].append(resources_pb2.Row(object=answer.object, cells=answer.cells))
            block[2][:] = answer.columns
        return list(blocks.values()), problems

    def watch(self, found: Sequence[Any]) -> None:
        if len(found) != 1:
            raise UsageError("-w watches one kind, or one object")
        kind = found[0].kind
        columns: list[Any] = []
        for rows, new_columns in self._batches(found[0]):
            columns = new_columns or columns
            self._view.add(kind, rows, columns)

    def _batches(self, target: Any) -> Iterator[tuple[list[Any], list[Any]]]:
        """The first state in one piece, then the rows of every change."""
        first: list[Any] | None = []
        columns: list[Any] = []
        for change in self._client.watch(
            target.kind.name,
            self._view.scope(target.kind),
            target.name,
            selector=self._selector,
            field_selector=self._field_selector,
            lost=say,
        ):
            columns = list(change.columns) or columns
            if change.type == "SYNCED":
                if first:
                    yield _sorted(target.kind.name, first), columns
                first = None
            elif first is not None:
                first.append(change.row)
            else:
                yield [change.row], columns


def _sorted(kind: str, rows: list[Any]) -> list[Any]:
    """Events by when they were seen last, everything else as the server sorts it."""
    from llmop.domain import resources

    if kind != resources.EVENT:
        return rows
    from llmop.cli import happenings

    return sorted(rows, key=happenings.last_seen)
