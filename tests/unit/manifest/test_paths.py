"""Paths of fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.manifest import paths


def test_a_path_reads_like_a_field() -> None:
    assert "spec.args[2]" == paths.build(("spec", "args", 2))
    assert 'metadata.labels["llmop/team"]' == paths.build(("metadata", "labels", "llmop/team"))
    assert 'env[""]["a\\"b.c"]' == paths.build(("env", "", 'a"b.c'))


@given(steps=st.lists(st.text(max_size=10) | st.integers(0, 10**6), max_size=6))
def test_split_undoes_build(steps: list[str | int]) -> None:
    assert tuple(steps) == paths.split(paths.build(steps))


@pytest.mark.parametrize("text", ["a b", "a[", "a[x]", 'a["x]'])
def test_other_text_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="is not the path of a field"):
        paths.split(text)
