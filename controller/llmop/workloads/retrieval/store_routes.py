"""OpenAI's /v1/vector_stores: the stores themselves, and search."""

import dataclasses
import logging
import re
import sqlite3
from collections.abc import Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.domain import attributes
from llmop.domain.attributes import BadFilter, Filter
from llmop.domain.errors import Unavailable
from llmop.workloads.bodies import check_fields, json_object, metadata
from llmop.workloads.refusals import invalid, json
from llmop.workloads.retrieval import document_routes
from llmop.workloads.retrieval.paths import find, listing
from llmop.workloads.retrieval.values import Store, describe_found, describe_store
from llmop.workloads.service import Service, key_of, owner_of

LOG = logging.getLogger(__name__)

_BODY_LIMIT = 256 * 1024
_LONGEST_NAME = 256
_LONGEST_QUERY = 4096
_MOST_QUERIES = 8
_MOST_RESULTS, _USUAL_RESULTS = 50, 10
_CREATE = ("name", "file_ids", "metadata", "chunking_strategy", "embedding_model")
_CHANGE = ("name", "metadata")
_NOT_SERVED = {
    "expires_after": "is not served: a vector store stays until it is deleted",
    "description": "is not kept: put it into metadata",
}
_RANKING = ("ranker", "score_threshold")
_RANKERS = re.compile(r"auto|none|default[-_]\d{4}[-_]\d\d[-_]\d\d", re.ASCII)
_SEARCH = ("query", "filters", "max_num_results", "ranking_options", "rewrite_query")


def routes(service: Service) -> list[Route]:
    async def create(request: Request) -> Response:
        wanted = await _body(request, _CREATE)
        model = wanted.get("embedding_model")
        if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_NAME:
            message = (
                'must name the model that embeds the documents, as in extra_body={"embedding_model": "..."}'
            )
            raise invalid("embedding_model", message)
        now = service.clock.now()
        store = Store(
            number=0,
            id=f"vs_{service.clock.suffix(24)}",
            owner=owner_of(request),
            name=_name(wanted.get("name") or ""),
            model=model,
            created_at=now,
            active_at=now,
            metadata=metadata(wanted.get("metadata")),
        )
        asked = {
            "file_ids": wanted.get("file_ids") or [],
            "chunking_strategy": wanted.get("chunking_strategy"),
        }
        documents = await document_routes.read_documents(service, store, asked)
        made = await service.stores.add(store)
        if documents:
            await service.stores.put(made, documents)
            service.ingest.wake()
        return await shown(made)

    async def show(request: Request) -> Response:
        return await shown(await find(service, request))

    async def list_(request: Request) -> Response:
        page, before, oldest_first, backwards = listing(request)
        found = await service.stores.owned(
            owner_of(request), page.after, page.limit + 1, before=before, oldest_first=oldest_first
        )
        shown = [describe_store(each, *await service.stores.counts(each)) for each in found]
        return json(page.answer(shown, backwards=backwards))

    async def change(request: Request) -> Response:
        store = await find(service, request)
        wanted = await _body(request, _CHANGE)
        if (name := wanted.get("name")) is not None:
            store = dataclasses.replace(store, name=_name(name))
        if "metadata" in wanted:
            store = dataclasses.replace(store, metadata=metadata(wanted["metadata"]))
        await service.stores.change(store)
        return await shown(store)

    async def remove(request: Request) -> Response:
        store = await find(service, request)
        await service.stores.remove(store)
        return json({"id": store.id, "object": "vector_store.deleted", "deleted": True})

    async def search(request: Request) -> Response:
        store = await find(service, request)
        wanted = await json_object(request, _BODY_LIMIT, _SEARCH)
        texts = _queries(wanted.get("query"))
        most = wanted.get("max_num_results")
        most = _USUAL_RESULTS if most is None else most
        if type(most) is not int or not 1 <= most <= _MOST_RESULTS:
            raise invalid("max_num_results", f"must be a number from 1 to {_MOST_RESULTS}")
        if wanted.get("rewrite_query"):
            raise invalid("rewrite_query", "must be false: questions are taken as they are")
        least = _threshold(wanted.get("ranking_options"))
        chosen = _filter(wanted.get("filters"))
        # Who has come without a key is asked for as that nobody, by us.
        key = key_of(request) or None
        owner = None if key else owner_of(request)
        results = await service.search.find([store], texts, most, least, key, owner, chosen)
        await _note_use(service, store)
        return json(
            {
                "object": "vector_store.search_results.page",
                "search_query": texts,
                "data": [describe_found(each) for each in results.found],
                "has_more": False,
                "next_page": None,
            }
        )

    async def shown(store: Store) -> Response:
        return json(describe_store(store, *await service.stores.counts(store)))

    return [
        Route("/v1/vector_stores", create, methods=["POST"]),
        Route("/v1/vector_stores", list_, methods=["GET"]),
        Route("/v1/vector_stores/{id}", show, methods=["GET"]),
        Route("/v1/vector_stores/{id}", change, methods=["POST"]),
        Route("/v1/vector_stores/{id}", remove, methods=["DELETE"]),
        Route("/v1/vector_stores/{id}/search", search, methods=["POST"]),
        *document_routes.routes(service),
    ]


async def _note_use(service: Service, store: Store) -> None:
    """Where the disk is full, or the server takes no writes, what was found was found."""
    try:
        await service.stores.used(store, service.clock.now())
    except (sqlite3.Error, Unavailable) as error:
        LOG.error("when the vector store %s was searched cannot be noted: %s", store.id, error)


async def _body(request: Request, fields: Collection[str]) -> dict[str, Any]:
    wanted = await json_object(request, _BODY_LIMIT)
    for name, words in _NOT_SERVED.items():
        if wanted.get(name) is not None:
            raise invalid(name, words)
    check_fields(wanted, fields)
    return wanted


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise invalid("name", f"must be a text of up to {_LONGEST_NAME} characters")
    return value


def _queries(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if (
        not isinstance(texts, list)
        or not 1 <= len(texts) <= _MOST_QUERIES
        or not all(isinstance(each, str) and 0 < len(each.strip()) <= _LONGEST_QUERY for each in texts)
    ):
        raise invalid(
            "query", f"must be a text of up to {_LONGEST_QUERY} characters, or up to {_MOST_QUERIES} of them"
        )
    return texts


def _filter(value: Any) -> Filter | None:
    if value is None:
        return None
    try:
        return attributes.read(value)
    except BadFilter as error:
        raise invalid(f"filters{error.path}", str(error)) from error


def _threshold(options: Any) -> float:
    """The least score that a result may have. There is one ranker, by whichever of OpenAI's names."""
    if options is None:
        return 0.0
    if not isinstance(options, dict):
        raise invalid("ranking_options", "must be an object")
    check_fields(options, _RANKING, "ranking_options.")
    least = options.get("score_threshold", 0.0)
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise invalid("ranking_options.score_threshold", "must be a number from 0 to 1")
    ranker = options.get("ranker", "auto")
    if not isinstance(ranker, str) or not _RANKERS.fullmatch(ranker):
        raise invalid(
            "ranking_options.ranker", "must be auto, none or one of OpenAI's, like default-2024-11-15"
        )
    return float(least)
