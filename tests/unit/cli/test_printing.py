"""What goes to stdout can be read back, and cannot play tricks on a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from llmop.cli import printing
from llmop.manifest import load

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff\u2028\u2029"),
    max_size=12,
)
TRICKY = st.sampled_from(
    [
        "1e3",
        "0o17",
        "0x1F",
        "no",
        "24:00:00",
        "0123",
        "2024-01-01",
        "~",
        "",
        "null",
        ".inf",
        "1_000",
        "-",
        "a: b",
        "#",
        "a\nb\n",
        "\tx\ny",
    ]
)
VALUES = st.recursive(
    st.booleans()
    | st.integers(min_value=-(2**53), max_value=2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(bool), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_yaml_is_read_back_as_it_was(value: object) -> None:
    [document] = load.load(printing.to_yaml({"value": value}), "test")
    assert {"value": value} == document.data


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert ["a b   c"] == printing.table([["a\x1b\nb", "c"]])
    assert "a b\nc" == printing.multi_line("a\x9bb\nc")
    assert "red on  b" == printing.multi_line("\x1b[1;31mred\x1b[0m on \x1bb")


def test_columns_are_aligned_and_lines_have_no_trailing_space() -> None:
    assert ["A      B", "long   x", "y"] == printing.table([["A", "B"], ["long", "x"], ["y", ""]])
