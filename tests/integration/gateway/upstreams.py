"""Engines written by hand, byte by byte, so that they can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.waiting import PATIENCE_S

from llmop.api.v1 import gateway_pb2


@dataclasses.dataclass(kw_only=True)
class Call:
    """A request as an engine received it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int  # on its connection, from 1

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", status: str = "200 OK", extra: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (status.encode(), len(body), extra, body)
        )

    async def begin_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        self.writer.close()

    async def gone(self) -> None:
        """Returns once the gateway has closed the connection, however long that takes: the test has a deadline."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass


Behaviour = Callable[[Call], Awaitable[None]]


def waits(
    requests: int = 1000, *, megabytes: float = 64, ttl_s: int = 60, no_endpoint_ttl_s: int = 600
) -> gateway_pb2.Queue:
    """The bounds of a queue."""
    return gateway_pb2.Queue(
        max_requests=requests,
        max_bytes=int(megabytes * 1024 * 1024),
        request_ttl_s=ttl_s,
        no_endpoint_request_ttl_s=no_endpoint_ttl_s,
    )


class Gate:
    """A behaviour that answers when it is let: as many calls as were let through. `most` is how many were there at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self._passes = asyncio.Semaphore(0)

    def let(self, number: int) -> None:
        for _ in range(number):
            self._passes.release()

    async def __call__(self, call: Call) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._passes.acquire()
        finally:
            self.now -= 1
        await answer_any(call)


async def answer_any(call: Call) -> None:
    """A short answer in the form that was asked for."""
    if b'"stream":true' in call.body or "generate_stream" in call.line:
        await call.begin_stream()
        await call.chunk(b'data: {"token":1}\n\n')
        await call.chunk(b"data: [DONE]\n\n")
        await call.end_stream()
    else:
        await call.answer(b'{"ok":true}')


async def polite(call: Call) -> None:
    await call.answer(b'{"ok":true}')


class Engine:
    """`calls` are all requests that came; `connections` counts those that are open."""

    def __init__(self, name: str, behaviour: Behaviour = polite, key: str = "replica-key") -> None:
        self.name = name
        self.behaviour = behaviour
        self.key = key
        self.calls: list[Call] = []
        self.connections = 0
        self.opened = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def start(self, path: Path | None = None) -> None:
        """At `path` it stands for `llmop workloads`."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(path))
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, true: Callable[[Engine], bool]) -> None:
        """Returns once something holds of this engine."""
        async with asyncio.timeout(PATIENCE_S):
            while not true(self):
                await self._changed.wait()

    def endpoint(
        self,
        state: gateway_pb2.Endpoint.State = gateway_pb2.Endpoint.STATE_READY,
        deployment: str = "default/d",
    ) -> gateway_pb2.Endpoint:
        return endpoint(self.name, self.port, key=self.key, deployment=deployment, state=state)

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.opened += 1
        self._change()
        try:
            number = 0
            while not writer.is_closing():
                number += 1
                call = await self._read(reader, writer, number)
                self.calls.append(call)
                self._change()
                await self._respond(call)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.connections -= 1
            self._change()
            self._tasks.discard(task)
            writer.close()

    async def _respond(self, call: Call) -> None:
        await self.behaviour(call)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (field.partition(": ") for field in fields)]
        call = Call(line=line, headers=headers, body=b"", reader=reader, writer=writer, number=number)
        call.body = await reader.readexactly(int(call.header("content-length") or 0))
        return call


def endpoint(
    name: str,
    port: int,
    *,
    key: str = "",
    deployment: str = "default/d",
    state: gateway_pb2.Endpoint.State = gateway_pb2.Endpoint.STATE_READY,
) -> gateway_pb2.Endpoint:
    """A replica on this machine."""
    return gateway_pb2.Endpoint(
        replica=name,
        uid=f"uid-{name}",
        host="127.0.0.1",
        port=port,
        api_key=key,
        state=state,
        deployment=deployment,
    )


class Workloads(Engine):
    """Stands for `llmop workloads`. `needs` says what each virtual model asks that it knows."""

    def __init__(self) -> None:
        super().__init__("workloads")
        self.needs: dict[str, dict[str, list[str]]] = {}

    async def _respond(self, call: Call) -> None:
        if call.line == "GET /virtual-models HTTP/1.1":
            await call.answer(json.dumps(self.needs).encode())
        else:
            await super()._respond(call)


def asks(*models: str, missing: Sequence[str] = ()) -> dict[str, list[str]]:
    """What `llmop workloads` says of a virtual model."""
    return {"models": list(models), "missing_stores": list(missing)}


def model(
    name: str = "m",
    *protocols: str,
    deployment: str = "default/d",
    upstream_model: str = "",
    retry_attempts: int = 2,
    usage_in_stream: bool = False,
    max_in_flight: int = 0,
    queue: gateway_pb2.Queue | None = None,
    next_replica: gateway_pb2.NextReplica | None = None,
    virtual: bool = False,
    wakes: bool = False,
) -> gateway_pb2.Model:
    """Without `queue` requests do not wait."""
    return gateway_pb2.Model(
        name=name,
        deployment=deployment,
        protocols=protocols or ("openai", "tgi"),
        created_at=1_700_000_000,
        retry_attempts=retry_attempts,
        upstream_model=upstream_model,
        usage_in_stream=usage_in_stream,
        max_in_flight=max_in_flight,
        queue=queue,
        next_replica=next_replica,
        virtual=virtual,
        wakes=wakes,
    )
