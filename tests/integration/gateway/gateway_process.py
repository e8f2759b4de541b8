"""A gateway as a process of its own, behind a Unix socket that asks for no key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.integration.gateway import child
from tests.integration.gateway.child import Child
from tests.waiting import PATIENCE_S, eventually

PROGRAM = """
import sys
from pathlib import Path
from llmop.gateway.main import serve
from llmop.gateway.settings import GatewaySettings
folder = Path(sys.argv[1])
serve(GatewaySettings(controller=f"unix://{folder}/control.sock", listen=f"unix:{folder}/door.sock",
                      keys_file=folder / "keys", state_dir=folder / "state"))
"""
REQUEST = b"POST /generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def gateway_process(folder: Path) -> AsyncIterator[Child]:
    process = await child.start(PROGRAM, str(folder))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(OSError):
                    await ask(folder, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                    break
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def connect(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(folder / "door.sock"))


async def metric(folder: Path, series: str) -> float:
    reader, writer = await connect(folder)
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            text = (await reader.read()).decode()
    finally:
        writer.close()
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
    return float(values[0])


async def until_metric(folder: Path, series: str, value: float) -> None:
    await eventually(lambda: metric(folder, series), lambda seen: seen == value)


async def ask(folder: Path, request: bytes) -> bytes:
    """The head of the answer."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "door.sock"))
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
