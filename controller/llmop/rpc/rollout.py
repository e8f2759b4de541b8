"""RolloutService: imperative verbs on deployments."""

from typing import Any

from llmop.api.v1 import rollout_pb2, rollout_pb2_grpc
from llmop.rpc import convert
from llmop.rpc.errors import BadRequest
from llmop.rpc.writing import Writer


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def Scale(  # noqa: N802  # named by the proto
        self, request: rollout_pb2.ScaleRequest, context: Any
    ) -> rollout_pb2.ScaleResponse:
        if not request.name:
            raise BadRequest("name: must not be empty")
        outcome = await self._writer.scale(
            request.namespace or "default",
            request.name,
            request.replicas,
            current_replicas=request.current_replicas if request.HasField("current_replicas") else None,
            resource_version=request.resource_version,
        )
        assert outcome.live is not None
        return rollout_pb2.ScaleResponse(
            object=convert.to_object(outcome.resource),
            previous_replicas=int(outcome.live.spec.get("replicas", 1)),
        )
