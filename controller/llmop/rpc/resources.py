"""ResourceService: read and write every kind."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import llmop
from llmop.api.v1 import resources_pb2, resources_pb2_grpc
from llmop.clock import Clock
from llmop.domain import resources
from llmop.rpc import convert, selection, tables
from llmop.rpc.errors import BadRequest
from llmop.rpc.paging import Snapshots
from llmop.rpc.writing import DEFAULT_MANAGER, Writer
from llmop.store import interface

PAGE_SIZE = 500
PAGE_BYTES = 2 * 1024 * 1024  # half of what a gRPC client takes by default
BOOKMARK_PERIOD_S = 30.0

_TYPES = {
    interface.ChangeType.ADDED: resources_pb2.WatchResponse.TYPE_ADDED,
    interface.ChangeType.MODIFIED: resources_pb2.WatchResponse.TYPE_MODIFIED,
    interface.ChangeType.DELETED: resources_pb2.WatchResponse.TYPE_DELETED,
}
_VERDICTS = {
    "created": resources_pb2.ApplyResponse.VERDICT_CREATED,
    "configured": resources_pb2.ApplyResponse.VERDICT_CONFIGURED,
    "unchanged": resources_pb2.ApplyResponse.VERDICT_UNCHANGED,
}


class ResourceServicer(resources_pb2_grpc.ResourceServiceServicer):
    def __init__(self, store: interface.Store, clock: Clock, writer: Writer) -> None:
        self._store = store
        self._clock = clock
        self._writer = writer
        self._snapshots = Snapshots(clock)

    async def Get(  # noqa: N802  # named by the proto
        self, request: resources_pb2.GetRequest, context: Any
    ) -> resources_pb2.GetResponse:
        kind = _kind(request.kind)
        resource = await self._store.get(kind.name, _namespace(kind, request.namespace), _name(request.name))
        return resources_pb2.GetResponse(
            object=convert.to_object(resource),
            columns=_columns(kind),
            cells=tables.cells(resource, self._clock.now()),
        )

    async def List(  # noqa: N802  # named by the proto
        self, request: resources_pb2.ListRequest, context: Any
    ) -> resources_pb2.ListResponse:
        kind = _kind(request.kind)
        if request.page_size < 0:
            raise BadRequest(f"page_size: must be 0 (= {PAGE_SIZE}) or more, got {request.page_size}")
        if request.page_token:
            revision, items = self._snapshots.take(request.page_token)
        else:
            wanted = selection.parse(kind.name, request.label_selector, request.field_selector)
            listing = await self._store.list(kind.name, _filter(kind, request.namespace))
            revision = listing.revision
            items = tuple(each for each in listing.items if wanted.matches(each))
        rows: list[resources_pb2.Row] = []
        size = 0
        for each in items[: min(request.page_size or PAGE_SIZE, PAGE_SIZE)]:
            row = self._row(each)
            size += row.ByteSize()
            if rows and size > PAGE_BYTES:
                break
            rows.append(row)
        rest = items[len(rows) :]
        return resources_pb2.ListResponse(
            rows=rows,
            columns=_columns(kind),
            resource_version=revision,
            next_page_token=self._snapshots.keep(revision, rest) if rest else "",
        )

    async def Watch(  # noqa: N802  # named by the proto
        self, request: resources_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[resources_pb2.WatchResponse]:
        """State first (unless a resource version is given), a bookmark, then every change; a bookmark now and then moves idle watchers on."""
        kind = _kind(request.kind)
        wanted = selection.parse(kind.name, request.label_selector, request.field_selector)
        namespace = _filter(kind, request.namespace)
        columns = _columns(kind)
        revision = request.resource_version
        view = selection.View(wanted, knows_all=not revision)
        if not revision:
            listing = await self._store.list(kind.name, namespace)
            revision = listing.revision
            for each in listing.items:
                if request.name in ("", each.name) and view.begins_with(each):
                    added = resources_pb2.WatchResponse.TYPE_ADDED
                    yield resources_pb2.WatchResponse(
                        type=added,
                        row=self._row(each),
                        resource_version=each.resource_version,
                        columns=columns,
                    )
                    columns = []
        bookmark = resources_pb2.WatchResponse.TYPE_BOOKMARK
        bookmarked_at = self._clock.monotonic()
        yield resources_pb2.WatchResponse(type=bookmark, resource_version=revision, columns=columns)
        changes = self._store.watch(revision)
        async with contextlib.aclosing(changes):  # type: ignore[type-var]  # an async generator behind its protocol
            async for change in changes:
                resource = change.resource
                position = change.revision if change.complete else change.revision - 1
                seen = (
                    view.change(change)
                    if resource.kind == kind.name
                    and (namespace is None or resource.namespace == namespace)
                    and request.name in ("", resource.name)
                    else None
                )
                if seen is not None:
                    yield resources_pb2.WatchResponse(
                        type=_TYPES[seen], row=self._row(resource), resource_version=position
                    )
                elif self._clock.monotonic() - bookmarked_at >= BOOKMARK_PERIOD_S:
                    bookmarked_at = self._clock.monotonic()
                    yield resources_pb2.WatchResponse(type=bookmark, resource_version=position)

    async def Apply(  # noqa: N802  # named by the proto
        self, request: resources_pb2.ApplyRequest, context: Any
    ) -> resources_pb2.ApplyResponse:
        outcome = await self._writer.apply(
            request.manifest_json,
            namespace=request.namespace,
            manager=request.field_manager or DEFAULT_MANAGER,
            force=request.force,
            dry_run=request.dry_run,
            create_only=request.create_only,
        )
        return resources_pb2.ApplyResponse(
            object=convert.to_object(outcome.resource),
            verdict=_VERDICTS[outcome.verdict],
            changed_paths=outcome.changed_paths,
            warnings=outcome.warnings,
            live=convert.to_object(outcome.live) if outcome.live is not None else None,
        )

    async def Delete(  # noqa: N802  # named by the proto
        self, request: resources_pb2.DeleteRequest, context: Any
    ) -> resources_pb2.DeleteResponse:
        kind = _kind(request.kind)
        if kind.read_only and kind.name != resources.REPLICA:
            raise BadRequest(
                f"{kind.plural} are made and removed by the controller; they cannot be deleted",
                reason="MethodNotAllowed",
            )
        outcome = await self._writer.delete(
            kind.name,
            _namespace(kind, request.namespace),
            _name(request.name),
            uid=request.uid,
            resource_version=request.resource_version,
            dry_run=request.dry_run,
        )
        return resources_pb2.DeleteResponse(object=convert.to_object(outcome.resource))

    async def Kinds(  # noqa: N802  # named by the proto
        self, request: resources_pb2.KindsRequest, context: Any
    ) -> resources_pb2.KindsResponse:
        return resources_pb2.KindsResponse(
            kinds=[
                resources_pb2.Kind(
                    name=info.name,
                    singular=info.singular,
                    plural=info.plural,
                    short_names=info.short_names,
                    namespaced=info.namespaced,
                    read_only=info.read_only,
                    description=info.description,
                )
                for info in resources.KINDS.values()
            ],
            installation=await self._store.installation(),
            version=llmop.__version__,
        )

    def _row(self, resource: resources.Resource) -> resources_pb2.Row:
        return resources_pb2.Row(
            object=convert.to_object(resource), cells=tables.cells(resource, self._clock.now())
        )


def _kind(word: str) -> resources.KindInfo:
    kind = resources.find_kind(word)
    if kind is None:
        known = ", ".join(info.plural for info in resources.KINDS.values())
        raise BadRequest(f'the server has no kind "{word}"; it has {known}')
    return kind


def _name(name: str) -> str:
    if not name:
        raise BadRequest("name: must not be empty")
    return name


def _namespace(kind: resources.KindInfo, namespace: str) -> str:
    """The namespace of one object: `default` unless given, none for kinds of the installation."""
    return (namespace or "default") if kind.namespaced else ""


def _filter(kind: resources.KindInfo, namespace: str) -> str | None:
    """The namespace to list; None = all."""
    return (namespace or None) if kind.namespaced else None


def _columns(kind: resources.KindInfo) -> list[resources_pb2.Column]:
    return [resources_pb2.Column(name=each.name, wide=each.wide) for each in tables.columns(kind.name)]
