"""Attributes of documents: their bounds, and filters that choose documents by them. Pure.

Form and words are those of OpenAI's vector stores (https://platform.openai.com/docs/guides/retrieval#attribute-filtering). What that page
leaves open is said here: a text is never a number and a truth value neither, texts have the order of their characters' code points, and a
document without the attribute is one whose attribute is not equal: `ne` and `nin` are the opposites of `eq` and `in`.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

MOST, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512  # as OpenAI has it
_MOST_COMPARISONS, _MOST_LEVELS = 100, 10  # each comparison is made with every document of a store

Value = str | float | bool
Attributes = Mapping[str, Value]

_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_COMPARISONS = ("eq", "ne", *_ORDERS, "in", "nin")
_COMPOUNDS = ("and", "or")
_FORM = (
    'must be like {"type": "eq", "key": "year", "value": 2026} or {"type": "and", "filters": [{...}, {...}]}'
)


class BadFilter(ValueError):
    """`path` is where, below the filter ("" = the filter itself, else like `.filters[1].value`); the text says what to write there."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclasses.dataclass(frozen=True, slots=True)
class Among:
    """The attribute is one of `values`, each with whether it is a truth value: to Python True is 1; or it is none of them."""

    key: str
    values: frozenset[tuple[bool, Value]]
    negated: bool

    def fits(self, attributes: Attributes) -> bool:
        value = attributes.get(self.key)
        return (value is not None and _kept(value) in self.values) != self.negated


@dataclasses.dataclass(frozen=True, slots=True)
class Ordered:
    """The attribute is a text where `bound` is one, else a number, and `order` is true of the two. By `_ORDERS`."""

    key: str
    order: str
    bound: str | float

    def fits(self, attributes: Attributes) -> bool:
        value = attributes.get(self.key)
        kind = str if isinstance(self.bound, str) else (int, float)
        return (
            isinstance(value, kind) and not isinstance(value, bool) and _ORDERS[self.order](value, self.bound)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Every:
    filters: "tuple[Filter, ...]"

    def fits(self, attributes: Attributes) -> bool:
        return all(each.fits(attributes) for each in self.filters)


@dataclasses.dataclass(frozen=True, slots=True)
class Some:
    filters: "tuple[Filter, ...]"

    def fits(self, attributes: Attributes) -> bool:
        return any(each.fits(attributes) for each in self.filters)


Filter = Among | Ordered | Every | Some


def read(value: Any) -> Filter:
    """What JSON says. Raises BadFilter."""
    found = _read(value, "", 1)
    if (number := _comparisons(found)) > _MOST_COMPARISONS:
        raise BadFilter(
            "",
            f"has {number} comparisons; at most {_MOST_COMPARISONS} are made: use in and nin for many values",
        )
    return found


def _read(value: Any, path: str, level: int) -> Filter:
    if not isinstance(value, dict):
        raise BadFilter(path, _FORM)
    kind = value.get("type")
    if kind not in (*_COMPARISONS, *_COMPOUNDS):
        raise BadFilter(
            f"{path}.type", f"must be one of {', '.join((*_COMPARISONS, *_COMPOUNDS))}, and is {_shown(kind)}"
        )
    fields = ("type", "filters") if kind in _COMPOUNDS else ("type", "key", "value")
    for name in sorted(value.keys() - set(fields), key=str):
        raise BadFilter(
            f"{path}.{str(name)[:LONGEST_KEY]}",
            f"is not known; a filter of the type {kind} has {', '.join(fields)}",
        )
    return _compound(value, path, level) if kind in _COMPOUNDS else _comparison(value, path)


def _compound(value: Mapping[str, Any], path: str, level: int) -> Filter:
    if level > _MOST_LEVELS:
        raise BadFilter(path, f"is nested too deeply: at most {_MOST_LEVELS} levels are read")
    rows = value.get("filters")
    if not isinstance(rows, list) or not rows:
        raise BadFilter(f"{path}.filters", "must be a list of at least one filter")
    filters = tuple(_read(row, f"{path}.filters[{place}]", level + 1) for place, row in enumerate(rows))
    return Every(filters) if value["type"] == "and" else Some(filters)


def _comparison(value: Mapping[str, Any], path: str) -> Filter:
    kind, key, asked = value["type"], value.get("key"), value.get("value")
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise BadFilter(
            f"{path}.key", f"must be the name of an attribute, a text of 1 to {LONGEST_KEY} characters"
        )
    where = f"{path}.value"
    if kind in _ORDERS:
        if isinstance(asked, bool) or not is_value(asked):
            raise BadFilter(
                where, f"must be a number, or a text of up to {LONGEST_VALUE} characters, for {kind}"
            )
        return Ordered(key, kind, asked)
    if kind in ("in", "nin"):
        if not isinstance(asked, list) or not all(map(is_value, asked)):
            words = f"texts of up to {LONGEST_VALUE} characters, numbers and truth values"
            raise BadFilter(where, f"must be a list of {words}, for {kind}")
        return Among(key, frozenset(map(_kept, asked)), kind == "nin")
    if not is_value(asked):
        words = f"a text of up to {LONGEST_VALUE} characters, a number or a truth value"
        raise BadFilter(where, f"must be {words}, for {kind}; in and nin take lists")
    return Among(key, frozenset([_kept(asked)]), kind == "ne")


def is_value(value: Any) -> TypeGuard[Value]:
    """Whether an attribute can have it."""
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _kept(value: Value) -> tuple[bool, Value]:
    return isinstance(value, bool), value


def _comparisons(found: Filter) -> int:
    return sum(map(_comparisons, found.filters)) if isinstance(found, Every | Some) else 1


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:80]
