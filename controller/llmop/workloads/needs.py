"""/virtual-models: what each model without replicas asks, for gateways, which say by it whether that one answers."""

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.domain.assistant import Assistant
from llmop.domain.errors import Unavailable
from llmop.workloads import refusals
from llmop.workloads.service import Service

_PATIENCE_S = 1.0  # for all vector stores together; a gateway waits twice as long for the answer


def routes(service: Service) -> list[Route]:
    """By name: the models, each once, and the ids of vector stores that are not there."""

    async def stores(assistant: Assistant, until: float) -> dict[str, str | None]:
        """The embedding model of each vector store, None for one that is not there; without those of which that cannot be said now."""
        found = {}
        for name in assistant.vector_stores:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout_at(until):
                    store = await service.stores.find(name)
                found[name] = None if store is None else store.model
        return found

    async def answer(_: Request) -> Response:
        told = {}
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        for each in service.virtual.all():
            found = await stores(each, until) if isinstance(each, Assistant) else {}
            embedding = [model for model in found.values() if model is not None]
            told[each.name] = {
                "models": list(dict.fromkeys((*each.models, *embedding))),
                "missing_stores": [name for name, model in found.items() if model is None],
            }
        return refusals.json(told)

    return [Route("/virtual-models", answer)]
