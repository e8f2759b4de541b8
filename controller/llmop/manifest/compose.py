"""Parser events to one value, without recursion and with bounded work; scalars by the core schema of YAML 1.2.2 (section 10.3.2)."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from llmop.manifest import limits, paths

Position = tuple[int, int]  # line and column, from 1

_STRING_TAGS = ("tag:yaml.org,2002:str", "!")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class TooMuch(Exception):
    """A bound is passed: reading on would only cost. The problem is reported already."""


@dataclasses.dataclass(slots=True)
class _Frame:
    """A collection that is being read. `weight` is what it has cost so far, aliases expanded."""

    value: dict[str, Any] | list[Any]
    path: str
    anchor: str | None
    weight: int = 1
    key: str | None = None
    expects_key: bool = True


class Reader:
    """The value of one document: `take` its events in order, then read `result` and `positions`.

    `report` gets every problem; TooMuch ends the reading when going on would only cost.
    """

    def __init__(self, report: Callable[[Position, str], None]) -> None:
        self._report = report
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: set[str] = set()
        self._weight = 0
        self.positions: dict[str, Position] = {}
        self.result: Any = None

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        else:
            self._close(event)

    def _expects_key(self) -> bool:
        frame = self._stack[-1] if self._stack else None
        return frame is not None and isinstance(frame.value, dict) and frame.expects_key

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        position = position_of(event)
        if self._expects_key():
            self._key(event, position)
            return
        if len(event.value) > limits.MAX_STRING_BYTES:
            self._report(position, f"a text {limits.string_problem(event.value)}")
            raise TooMuch
        value = self._resolve(event, position)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1 + len(event.value))
        self._place(value, 1 + len(event.value), position)

    def _key(self, event: yaml.ScalarEvent, position: Position) -> None:
        frame = self._stack[-1]
        assert isinstance(frame.value, dict)
        if event.implicit[0] and event.value == "<<":
            self._report(position, "merge keys (<<) are not part of YAML 1.2; write the fields out")
        key = event.value
        if not isinstance(self._resolve(event, position), str):
            self._report(position, f'the key {key} is not text; quote it: "{key}"')
        if len(key) > limits.MAX_KEY_CHARACTERS:
            self._report(position, f"a key is longer than {limits.MAX_KEY_CHARACTERS} characters; shorten it")
            raise TooMuch
        path = paths.join(frame.path, key)
        if key in frame.value:
            first = self.positions[path]
            self._report(
                position,
                f"{path}: duplicate key; it stands at line {first[0]}, column {first[1]} already, remove one",
            )
        else:
            frame.value[key] = None
            self.positions[path] = position
        if event.anchor is not None:
            self._anchors[event.anchor] = (key, 1 + len(key))
        self._count(limits.cost(len(key), path), position)
        frame.key = key
        frame.expects_key = False

    def _resolve(self, event: yaml.ScalarEvent, position: Position) -> Any:
        text = event.value
        if event.tag is not None and event.tag not in _STRING_TAGS:
            self._report(position, f"the tag {event.tag} is not supported; write the value without it")
            return text
        if event.tag is not None or not event.implicit[0]:
            return text
        return self._core(text, position)

    def _core(self, text: str, position: Position) -> Any:
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            value = int(text, base) if len(text) <= limits.MAX_NUMBER_CHARACTERS else limits.MAX_INTEGER + 1
            if abs(value) > limits.MAX_INTEGER:
                self._report(position, f"{text[:40]} is too large for a number; quote it if it is text")
            return value
        if _FLOAT.fullmatch(text):
            if not math.isfinite(float(text)):
                self._report(position, f"{text[:40]} is too large for a number; quote it if it is text")
                return text
            return float(text)
        if _NOT_FINITE.fullmatch(text):
            self._report(position, f"{text} is not a number that can be stored; quote it if it is text")
        return text

    def _alias(self, event: yaml.AliasEvent) -> None:
        position = position_of(event)
        if self._expects_key():
            self._report(position, f"*{event.anchor} stands where a key is expected; write the key out")
            raise TooMuch
        if event.anchor in self._open_anchors:
            self._report(position, f"*{event.anchor} stands inside what it refers to; write the value out")
            raise TooMuch
        if event.anchor not in self._anchors:
            self._report(
                position, f"*{event.anchor} refers to no anchor before it; write &{event.anchor} there"
            )
            self._place(None, 1, position)
            return
        value, weight = self._anchors[event.anchor]
        self._place(value, weight, position)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        position = position_of(event)
        if self._expects_key():
            self._report(position, "a key must be text, not a mapping or a list")
            raise TooMuch
        if len(self._stack) >= limits.MAX_DEPTH:
            self._report(position, f"nested deeper than {limits.MAX_DEPTH} levels")
            raise TooMuch
        if event.tag is not None and event.tag != "!":
            self._report(position, f"the tag {event.tag} is not supported; write the value without it")
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(value, 1, position)
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
            self._open_anchors.add(event.anchor)
        self._stack.append(_Frame(value=value, path=path, anchor=event.anchor))

    def _close(self, event: yaml.Event) -> None:
        frame = self._stack.pop()
        if frame.anchor is not None:
            self._open_anchors.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.value, frame.weight)
        if self._stack:
            self._stack[-1].weight += frame.weight

    def _place(self, value: Any, weight: int, position: Position) -> str:
        """Puts `value` where the next one belongs and returns its path."""
        if not self._stack:
            self.result = value
            return ""
        frame = self._stack[-1]
        self._count(weight + limits.cost(0, frame.path), position)
        if isinstance(frame.value, list):
            path = paths.join(frame.path, len(frame.value))
            frame.value.append(value)
            self.positions[path] = position
            return path
        assert frame.key is not None
        frame.value[frame.key] = value
        frame.expects_key = True
        return paths.join(frame.path, frame.key)

    def _count(self, weight: int, position: Position) -> None:
        self._weight += weight
        if self._stack:
            self._stack[-1].weight += weight
        if self._weight > limits.MAX_COST:
            self._report(position, "the document is too large, with its aliases expanded; split it")
            raise TooMuch


def position_of(event: yaml.Event) -> Position:
    assert event.start_mark is not None  # every event of a parsed text has its marks
    return (event.start_mark.line + 1, event.start_mark.column + 1)
