"""Text to documents: YAML 1.2 (core schema) or JSON, with the line and column of every field.

Three things differ from PyYAML's own loaders. Scalars follow the core schema of YAML 1.2.2 (section 10.3.2): `24:00:00`, `no` and
`2024-01-01` are strings, `0123` is a decimal number. Nothing is built that JSON cannot say: no tags, no merge keys, no keys
but strings, no duplicates. And the work is bounded: size, depth, and what aliases expand to.
"""

import codecs
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from llmop.domain import errors
from llmop.manifest import compose, limits, paths

Position = compose.Position

MAX_TEXT_BYTES = 16 * 1024 * 1024
FASTEST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What both parsers say.
_UNQUOTED = "cannot start any token"
_NO_DOCUMENT = "<document start>"
_NESTING = "maximum nesting depth"  # libyaml (parser.c) has had a bound of its own since 0.2.6, and may read ahead of ours

# UTF-32 first: its mark of little-endian text begins with the one of UTF-16.
_OTHER_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
# Neither allowed raw in JSON nor printable in YAML; the last three would be folded as line breaks by YAML 1.1 parsers.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ufeff\ufffe\uffff\ud800-\udfff\u2028\u2029]"
)
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a text, where it stands (line and column count from 1)."""

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class ManifestError(errors.LlmopError):
    """A text that is no manifest. `problems` holds all that could be found; `str()` is one line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document of a text. `positions` maps a field's path to the (line, column) of its key, or of the list item."""

    source: str
    index: int
    data: dict[str, Any]
    positions: Mapping[str, Position]

    def position(self, path: str) -> Position:
        """Where `path` stands, or the nearest field above it that was written."""
        steps = paths.split(path)
        for length in range(len(steps), -1, -1):
            found = self.positions.get(paths.build(steps[:length]))
            if found is not None:
                return found
        return (1, 1)

    def explain(self, invalid: errors.Invalid) -> ManifestError:
        """The violations of `invalid` with their places in the text, in the order of the text."""
        problems = [self.locate(violation) for violation in invalid.violations]
        return ManifestError(tuple(sorted(problems, key=lambda problem: (problem.line, problem.column))))

    def locate(self, violation: errors.Violation) -> Problem:
        """`violation` with its place in the text."""
        line, column = self.position(violation.path)
        message = f"{violation.path}: {violation.message}" if violation.path else violation.message
        return Problem(source=self.source, line=line, column=column, message=message)


def decode(data: bytes, source: str) -> str:
    """The text that a file holds. Raises ManifestError with the place of the first byte that is no UTF-8."""
    for encoding, marks in _OTHER_MARKS.items():
        if data.startswith(marks):
            raise _failure(source, (1, 1), f"the text is {encoding}; save it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _failure(
            source,
            _position_of(data[: error.start].decode("utf-8")),
            f"the byte 0x{data[error.start]:02x} is no part of UTF-8 text; save the text as UTF-8",
        ) from error


def load(text: str, source: str, *, parser: Any = FASTEST) -> list[Document]:
    """The documents of `text`; empty ones are left out. `source` is the name of the text in messages.

    `parser` is the PyYAML loader whose events are read: libyaml's where PyYAML was built with it, else the one in Python. Both
    give the same data; only words of syntax errors differ. Raises ManifestError.
    """
    text = text.removeprefix("\ufeff")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise _failure(source, (1, 1), f"the text is larger than {MAX_TEXT_BYTES} bytes; split it")
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        raise _failure(
            source,
            _position_of(text[: forbidden.start()]),
            f"the character U+{ord(forbidden[0]):04X} is not allowed here; remove it"
            " or write it as an escape in double quotes",
        )
    return _Composer(_plain_json(text), source, parser).documents()


def _plain_json(text: str) -> str:
    """JSON text in a form that YAML reads the same way; any other text as it is.

    JSON may be indented by tabs, and escapes what is outside the basic plane by two halves; YAML allows neither.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _SURROGATES.sub(lambda match: match[1] + json.loads(f'"{match[2]}"'), text.replace("\t", " "))


def _position_of(before: str) -> Position:
    """Where stands what follows `before`."""
    return (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _failure(source: str, position: Position, message: str) -> ManifestError:
    return ManifestError((Problem(source=source, line=position[0], column=position[1], message=message),))


class _Composer:
    """Builds documents from the parser's events, without recursion."""

    def __init__(self, text: str, source: str, parser: Any) -> None:
        self._parser = parser
        self._text = text
        self._source = source
        self._problems: list[Problem] = []

    def documents(self) -> list[Document]:
        documents: list[Document] = []
        try:
            events: Iterator[yaml.Event] = yaml.parse(self._text, Loader=self._parser)
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._document(events, event, documents)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            self._report(position, self._syntax_message(error))
        except yaml.YAMLError as error:
            self._report((1, 1), f"not YAML: {error}")
        except compose.TooMuch:
            pass
        if self._problems:
            raise ManifestError(tuple(self._problems))
        return documents

    def _syntax_message(self, error: yaml.MarkedYAMLError) -> str:
        if error.problem is not None and _NESTING in error.problem:
            return f"nested deeper than {limits.MAX_DEPTH} levels"
        text = f"not YAML: {error.problem or 'it cannot be read'}" + (
            f" ({error.context})" if error.context else ""
        )
        mark = error.problem_mark
        character = self._text[mark.index : mark.index + 1] if mark is not None else ""
        if character == "\t":
            return f"{text}; indent with spaces, not with tabs"
        if character and character in "@`%" and _UNQUOTED in text:
            return f"{text}; put a value that begins with {character} in quotes"
        if _NO_DOCUMENT in text:
            return f"{text}; a document has ended before this, begin the next one with ---"
        return text

    def _report(self, position: Position, message: str) -> None:
        self._problems.append(
            Problem(source=self._source, line=position[0], column=position[1], message=message)
        )

    def _document(self, events: Iterator[yaml.Event], start: yaml.Event, documents: list[Document]) -> None:
        reader = compose.Reader(self._report)
        first = next(events)
        event = first
        while not isinstance(event, yaml.DocumentEndEvent):
            reader.take(event)
            event = next(events)
        where = compose.position_of(first)
        assert start.start_mark is not None and event.end_mark is not None
        size = len(self._text[start.start_mark.index : event.end_mark.index].encode("utf-8", "surrogatepass"))
        if size > limits.MAX_DOCUMENT_BYTES:
            self._report(
                where, f"the document has {size} bytes; at most {limits.MAX_DOCUMENT_BYTES} are allowed"
            )
            return
        if reader.result is None:
            return
        if not isinstance(reader.result, dict):
            self._report(where, "a manifest is a mapping with apiVersion, kind, metadata and spec")
            return
        documents.append(
            Document(
                source=self._source,
                index=len(documents),
                data=reader.result,
                positions={"": where, **reader.positions},
            )
        )
