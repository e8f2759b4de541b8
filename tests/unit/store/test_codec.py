"""Objects as canonical text."""

import types

import pytest

from llmop.domain import replica
from llmop.store import codec


def test_the_order_of_keys_and_the_kind_of_container_make_no_difference() -> None:
    first = codec.encode({"b": (1, 2), "a": types.MappingProxyType({"y": 1, "x": 2})})
    assert first == codec.encode({"a": {"x": 2, "y": 1}, "b": [1, 2]})
    assert b'{"a":{"x":2,"y":1},"b":[1,2]}' == first


def test_numbers_of_other_types_are_other_values() -> None:
    assert 3 == len({codec.encode(value) for value in (1, 1.0, True)})


@pytest.mark.parametrize(
    "value",
    [object(), 2**70, {1: 2}, "\ud800"],
    ids=["an object", "a large number", "a number as key", "a surrogate"],
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        codec.encode(value)


def test_a_submission_survives_fields_that_a_later_version_added_or_an_earlier_one_lacked() -> None:
    text = '{"state": "Unknown", "job_name": "j", "from_the_future": 7}'
    expected = replica.Submission(state=replica.SubmissionState.UNKNOWN, job_name="j")
    assert expected == codec.submission_from_text(text)
