"""Text to data: YAML 1.2's core schema, positions, bounds, JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.domain import errors
from llmop.manifest import limits, load

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x7f")  # raw DEL is JSON and no YAML


def one(text: str) -> load.Document:
    (document,) = load.load(text, "m.yaml")
    return document


def problems(text: str) -> list[str]:
    with pytest.raises(load.ManifestError) as caught:
        load.load(text, "m.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("24:00:00", "24:00:00"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("0123456", 123456),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("+12", 12),
        ("-0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("1-00:00:00", "1-00:00:00"),
        ("'0123'", "0123"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_scalars_follow_the_core_schema(written: str, value: object) -> None:
    found = one(f"a: {written}").data["a"]

    assert value == found
    assert type(value) is type(found)


def test_positions_are_those_of_keys_and_items() -> None:
    document = one("spec:\n  args:\n    - a\n    - {b: c}\n  env: {'X.Y': d}\n")

    assert {
        "": (1, 1),
        "spec": (1, 1),
        "spec.args": (2, 3),
        "spec.args[0]": (3, 7),
        "spec.args[1]": (4, 7),
        "spec.args[1].b": (4, 8),
        "spec.env": (5, 3),
        'spec.env["X.Y"]': (5, 9),
    } == document.positions


def test_a_field_that_is_missing_stands_where_its_parent_does() -> None:
    document = one("a: 1\nspec:\n  model: {}\n")

    assert (3, 3) == document.position("spec.model.uri")
    assert (2, 1) == document.position("spec.runtime")
    assert (1, 1) == document.position("metadata.name")


def test_problems_of_an_object_come_in_the_order_of_the_text() -> None:
    document = one("b: 1\na: 2\n")
    invalid = errors.Invalid(
        "K",
        "n",
        (
            errors.Violation(path="a", reason="Unknown", message="second"),
            errors.Violation(path="b", reason="Unknown", message="first"),
        ),
    )

    assert "m.yaml:1:1: b: first\nm.yaml:2:1: a: second" == str(document.explain(invalid))


def test_several_documents_keep_their_places_and_empty_ones_are_left_out() -> None:
    documents = load.load("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n", "m.yaml")

    assert [{"a": 1}, {"b": 2}] == [document.data for document in documents]
    assert [0, 1] == [document.index for document in documents]
    assert [(4, 1), (7, 1)] == [document.position("x") for document in documents]


def test_an_empty_text_holds_no_document() -> None:
    assert [] == load.load("", "m.yaml")
    assert [] == load.load("# only words\n", "m.yaml")


def test_a_byte_order_mark_in_front_is_ignored() -> None:
    assert {"a": 1} == one("\ufeffa: 1\n").data


def test_an_alias_stands_for_its_value_and_has_the_place_of_its_field() -> None:
    document = one("a: &x {b: [1]}\nc: *x\n")

    assert {"a": {"b": [1]}, "c": {"b": [1]}} == document.data
    assert (2, 1) == document.position("c.b[0]")


def test_all_problems_of_a_text_come_at_once() -> None:
    assert [
        "m.yaml:2:1: a: duplicate key; it stands at line 1, column 1 already, remove one",
        "m.yaml:3:4: the tag tag:yaml.org,2002:binary is not supported; write the value without it",
        'm.yaml:4:1: the key 5 is not text; quote it: "5"',
    ] == problems("a: 1\na: 2\nb: !!binary aGk=\n5: c\n")


def test_aliases_expand_to_a_bounded_size_only() -> None:
    lines = ["a0: &a0 [" + ", ".join(["x" * 20] * 20) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 20) + "]" for i in range(1, 20)]

    (problem,) = problems("\n".join(lines))

    assert problem.endswith("the document is too large, with its aliases expanded; split it")


def test_nesting_is_bounded_however_deep_it_is() -> None:
    for depth in (limits.MAX_DEPTH + 1, 100_000):
        (problem,) = problems("a: " + "[" * depth + "]" * depth)
        assert problem.endswith(f"nested deeper than {limits.MAX_DEPTH} levels")


def test_keys_are_bounded_so_that_paths_are() -> None:
    assert ["m.yaml:1:1: a key is longer than 512 characters; shorten it"] == problems("k" * 513 + ": 1")

    deep = "".join(" " * depth + "k" * 500 + ":\n" for depth in range(30))
    wide = "".join(" " * 30 + f"k{index}: 1\n" for index in range(20_000))
    (problem,) = problems(deep + wide)
    assert problem.endswith("the document is too large, with its aliases expanded; split it")


def test_a_document_may_have_a_mebibyte_and_no_byte_more() -> None:
    line = "x: " + "é" * 500 + "\n"
    count = limits.MAX_DOCUMENT_BYTES // len(line.encode())
    many = "".join(f"k{index:06d}" + line for index in range(count))

    (problem,) = problems(many)
    assert f"at most {limits.MAX_DOCUMENT_BYTES} are allowed" in problem
    assert count - 50 == len(one("".join(f"k{index:06d}" + line for index in range(count - 50))).data)


def test_json_reads_as_json_does() -> None:
    value = {"a": ["\U0001f600/\t\u007e\\ud83d\\ude00", -1.5e3, None, True, {}], "b\nc": "é", "d": {"e": []}}
    for text in (json.dumps(value), json.dumps(value, indent="\t"), json.dumps(value, ensure_ascii=False)):
        assert value == one(text).data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text(CHARACTERS, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(CHARACTERS, max_size=8), JSON, max_size=4))
def test_any_json_object_reads_as_itself(value: dict[str, Any]) -> None:
    assert value == one(json.dumps(value)).data


@given(text=st.text(st.sampled_from(list("ab:-[]{}&*!|>'\"\\#%@`,?<~0.\t\n \u2028\x00é😀")), max_size=60))
def test_any_text_is_documents_or_problems_with_places(text: str) -> None:
    try:
        documents = load.load(text, "m.yaml")
    except load.ManifestError as error:
        assert all(
            problem.line >= 1 and problem.column >= 1 and problem.message for problem in error.problems
        )
    else:
        assert all(isinstance(document.data, dict) for document in documents)


def test_a_text_is_bounded_before_it_is_read() -> None:
    (problem,) = problems("a: 1\n" + "#" * load.MAX_TEXT_BYTES)

    assert problem == f"m.yaml:1:1: the text is larger than {load.MAX_TEXT_BYTES} bytes; split it"
