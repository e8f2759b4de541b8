"""What people mean by `md`, `md,rep`, `md chat`, `md/chat rep/chat-1`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llmop.cli.errors import LaterVersionError, UsageError
from llmop.domain import resources


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A kind, or one object of it; `name` "" = all."""

    kind: resources.KindInfo
    name: str = ""


def parse(arguments: Sequence[str]) -> list[Target]:
    """Raises UsageError for kinds that do not exist and for forms that mean nothing."""
    if not arguments:
        raise UsageError("name what you mean: TYPE, TYPE NAME or TYPE/NAME; types are " + known())
    if any("/" in argument for argument in arguments):
        return [_slashed(argument) for argument in arguments]
    kinds = [kind(word) for word in arguments[0].split(",")]
    names = arguments[1:]
    if not names:
        return [Target(kind=each) for each in kinds]
    if not all(names):
        raise UsageError("a name must not be empty")
    return [Target(kind=each, name=name) for each in kinds for name in names]


def one(arguments: Sequence[str]) -> Target:
    """Exactly one object."""
    found = parse(arguments)
    if len(found) != 1 or not found[0].name:
        raise UsageError("name one object: TYPE NAME or TYPE/NAME")
    return found[0]


def kind(word: str) -> resources.KindInfo:
    found = resources.find_kind(word)
    if found is None:
        if resources.is_later_kind(word):
            raise LaterVersionError(word)
        import difflib

        words = {info.plural: info for info in resources.KINDS.values()}
        close = difflib.get_close_matches(
            word.lower(), [*words, *(info.singular for info in words.values())], n=1
        )
        hint = f'; did you mean "{close[0]}"?' if close else f"; types are {known()}"
        raise UsageError(f'the server doesn\'t have a resource type "{word}"{hint}')
    return found


def _slashed(argument: str) -> Target:
    word, _, name = argument.partition("/")
    if not word or not name or "/" in name:
        raise UsageError(f'"{argument}": with TYPE/NAME every argument has that form')
    return Target(kind=kind(word), name=name)


def known() -> str:
    return ", ".join(f"{info.plural} ({','.join(info.short_names)})" for info in resources.KINDS.values())


def label(kind_name: str, name: str) -> str:
    """`modeldeployment.llmop/chat`: how output names an object."""
    info = resources.KINDS.get(kind_name)
    return f"{info.singular if info else kind_name.lower()}.llmop/{name}"


def label_of(item: Any) -> str:
    """`label` of an object of the API."""
    return label(item.kind, item.metadata.name)
