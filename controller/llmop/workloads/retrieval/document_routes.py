"""OpenAI's /v1/vector_stores/<id>/files and /file_batches."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.workloads.bodies import attributes, check_fields, json_object
from llmop.workloads.refusals import invalid, json, no_such
from llmop.workloads.retrieval.chunks import Cut
from llmop.workloads.retrieval.paths import find, listing
from llmop.workloads.retrieval.values import (
    Batch,
    Document,
    Status,
    Store,
    describe_batch,
    describe_document,
)
from llmop.workloads.service import Service

_BODY_LIMIT = 256 * 1024
_BATCH_LIMIT = 8 * 1024 * 1024  # bytes: that of so many files whose attributes are a few
_MOST_FILES = 2000  # at once, as OpenAI has it
_SHORTEST, _LONGEST = 32, 4096  # tokens of a passage
_STATIC = ("max_chunk_size_tokens", "chunk_overlap_tokens")
_ONE = ("file_id", "attributes", "chunking_strategy")
_AUTO = {"type": "auto"}
_COMMON = ("attributes", "chunking_strategy")
_MANY = ("file_ids", "files", *_COMMON)


def routes(service: Service) -> list[Route]:
    return [*_of_files(service), *_of_batches(service)]


def _of_files(service: Service) -> list[Route]:
    async def put(request: Request) -> Response:
        store = await find(service, request)
        wanted = await json_object(request, _BODY_LIMIT, _ONE)
        await _check_room(service, store)
        document = await _document(service, store, wanted)
        await service.stores.put(store, [document])
        service.ingest.wake()
        return shown(await _in(service, store, document.file))

    async def show(request: Request) -> Response:
        return shown(await named(request))

    async def list_(request: Request) -> Response:
        return await _listed(service, request, await find(service, request), "")

    async def change(request: Request) -> Response:
        document = await named(request)
        wanted = await json_object(request, _BODY_LIMIT, ("attributes",))
        if "attributes" not in wanted:
            raise invalid("attributes", "must be given; an empty object, or null, takes all of them away")
        await service.stores.set_attributes(document, attributes(wanted.get("attributes")))
        return shown(await named(request))

    async def remove(request: Request) -> Response:
        document = await named(request)
        await service.stores.remove_document(document)
        return json({"id": document.file, "object": "vector_store.file.deleted", "deleted": True})

    async def content(request: Request) -> Response:
        """What was read of it, passage by passage."""
        texts = await service.stores.kept(await named(request))
        data = [{"type": "text", "text": text} for text in texts]
        return json(
            {"object": "vector_store.file_content.page", "data": data, "has_more": False, "next_page": None}
        )

    async def named(request: Request) -> Document:
        return await _in(service, await find(service, request), request.path_params["file"])

    def shown(document: Document) -> Response:
        return json(describe_document(document, service.ingest.waiting(document)))

    path = "/v1/vector_stores/{id}/files"
    return [
        Route(path, put, methods=["POST"]),
        Route(path, list_, methods=["GET"]),
        Route(path + "/{file}", show, methods=["GET"]),
        Route(path + "/{file}", change, methods=["POST"]),
        Route(path + "/{file}", remove, methods=["DELETE"]),
        Route(path + "/{file}/content", content, methods=["GET"]),
    ]


def _of_batches(service: Service) -> list[Route]:
    async def put(request: Request) -> Response:
        store = await find(service, request)
        wanted = await json_object(request, _BATCH_LIMIT, _MANY)
        batch = Batch(f"vsfb_{service.clock.suffix(24)}", service.clock.now())
        documents = await read_documents(service, store, wanted, batch.id)
        if not documents:
            raise invalid("file_ids", "must name at least one file")
        await service.stores.put(store, documents, batch)
        service.ingest.wake()
        return await shown(store, batch)

    async def show(request: Request) -> Response:
        return await shown(*await named(request))

    async def cancel(request: Request) -> Response:
        store, batch = await named(request)
        await service.stores.cancel(batch)
        return await shown(store, batch)

    async def list_(request: Request) -> Response:
        store, batch = await named(request)
        return await _listed(service, request, store, batch.id)

    async def named(request: Request) -> tuple[Store, Batch]:
        store, name = await find(service, request), request.path_params["batch"]
        batch = await service.stores.batch(store, name)
        if batch is None:
            raise no_such("batch of files", name)
        return store, batch

    async def shown(store: Store, batch: Batch) -> Response:
        counts, _ = await service.stores.counts(store, batch.id)
        return json(describe_batch(batch, store, counts))

    path = "/v1/vector_stores/{id}/file_batches"
    return [
        Route(path, put, methods=["POST"]),
        Route(path + "/{batch}", show, methods=["GET"]),
        Route(path + "/{batch}/cancel", cancel, methods=["POST"]),
        Route(path + "/{batch}/files", list_, methods=["GET"]),
    ]


async def _listed(service: Service, request: Request, store: Store, batch: str) -> Response:
    page, before, oldest_first, backwards = listing(request, "filter")
    status = request.query_params.get("filter", "")
    if status and status not in [each.value for each in Status]:
        raise invalid("filter", f"must be one of {', '.join(Status)}")
    documents = await service.stores.documents(
        store,
        batch=batch,
        status=status,
        after=page.after,
        before=before,
        limit=page.limit + 1,
        oldest_first=oldest_first,
    )
    shown = [describe_document(each, service.ingest.waiting(each)) for each in documents]
    return json(page.answer(shown, backwards=backwards))


async def _in(service: Service, store: Store, file: str) -> Document:
    document = await service.stores.document(store, file)
    if document is None:
        raise no_such("file in this vector store", file)
    return document


async def read_documents(
    service: Service, store: Store, wanted: dict[str, Any], batch: str = ""
) -> Sequence[Document]:
    """What a request wants to have in the store: `file_ids` that have the rest in common, or `files` with one each. Raises Refused."""
    names, files = wanted.get("file_ids") or [], wanted.get("files") or []
    if not isinstance(names, list) or not isinstance(files, list) or (names and files):
        raise invalid(
            "file_ids", "must be a list of ids of files, and files a list of objects; only one of the two"
        )
    common = {each: wanted.get(each) for each in _COMMON}
    for name, value in common.items():
        if value not in (None, {}, _AUTO) and not names:
            words = "give it to each of files" if files else "give it with the files that come later"
            raise invalid(name, f"says something of file_ids, and there are none: {words}")
    rows = files or [{"file_id": name, **common} for name in names]
    if len(rows) > _MOST_FILES:
        raise invalid("files" if files else "file_ids", f"must name at most {_MOST_FILES} files")
    if rows:
        await _check_room(service, store)
    found: dict[str, Document] = {}
    for place, row in enumerate(rows):
        where = f"files[{place}]" if files else ""
        if not isinstance(row, dict):
            raise invalid(where, "must be an object with a file_id")
        document = await _document(service, store, row, batch, where)
        found[document.file] = document
    return list(found.values())


async def _check_room(service: Service, store: Store) -> None:
    used = await service.database.usage(store.owner)
    service.quota.check(used, await service.stores.owned_bytes(store.owner))


async def _document(
    service: Service, store: Store, row: dict[str, Any], batch: str = "", where: str = ""
) -> Document:
    """`where` it stands in the request, "" = by itself."""
    above = f"{where}." if where else ""
    check_fields(row, _ONE, above)
    name = row.get("file_id")
    if not isinstance(name, str) or not name:
        raise invalid(f"{above}file_id", "must name a file")
    file = await service.file(store.owner, name)
    if file.purpose == "batch":
        words = f"must name a file for assistants or user_data; {name} is for batch"
        raise invalid(f"{above}file_id", words)
    return Document(
        number=0,
        store=store.number,
        store_id=store.id,
        owner=store.owner,
        model=store.model,
        file=file.id,
        filename=file.filename,
        created_at=service.clock.now(),
        attributes=attributes(row.get("attributes"), f"{above}attributes"),
        cut=_cut(row.get("chunking_strategy"), f"{above}chunking_strategy"),
        batch=batch,
    )


def _cut(value: Any, where: str) -> Cut | None:
    """OpenAI's chunking_strategy; None for its `auto`."""
    if value is None or value == _AUTO:
        return None
    static = value.get("static") if isinstance(value, dict) and value.get("type") == "static" else None
    if not isinstance(static, dict):
        raise invalid(where, 'must be {"type": "auto"}, or {"type": "static", "static": {...}}')
    check_fields(value, ("type", "static"), f"{where}.")
    where = f"{where}.static."
    check_fields(static, _STATIC, where)
    size, overlap = static.get("max_chunk_size_tokens"), static.get("chunk_overlap_tokens")
    if type(size) is not int or not _SHORTEST <= size <= _LONGEST:
        raise invalid(f"{where}max_chunk_size_tokens", f"must be a number from {_SHORTEST} to {_LONGEST}")
    if type(overlap) is not int or not 0 <= overlap <= size // 2:
        words = f"must be a number from 0 to {size // 2}, half of max_chunk_size_tokens"
        raise invalid(f"{where}chunk_overlap_tokens", words)
    return Cut(size, overlap)
