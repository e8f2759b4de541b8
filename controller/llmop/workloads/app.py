"""The routes, as an ASGI application. Keys were checked by the gateway, which is the only one that reaches it."""

import logging
import sqlite3

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.domain.errors import Unavailable
from llmop.workloads import batch_routes, bulk, chat_routes, files, needs, refusals
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval import store_routes
from llmop.workloads.service import Service

LOG = logging.getLogger(__name__)


def make_app(service: Service) -> Starlette:
    return Starlette(
        routes=[
            *files.routes(service),
            *batch_routes.routes(service),
            *bulk.routes(service),
            *store_routes.routes(service),
            *chat_routes.routes(service),
            *needs.routes(service),
            Route("/healthz", _healthz),
        ],
        exception_handlers={
            Refused: refusals.answer,
            sqlite3.Error: _store_failed,
            Unavailable: _vectors_away,
            404: _no_route,
            405: _no_route,
        },
    )


async def _healthz(_: Request) -> Response:
    return refusals.json({"status": "ok"})


async def _store_failed(request: Request, error: Exception) -> Response:
    LOG.error("%s %s: %s", request.method, request.url.path, error)
    return await refusals.answer(
        request, Refused(507, "store_failed", f"the store does not take it: {error}")
    )


async def _vectors_away(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    LOG.error("%s %s: %s", request.method, request.url.path, error)
    return await refusals.answer(request, refusals.vectors_away())


async def _no_route(request: Request, _: Exception) -> Response:
    message = f"{request.method} {request.url.path[:200]} is not served in this version"
    return await refusals.answer(request, Refused(404, "not_found", message))
