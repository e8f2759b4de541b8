"""The HTTP client of workloads, before a gateway that is written byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.gateway.upstreams import Behaviour, Call, Engine

from llmop.workloads.answers import Answer
from llmop.workloads.calls import Gateway
from llmop.workloads.judgement import Broken, Unreachable

CHAT = "/v1/chat/completions"
BODY = {"model": "m"}


class Field:
    def __init__(self) -> None:
        self.engine = Engine("gateway")

    async def ask(self, behaviour: Behaviour, key: str | None = None) -> object:
        self.engine.behaviour = behaviour
        async with Gateway(f"http://127.0.0.1:{self.engine.port}", "own-key", "bulk") as gateway:
            return await gateway.ask(CHAT, BODY, key)


@pytest.fixture
async def field() -> AsyncIterator[Field]:
    made = Field()
    await made.engine.start()
    yield made
    await made.engine.stop()


async def test_what_is_sent_and_what_is_read(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def busy(call: Call) -> None:
        await call.answer(b'{"a":1}', "429 Too Many Requests", b"retry-after: 7\r\nx-request-id: r-1\r\n")

    assert Answer(429, b'{"a":1}', "r-1", 7.0) == await field.ask(busy)
    (call,) = field.engine.calls
    assert f"POST {CHAT} HTTP/1.1" == call.line
    assert ("bulk", "Bearer own-key", b'{"model":"m"}') == (
        call.header("x-llmop-priority"),
        call.header("authorization"),
        call.body,
    )
    await field.ask(busy, "client-key")
    assert "Bearer client-key" == field.engine.calls[1].header("authorization")


async def test_redirects_are_answers(field: Field) -> None:
    async def elsewhere(call: Call) -> None:
        await call.answer(b"", "307 Temporary Redirect", b"location: http://127.0.0.1:1/\r\n")

    assert Answer(307, b"") == await field.ask(elsewhere)


async def test_answers_that_break_off_or_do_not_end_are_told_apart_from_a_gateway_that_is_away(
    field: Field,
) -> None:
    async def half(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        call.close()

    async def nothing(call: Call) -> None:
        call.close()

    async def huge(call: Call) -> None:
        await call.begin_stream()
        for _ in range(5000):
            await call.chunk(b"x" * 65536)

    for behaviour in (half, nothing, huge):
        assert isinstance(await field.ask(behaviour), Broken), behaviour
    await field.engine.stop()
    assert isinstance(await field.ask(nothing), Unreachable)


async def test_a_socket_that_is_not_there_is_a_gateway_that_is_away(tmp_path: Path) -> None:
    async with Gateway(f"unix:{tmp_path}/none.sock", "k", "bulk") as gateway:
        found = await gateway.ask(CHAT, BODY)
    assert isinstance(found, Unreachable)


async def test_a_request_that_is_cancelled_is_taken_back(field: Field) -> None:
    async def never(call: Call) -> None:
        await call.gone()

    asking = asyncio.create_task(field.ask(never))
    await field.engine.until(lambda each: each.connections == 1)
    asking.cancel()
    await field.engine.until(lambda each: each.connections == 0)
