"""What a client hears while it waits, and instead of an answer."""

from __future__ import annotations

import dataclasses

import pytest

from llmop.domain.endpoint import NextReplica, RoutedModel, Stage
from llmop.gateway import waiting
from llmop.gateway.dispatch import Dropped
from llmop.gateway.routes import find_route

NOW = 1000.0
MODEL = RoutedModel(name="m", deployment="default/d", protocols=("openai",), created_at=0.0)


def coming(stage: Stage, starts_at: float | None = None, ready_at: float | None = None) -> RoutedModel:
    return dataclasses.replace(
        MODEL, next_replica=NextReplica(stage=stage, starts_at=starts_at, ready_at=ready_at)
    )


@pytest.mark.parametrize(
    "model, seconds, words",
    [
        (MODEL, 10, "and none is on its way yet"),
        (coming(Stage.PENDING), 10, "one waits for its job to start;"),
        (coming(Stage.PENDING, 1040), 40, "one waits for its job to start, about in ~40 s"),
        (coming(Stage.PENDING, 1040, 1100), 100, "one waits for its job to start, about in ~40 s"),
        (coming(Stage.LOADING, ready_at=1600), 600, "one is loading, ready in ~10 min"),
        (coming(Stage.LOADING, ready_at=900), 10, "one is loading;"),
        (coming(Stage.PENDING, 100_000, 100_100), 3600, "in ~1650 min"),
    ],
)
def test_without_an_endpoint_it_is_503_and_says_when_to_come_back(
    model: RoutedModel, seconds: int, words: str
) -> None:
    refusal = waiting.refusal(model, Dropped.TTL_EXPIRED, has_endpoints=False, retry_after=3, now=NOW)
    assert (refusal.status, refusal.code, refusal.dropped) == (503, "no_endpoint", "ttl_expired")
    assert refusal.retry_after == seconds
    assert words in refusal.message


@pytest.mark.parametrize("why", [Dropped.SATURATED, Dropped.QUEUE_FULL, Dropped.TTL_EXPIRED])
def test_with_endpoints_it_is_429_after_the_time_of_the_queue(why: Dropped) -> None:
    refusal = waiting.refusal(MODEL, why, has_endpoints=True, retry_after=7, now=NOW)
    assert (refusal.status, refusal.code, refusal.dropped, refusal.retry_after) == (429, "saturated", why, 7)


@pytest.mark.parametrize("has_endpoints", [False, True])
def test_a_gateway_that_ends_is_503(has_endpoints: bool) -> None:
    refusal = waiting.refusal(
        MODEL, Dropped.SHUTTING_DOWN, has_endpoints=has_endpoints, retry_after=1, now=NOW
    )
    assert (refusal.status, refusal.dropped) == (503, "shutting_down")


@pytest.mark.parametrize(
    "model, has_endpoints, text",
    [
        (coming(Stage.LOADING), True, b": queued 3\n\n"),
        (MODEL, False, b": waiting for a replica\n\n"),
        (coming(Stage.PENDING, 1040), False, b": pending, starts in ~40 s\n\n"),
        (coming(Stage.PENDING), False, b": pending\n\n"),
        (coming(Stage.LOADING), False, b": loading\n\n"),
        (coming(Stage.LOADING, ready_at=1020), False, b": loading, ready in ~20 s\n\n"),
        (coming(Stage.LOADING, ready_at=999), False, b": loading\n\n"),
    ],
)
def test_comments(model: RoutedModel, has_endpoints: bool, text: bytes) -> None:
    assert waiting.comment(model.next_replica, 3, has_endpoints=has_endpoints, now=NOW) == text


@pytest.mark.parametrize(
    "path, body, streams",
    [
        (b"/v1/chat/completions", b'{"stream":true}', True),
        (b"/v1/completions", b'{"stream":false}', False),
        (b"/v1/completions", b"[]", False),
        (b"/v1/completions", b"{", False),
        (b"/v1/embeddings", b'{"stream":true}', False),
        (b"/generate_stream", b"{}", True),
        (b"/models/m/generate_stream?x=1", b"{}", True),
        (b"/generate", b'{"stream":true}', False),
    ],
)
def test_who_wants_a_stream(path: bytes, body: bytes, streams: bool) -> None:
    route = find_route(b"POST", path)
    assert route is not None
    assert waiting.wants_stream(route, body) is streams


def test_an_engines_answer_becomes_one_event_whatever_it_is() -> None:
    route = find_route(b"POST", b"/generate_stream")
    assert route is not None
    assert waiting.as_event(422, b'{\n "error": "x"}', route) == b'data: {"error":"x"}\n\n'
    event = waiting.as_event(500, b"<html>\n\n\xff", route)
    assert event.startswith(b'data: {"error":"the replica answered with the status 500: <html>')
    assert event.count(b"\n") == 2
