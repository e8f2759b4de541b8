"""The HTTPS server that agents talk to (docs/reference/agent-channel.md)."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llmop.channel import desk
from llmop.clock import Clock
from llmop.domain import endings, errors, replica

BODY_LIMIT = 256 * 1024
WAIT_MAX_S = 60.0
LISTEN_BACKLOG = 1024


class _BadField(Exception):
    """A message that cannot be understood; names the field."""


def _text(body: Mapping[str, Any], name: str, limit: int = 300) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > limit:
        raise _BadField(f"{name}: must be text of 1 to {limit} characters")
    return value


def _number(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _BadField(f"{name}: must be a number that is not negative")
    return value


def claim_of(body: Mapping[str, Any]) -> desk.Claim:
    """Raises _BadField."""
    holder = body.get("holder")
    if holder is not None and not isinstance(holder, dict):
        raise _BadField("holder: must be an object or null")
    return desk.Claim(
        replica_uid=_text(body, "replica"),
        job_name=_text(body, "jobName"),
        job_id=_text(body, "jobId"),
        restart_count=_number(body, "restartCount"),
        holder=(_text(holder, "jobId"), _number(holder, "restartCount")) if holder is not None else None,
    )


def heartbeat_of(body: Mapping[str, Any], now: float) -> replica.Heartbeat:
    """Raises _BadField."""
    try:
        phase = replica.AgentPhase(_text(body, "phase"))
    except ValueError:
        raise _BadField(f"phase: must be one of {', '.join(replica.AgentPhase)}") from None
    endpoint = body.get("endpoint")
    if endpoint is not None and not isinstance(endpoint, dict):
        raise _BadField("endpoint: must be an object or null")
    port = _number(endpoint, "port") if endpoint is not None else 0
    if port > 65535:
        raise _BadField("endpoint.port: must be at most 65535")
    progress = body.get("progress")
    if progress is not None and not isinstance(progress, int | float):
        raise _BadField("progress: must be a number from 0 to 1, or null")
    return replica.Heartbeat(
        replica_uid=_text(body, "replica"),
        job_id=_text(body, "jobId"),
        restart_count=_number(body, "restartCount"),
        phase=phase,
        received_at=now,
        seq=_number(body, "seq"),
        node=str(body.get("node", ""))[:100],
        host=_text(endpoint, "host") if endpoint is not None else "",
        port=port,
        engine_restarts=_number(body, "engineRestarts") if "engineRestarts" in body else 0,
        connections=_number(body, "connections") if body.get("connections") is not None else 0,
        progress=float(progress) if progress is not None else None,
        detail=str(body.get("detail") or "")[:500],
        end=_end_of(body["exit"]) if body.get("exit") else None,
    )


def _end_of(data: Any) -> replica.End:
    try:
        return endings.end_of(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _BadField(f"exit: cannot be used: {error}") from error


def make_app(at: desk.Desk, clock: Clock) -> Starlette:
    """The two messages of the channel."""

    async def claim(request: Request) -> JSONResponse:
        return await _answer(request, _claim)

    async def _claim(body: Mapping[str, Any], token: str) -> dict[str, Any]:
        return await at.claim(claim_of(body), token)

    async def heartbeat(request: Request) -> JSONResponse:
        return await _answer(request, _heartbeat)

    async def _heartbeat(body: Mapping[str, Any], token: str) -> dict[str, Any]:
        beat = heartbeat_of(body, clock.now())
        wait_s = body.get("wait", 0)
        if not isinstance(wait_s, int | float) or isinstance(wait_s, bool) or wait_s < 0:
            raise _BadField("wait: must be seconds, not negative")
        await at.heartbeat(beat, token)
        orders = await at.orders(beat.replica_uid, min(float(wait_s), WAIT_MAX_S))
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
        return JSONResponse(await handle(await _body(request), token))
    except _BadField as error:
        return JSONResponse({"error": str(error)}, 400)
    except desk.Refused as error:
        content = {"error": str(error)}
        if error.status == 409:
            content["verdict"] = "superseded"
        return JSONResponse(content, error.status)
    except errors.LlmopError as error:
        return JSONResponse({"error": str(error)}, 503)


async def _body(request: Request) -> Mapping[str, Any]:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > BODY_LIMIT:
            raise _BadField(f"body: must be at most {BODY_LIMIT} bytes")
    try:
        body = json.loads(content)
    except ValueError:
        raise _BadField("body: must be JSON") from None
    if not isinstance(body, dict):
        raise _BadField("body: must be a JSON object")
    return body


class _Server(uvicorn.Server):
    """Signals are the daemon's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """Listens from `start` to `stop` in the running loop."""

    def __init__(
        self, at: desk.Desk, clock: Clock, certificate: Path, key: Path, host: str, port: int
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self._socket.listen(LISTEN_BACKLOG)
        self._socket.setblocking(False)
        config = uvicorn.Config(
            make_app(at, clock),
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=75,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="agent listener")
        await self._server.is_up.wait()

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
