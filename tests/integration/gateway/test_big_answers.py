"""Answers of any size pass through little memory, at the pace of whoever reads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.gateway.control import Control
from tests.integration.gateway.gateway_process import gateway_process
from tests.integration.gateway.upstreams import Behaviour, Call, Engine, model

SIZE = 100 * 1024 * 1024
ROOM_KB = 20 * 1024
PIECE = bytes(range(256)) * 1024
REQUEST = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def memory_kb(pid: int, name: str) -> int:
    """VmRSS: resident now, VmHWM: the most that it ever was (proc(5) status)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))


async def with_length(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % SIZE)
    for _ in range(SIZE // len(PIECE)):
        await call.send(PIECE)


async def in_chunks(call: Call) -> None:
    await call.begin_stream()
    await call.chunk(b"data: 1\n\n")
    for _ in range(SIZE // len(PIECE)):
        await call.chunk(PIECE)
    await call.end_stream()


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine("r1")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.mark.parametrize("behaviour", [with_length, in_chunks])
async def test_a_hundred_megabytes(folder: Path, engine: Engine, behaviour: Behaviour) -> None:
    engine.behaviour = behaviour
    control = Control(folder / "control.sock")
    await control.start()
    async with gateway_process(folder) as process:
        await control.acknowledged(control.publish([engine.endpoint()], [model("m")]))
        before = memory_kb(process.pid, "VmHWM")
        reader, writer = await asyncio.open_unix_connection(str(folder / "door.sock"))
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        # Nobody reads for a while: what the engine has sent waits in sockets, not in the gateway.
        read = -1
        while read != (read := memory_kb(process.pid, "VmRSS")):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.2)
        body = hashlib.sha256()
        if b"content-length" in head:
            left = SIZE
            while left:
                piece = await reader.read(min(left, 1 << 20))
                left -= len(piece)
                body.update(piece)
        else:
            first = True
            while size := int(await reader.readuntil(b"\r\n"), 16):
                piece = (await reader.readexactly(size + 2))[:-2]
                body.update(piece.removeprefix(b"data: 1\n\n") if first else piece)
                first = False
        writer.close()
        assert hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest() == body.digest()
        assert memory_kb(process.pid, "VmHWM") - before < ROOM_KB
    await control.stop()


async def test_who_leaves_in_the_middle_stops_the_engine(folder: Path, engine: Engine) -> None:
    engine.behaviour = with_length
    control = Control(folder / "control.sock")
    await control.start()
    async with gateway_process(folder):
        await control.acknowledged(control.publish([engine.endpoint()], [model("m")]))
        reader, writer = await asyncio.open_unix_connection(str(folder / "door.sock"))
        writer.write(REQUEST)
        await reader.readexactly(1 << 20)
        writer.close()
        await engine.until(lambda engine: engine.connections == 0)
    await control.stop()
