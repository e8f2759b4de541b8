"""GatewayService: the table goes out, acknowledgements come in; and what operators look at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from llmop.api.v1 import gateway_pb2, gateway_pb2_grpc
from llmop.clock import Clock
from llmop.domain import resources
from llmop.domain.client import ClientKey
from llmop.rpc import convert, overview_text
from llmop.rpc.endpoints import EndpointSource
from llmop.rpc.errors import BadRequest
from llmop.rpc.loads import LoadSink
from llmop.store.interface import Store

REPORT_PERIOD_MS = 1000

# All objects of each of these kinds, as they are now. Raises Unavailable.
Objects = Callable[..., Awaitable[Sequence[Sequence[resources.Resource]]]]


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    def __init__(
        self,
        store: Store,
        objects: Objects,
        clock: Clock,
        source: EndpointSource,
        loads: LoadSink,
        seen_at: Callable[[str], float | None],
    ) -> None:
        self._store = store
        self._objects = objects
        self._texts = overview_text.Texts()
        self._making = asyncio.Lock()
        self._clock = clock
        self._source = source
        self._loads = loads
        self._seen_at = seen_at

    async def WatchEndpoints(  # noqa: N802  # named by the proto
        self, request: gateway_pb2.WatchEndpointsRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.EndpointTable]:
        _require_name(request.gateway)
        installation = await self._store.installation()
        version = 0
        keys: tuple[ClientKey, ...] | None = None
        while True:
            # The first table comes once it is complete: until then gateways stay with the one they have.
            table = await self._source.changed(version)
            yield convert.to_table(table, installation, with_keys=table.keys != keys)
            version, keys = table.version, table.keys

    async def Report(  # noqa: N802  # named by the proto
        self, request: gateway_pb2.ReportRequest, context: Any
    ) -> gateway_pb2.ReportResponse:
        _require_name(request.gateway)
        self._source.acknowledge(request.gateway, request.table_version)
        self._loads.report(request.gateway, convert.from_loads(request.loads))
        return gateway_pb2.ReportResponse(period_ms=REPORT_PERIOD_MS)

    async def ReportUsage(  # noqa: N802  # named by the proto
        self, request: gateway_pb2.ReportUsageRequest, context: Any
    ) -> gateway_pb2.ReportUsageResponse:
        _require_name(request.gateway)
        if not request.spool or request.number < 1:
            raise BadRequest("spool, number: must name a batch, the first of which is 1")
        await self._store.add_usage(
            request.spool, request.number, [convert.usage_row(each) for each in request.rows]
        )
        return gateway_pb2.ReportUsageResponse()

    async def Overview(  # noqa: N802  # named by the proto
        self, request: gateway_pb2.OverviewRequest, context: Any
    ) -> gateway_pb2.OverviewResponse:
        _require_name(request.gateway)
        deployments, replicas, clusters = await self._objects(
            resources.MODEL_DEPLOYMENT, resources.REPLICA, resources.CLUSTER
        )
        names = [f"{each.namespace}/{each.name}" for each in deployments]
        live: dict[str, Any] = {
            "loads": {name: load for name in names if (load := self._loads.load(name)) is not None},
            "following": {each.deployment: each.next_replica for each in self._source.table().models},
            "seen_at": {each.name: at for each in clusters if (at := self._seen_at(each.name)) is not None},
            "now": self._clock.now(),
        }
        async with (
            self._making
        ):  # in a thread: there may be thousands of objects, and the loop has more to do
            made = await asyncio.to_thread(self._texts.text, deployments, replicas, clusters, **live)
        is_known = bool(request.etag) and request.etag == made.etag
        return gateway_pb2.OverviewResponse(
            overview_json="" if is_known else made.json, etag=made.etag, now=made.now
        )


def _require_name(gateway: str) -> None:
    if not gateway:
        raise BadRequest("gateway: must be the unique name of the gateway process, got nothing")
