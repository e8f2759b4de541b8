"""The HTTPS server that agents talk to (docs/reference/agent-channel.md)."""

import asyncio
import contextlib
import json
import re
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

from llmop.channel import desk, gate
from llmop.clock import Clock
from llmop.domain import endings, errors, replica

HEAD_LIMIT = 16 * 1024
BODY_LIMIT = 256 * 1024
REQUEST_S = 10.0  # for a whole message to come in
WAIT_MAX_S = 60.0
KEEP_ALIVE_S = 75
FAREWELL_S = 0.2  # for what was written last to go out
NUMBER_MAX = 2**31 - 1
JOB_ID_LENGTH = 64
HOST_LENGTH = 255
DETAIL_LENGTH = 500
LISTEN_BACKLOG = 1024

_WORD = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")


class _BadField(Exception):
    """A message that cannot be understood; names the field."""


class _TooSlow(Exception):
    """The message did not come in time, or its sender has left."""


def _text(body: Mapping[str, Any], name: str, limit: int = 300, *, within: str = "") -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > limit or not value.isprintable():
        raise _BadField(f"{within}{name}: must be text of 1 to {limit} printable characters")
    return value


def _word(body: Mapping[str, Any], name: str, limit: int, *, within: str = "") -> str:
    """Text that may become an argument of a command or part of an address."""
    value = _text(body, name, limit, within=within)
    if _WORD.fullmatch(value) is None:
        raise _BadField(f"{within}{name}: must be letters, digits and . _ : % -, the first no sign")
    return value


def _line(body: Mapping[str, Any], name: str, limit: int) -> str:
    """Text for people; it may be missing, and is cut."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise _BadField(f"{name}: must be text")
    return endings.line(value or "", limit)


def _number(body: Mapping[str, Any], name: str, *, within: str = "") -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise _BadField(f"{within}{name}: must be a whole number from 0 to {NUMBER_MAX}")
    return value


def _decimal(body: Mapping[str, Any], name: str, high: float, expected: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
        raise _BadField(f"{name}: must be {expected}")
    return float(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise _BadField(f"{name}: must be an object or null")
    return value


def claim_of(body: Mapping[str, Any]) -> desk.Claim:
    """Raises _BadField."""
    holder = _object(body, "holder")
    return desk.Claim(
        replica_uid=_text(body, "replica"),
        job_name=_text(body, "jobName"),
        job_id=_word(body, "jobId", JOB_ID_LENGTH),
        restart_count=_number(body, "restartCount"),
        holder=(
            _word(holder, "jobId", JOB_ID_LENGTH, within="holder."),
            _number(holder, "restartCount", within="holder."),
        )
        if holder is not None
        else None,
    )


def heartbeat_of(body: Mapping[str, Any], now: float) -> replica.Heartbeat:
    """Raises _BadField."""
    try:
        phase = replica.AgentPhase(_text(body, "phase"))
    except ValueError:
        raise _BadField(f"phase: must be one of {', '.join(replica.AgentPhase)}") from None
    endpoint = _object(body, "endpoint")
    port = _number(endpoint, "port", within="endpoint.") if endpoint is not None else 0
    if endpoint is not None and not 1 <= port <= 65535:
        raise _BadField("endpoint.port: must be from 1 to 65535")
    end = _object(body, "exit")
    if end is not None and phase is not replica.AgentPhase.ENDED:
        raise _BadField("exit: comes with the phase ended only")
    _text(body, "jobName")
    return replica.Heartbeat(
        replica_uid=_text(body, "replica"),
        job_id=_word(body, "jobId", JOB_ID_LENGTH),
        restart_count=_number(body, "restartCount"),
        phase=phase,
        received_at=now,
        seq=_number(body, "seq"),
        node=_line(body, "node", endings.NODE_LENGTH),
        host=_word(endpoint, "host", HOST_LENGTH, within="endpoint.") if endpoint is not None else "",
        port=port,
        engine_restarts=_number(body, "engineRestarts") if body.get("engineRestarts") is not None else 0,
        connections=_number(body, "connections") if body.get("connections") is not None else 0,
        progress=_decimal(body, "progress", 1.0, "a number from 0 to 1, or null"),
        detail=_line(body, "detail", DETAIL_LENGTH),
        end=_end_of(end) if end is not None else None,
    )


def _end_of(data: Mapping[str, Any]) -> replica.End:
    try:
        return endings.end_of(data)
    except KeyError as error:
        raise _BadField(f"exit.{error.args[0]}: is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _BadField(f"exit: cannot be used: {error}") from error


def make_app(at: desk.Desk, clock: Clock) -> Starlette:
    """The two messages of the channel."""

    async def claim(request: Request) -> JSONResponse:
        return await _answer(request, _claim)

    async def _claim(body: Mapping[str, Any], token: str, guest: gate.Guest) -> dict[str, Any]:
        reply = await at.claim(claim_of(body), token)
        guest.known()
        return reply

    async def heartbeat(request: Request) -> JSONResponse:
        return await _answer(request, _heartbeat)

    async def _heartbeat(body: Mapping[str, Any], token: str, guest: gate.Guest) -> dict[str, Any]:
        beat = heartbeat_of(body, clock.now())
        wait_s = _decimal(body, "wait", NUMBER_MAX, "seconds, not negative") or 0.0
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
    except _BadField as error:
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
            if len(content) > BODY_LIMIT:
                raise _BadField(f"body: must be at most {BODY_LIMIT} bytes")
    except ClientDisconnect as error:
        raise _TooSlow from error
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise _BadField("body: must be JSON") from None
    if not isinstance(body, dict):
        raise _BadField("body: must be a JSON object")
    return body


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
