"""Tokens are read where the engine says them, in whatever pieces it comes, and estimated where it does not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.gateway.usage import Answer, Stream, Usage

CHUNK = b'data: {"choices":[{"delta":{"content":"say \\"usage\\":{ and x_tokens\\":"}}],"usage":null}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3,'
    b'"prompt_tokens_details":{"cached_tokens":2}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
STREAM = CHUNK * 3 + USAGE + DONE


def pieces_of(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def through(stream: Stream, pieces: list[bytes]) -> bytes:
    return b"".join([*(stream.feed(piece) for piece in pieces), stream.finish()])


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_a_stream_that_asked_itself_is_not_changed(cuts: list[int]) -> None:
    stream = Stream(cut=False)
    assert STREAM == through(stream, pieces_of(STREAM, cuts))
    assert Usage(7, 3) == stream.usage(400)


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))
def test_usage_that_nobody_asked_for_is_cut_out(cuts: list[int], end: bytes) -> None:
    stream = Stream(cut=True)
    text = STREAM.replace(b"\n\n", end)
    assert (CHUNK * 3 + DONE).replace(b"\n\n", end) == through(stream, pieces_of(text, cuts))
    assert Usage(7, 3) == stream.usage(400)


def test_whole_events_go_on_at_once() -> None:
    stream = Stream(cut=True)
    assert CHUNK == stream.feed(CHUNK)
    assert CHUNK == stream.feed(CHUNK + USAGE[:30])
    assert b"" == stream.feed(USAGE[30:])


def test_what_comes_with_text_is_kept() -> None:
    """llama.cpp and TGI's completions put the usage into the last event that has a choice."""
    last = b'data: {"choices":[{"text":"."}],"usage": {"prompt_tokens": 1, "completion_tokens": 2}}\n\n'
    stream = Stream(cut=True)
    assert CHUNK + last == through(stream, [CHUNK + last])
    assert Usage(1, 2) == stream.usage(0)


def test_an_endless_event_does_not_wait() -> None:
    stream = Stream(cut=True)
    assert 200_000 == sum(len(stream.feed(b"x" * 10_000)) for _ in range(20)) + len(stream.finish())


def test_a_stream_without_usage_is_counted_by_its_events() -> None:
    stream = Stream(cut=True)
    assert CHUNK * 2 == through(stream, [CHUNK, CHUNK])
    assert Usage(100, 2, estimated=True) == stream.usage(400)


def test_the_details_of_a_tgi_stream() -> None:
    token = b'data:{"index":1,"token":{"id":1},"generated_text":null,"details":null}\n\n'
    last = b'data:{"generated_text":"ab","details":{"finish_reason":"length","generated_tokens":2,"input_length":9}}'
    stream = Stream(cut=False)
    assert token + last == through(stream, [token, last[:50], last[50:]])
    assert Usage(9, 2) == stream.usage(0)


ANSWER = (
    b'{"id":"x","choices":[{"message":{"content":"\\"prompt_tokens\\":9"}}],'
    b'"usage":{"completion_tokens":12,"prompt_tokens": 9,"total_tokens":21},"created":1}'
)


@given(st.lists(st.integers(0, 10_000), max_size=5))
def test_the_usage_of_an_answer_in_pieces(cuts: list[int]) -> None:
    answer = Answer()
    for piece in pieces_of(ANSWER, cuts):
        assert piece == answer.feed(piece)
    assert Usage(9, 12) == answer.usage(0)


@pytest.mark.parametrize("place", range(0, 70_000, 7_777))
def test_the_usage_of_a_long_answer(place: int) -> None:
    text = b'{"data":[' + b"0.5," * 20_000 + b'0],"usage":{"prompt_tokens":5,"total_tokens":5}}'
    answer = Answer()
    for piece in (text[:place], text[place:-20], text[-20:]):
        answer.feed(piece)
    assert Usage(5, 0) == answer.usage(0)


def test_an_answer_without_usage_is_estimated_by_its_size() -> None:
    answer = Answer()
    answer.feed(b"x" * 40)
    assert Usage(2, 10, estimated=True) == answer.usage(8)


@pytest.mark.parametrize("number", [10**15, 2**63, -1])
def test_numbers_of_an_engine_that_cannot_be_are_not_believed(number: int) -> None:
    """They would not fit where usage is added up."""
    said = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
    for prompt, completion in ((number, 1), (1, number)):
        stream = Stream(cut=False)
        through(stream, [CHUNK, said % (prompt, completion)])
        assert Usage(1, 2, estimated=True) == stream.usage(4)
