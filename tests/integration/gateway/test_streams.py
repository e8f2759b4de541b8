"""Streams: event by event, with back-pressure, cancelled when the client leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
from pathlib import Path

import pytest
from tests.integration.gateway.rig import Rig, gateway_rig
from tests.integration.gateway.upstreams import Call, polite
from tests.waiting import PATIENCE_S

from llmop.gateway.exchange import Exchange
from llmop.gateway.relay import Relay
from llmop.gateway.settings import Timeouts


async def test_each_event_goes_out_when_it_comes(rig: Rig) -> None:
    seen = asyncio.Semaphore(0)

    async def stepwise(call: Call) -> None:
        await call.begin_stream()
        for number in range(3):
            await call.chunk(b"data: %d\n\n" % number)
            await seen.acquire()
        await call.end_stream()

    await rig.serve(stepwise)
    wire = await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    status, headers = await wire.head()
    assert (200, "text/event-stream") == (status, headers["content-type"])
    for number in range(3):
        assert b"data: %d\n\n" % number == await wire.chunk()
        seen.release()
    assert b"" == await wire.chunk()


async def test_the_engine_hears_at_once_that_the_client_is_gone(rig: Rig) -> None:
    gone = asyncio.Event()

    async def endless(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await call.gone()
        gone.set()

    await rig.serve(endless)
    wire = await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    await wire.head()
    wire.close()
    async with asyncio.timeout(PATIENCE_S):
        await gone.wait()
    await rig.until_metric('llmop_gateway_requests_total{code="gone",dialect="tgi",model="m"}', 1.0)
    await rig.until_metric('llmop_gateway_in_flight{model="m"}', 0.0)


async def test_the_engine_hears_it_also_before_it_answered(rig: Rig) -> None:
    gone = asyncio.Event()

    async def silent(call: Call) -> None:
        await call.gone()
        gone.set()

    (engine,) = await rig.serve(silent)
    wire = await rig.wire()
    await wire.send(rig.request())
    await engine.until(lambda engine: len(engine.calls) == 1)
    wire.close()
    async with asyncio.timeout(PATIENCE_S):
        await gone.wait()


async def test_a_slow_reader_slows_the_engine_and_gets_everything(rig: Rig) -> None:
    sent = 0
    piece = b"data: " + b"x" * 65_000 + b"\n\n"
    pieces = 600

    async def flood(call: Call) -> None:
        nonlocal sent
        await call.begin_stream()
        for _ in range(pieces):
            await call.chunk(piece)
            sent += 1
        await call.end_stream()

    await rig.serve(flood)
    wire = await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    await wire.head()
    before = -1
    while sent != before:  # until nothing moves any more
        before = sent
        await asyncio.sleep(0.2)
    assert sent < pieces
    received = 0
    while chunk := await wire.chunk():
        received += len(chunk)
    assert pieces * len(piece) == received


async def test_streams_survive_a_change_of_the_table(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def two_parts(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await go_on.wait()
        await call.chunk(b"data: 2\n\n")
        await call.end_stream()

    await rig.serve(two_parts)
    wire = await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    await wire.head()
    await wire.chunk()
    await rig.serve(polite)
    assert "r2" == (await rig.ask()).headers["x-llmop-replica"]
    go_on.set()
    assert [b"data: 2\n\n", b""] == [await wire.chunk(), await wire.chunk()]


async def test_silence_in_the_middle_of_a_stream_ends_it(folder: Path) -> None:
    async def stuck(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await call.gone()

    async with gateway_rig(folder, timeouts=Timeouts(stream_idle=0.5, shutdown=1)) as rig:
        await rig.serve(stuck)
        answer = await rig.ask("/v1/completions", b'{"model":"m","stream":true}')
        assert not answer.whole
        assert b'"code":"stream_broken"' in answer.body
        assert 1.0 == await rig.metric('llmop_gateway_upstream_errors_total{class="idle",model="m"}')


async def test_an_open_stream_is_finished_before_the_gateway_stops(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def two_parts(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await go_on.wait()
        await call.chunk(b"data: 2\n\n")
        await call.end_stream()

    rig.settings = dataclasses.replace(rig.settings, timeouts=Timeouts(shutdown=60))
    await rig.stop()
    await rig.start()
    await rig.serve(two_parts)
    wire = await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    await wire.head()
    await wire.chunk()
    stopping = asyncio.create_task(rig.stop())
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", rig.port))[1].close()
            except OSError:
                break
            await asyncio.sleep(0.01)
    go_on.set()
    assert [b"data: 2\n\n", b""] == [await wire.chunk(), await wire.chunk()]
    assert b"" == await wire.ended()
    await stopping


async def test_a_stream_that_goes_on_is_cut_off_and_counted(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async def endless(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await call.gone()

    await rig.serve(endless, endless)
    wire, idle = await rig.wire(), await rig.wire()
    await wire.send(rig.request("/generate_stream", b"{}"))
    replica = (await wire.head())[1]["x-llmop-replica"]
    await wire.chunk()
    for name in ("r1", "r2"):
        series = f'llmop_gateway_replica_in_flight{{deployment="default/d",replica="{name}"}}'
        assert float(name == replica) == await rig.metric(series)
    with caplog.at_level(logging.WARNING):
        await rig.stop()
    assert ["answers are cut off: 1, 1 s after the stop"] == caplog.messages
    assert [b"", b""] == [await wire.ended(), await idle.ended()]


async def test_nothing_of_a_stream_is_left_to_the_garbage_collection(rig: Rig) -> None:
    """Which would stop all other streams while it looks for it."""

    async def short(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await call.end_stream()

    await rig.serve(short)
    gc.collect()
    gc.disable()
    try:
        assert 200 == (await rig.ask("/generate_stream", b"{}")).status
        assert not [found for found in gc.get_objects() if isinstance(found, Exchange | Relay)]
    finally:
        gc.enable()
