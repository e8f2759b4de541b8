"""Domain values -> messages: lossless, but for `owned_fields`, which never leave the controller.

What comes in are manifests, and those go through `manifest`; the usage that gateways report is the exception.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import timestamp_pb2

from llmop.api.v1 import gateway_pb2, resources_pb2, rollout_pb2
from llmop.domain import client, endpoint, replica, resources, scaling, usage
from llmop.planner import autoscale


def timestamp(at: float | None) -> timestamp_pb2.Timestamp | None:
    """Epoch seconds as a message, exact where floats are coarser than nanoseconds; None stays unset."""
    if at is None:
        return None
    seconds = math.floor(at)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=min(999_999_999, round((at - seconds) * 1e9)))


def to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_object(resource: resources.Resource) -> resources_pb2.Object:
    metadata = resources_pb2.Metadata(
        name=resource.name,
        namespace=resource.namespace,
        uid=resource.uid,
        resource_version=resource.resource_version,
        generation=resource.generation,
        labels=resource.labels,
        annotations=resource.annotations,
        creation_time=timestamp(resource.created_at or None),
        deletion_time=timestamp(resource.deleted_at),
        finalizers=resource.finalizers,
    )
    if resource.owner is not None:
        owner = resource.owner
        metadata.owner.CopyFrom(resources_pb2.OwnerReference(kind=owner.kind, name=owner.name, uid=owner.uid))
    return resources_pb2.Object(
        api_version=resources.API_VERSION,
        kind=resource.kind,
        metadata=metadata,
        spec_json=to_json(resource.spec),
        status_json=to_json(resource.status),
    )


_STATES = {
    endpoint.EndpointState.READY: gateway_pb2.Endpoint.STATE_READY,
    endpoint.EndpointState.SUSPECT: gateway_pb2.Endpoint.STATE_SUSPECT,
    endpoint.EndpointState.DRAINING: gateway_pb2.Endpoint.STATE_DRAINING,
}
_STAGES = {
    endpoint.Stage.NONE: gateway_pb2.NextReplica.STAGE_UNSPECIFIED,
    endpoint.Stage.PENDING: gateway_pb2.NextReplica.STAGE_PENDING,
    endpoint.Stage.LOADING: gateway_pb2.NextReplica.STAGE_LOADING,
}


_PRIORITIES = {
    client.Priority.SYSTEM: gateway_pb2.ClientKey.PRIORITY_SYSTEM,
    client.Priority.INTERACTIVE: gateway_pb2.ClientKey.PRIORITY_INTERACTIVE,
    client.Priority.DEFAULT: gateway_pb2.ClientKey.PRIORITY_DEFAULT,
    client.Priority.BULK: gateway_pb2.ClientKey.PRIORITY_BULK,
}


def to_keys(keys: Iterable[client.ClientKey]) -> gateway_pb2.ClientKeys:
    return gateway_pb2.ClientKeys(
        keys=[
            gateway_pb2.ClientKey(
                name=each.name,
                digest=bytes.fromhex(each.digest),
                models=each.models,
                priority=_PRIORITIES[each.priority],
                # 0 is never: what ended with the year 1969, or before, has ended too.
                expires_at=0 if each.expires_at is None else math.floor(each.expires_at) or -1,
                requests_per_minute=each.limits.requests_per_minute,
                tokens_per_minute=each.limits.tokens_per_minute,
                parallel_requests=each.limits.parallel_requests,
                shadow=each.shadow,
                operations=each.operations,
            )
            for each in keys
        ]
    )


def to_table(
    table: endpoint.EndpointTable, installation: str, *, with_keys: bool
) -> gateway_pb2.EndpointTable:
    """Without its keys where the reader has them."""
    return gateway_pb2.EndpointTable(
        version=table.version,
        installation=installation,
        endpoints=[
            gateway_pb2.Endpoint(
                replica=each.replica,
                uid=each.uid,
                host=each.host,
                port=each.port,
                api_key=each.api_key,
                state=_STATES[each.state],
                deployment=each.deployment,
            )
            for each in table.endpoints
        ],
        models=[
            gateway_pb2.Model(
                name=each.name,
                deployment=each.deployment,
                protocols=each.protocols,
                created_at=int(each.created_at),
                retry_attempts=each.retry_attempts,
                upstream_model=each.upstream_model,
                usage_in_stream=each.usage_in_stream,
                max_in_flight=each.max_in_flight,
                queue=gateway_pb2.Queue(
                    max_requests=each.queue.max_requests,
                    max_bytes=each.queue.max_bytes,
                    request_ttl_s=each.queue.request_ttl_s,
                    no_endpoint_request_ttl_s=each.queue.no_endpoint_request_ttl_s,
                ),
                next_replica=gateway_pb2.NextReplica(
                    stage=_STAGES[each.next_replica.stage],
                    starts_at=int(each.next_replica.starts_at or 0),
                    ready_at=int(each.next_replica.ready_at or 0),
                ),
                virtual=each.virtual,
                wakes=each.wakes,
            )
            for each in table.models
        ],
        keys=to_keys(table.keys) if with_keys else None,
    )


def from_loads(loads: Iterable[gateway_pb2.DeploymentLoad]) -> dict[str, scaling.Reported]:
    """By deployment (`namespace/name`)."""
    return {
        each.deployment: scaling.Reported(
            in_flight=each.in_flight,
            queued=each.queued,
            unserved=each.unserved,
            generated_tokens=each.generated_tokens if each.HasField("generated_tokens") else None,
        )
        for each in loads
    }


def to_scaling(decision: autoscale.Decision) -> rollout_pb2.Scaling:
    return rollout_pb2.Scaling(
        desired=decision.desired,
        recommended=decision.recommended,
        reason=decision.reason,
        message=decision.message,
        known=decision.is_known,
        panic=decision.is_panic,
        metrics=[
            rollout_pb2.ScalingMetric(
                type=str(each.type),
                target=each.target,
                average=each.stable,
                peak=each.panic,
                forecast=each.forecast,
                replicas=each.replicas,
            )
            for each in decision.readings
        ],
        ready=decision.fleet.ready,
        coming=decision.fleet.on_the_way,
        lead_s=decision.fleet.lead_s,
    )


def to_engine_load(name: str, load: replica.EngineLoad | None) -> rollout_pb2.EngineLoad:
    """Of the replica with this name; None: nothing is known."""
    if load is None:
        return rollout_pb2.EngineLoad(replica=name)
    return rollout_pb2.EngineLoad(
        replica=name,
        queued=load.queue_depth,
        running=load.running,
        kv_cache_usage=load.kv_cache_usage,
        age_s=load.age_s,
    )


def usage_row(message: gateway_pb2.UsageRow) -> usage.UsageRow:
    return usage.UsageRow(
        hour=message.hour,
        key=message.key,
        model=message.model,
        amount=usage.Amount(
            requests=message.requests,
            prompt_tokens=message.prompt_tokens,
            completion_tokens=message.completion_tokens,
            estimated=message.estimated,
            limited=message.limited,
        ),
    )


def to_usage_row(row: usage.UsageRow) -> gateway_pb2.UsageRow:
    return gateway_pb2.UsageRow(hour=row.hour, key=row.key, model=row.model, **dataclasses.asdict(row.amount))
