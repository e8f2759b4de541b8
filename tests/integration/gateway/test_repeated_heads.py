"""Heads that come again on a connection, and those that only look like it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.gateway.rig import Rig, gateway_rig
from tests.integration.gateway.upstreams import Call, model, polite


async def echo(call: Call) -> None:
    await call.answer(call.body)


def body(size: int) -> bytes:
    return b'{"model":"m","x":"%b"}' % (b"x" * size)


async def test_bodies_of_any_length_follow_the_same_head(rig: Rig) -> None:
    (engine,) = await rig.serve(echo)
    wire = await rig.wire()
    for size in (1, 1, 1, 1000, 3, 200_000, 0, 5):
        await wire.send(rig.request(body=body(size)))
        answer = await wire.answer()
        assert (200, body(size), True) == (answer.status, answer.body, answer.whole)
    assert 1 == engine.opened


async def test_every_request_may_have_another_head(rig: Rig) -> None:
    (engine,) = await rig.serve(echo)
    wire = await rig.wire()
    for path, headers in (
        ("/v1/completions", {}),
        ("/v1/completions", {}),
        ("/v1/completions", {"x-request-id": "a"}),
        ("/v1/completions", {"x-request-id": "b"}),
        ("/v1/completions", {"x-request-id": "b"}),
        ("/generate", {"x-request-id": "b"}),
        ("/v1/completions", {"x-request-id": "b"}),
    ):
        await wire.send(rig.request(path, body(3), headers))
        answer = await wire.answer()
        assert (200, body(3)) == (answer.status, answer.body)
        call = engine.calls[-1]
        assert f"POST {path} HTTP/1.1" == call.line
        assert headers.get("x-request-id", answer.headers["x-request-id"]) == call.header("x-request-id")


async def test_requests_in_pieces_and_in_pairs_stay_in_step(rig: Rig) -> None:
    await rig.serve(echo)
    wire = await rig.wire()
    request = rig.request(body=body(4))
    for _ in range(3):
        await wire.send(request)
        assert body(4) == (await wire.answer()).body
        await wire.send(request[:40])
        await wire.send(request[40:] + request)
        assert [body(4), body(4)] == [(await wire.answer()).body for _ in range(2)]
        await wire.send(rig.request("/v1/models", b"", method="GET"))
        assert 200 == (await wire.answer()).status


async def test_a_key_that_is_taken_away_is_refused_on_open_connections_too(rig: Rig) -> None:
    await rig.serve(polite)
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request())
        assert 200 == (await wire.answer()).status
    rig.settings.keys_file.write_text("")
    await rig.until_refused()
    await wire.send(rig.request())
    assert 401 == (await wire.answer()).status


async def test_a_body_limit_holds_for_repeated_heads(folder: Path) -> None:
    async with gateway_rig(folder, body_limit=500) as rig:
        await rig.serve(polite)
        wire = await rig.wire()
        for size in (1, 1, 1, 600):
            await wire.send(rig.request(body=body(size)))
            assert (413 if size > 500 else 200) == (await wire.answer()).status


async def test_a_smuggled_line_in_a_head_that_looks_the_same_is_refused(rig: Rig) -> None:
    (engine,) = await rig.serve(polite)
    for evil in (
        b"content-length: 2\r\ncontent-length: 2",
        b"content-length: 2\r\ntransfer-encoding: chunked",
    ):
        wire = await rig.wire()
        for _ in range(3):
            await wire.send(rig.request("/generate", b"{}"))
            assert 200 == (await wire.answer()).status
        await wire.send(rig.request("/generate", b"{}").replace(b"content-length: 2", evil))
        assert 400 == (await wire.answer()).status
        assert b"" == await wire.ended()
    assert 6 == len(engine.calls)


@pytest.mark.parametrize(
    ("second", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n12345", b"12345"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n\r\nx", b"x"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            b"ab",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\nx",
            b"x",
        ),
    ],
)
async def test_answers_after_the_same_answers(rig: Rig, second: bytes, seen: bytes) -> None:
    async def engine_of(call: Call) -> None:
        if call.number in (4, 6):
            await call.send(second)
        else:
            await call.answer(b"{}")

    (engine,) = await rig.serve(engine_of)
    answers = [(await rig.ask()).body for _ in range(8)]
    assert [b"{}", b"{}", b"{}", seen, b"{}", seen, b"{}", b"{}"] == answers
    assert 1 == engine.opened


async def test_a_head_in_pieces_is_not_taken_for_that_of_the_next_answer(rig: Rig) -> None:
    async def moody(call: Call) -> None:
        if call.number != 4:
            await call.answer(b"{}")
            return
        await call.send(b"HTTP/1.1 40")
        await asyncio.sleep(
            0.05
        )  # most likely two reads; where it is one, nothing is proved and nothing fails
        await call.send(b"4 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n\r\nx")

    (engine,) = await rig.serve(moody)
    answers = [await rig.ask() for _ in range(6)]
    assert [(200, b"{}")] * 3 + [(404, b"x")] + [(200, b"{}")] * 2 == [
        (each.status, each.body) for each in answers
    ]
    assert 1 == engine.opened


async def test_what_follows_a_repeated_answer_is_never_the_next_one(rig: Rig) -> None:
    async def surplus(call: Call) -> None:
        more = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nevil"
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
            + (more if call.number == 3 else b"")
        )

    (engine,) = await rig.serve(surplus)
    version = rig.control.publish([engine.endpoint()], [model("m")])
    await rig.control.acknowledged(version)
    assert [b"{}"] * 6 == [(await rig.ask()).body for _ in range(6)]
    assert 2 == engine.opened
