"""The routes, as an ASGI application. Keys were checked by the gateway, which is the only one that reaches it."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.workloads import batch_routes, bulk, chat_routes, failures, files, needs, refusals
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval import store_routes
from llmop.workloads.service import Service


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
            **dict.fromkeys(failures.KINDS, _failed),
            404: _no_route,
            405: _no_route,
        },
    )


async def _healthz(_: Request) -> Response:
    return refusals.json({"status": "ok"})


async def _failed(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.url.path}"
    return await refusals.answer(request, failures.refusal(error, what))


async def _no_route(request: Request, _: Exception) -> Response:
    message = f"{request.method} {request.url.path[:200]} is not served in this version"
    return await refusals.answer(request, Refused(404, "not_found", message))
