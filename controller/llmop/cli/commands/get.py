"""llmctl get."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from llmop.cli.errors import CliError, UsageError
from llmop.cli.session import Session, common_options, out, say


@click.command("get")
@click.argument("arguments", nargs=-1, metavar="TYPE[,TYPE...] [NAME...] | TYPE/NAME...")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["wide", "yaml", "json", "name"]),
    help="More columns, whole objects, or names only.",
)
@click.option(
    "-l",
    "--selector",
    default="",
    metavar="SELECTOR",
    help="Only objects with these labels: team=nlp,tier!=test.",
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on with every change until Ctrl-C.")
@click.option("--no-headers", is_flag=True, help="Tables without their first line.")
@click.option("--ignore-not-found", is_flag=True, help="An object that does not exist is no error.")
@common_options
@click.pass_obj
def command(
    session: Session,
    arguments: tuple[str, ...],
    output: str | None,
    selector: str,
    all_namespaces: bool,
    watch: bool,
    no_headers: bool,
    ignore_not_found: bool,
) -> None:
    """List objects, or show those that are named."""
    from llmop.cli import targets

    found = targets.parse(arguments)
    if selector and any(target.name for target in found):
        raise UsageError("-l and names exclude each other")
    view = _View(session, output, all_namespaces=all_namespaces, headers=not no_headers)
    if watch:
        _watch(view, found, selector)
        return
    blocks, problems = _read(view, found, selector, ignore_not_found=ignore_not_found)
    view.show(blocks, named=all(target.name for target in found))
    if problems:
        raise CliError("\n".join(str(each) for each in problems), problems[0].code)


class _View:
    """How objects are shown."""

    def __init__(self, session: Session, output: str | None, *, all_namespaces: bool, headers: bool) -> None:
        self.session = session
        self.output = output
        self.all_namespaces = all_namespaces
        self.headers = headers
        self.prefix = False  # names as TYPE/NAME, where several kinds stand below each other

    def namespace(self, kind: Any) -> str:
        if not kind.namespaced or self.all_namespaces:
            return ""
        return self.session.effective_namespace

    def show(self, blocks: Sequence[tuple[Any, list[Any], list[Any]]], *, named: bool) -> None:
        """`blocks` are (kind, rows, columns)."""
        from llmop.cli import printing

        items = [row.object for _, rows, _ in blocks for row in rows]
        if self.output in ("yaml", "json"):
            write = printing.to_yaml if self.output == "yaml" else printing.to_json
            if named and not items:
                return
            value = printing.document(items[0]) if named and len(items) == 1 else printing.listing(items)
            out(write(value).rstrip("\n"))
            return
        if not items:
            if not named:
                scoped = any(kind.namespaced for kind, _, _ in blocks) and not self.all_namespaces
                where = f" in {self.session.effective_namespace} namespace" if scoped else ""
                say(f"No resources found{where}.")
            return
        if self.output == "name":
            for item in items:
                out(self.name(item))
            return
        filled = [block for block in blocks if block[1]]
        self.prefix = len(filled) > 1
        texts = ["\n".join(self.table(kind, rows, columns)) for kind, rows, columns in filled]
        out("\n\n".join(texts))

    def name(self, item: Any) -> str:
        from llmop.cli import targets

        return targets.label_of(item)

    def table(
        self, kind: Any, rows: Sequence[Any], columns: Sequence[Any], widths: Sequence[int] = ()
    ) -> list[str]:
        from llmop.cli import printing

        return printing.table(self.cells(kind, rows, columns), widths)

    def cells(self, kind: Any, rows: Sequence[Any], columns: Sequence[Any]) -> list[list[str]]:
        """Header and rows as text, without the columns that are not asked for."""
        kept = [index for index, column in enumerate(columns) if self.output == "wide" or not column.wide]
        with_namespace = self.all_namespaces and kind.namespaced
        lines = []
        if self.headers:
            lines.append((["NAMESPACE"] if with_namespace else []) + [columns[index].name for index in kept])
        for row in rows:
            cells = [row.cells[index] for index in kept]
            if self.prefix and columns[kept[0]].name == "NAME":
                cells[0] = self.name(row.object)
            lines.append(([row.object.metadata.namespace] if with_namespace else []) + cells)
        return lines


def _read(
    view: _View, found: Sequence[Any], selector: str, *, ignore_not_found: bool
) -> tuple[list[tuple[Any, list[Any], list[Any]]], list[CliError]]:
    from llmop.api.v1 import resources_pb2
    from llmop.cli.client import ServerError
    from llmop.cli.errors import ExitCode

    client = view.session.client
    blocks: dict[str, tuple[Any, list[Any], list[Any]]] = {}
    problems: list[CliError] = []
    for target in found:
        kind = target.kind
        if not target.name:
            rows, columns = client.list(kind.name, view.namespace(kind), selector)
            blocks[kind.name] = (kind, _sorted(kind.name, rows), columns)
            continue
        block = blocks.setdefault(kind.name, (kind, [], []))
        if view.all_namespaces and kind.namespaced:
            raise UsageError("-A lists all namespaces; an object by its name needs -n")
        try:
            answer = client.get(kind.name, view.namespace(kind), target.name)
        except ServerError as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise
            if not ignore_not_found:
                problems.append(error)
            continue
        block[1].append(resources_pb2.Row(object=answer.object, cells=answer.cells))
        block[2][:] = answer.columns
    return list(blocks.values()), problems


def _sorted(kind: str, rows: list[Any]) -> list[Any]:
    """Events by when they were seen last, everything else as the server sorts it."""
    from llmop.cli import happenings
    from llmop.domain import resources

    return sorted(rows, key=happenings.last_seen) if kind == resources.EVENT else rows


def _watch(view: _View, found: Sequence[Any], selector: str) -> None:
    if len(found) != 1:
        raise UsageError("-w watches one kind, or one object")
    target = found[0]
    kind = target.kind
    columns: list[Any] = []
    widths: list[int] = []
    for rows, new_columns in _batches(view, target, selector):
        columns = new_columns or columns
        if view.output in (None, "wide"):
            from llmop.cli import printing

            cells = view.cells(kind, rows, columns)
            if cells:
                widths = printing.column_widths(cells, widths)
                out("\n".join(printing.table(cells, widths)))
            view.headers = False
        else:
            for row in rows:
                _print_one(view, row.object)


def _batches(view: _View, target: Any, selector: str) -> Iterator[tuple[list[Any], list[Any]]]:
    """The first state in one piece, then the rows of every change."""
    from llmop.domain import selectors

    try:
        wanted = selectors.parse(selector)
    except ValueError as error:
        raise UsageError(str(error)) from error
    first: list[Any] | None = []
    columns: list[Any] = []
    for change in view.session.client.watch(
        target.kind.name, view.namespace(target.kind), target.name, lost=say
    ):
        columns = list(change.columns) or columns
        if change.type == "SYNCED":
            if first:
                yield _sorted(target.kind.name, first), columns
            first = None
        elif wanted.matches(change.row.object.metadata.labels):
            if first is not None:
                first.append(change.row)
            else:
                yield [change.row], columns


def _print_one(view: _View, item: Any) -> None:
    from llmop.cli import printing

    match view.output:
        case "name":
            out(view.name(item))
        case "json":
            out(printing.to_json(printing.document(item)))
        case _:
            out("---\n" + printing.to_yaml(printing.document(item)).rstrip("\n"))
