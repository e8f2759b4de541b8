"""OpenAI's /v1/files."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from llmop.domain.errors import Unavailable
from llmop.workloads.database import File
from llmop.workloads.engine import file_name
from llmop.workloads.refusals import Refused, invalid, json, no_such
from llmop.workloads.service import Service, owner_of, page_of
from llmop.workloads.upload import Upload

LOG = logging.getLogger(__name__)

PURPOSES = ("batch", "user_data", "assistants")
_PIECE = 256 * 1024
_VECTORS_S = 5.0  # a database of vector stores that takes connections and says nothing keeps no file waiting
_SHORTEST_S, _LONGEST_S = 3600, 2_592_000  # bounds that OpenAI has for expires_after


def routes(service: Service) -> list[Route]:
    async def create(request: Request) -> Response:
        try:
            return json(_describe(await _store(request, service)))
        except OSError as error:
            LOG.error("a file could not be stored: %s", error)
            message = f"the file could not be stored: {error.strerror or error}"
            raise Refused(507, "insufficient_storage", message) from error
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody

    async def show(request: Request) -> Response:
        return json(_describe(await find(request)))

    async def list_(request: Request) -> Response:
        page = page_of(request, most=10_000, usual=10_000)
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid("order", "must be asc or desc")
        files = await service.database.files(
            owner_of(request),
            purpose=request.query_params.get("purpose"),
            after=page.after,
            limit=page.limit + 1,
            oldest_first=order == "asc",
        )
        return json(page.answer([_describe(file) for file in files]))

    async def delete(request: Request) -> Response:
        name = request.path_params["id"]
        if not await service.database.delete_file(owner_of(request), name):
            raise no_such("file", name)
        try:
            async with asyncio.timeout(_VECTORS_S):
                await service.stores.remove_file(owner_of(request), name)
        except (
            Unavailable,
            TimeoutError,
        ) as error:  # it finds nothing now; later the file is taken out of it
            LOG.error("a deleted file is not out of its vector stores yet: %s", str(error) or "no answer")
        service.engine.tidy_soon()
        return json({"id": name, "object": "file", "deleted": True})

    async def content(request: Request) -> Response:
        file = await find(request)
        try:
            opened = service.shelf.open(file.id)
        except FileNotFoundError as error:
            raise Refused(410, "content_gone", "the content of this file is not there any more") from error
        headers = {"content-length": str(file.bytes)}
        return StreamingResponse(_pieces(opened), media_type="application/octet-stream", headers=headers)

    async def find(request: Request) -> File:
        return await service.file(owner_of(request), request.path_params["id"])

    return [
        Route("/v1/files", create, methods=["POST"]),
        Route("/v1/files", list_, methods=["GET"]),
        Route("/v1/files/{id}", show, methods=["GET"]),
        Route("/v1/files/{id}", delete, methods=["DELETE"]),
        Route("/v1/files/{id}/content", content, methods=["GET"]),
    ]


async def _store(request: Request, service: Service) -> File:
    """Its content is on the disk before its name is known. Nothing of one that fails stays. Raises Refused, OSError, sqlite3.Error."""
    owner, name = owner_of(request), file_name(service.clock)
    try:
        async with asyncio.timeout(_VECTORS_S):
            passages = await service.stores.owned_bytes(owner)
    except (Unavailable, TimeoutError):  # batches need no vector store
        passages = 0
    used = await service.database.usage(owner)
    service.quota.check(used._replace(bytes=used.bytes + passages), 0, 1)
    draft = service.shelf.draft(name)
    upload = Upload(draft)
    try:
        await upload.read(request.headers.get("content-type", ""), request.stream())
        purpose = upload.fields.get("purpose", "")
        if purpose not in PURPOSES:
            raise invalid("purpose", f"must be one of {', '.join(PURPOSES)}")
        now = service.clock.now()
        expires_at = _expiry(upload.fields, now)
        file = File(name, owner, purpose, upload.filename or name, draft.size, now, expires_at)
        await run_in_threadpool(draft.keep)
    finally:
        draft.drop()
    try:
        await service.database.add_upload(file, service.quota, passages)
    except (sqlite3.Error, Refused):
        service.shelf.remove([name])
        raise
    return file


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await run_in_threadpool(file.read, _PIECE):
            yield piece


def _expiry(fields: dict[str, str], now: float) -> float | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    return now + keep_s({"anchor": anchor, "seconds": seconds}, "expires_after")


def keep_s(value: Any, param: str) -> float:
    """Seconds that a file is kept, from an object like OpenAI's `expires_after`. Raises Refused."""
    seconds = value.get("seconds") if isinstance(value, dict) else None
    try:
        found = int(seconds) if isinstance(seconds, int | str) else -1
    except ValueError:
        found = -1
    if not isinstance(value, dict) or value.get("anchor") != "created_at":
        raise invalid(f"{param}.anchor", "must be created_at")
    if not _SHORTEST_S <= found <= _LONGEST_S:
        raise invalid(f"{param}.seconds", f"must be a number from {_SHORTEST_S} to {_LONGEST_S}")
    return float(found)


def _describe(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
