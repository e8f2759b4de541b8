"""What -o says: how objects become text."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmop.cli.errors import UsageError

if TYPE_CHECKING:
    from llmop.cli import jsonpath

WORDS = ("wide", "yaml", "json", "name")
_HELP = "wide, yaml, json, name, jsonpath=TEMPLATE and custom-columns=HEADER:PATH[,HEADER:PATH...]"
NONE = "<none>"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One way to write objects. `word` is "" for the usual table; jsonpath has a template, custom-columns have columns."""

    word: str = ""
    template: "jsonpath.Template | None" = None
    columns: "tuple[tuple[str, jsonpath.Path], ...]" = ()

    @property
    def is_table(self) -> bool:
        """The server's columns."""
        return self.word in ("", "wide")


def parse(text: str | None) -> Output:
    """Raises UsageError for a format that does not exist, or whose expression cannot be read."""
    if text is None:
        return Output()
    if text in WORDS:
        return Output(word=text)
    from llmop.cli import jsonpath

    word, equals, expression = text.partition("=")
    if word not in ("jsonpath", "custom-columns"):
        raise UsageError(f'-o "{text}": there are {_HELP}')
    if not equals or not expression:
        wanted = "jsonpath='{.metadata.name}'" if word == "jsonpath" else "custom-columns=NAME:.metadata.name"
        raise UsageError(f'-o "{text}": write {wanted}')
    try:
        if word == "jsonpath":
            return Output(word=word, template=jsonpath.template(expression))
        return Output(word=word, columns=_columns(expression))
    except jsonpath.JsonPathError as error:
        raise UsageError(f"-o {error}") from error


def _columns(expression: str) -> "tuple[tuple[str, jsonpath.Path], ...]":
    import re

    from llmop.cli import jsonpath

    columns = []
    for part in re.split(r",(?![^\[(]*[\])])", expression):
        header, colon, path = part.partition(":")
        if not colon or not header.strip() or not path.strip():
            raise UsageError(f'-o custom-columns: "{part}" is no column; write NAME:.metadata.name')
        columns.append((header.strip(), jsonpath.path(path)))
    return tuple(columns)


def cells(output: Output, document: dict[str, Any]) -> list[str]:
    """The row of one object under custom columns."""
    from llmop.cli import jsonpath

    row = []
    for _, path in output.columns:
        found = [jsonpath.show(each) for each in path.find(document)]
        row.append(",".join(found) or NONE)
    return row


def ordered(documents: Sequence[dict[str, Any]], sort_by: str) -> list[int]:
    """The places of `documents` in the order of what `sort_by` finds in each: numbers by their size, the rest as text.

    Those that have nothing there come first. Raises UsageError for an expression that cannot be read, or that finds nothing at all; but
    fields of the status come and go, and a list in which none of them is there just now keeps its order.
    """
    from llmop.cli import jsonpath

    try:
        path = jsonpath.path(sort_by)
    except jsonpath.JsonPathError as error:
        raise UsageError(f"--sort-by: {error}") from error
    keys = [_key(path.find(document)) for document in documents]
    is_status = sort_by.lstrip("{.").startswith("status.")
    if documents and not is_status and all(key[0] == 0 for key in keys):
        raise UsageError(f'--sort-by "{sort_by}": no object has that field')
    return sorted(range(len(documents)), key=lambda index: keys[index])


def _key(found: list[Any]) -> tuple[int, float, str]:
    if not found or found[0] is None:
        return (0, 0.0, "")
    value = found[0]
    if isinstance(value, int | float):
        return (1, float(value), "")
    from llmop.cli import jsonpath

    return (2, 0.0, jsonpath.show(value))
