"""The gateway as a process of its own: killed, started again, told to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.gateway.control import Control
from tests.integration.gateway.gateway_process import REQUEST, ask, gateway_process
from tests.integration.gateway.upstreams import Call, Engine, model, polite
from tests.waiting import PATIENCE_S


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine("r1", polite)
    await engine.start()
    yield engine
    await engine.stop()


async def test_killed_and_started_again_without_a_controller_it_serves(folder: Path, engine: Engine) -> None:
    control = Control(folder / "control.sock")
    await control.start()
    async with gateway_process(folder) as process:
        await control.acknowledged(control.publish([engine.endpoint()], [model("m")]))
        assert (await ask(folder, REQUEST)).startswith(b"HTTP/1.1 200 ")
        await control.stop()
        process.kill()
        await process.wait()
    async with gateway_process(folder) as process:
        assert (await ask(folder, REQUEST)).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert 0 == await process.wait()
    assert not (folder / "door.sock").exists()


async def test_a_second_signal_does_not_wait_for_open_streams(folder: Path, engine: Engine) -> None:
    async def endless(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await call.gone()

    engine.behaviour = endless
    control = Control(folder / "control.sock")
    await control.start()
    async with gateway_process(folder) as process:
        await control.acknowledged(control.publish([engine.endpoint()], [model("m")]))
        reader, writer = await asyncio.open_unix_connection(str(folder / "door.sock"))
        writer.write(REQUEST)
        await reader.readuntil(b"data: 1\n\n")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    (await asyncio.open_unix_connection(str(folder / "door.sock")))[1].close()
                    await asyncio.sleep(0.01)
                    continue
                break
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            assert 0 == await process.wait()
        writer.close()
    await control.stop()
