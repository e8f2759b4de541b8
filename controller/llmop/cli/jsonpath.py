"""kubectl's JSONPath: what is taken out of an object for -o jsonpath, custom-columns, --sort-by and wait --for=jsonpath.

The language is that of Kubernetes' docs/reference/kubectl/jsonpath.md: text with expressions in braces, `{range}` and `{end}`, quoted
text, fields, `['name']`, indices, slices, unions, `*`, `..` and filters with one comparison. What is not in it is an error.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_Step = Callable[[list[Any], Any], list[Any]]  # (what was found so far, the root) -> what is found below
_Single = Callable[[Any, Any], Iterator[Any]]  # the same for one value

_NAME = re.compile(r"(?:[A-Za-z0-9_$/-]|\\.)+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SLICE = re.compile(r"(-?[0-9]+)?:(-?[0-9]+)?(?::(-?[0-9]+))?")
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")


class JsonPathError(ValueError):
    """The expression cannot be read; the text says where and what would be right."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """One expression: what it finds in an object."""

    steps: tuple[_Step, ...]

    def find(self, value: Any, root: Any = None) -> list[Any]:
        return self.find_all([value], value if root is None else root)

    def find_all(self, found: list[Any], root: Any) -> list[Any]:
        for step in self.steps:
            found = step(found, root)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Range:
    path: Path
    body: tuple["_Node", ...]


_Node = str | Path | _Range


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """Text with expressions in it."""

    nodes: tuple[_Node, ...]

    def render(self, value: Any) -> str:
        """Values of one expression stand beside each other with a blank between; what is not there is no text."""
        return "".join(_render(self.nodes, value))


def template(text: str) -> Template:
    """Raises JsonPathError."""
    if "{" not in text:
        raise JsonPathError(
            f'jsonpath "{text}": nothing in it is taken from the object; write {{.metadata.name}}'
        )
    nodes, rest = _nodes(_pieces(text), text)
    if rest:
        raise JsonPathError(f'jsonpath "{text}": {{end}} without {{range}}')
    return Template(nodes=nodes)


def path(text: str) -> Path:
    """One expression with or without braces and first dot, as columns and --sort-by take them. Raises JsonPathError."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    if not inner:
        raise JsonPathError(f'jsonpath "{text}": is empty; write .metadata.name')
    return _Reader(inner if inner[0] in ".[$@" else f".{inner}", text).path()


