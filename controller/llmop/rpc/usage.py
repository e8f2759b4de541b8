"""UsageService: what clients have used."""

import math
from typing import Any

from llmop.api.v1 import usage_pb2, usage_pb2_grpc
from llmop.domain.usage import UsageBy
from llmop.rpc import convert
from llmop.rpc.errors import BadRequest
from llmop.store.interface import Store

_BY = {
    usage_pb2.SumUsageRequest.BY_HOUR: UsageBy.HOUR,
    usage_pb2.SumUsageRequest.BY_KEY: UsageBy.KEY,
    usage_pb2.SumUsageRequest.BY_MODEL: UsageBy.MODEL,
}


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def Sum(  # noqa: N802  # named by the proto
        self, request: usage_pb2.SumUsageRequest, context: Any
    ) -> usage_pb2.SumUsageResponse:
        unknown = [each for each in request.by if each not in _BY]
        if unknown:
            raise BadRequest(f"by: {unknown[0]} is not known; write BY_KEY, BY_MODEL or BY_HOUR")
        rows = await self._store.usage(
            [_BY[each] for each in request.by],
            since=request.since,
            until=request.until or math.inf,
            key=request.key,
            model=request.model,
        )
        return usage_pb2.SumUsageResponse(rows=[convert.to_usage_row(each) for each in rows])
