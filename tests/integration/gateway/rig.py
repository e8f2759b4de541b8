"""A gateway in the test's own loop, between hand-written engines and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
from tests.integration.gateway.control import Control
from tests.integration.gateway.upstreams import Behaviour, Engine, model, polite
from tests.waiting import PATIENCE_S, eventually

from llmop.gateway import keys
from llmop.gateway.main import run
from llmop.gateway.settings import BODY_LIMIT, GatewaySettings, Timeouts


@dataclasses.dataclass(kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool  # the framing says that nothing is missing

    def json(self) -> Any:
        return orjson.loads(self.body)


class Wire:
    """A client's connection, in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        assert "content-length" not in headers or "transfer-encoding" not in headers
        return int(line.split(" ")[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk of an answer; empty is the last one."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self, bodiless: bool = False) -> Answer:
        status, headers = await self.head()
        body = b""
        whole = True
        try:
            async with asyncio.timeout(PATIENCE_S):
                if bodiless or status in (204, 304):
                    pass
                elif "content-length" in headers:
                    body = await self.reader.readexactly(int(headers["content-length"]))
                elif "transfer-encoding" in headers:
                    while piece := await self.chunk():
                        body += piece
                else:
                    body = await self.reader.read()
        except asyncio.IncompleteReadError as error:
            whole = False
            body += error.partial
        return Answer(status=status, headers=headers, body=body, whole=whole)

    async def ended(self) -> bytes:
        """What still comes until the gateway closes."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self.writer.close()


@dataclasses.dataclass(kw_only=True)
class Rig:
    control: Control
    key: str
    state_dir: Path
    address: str = ""
    engines: list[Engine] = dataclasses.field(default_factory=list)
    wires: list[Wire] = dataclasses.field(default_factory=list)
    settings: GatewaySettings
    _stop: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stop = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(run(self.settings, stop=self._stop, ready=ready.set_result))
        self._task.add_done_callback(lambda _: ready.cancel())
        await asyncio.wait([ready])
        if ready.cancelled():
            task, self._task = self._task, None
            await task
        self.address = await ready

    async def stop(self) -> None:
        if self._task is not None:
            self._stop.set()
            task, self._task = self._task, None
            async with asyncio.timeout(PATIENCE_S):
                await task

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def engine(self, behaviour: Behaviour = polite, name: str = "") -> Engine:
        engine = Engine(name or f"r{len(self.engines) + 1}", behaviour)
        await engine.start()
        self.engines.append(engine)
        return engine

    async def serve(self, *behaviours: Behaviour, **options: Any) -> list[Engine]:
        """One model "m" with an engine per behaviour; returns when the gateway acts on it."""
        engines = [await self.engine(behaviour) for behaviour in behaviours]
        await self.publish(*engines, **options)
        return engines

    async def publish(self, *engines: Engine, **options: Any) -> None:
        """These serve the model "m" from now on."""
        version = self.control.publish([engine.endpoint() for engine in engines], [model("m", **options)])
        await self.control.acknowledged(version)

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    def request(
        self,
        path: str = "/v1/chat/completions",
        body: bytes = b'{"model":"m","messages":[]}',
        headers: dict[str, str] | None = None,
        method: str = "POST",
    ) -> bytes:
        fields = {
            "host": "gateway",
            "authorization": f"Bearer {self.key}",
            "content-length": str(len(body)),
        } | (headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    async def ask(self, *args: Any, **options: Any) -> Answer:
        """One request on a connection of its own."""
        wire = await self.wire()
        await wire.send(self.request(*args, **options))
        answer = await wire.answer(bodiless=options.get("method") == "HEAD")
        wire.close()
        return answer

    async def metric(self, series: str) -> float:
        answer = await self.ask("/metrics", b"", method="GET")
        for line in answer.body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        raise AssertionError(f"no series {series}")

    async def until_refused(self) -> None:
        """Returns once the gateway knows the key no more."""
        await eventually(
            lambda: self.ask("/v1/models", b"", method="GET"), lambda answer: answer.status == 401
        )

    async def until_known(self, key: str) -> None:
        """Returns once the gateway knows this one: it reads its keys once a second."""
        bearer = {"authorization": f"Bearer {key}"}
        await eventually(
            lambda: self.ask("/v1/models", b"", bearer, method="GET"), lambda answer: answer.status != 401
        )

    async def until_metric(self, series: str, value: float) -> None:
        await eventually(lambda: self.metric(series), lambda seen: seen == value)

    async def until_at_least(self, series: str, value: float) -> None:
        """Of what may go on rising."""
        await eventually(lambda: self.metric(series), lambda seen: seen >= value)


@contextlib.asynccontextmanager
async def gateway_rig(
    folder: Path,
    timeouts: Timeouts = Timeouts(shutdown=1),
    body_limit: int = BODY_LIMIT,
    workloads: Path | None = None,
) -> AsyncIterator[Rig]:
    control = Control(folder / "control.sock")
    await control.start()
    key = keys.create(folder / "keys", "test")
    rig = Rig(
        control=control,
        key=key,
        state_dir=folder / "state",
        settings=GatewaySettings(
            controller=control.target,
            listen="127.0.0.1:0",
            keys_file=folder / "keys",
            state_dir=folder / "state",
            workloads=workloads,
            name="gateway-1",
            timeouts=timeouts,
            body_limit=body_limit,
        ),
    )
    try:
        await rig.start()
        yield rig
    finally:
        for wire in rig.wires:
            wire.close()
        await rig.stop()
        await control.stop()
        for engine in rig.engines:
            await engine.stop()
