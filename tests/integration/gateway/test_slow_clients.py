"""Clients that drip, and clients that do not read: they are let go, and nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.gateway.rig import Rig, Wire, gateway_rig
from tests.integration.gateway.upstreams import Call, polite

from llmop.gateway.settings import Timeouts

SHORT = Timeouts(head=0.4, body_idle=0.4, stream_idle=0.4, linger=0.3, shutdown=1)


async def drip(wire: Wire, data: bytes) -> None:
    """A byte now and then, until the gateway has had enough."""
    for place in range(len(data)):
        try:
            await wire.send(data[place : place + 1])
        except OSError:
            return
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("before", "dripped", "reason"),
    [
        (b"", b"POST /generate HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 200, "slow_head"),
        (
            b"POST /generate HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ncontent-length: 100000\r\n\r\n",
            b"x" * 200,
            "slow_body",
        ),
        (
            b"POST /generate HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n" * 40,
            "slow_body",
        ),
    ],
)
async def test_a_byte_now_and_then_does_not_keep_a_connection(
    folder: Path, before: bytes, dripped: bytes, reason: str
) -> None:
    async with gateway_rig(folder, timeouts=SHORT) as rig:
        await rig.serve(polite)
        wire = await rig.wire()
        await wire.send(before.replace(b"KEY", rig.key.encode()))
        dripping = asyncio.create_task(drip(wire, dripped))
        assert 408 == (await wire.answer()).status
        await wire.ended()
        dripping.cancel()
        assert 1.0 == await rig.metric(f'llmop_gateway_refused_connections_total{{reason="{reason}"}}')


async def test_others_are_served_beside_a_crowd_of_slow_ones(rig: Rig) -> None:
    await rig.serve(polite)
    for _ in range(200):
        wire = await rig.wire()
        await wire.send(b"POST /generate HTTP/1.1\r\nhost")
    for _ in range(10):
        assert 200 == (await rig.ask()).status


async def test_a_client_that_never_reads_is_let_go_and_its_engine_with_it(folder: Path) -> None:
    async def flood(call: Call) -> None:
        await call.begin_stream()
        while True:
            await call.chunk(b"data: " + b"x" * 65_000 + b"\n\n")

    async with gateway_rig(folder, timeouts=SHORT) as rig:
        (engine,) = await rig.serve(flood)
        wire = await rig.wire()
        await wire.send(rig.request("/generate_stream", b"{}"))
        await engine.until(lambda engine: len(engine.calls) == 1)
        await engine.until(lambda engine: engine.connections == 0)
        await rig.until_metric('llmop_gateway_refused_connections_total{reason="slow_reader"}', 1.0)
        await rig.until_metric('llmop_gateway_in_flight{model="m"}', 0.0)


async def test_a_client_that_asks_and_asks_and_never_reads_is_not_read_any_more(rig: Rig) -> None:
    """Its requests wait in its socket, and so do not become memory of the gateway."""

    async def big(call: Call) -> None:
        await call.answer(b"x" * 1_000_000)

    (engine,) = await rig.serve(big)
    wire = await rig.wire()
    request = rig.request("/generate", b"x" * 10_000)
    sending = asyncio.create_task(wire.send(request * 5_000))
    await engine.until(lambda engine: len(engine.calls) >= 1)
    before = -1
    while len(engine.calls) != before:  # until nothing moves any more
        before = len(engine.calls)
        await asyncio.sleep(0.3)
    assert len(engine.calls) < 100
    assert not sending.done()
    sending.cancel()


async def test_what_waits_behind_a_client_that_left_is_never_asked(rig: Rig) -> None:
    async def silent(call: Call) -> None:
        await call.gone()

    (engine,) = await rig.serve(silent)
    wire = await rig.wire()
    await wire.send(rig.request() * 3)
    await engine.until(lambda engine: len(engine.calls) == 1)
    wire.close()
    await engine.until(lambda engine: engine.connections == 0)
    await rig.until_metric('llmop_gateway_in_flight{model="m"}', 0.0)
    assert 1 == len(engine.calls)
