"""The first event of a stream is found however it is cut into pieces."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.gateway.sse import FIRST_EVENT_LIMIT, FirstBlock, says_overloaded

LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])
LINES = st.sampled_from(
    [
        b": waiting",
        b":",
        b'data: {"a":1}',
        b"event: x",
        b'data:{"error":"Model is overloaded","error_type":"overloaded"}',
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream, and its first block without the blank line."""
    end = draw(LINE_ENDS)
    first = end.join(draw(st.lists(LINES, min_size=1, max_size=4)))
    rest = end.join(draw(st.lists(LINES, max_size=3)))
    return end * draw(st.integers(0, 2)) + first + end + end + rest, first


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(edges)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_first_block_does_not_depend_on_how_the_stream_was_cut(
    stream: tuple[bytes, bytes], places: list[int]
) -> None:
    whole, expected = stream
    block = FirstBlock()
    assert any(block.feed(piece) for piece in cut(whole, places))
    assert expected == block.block


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_bytes_give_the_same_verdict_in_one_piece_and_in_many(whole: bytes, places: list[int]) -> None:
    one, many = FirstBlock(), FirstBlock()
    found_one = one.feed(whole)
    found_many = any(many.feed(piece) for piece in cut(whole, places))
    if re.search(rb"\r(?:\n|\Z)", whole) is None:  # a cut between CR and LF may see the end one byte earlier
        assert (found_one, one.block) == (found_many, many.block)
    assert found_many or not found_one


def test_a_stream_that_never_ends_its_first_event_is_not_kept_for_ever() -> None:
    assert FirstBlock().feed(b"x" * (FIRST_EVENT_LIMIT + 1))
    assert FirstBlock().feed(b"\n" * (FIRST_EVENT_LIMIT + 1))


@pytest.mark.parametrize(
    "block",
    [
        b'data:{"error":"Model is overloaded","error_type":"overloaded"}',
        b'data: {"error":"Model is overloaded","error_type":"overloaded"}',
        b'event: x\ndata: {"error":\ndata: "full","error_type":"overloaded"}',
        b'data: {"error":{"message":"Model is overloaded","http_status_code":422}}',
        b'data: {"error":{"message":"too many","code":503}}',
    ],
)
def test_an_overloaded_engine_is_recognised(block: bytes) -> None:
    assert says_overloaded(block)


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"error":"Input validation error","error_type":"validation"}',
        b'data: {"token":{"text":"\\"error\\" overloaded"}}',
        b'data: {"error":{"message":"bad input","http_status_code":422}}',
        b'data: ["error"]',
        b'data: {"error"',
        b'data: {"choices":[{"delta":{"content":"the \\"error\\" is overloaded"}}]}',
        b": error overloaded",
    ],
)
def test_other_first_events_are_answers(block: bytes) -> None:
    assert not says_overloaded(block)
