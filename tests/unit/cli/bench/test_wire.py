"""What is heard of one request, with the moments given: each time is exactly that of its definition."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import Iterator

import pytest

from llmop.cli.bench import measures, wire
from llmop.cli.bench.dialects import DIALECTS
from llmop.cli.bench.loads import Cell, Lengths, Mode
from llmop.cli.bench.measures import Client, Figures, Sample

ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
WORD = {"choices": [{"delta": {"content": " word"}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
STREAMS = {
    # A role, which is no text, comes before the first token and the count behind the last one.
    "chat": [(11.0, ROLE), (12.0, WORD), (12.5, WORD), (14.5, WORD), (15.0, USAGE)],
    "completions": [
        (11.0, {"choices": [{"text": ""}]}),
        (12.0, {"choices": [{"text": " word"}]}),
        (12.5, {"choices": [{"text": " word"}]}),
        (14.5, {"choices": [{"text": " word"}]}),
        (15.0, USAGE),
    ],
    "tgi": [
        (12.0, {"token": {"text": " a"}}),
        (12.5, {"token": {"text": " b"}}),
        (14.5, {"token": {"text": " c"}, "details": {"generated_tokens": 3, "input_length": 9}}),
    ],
}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def exchange(
    loop: asyncio.AbstractEventLoop, sample: Sample, api: str = "chat"
) -> tuple[wire.Exchange, wire.Tally]:
    tally = wire.Tally(0.0, 100.0)
    return wire.Exchange(loop, sample, tally, DIALECTS[api].hear, counts=True), tally


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def figures(sample: Sample, gaps: array[float]) -> Figures:
    cell = Cell(model="m", mode=Mode.POISSON, level=1, lengths=Lengths(prompt=9, output=3))
    client = Client(cpu_share=0.0, lag_s=0.0)
    return measures.figures(cell, [sample], gaps, seconds=10, pieces=3, answers=1, client=client)


@pytest.mark.parametrize("api", list(STREAMS))
def test_times_are_those_of_their_definitions(api: str, loop: asyncio.AbstractEventLoop) -> None:
    """Due at 10, sent at 10.25, first text at 12, then 12.5 and 14.5, over at 16: 2 s to the first token, from when it was due."""
    sample = Sample(due_at=10.0, sent_at=10.25)
    heard, tally = exchange(loop, sample, api)
    heard.head(200)
    for at, data in STREAMS[api]:
        heard.body(event(data), at)
    heard.complete(16.0)
    found = figures(sample, tally.gaps)
    assert (2.0, 2.0, 1) == (found.ttft.min, found.ttft.max, found.ttft.count)
    assert ([0.5, 2.0], 6.0) == (list(tally.gaps), found.e2e.max)
    assert (3, 3, 9) == (sample.pieces, sample.output_tokens, sample.prompt_tokens)


def test_events_of_one_read_have_its_moment_and_one_in_pieces_that_of_its_last(
    loop: asyncio.AbstractEventLoop,
) -> None:
    sample = Sample(due_at=10.0)
    heard, tally = exchange(loop, sample)
    heard.head(200)
    text = event(ROLE) + event(WORD)
    heard.body(text[:-20], 11.0)
    heard.body(text[-20:] + event(WORD), 13.0)
    heard.complete(13.0)
    assert (3.0, [0.0]) == (sample.first_at - sample.due_at, list(tally.gaps))


def test_an_answer_of_a_server_that_counts_nothing_is_counted_by_its_events(
    loop: asyncio.AbstractEventLoop,
) -> None:
    sample = Sample(due_at=10.0)
    heard, tally = exchange(loop, sample)
    heard.head(200)
    for at in (11.0, 12.0):
        heard.body(event(WORD), at)
    heard.complete(12.0)
    found = figures(sample, tally.gaps)
    assert ("events", 2.0) == (found.tokens_counted_by, found.output_tokens)


def test_what_comes_outside_of_the_window_is_in_no_rate(loop: asyncio.AbstractEventLoop) -> None:
    sample = Sample(due_at=99.0)
    heard, tally = exchange(loop, sample)
    heard.head(200)
    heard.body(event(WORD), 99.5)
    heard.body(event(WORD), 100.0)
    heard.complete(101.0)
    assert (1, 0) == (tally.pieces, tally.answers)
    assert 2.0 == sample.ended_at - sample.due_at
