"""The agent listener on a real socket, over a desk with a store in memory, and agents that speak HTTPS by hand."""

import asyncio
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.channel.desk_rig import Rig, job_name_of, token_of, uid_of

from llmop.channel import certificates, listener


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    body: dict[str, Any]


class Agent:
    """One connection to the listener, as agent `number`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    def message(self, **fields: Any) -> dict[str, Any]:
        """A heartbeat of job 5 that is ready; the fields of a claim are in it too."""
        return {
            "replica": uid_of(self.number),
            "jobName": job_name_of(self.number),
            "jobId": "5",
            "restartCount": 0,
            "node": "n1",
            "holder": {"jobId": "5", "restartCount": 0},
            "seq": 1,
            "phase": "ready",
            "endpoint": {"host": "10.0.0.7", "port": 8000},
            "engineRestarts": 0,
            "detail": "",
            "connections": 0,
            "progress": None,
            "wait": 0,
            **fields,
        }

    async def post(self, message: str, body: dict[str, Any] | bytes, *, token: str | None = None) -> Reply:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        bearer = token_of(self.number) if token is None else token
        self.writer.write(
            f"POST /agent/v1/{message} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {bearer}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await self.writer.drain()
        return await self.reply()

    async def beat(self, **fields: Any) -> Reply:
        return await self.post("heartbeat", self.message(**fields))

    async def claim(self, **fields: Any) -> Reply:
        return await self.post("claim", self.message(**fields))

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(
            int(line.partition(":")[2])
            for line in head.split("\r\n")
            if line.lower().startswith("content-length")
        )
        content = await self.reader.readexactly(length)
        try:
            body = json.loads(content)
        except ValueError:
            body = {"text": content.decode()}
        return Reply(status=int(head.split(" ")[1]), body=body)


class Door:
    """The listener with its desk; `ca` is what agents of this installation pin."""

    def __init__(self, rig: Rig, ca: str, at: listener.Listener) -> None:
        self.rig = rig
        self.ca = ca
        self.listener = at
        self._writers: list[asyncio.StreamWriter] = []

    async def agent(self, number: int = 1, *, ca: str | None = None) -> Agent:
        """As the real one: the CA is all it trusts, names are not checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=ca or self.ca)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port, ssl=context)
        self._writers.append(writer)
        return Agent(reader, writer, number)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    rig = Rig()
    await rig.start()
    await rig.add(1)
    await rig.add(2)
    ca, certificate, key = certificates.ensure(tmp_path / "tls", tmp_path / "tls", rig.wall_clock())
    bound = listener.bind("127.0.0.1", 0)
    at = listener.Listener(rig.desk, rig.clock, certificate, key, bound)
    await at.start()
    opened = Door(rig, ca, at)
    try:
        yield opened
    finally:
        opened.hang_up()
        rig.desk.close()
        await at.stop()
