"""The HTTPS server that agents talk to (docs/reference/agent-channel.md)."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmop.channel import desk, gate, messages
from llmop.clock import Clock
from llmop.domain import errors

HEAD_LIMIT = 16 * 1024
REQUEST_S = 10.0  # for a whole message to come in
WAIT_MAX_S = 60.0
KEEP_ALIVE_S = 75
FAREWELL_S = 0.2  # for what was written last to go out
LISTEN_BACKLOG = 1024


class _TooSlow(Exception):
    """The message did not come in time, or its sender has left."""


def make_app(at: desk.Desk, clock: Clock) -> Starlette:
    """The two messages of the channel."""

    async def claim(request: Request) -> JSONResponse:
        return await _answer(request, _claim)

    async def _claim(body: Mapping[str, Any], token: str, guest: gate.Guest) -> dict[str, Any]:
        reply = await at.claim(messages.claim_of(body), token)
        guest.known()
        return reply

    async def heartbeat(request: Request) -> JSONResponse:
        return await _answer(request, _heartbeat)

    async def _heartbeat(body: Mapping[str, Any], token: str, guest: gate.Guest) -> dict[str, Any]:
        beat = messages.heartbeat_of(body, clock.now())
        wait_s = messages.wait_s(body)
        await at.heartbeat(beat, token)
        guest.known()  # before the reply, which may be held back
        orders = await at.orders(beat.replica_uid, min(wait_s, WAIT_MAX_S))
        return {"period": at.period_s, "orders": orders}

    return Starlette(
        routes=[
            Route("/agent/v1/claim", claim, methods=["POST"]),
            Route("/agent/v1/heartbeat", heartbeat, methods=["POST"]),
        ]
    )


async def _answer(request: Request, handle: Any) -> JSONResponse:
    """Every failure that is not the agent's fault is a 503: it keeps serving and tries again."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return JSONResponse({"error": "a bearer token is needed"}, 401)
    try:
        return JSONResponse(await handle(await _body(request), token, request.state.guest))
    except messages.BadField as error:
        return JSONResponse({"error": str(error)}, 400)
    except _TooSlow:
        return JSONResponse({"error": f"the message did not come within {REQUEST_S:g} s"}, 408)
    except desk.Refused as error:
        content = {"error": str(error)}
        if error.status == 409:
            content["verdict"] = "superseded"
        return JSONResponse(content, error.status)
    except errors.LlmopError as error:
        return JSONResponse({"error": str(error)}, 503)


async def _body(request: Request) -> Mapping[str, Any]:
    content = b""
    try:
        async for piece in request.stream():
            content += piece
            if len(content) > messages.BODY_LIMIT:
                raise messages.BadField(f"body: must be at most {messages.BODY_LIMIT} bytes")
    except ClientDisconnect as error:
        raise _TooSlow from error
    return messages.object_of(content)


class _Protocol(HttpToolsProtocol):
    """A connection on which a message has to come in within `REQUEST_S`, and its head within `HEAD_LIMIT` bytes.

    uvicorn bounds neither: whoever reaches the port, without any token, could hold descriptors and memory of the controller.
    """

    def __init__(self, guest: gate.Guest, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._guest = guest

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._guest.made(transport)
        self._head_bytes: int | None = 0  # of the message that comes in; None = its head is complete
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guest.gone()
        self._in_time()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > HEAD_LIMIT:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        super().on_headers_complete()
        self.scope["state"]["guest"] = self._guest  # the application's task has not begun yet

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0
        self._in_time()

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """Connections come through a gate. Signals are the daemon's business."""

    def __init__(self, config: uvicorn.Config, bound: socket.socket) -> None:
        super().__init__(config)
        self._bound = bound
        self._admitting: asyncio.Task[None] | None = None
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        context = self.config.ssl
        assert context is not None
        admission = gate.Gate(self._bound, context, self._protocol)
        self._admitting = asyncio.create_task(admission.run(), name="agent gate")
        self.is_up.set()

    def _protocol(self, guest: gate.Guest) -> asyncio.Protocol:
        return _Protocol(
            guest,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def on_tick(self, counter: int) -> bool:
        if self._admitting is not None and self._admitting.done():
            self._admitting.result()  # only an error ends it
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._admitting is not None:
            self._admitting.cancel()
        farewell = asyncio.create_task(self._farewell(), name="agent farewell")
        try:
            await super().shutdown(sockets)
        finally:
            farewell.cancel()

    async def _farewell(self) -> None:
        """An agent between two heartbeats does not look at its connection, so it does not answer the farewell of TLS: asyncio would
        wait for it, and uvicorn call that a failure.
        """
        while True:
            await asyncio.sleep(FAREWELL_S)
            for each in list(self.server_state.connections):
                if each.transport is not None and each.transport.is_closing():
                    each.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """The socket agents will come to. Raises NeedsUser when it cannot be had; port 0 is any free one."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise _not_to_be_had(host, port, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(LISTEN_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _not_to_be_had(host, port, error) from error
    return bound


def _not_to_be_had(host: str, port: int, error: Exception) -> errors.NeedsUser:
    shown = f"[{host}]" if ":" in host else host
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return errors.NeedsUser(
        "BadAgentAddress",
        f"--agent-listen {shown}:{port}: {reason}; give an address of this machine and a free port",
    )


class Listener:
    """Listens on a bound socket, which it takes over, from `start` to `stop` in the running loop."""

    def __init__(
        self, at: desk.Desk, clock: Clock, certificate: Path, key: Path, bound: socket.socket
    ) -> None:
        self._socket = bound
        config = uvicorn.Config(
            make_app(at, clock),
            loop="none",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(config, bound)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(), name="agent listener")
        up = asyncio.create_task(self._server.is_up.wait())
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done when it does not listen any more, whatever the reason; to be asked after `start`."""
        assert self._task is not None
        return self._task

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
