"""The few routes beside the hot path, as an ASGI application. Keys were checked before a request gets here."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmop.clock import Clock
from llmop.domain.endpoint import EndpointState, RoutedModel
from llmop.gateway import errors, listing, operations
from llmop.gateway.errors import Dialect, Refusal
from llmop.gateway.forward import PATHS, Forward
from llmop.gateway.heads import is_request_id
from llmop.gateway.listing import Served
from llmop.gateway.metrics import Counts, CountsCollector, Gauges
from llmop.gateway.needs import KnownNeeds
from llmop.gateway.page import serve as page
from llmop.gateway.routes import find_route
from llmop.gateway.worker import Worker

_HOT = (
    "POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/tribunal, /generate, /generate_stream, /, /tokenize, /chat_tokenize "
    "and GET /info"
)
_COLD = "GET / (the chat page), /v1/models, /healthz, /metrics, /v1/operations, and /v1/files, /v1/batches, /v1/vector_stores, /v1/bulk"
_SERVING = (EndpointState.READY.value, EndpointState.SUSPECT.value)
_METHODS = (b"GET", b"POST")  # /models/<name>/info is also a name that POST would take

Answer = Callable[[Request], Awaitable[Response]]


class Presence:
    """Whether the controller answers, and when it last confirmed the table (epoch seconds, None: never)."""

    def __init__(self) -> None:
        self.connected = False
        self.confirmed_at: float | None = None


class WorkerGauges(Gauges):
    def __init__(self, worker: Worker, presence: Presence) -> None:
        self._worker = worker
        self._presence = presence

    def endpoints(self) -> list[tuple[str, str, int]]:
        states = self._worker.fleet.states(self._worker.loop.time())
        return [(deployment, state, number) for (deployment, state), number in states.items()]

    def loads(self) -> list[tuple[str, str, int]]:
        return self._worker.fleet.loads()

    def table(self) -> tuple[int, float]:
        received = self._worker.fleet.received
        if received is None:
            return -1, -1.0
        confirmed_at = self._presence.confirmed_at or received.received_at
        return received.table.version, max(0.0, self._worker.clock.now() - confirmed_at)

    def connected(self) -> bool:
        return self._presence.connected


def make_app(
    worker: Worker,
    presence: Presence,
    everybody: Callable[[], Awaitable[Counts]],
    overview: operations.Source,
    forward: Forward,
) -> ASGIApp:
    """`everybody` gives the counts of all processes of this gateway, `overview` what the controller tells operators."""
    gauges = WorkerGauges(worker, presence)
    models = _Models(worker, gauges, KnownNeeds(forward.read, worker.loop.time))
    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    routes = Starlette(
        routes=[
            Route("/v1/models", models.listed),
            Route("/v1/models/{name:path}", models.one),
            Route("/models/{name:path}/v1/models", models.one),
            Route("/v1/operations", _operations(overview, worker.clock)),
            Route("/healthz", _healthz(gauges)),
            Route("/metrics", _metrics(everybody, gauges)),
            *page.routes(),
            *(Route(path, forward) for path in PATHS),
            Route("/{path:path}", _not_served, methods=every),
        ]
    )
    return _with_request_id(routes, worker)


class _Models:
    """What clients read of models: of all that their key may use, and of one."""

    def __init__(self, worker: Worker, gauges: WorkerGauges, needs: KnownNeeds) -> None:
        self._worker = worker
        self._gauges = gauges
        self._needs = needs

    async def listed(self, request: Request) -> Response:
        if self._worker.fleet.received is None:
            return _refuse(errors.NO_TABLE)
        known = self._worker.fleet.models_for(request.state.key)
        shown: dict[str, Any] = {"object": "list", "data": await self._describe(*known.values())}
        if operations.is_shown_to(request.state.key):
            shown["llmop"] = {"operations": True}
        return _json(shown)

    async def one(self, request: Request) -> Response:
        if self._worker.fleet.received is None:
            return _refuse(errors.NO_TABLE)
        name = request.path_params["name"]
        found = self._worker.fleet.models_for(request.state.key).get(name)
        if found is None:
            return _refuse(errors.unknown_model(name))
        if request.url.path.startswith("/models/"):
            return _json({"object": "list", "data": await self._describe(found)})
        return _json((await self._describe(found))[0])

    async def _describe(self, *models: RoutedModel) -> list[dict[str, Any]]:
        is_any_virtual = any(each.virtual for each in models)
        table = (
            self._worker.fleet.models
        )  # that `models` are of: the next one may come while others are asked
        asked = await self._needs.get(self._gauges.table()[0]) if is_any_virtual else None
        states = self._worker.fleet.states(self._worker.loop.time())
        now = self._worker.clock.now()
        # A virtual model asks also what the client's key may not.
        served = {
            each.name: Served(
                model=each,
                ready=sum(states.get((each.deployment, word), 0) for word in _SERVING),
                draining=states.get((each.deployment, EndpointState.DRAINING.value), 0),
            )
            for each in (table.values() if is_any_virtual else models)
        }
        return [
            listing.describe_virtual(each, asked, served, now)
            if each.virtual
            else listing.describe(served[each.name], now)
            for each in models
        ]


def _healthz(gauges: WorkerGauges) -> Answer:
    async def answer(_: Request) -> Response:
        version, age = gauges.table()
        state = {
            "status": "ok" if version >= 0 else "no endpoint table yet",
            "table_version": version,
            "table_age_s": round(age, 1),
            "controller": "connected" if gauges.connected() else "away",
        }
        return _json(state, 200 if version >= 0 else 503)

    return answer


def _metrics(everybody: Callable[[], Awaitable[Counts]], gauges: WorkerGauges) -> Answer:
    async def answer(_: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(CountsCollector(await everybody(), gauges))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return answer


def _operations(overview: operations.Source, clock: Clock) -> Answer:
    async def answer(request: Request) -> Response:
        if not operations.is_shown_to(request.state.key):
            return _refuse(operations.NOT_ALLOWED)
        found = await overview()
        if found.text is None:
            return _refuse(operations.controller_away(found.heard_at, clock.now()))
        return await operations.answer(found, request.headers)

    return answer


async def _not_served(request: Request) -> Response:
    """What no route takes, and what is a route of inference by its path, asked with a method that it does not take."""
    path = request.url.path
    # The path as it came: an encoded slash belongs to a model's name.
    raw = request.scope["raw_path"] or path.encode()
    for method in _METHODS if path != "/" else ():
        if (route := find_route(method, raw)) is not None:
            taken = method.decode()
            refusal = Refusal(
                status=405, code="method_not_allowed", message=f"{path[:200]} takes {taken} only"
            )
            return _refuse(refusal, {"allow": taken}, route.dialect)
    return _refuse(
        Refusal(
            status=404,
            code="not_found",
            message=f"{request.method} {path[:200]} is not served in this version; there are "
            f"{_HOT} (each also below /models/<name>), and {_COLD}",
        )
    )


def _with_request_id(app: ASGIApp, worker: Worker) -> ASGIApp:
    """Every answer of a gateway says which one it is."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        theirs = (value for name, value in scope["headers"] if name == b"x-request-id")
        request_id = next(filter(is_request_id, theirs), None) or worker.request_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id)]}
            await send(message)

        await app(scope, receive, send_with_id)

    return answer


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _refuse(
    refusal: Refusal, headers: dict[str, str] | None = None, dialect: Dialect = Dialect.OPENAI
) -> Response:
    headers = dict(headers or {})
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.dropped:
        headers["x-llmop-dropped-reason"] = refusal.dropped
    return Response(errors.payload(refusal, dialect), refusal.status, headers, media_type="application/json")
