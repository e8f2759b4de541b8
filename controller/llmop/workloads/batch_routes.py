"""OpenAI's /v1/batches."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.workloads import batch as batches
from llmop.workloads.batch import ENDED, ENDPOINTS, Batch, Status
from llmop.workloads.bodies import json_object, metadata
from llmop.workloads.engine import new_files
from llmop.workloads.files import keep_s
from llmop.workloads.refusals import Refused, invalid, json, no_such
from llmop.workloads.service import Service, owner_of, page_of

_BODY_LIMIT = 64 * 1024
_FIELDS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


def routes(service: Service) -> list[Route]:
    async def create(request: Request) -> Response:
        owner = owner_of(request)
        wanted = await json_object(request, _BODY_LIMIT, _FIELDS)
        now = service.clock.now()
        made = _read(wanted, owner, f"batch_{service.clock.suffix(24)}", now)
        file = await service.file(owner, made.input_file)
        if file.purpose != "batch":
            raise invalid(
                "input_file_id", f"must name a file of the purpose batch; this one is for {file.purpose}"
            )
        batch = await service.database.add_batch(made)
        service.engine.wake()
        return shown(batch)

    async def show(request: Request) -> Response:
        return shown(await find(request))

    async def list_(request: Request) -> Response:
        page = page_of(request, most=100, usual=20)
        found = await service.database.batches(owner_of(request), page.after, page.limit + 1)
        return json(page.answer([describe(batch) for batch in found]))

    async def cancel(request: Request) -> Response:
        batch = await find(request)
        names, now = new_files(service.clock), service.clock.now()

        def change(as_it_is: Batch) -> Batch | None:
            if as_it_is.status in ENDED or as_it_is.ending is not None:
                return None
            return batches.begin_end(as_it_is, Status.CANCELLED, names, now)

        # One that has ended may be removed at any moment.
        is_over = batch.status in ENDED
        changed = batch if is_over else await service.database.move(batch.number, change)
        if changed.ending is not Status.CANCELLED:
            raise Refused(
                409, "batch_ended", f"the batch is {changed.status} and cannot be cancelled any more"
            )
        service.engine.wake()
        return shown(changed)

    async def find(request: Request) -> Batch:
        name = request.path_params["id"]
        batch = await service.database.batch(owner_of(request), name)
        if batch is None:
            raise no_such("batch", name)
        return batch

    def describe(batch: Batch) -> dict[str, Any]:
        return batches.describe(batch, service.engine.waiting(batch))

    def shown(batch: Batch) -> Response:
        return json(describe(batch))

    return [
        Route("/v1/batches", create, methods=["POST"]),
        Route("/v1/batches", list_, methods=["GET"]),
        Route("/v1/batches/{id}", show, methods=["GET"]),
        Route("/v1/batches/{id}/cancel", cancel, methods=["POST"]),
    ]


def _read(wanted: dict[str, Any], owner: str, name: str, now: float) -> Batch:
    """Raises Refused."""
    file, endpoint, window = (
        wanted.get(field) for field in ("input_file_id", "endpoint", "completion_window")
    )
    if not isinstance(file, str) or not file:
        raise invalid("input_file_id", "must name a file")
    if endpoint not in ENDPOINTS:
        raise invalid("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    seconds = batches.window_s(window) if isinstance(window, str) else None
    if seconds is None:
        raise invalid("completion_window", "must be a time up to 30 days, like 24h, 90m or 7d")
    kept = wanted.get("output_expires_after")
    return Batch(
        number=0,
        id=name,
        owner=owner,
        endpoint=endpoint,
        input_file=file,
        window=str(window),
        created_at=now,
        expires_at=now + seconds,
        metadata=metadata(wanted.get("metadata")),
        keep_s=None if kept is None else keep_s(kept, "output_expires_after"),
    )