def show(value: Any) -> str:
    """A value as text: strings as they are, mappings and lists as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _render(nodes: Sequence[_Node], value: Any) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Range):
            for each in node.path.find(value):
                yield from _render(node.body, each)
        else:
            yield " ".join(show(each) for each in node.find(value))


def _pieces(text: str) -> list[tuple[str, str]]:
    """("text", ...) and ("braces", ...) in turn."""
    pieces = []
    at = 0
    while at < len(text):
        opening = text.find("{", at)
        if opening < 0:
            pieces.append(("text", text[at:]))
            break
        if opening > at:
            pieces.append(("text", text[at:opening]))
        closing = _closing(text, opening)
        pieces.append(("braces", text[opening + 1 : closing].strip()))
        at = closing + 1
    return pieces


def _closing(text: str, opening: int) -> int:
    quote = ""
    at = opening + 1
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "}":
            return at
        at += 1
    raise JsonPathError(f'jsonpath "{text}": the brace at character {opening + 1} is never closed')


def _nodes(
    pieces: list[tuple[str, str]], text: str, *, inside: bool = False
) -> tuple[tuple[_Node, ...], bool]:
    """The nodes up to the end or to {end}, taken off `pieces`; whether it was {end}."""
    nodes: list[_Node] = []
    while pieces:
        kind, inner = pieces.pop(0)
        if kind == "text":
            nodes.append(inner)
        elif inner == "end":
            return tuple(nodes), True
        elif inner == "range" or inner.startswith("range "):
            start = _Reader(inner.removeprefix("range").strip(), text).path()
            body, ended = _nodes(pieces, text, inside=True)
            if not ended:
                raise JsonPathError(f'jsonpath "{text}": {{range}} without {{end}}')
            nodes.append(_Range(path=start, body=body))
        elif inner[:1] in ("'", '"'):
            reader = _Reader(inner, text)
            nodes.append(reader.quoted())
            reader.finish()
        else:
            nodes.append(_Reader(inner, text).path())
    return tuple(nodes), False


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str, whole: str) -> None:
        self._text = text
        self._whole = whole
        self._at = 0

    def path(self) -> Path:
        steps = self._steps(stop="")
        self.finish()
        if not steps and self._text not in ("$", "@"):
            raise self._error("write a path like .metadata.name")
        return Path(steps=tuple(steps))

    def finish(self) -> None:
        if self._at < len(self._text):
            raise self._error(f'does not understand "{self._text[self._at :]}"')

    def quoted(self) -> str:
        """Text in single or double quotes; `\\n`, `\\t` and an escaped character are read as in Go."""
        quote = self._text[self._at]
        self._at += 1
        letters: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            self._at += 1
            if letter == quote:
                return "".join(letters)
            if letter == "\\" and self._at < len(self._text):
                escaped = self._text[self._at]
                self._at += 1
                letter = {"n": "\n", "t": "\t", "r": "\r"}.get(escaped, escaped)
            letters.append(letter)
        raise self._error("a quote is never closed")

    def _error(self, problem: str) -> JsonPathError:
        return JsonPathError(f'jsonpath "{self._whole}": {problem}')

    def _take(self, word: str) -> bool:
        if self._text.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None and found.end() > self._at:
            self._at = found.end()
            return found
        return None

    def _steps(self, stop: str) -> list[_Step]:
        steps: list[_Step] = []
        if self._take("$"):
            steps.append(lambda found, root: [root])
        else:
            self._take("@")
        while self._at < len(self._text) and self._text[self._at] not in stop:
            if self._take(".."):
                steps.append(_each(_everything))
                if self._text[self._at : self._at + 1] != "[":
                    steps.append(self._field())
            elif self._take("."):
                if self._text[self._at : self._at + 1] == "[":  # .['name'] is what kubectl takes too
                    continue
                steps.append(self._field())
            elif self._take("["):
                steps.append(self._bracket())
            else:
                return steps
        return steps

    def _field(self) -> _Step:
        if self._take("*"):
            return _each(_children)
        found = self._match(_NAME)
        if found is None:
            raise self._error("a dot needs the name of a field behind it")
        return _field(re.sub(r"\\(.)", r"\1", found[0]))

    def _bracket(self) -> _Step:
        if self._take("*]"):
            return _each(_children)
        if self._take("?("):
            condition = self._condition()
            if not self._take(")]"):
                raise self._error('a filter is written [?(@.type=="Ready")]')
            return condition
        parts = [self._part()]
        while self._take(","):
            parts.append(self._part())
        if not self._take("]"):
            raise self._error("in brackets stands a number, a slice like 0:2, a quoted name, * or a filter")
        return parts[0] if len(parts) == 1 else _union(tuple(parts))

    def _part(self) -> _Step:
        while self._take(" "):
            pass
        if self._text[self._at : self._at + 1] in ("'", '"'):
            return self._quoted_name()
        if (found := self._match(_SLICE)) is not None:
            bounds = [int(each) if each is not None else None for each in found.groups()]
            if bounds[2] is not None and bounds[2] <= 0:
                raise self._error("the step of a slice must be 1 or more")
            return _slice(slice(*bounds))
        if (found := self._match(_NUMBER)) is not None and "." not in found[0]:
            return _index(int(found[0]))
        raise self._error("in brackets stands a number, a slice like 0:2, a quoted name, * or a filter")

    def _quoted_name(self) -> _Step:
        """kubectl reads `['a.b']` as .a.b; a dot that belongs to the name has a backslash in front."""
        quote = self._text[self._at]
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise self._error("a quote is never closed")
        names = re.split(r"(?<!\\)\.", self._text[self._at + 1 : end])
        self._at = end + 1
        steps = tuple(_field(re.sub(r"\\(.)", r"\1", name)) for name in names)
        return lambda found, root: Path(steps=steps).find_all(found, root)

    def _condition(self) -> _Step:
        left = self._operand()
        if (found := self._match(_COMPARISON)) is None:
            return _where(left, "", left)
        return _where(left, found[1], self._operand())

    def _operand(self) -> Path | Any:
        while self._take(" "):
            pass
        letter = self._text[self._at : self._at + 1]
        if letter in ("'", '"'):
            return self.quoted()
        if letter in ("@", "$"):
            steps = self._steps(stop=" =!<>)")
            while self._take(" "):
                pass
            return Path(steps=tuple(steps))
        if (found := self._match(_NUMBER)) is not None:
            return float(found[0]) if "." in found[0] else int(found[0])
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._take(word):
                return value
        raise self._error('a filter compares @.field with a number, true, false or "text"')


def _each(single: _Single) -> _Step:
    return lambda found, root: [each for value in found for each in single(value, root)]


def _field(name: str) -> _Step:
    def step(value: Any, root: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return _each(step)


def _index(index: int) -> _Step:
    def step(value: Any, root: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return _each(step)


def _slice(bounds: slice) -> _Step:
    def step(value: Any, root: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[bounds]

    return _each(step)


def _union(parts: tuple[_Step, ...]) -> _Step:
    """Everything that the first part finds stands before what the second one does, as in kubectl."""
    return lambda found, root: [each for part in parts for each in part(found, root)]


def _children(value: Any, root: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _everything(value: Any, root: Any) -> Iterator[Any]:
    """`value` and all that is in it, however deep."""
    yield value
    for each in _children(value, root):
        yield from _everything(each, root)


def _where(left: Any, operator: str, right: Any) -> _Step:
    def sides(item: Any, root: Any, side: Any) -> list[Any]:
        return side.find(item, root) if isinstance(side, Path) else [side]

    def step(value: Any, root: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else _children(value, root):
            first, second = sides(item, root, left), sides(item, root, right)
            if first and (not operator or (second and _compare(first[0], operator, second[0]))):
                yield item

    return _each(step)


def _compare(first: Any, operator: str, second: Any) -> bool:
    if operator == "==":
        return (type(first) is type(second) or _numbers(first, second)) and bool(first == second)
    if operator == "!=":
        return not _compare(first, "==", second)
    if not (_numbers(first, second) or (isinstance(first, str) and isinstance(second, str))):
        return False
    return bool(
        {"<": first < second, "<=": first <= second, ">": first > second, ">=": first >= second}[operator]
    )


def _numbers(first: Any, second: Any) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in (first, second))
