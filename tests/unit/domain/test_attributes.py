"""Filters over attributes of documents: what fits, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.domain import attributes
from llmop.domain.attributes import BadFilter

DOCUMENT: dict[str, Any] = {"year": 1890, "half": 0.5, "town": "Łódź", "open": True, "empty": "", "one": 1}


def fits(kind: str, key: str, value: Any) -> bool:
    return attributes.read({"type": kind, "key": key, "value": value}).fits(DOCUMENT)


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        ("eq", "year", 1890, True),
        ("eq", "year", 1890.0, True),
        ("eq", "year", "1890", False),
        ("eq", "town", "Łódź", True),
        ("eq", "town", "łódź", False),
        ("eq", "empty", "", True),
        ("eq", "open", True, True),
        ("eq", "open", False, False),
        ("eq", "open", 1, False),
        ("eq", "one", True, False),
        ("ne", "one", True, True),
        ("ne", "year", 1890, False),
        ("ne", "year", 1891, True),
        ("ne", "missing", "x", True),
        ("eq", "missing", "", False),
        ("gt", "year", 1889.5, True),
        ("gt", "year", 1890, False),
        ("gte", "year", 1890, True),
        ("lt", "half", 1, True),
        ("lt", "half", 0.5, False),
        ("lte", "half", 0.5, True),
        ("lt", "open", 2, False),
        ("gte", "open", 0, False),
        ("gt", "town", "A", True),
        ("lte", "town", "Z", False),
        ("gt", "town", 3, False),
        ("lt", "year", "9", False),
        ("lt", "missing", 9, False),
        ("gte", "missing", "", False),
        ("in", "year", [1, 1890], True),
        ("in", "year", ["1890"], False),
        ("in", "one", [True], False),
        ("in", "open", [False, True], True),
        ("in", "year", [], False),
        ("in", "missing", [1], False),
        ("nin", "year", [1, 1890], False),
        ("nin", "year", [1], True),
        ("nin", "year", [], True),
        ("nin", "missing", [1], True),
    ],
)
def test_comparisons(kind: str, key: str, value: Any, expected: bool) -> None:
    assert fits(kind, key, value) is expected


def test_compounds_are_nested() -> None:
    old = {"type": "lt", "key": "year", "value": 1900}
    here = {"type": "in", "key": "town", "value": ["Łódź", "Kraków"]}
    closed = {"type": "eq", "key": "open", "value": False}
    for value, expected in (
        ({"type": "and", "filters": [old, here]}, True),
        ({"type": "and", "filters": [old, closed]}, False),
        ({"type": "or", "filters": [closed, old]}, True),
        ({"type": "or", "filters": [closed]}, False),
        ({"type": "and", "filters": [here, {"type": "or", "filters": [closed, old]}]}, True),
        ({"type": "or", "filters": [closed, {"type": "and", "filters": [old, closed]}]}, False),
    ):
        assert attributes.read(value).fits(DOCUMENT) is expected


VALUES = st.one_of(st.integers(-3, 3), st.floats(-3, 3), st.sampled_from(["", "a", "b"]), st.booleans())


@given(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(st.sampled_from("kl"), VALUES))
def test_the_opposites_are_opposites(value: Any, values: list[Any], document: dict[str, Any]) -> None:
    for kind, opposite, asked in (("eq", "ne", value), ("in", "nin", values)):
        this, other = (
            attributes.read({"type": each, "key": "k", "value": asked}) for each in (kind, opposite)
        )
        assert this.fits(document) is not other.fits(document)
    if not isinstance(value, bool) and (kept := document.get("k")) is not None:
        less, more = (attributes.read({"type": each, "key": "k", "value": value}) for each in ("lt", "gte"))
        alike = isinstance(value, str) == isinstance(kept, str) and not isinstance(kept, bool)
        assert less.fits(document) + more.fits(document) == alike


def nested(levels: int) -> Any:
    made: Any = {"type": "eq", "key": "k", "value": 1}
    for _ in range(levels):
        made = {"type": "or", "filters": [made]}
    return made


COMPARISON = {"type": "eq", "key": "k", "value": 1}


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ([], "", 'must be like {"type": "eq"'),
        ({}, ".type", "one of eq, ne, gt, gte, lt, lte, in, nin, and, or, and is missing"),
        ({"type": "like", "key": "k", "value": 1}, ".type", "and is 'like'"),
        ({"type": ["eq"], "key": "k", "value": 1}, ".type", "and is ['eq']"),
        ({"type": "eq", "value": 1}, ".key", "a text of 1 to 64 characters"),
        ({"type": "eq", "key": "", "value": 1}, ".key", "a text of 1 to 64 characters"),
        ({"type": "eq", "key": "k" * 65, "value": 1}, ".key", "a text of 1 to 64 characters"),
        ({"type": "eq", "key": "k"}, ".value", "for eq"),
        ({"type": "ne", "key": "k", "value": [1]}, ".value", "in and nin take lists"),
        ({"type": "eq", "key": "k", "value": "x" * 513}, ".value", "up to 512 characters"),
        ({"type": "eq", "key": "k", "value": float("nan")}, ".value", "a number"),
        ({"type": "gt", "key": "k", "value": True}, ".value", "must be a number, or a text"),
        ({"type": "in", "key": "k", "value": "x"}, ".value", "must be a list"),
        ({"type": "nin", "key": "k", "value": [1, None]}, ".value", "must be a list"),
        (
            {**COMPARISON, "values": [1]},
            ".values",
            "is not known; a filter of the type eq has type, key, value",
        ),
        ({"type": "and", "filters": [COMPARISON], "key": "k"}, ".key", "has type, filters"),
        ({"type": "and", "filters": []}, ".filters", "at least one filter"),
        ({"type": "or", "filters": COMPARISON}, ".filters", "at least one filter"),
        (
            {"type": "or", "filters": [COMPARISON, {"type": "and", "filters": [7]}]},
            ".filters[1].filters[0]",
            "must be like",
        ),
        (nested(11), ".filters[0]" * 10, "at most 10 levels"),
        ({"type": "or", "filters": [COMPARISON] * 101}, "", "has 101 comparisons; at most 100"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place_and_what_to_write(
    value: Any, path: str, words: str
) -> None:
    with pytest.raises(BadFilter) as raised:
        attributes.read(value)
    assert raised.value.path == path
    assert words in str(raised.value)


def test_as_much_as_is_said_is_taken() -> None:
    assert attributes.read(nested(10)).fits({"k": 1})
    assert attributes.read({"type": "and", "filters": [COMPARISON] * 100}).fits({"k": 1})
