"""Domain values -> messages: lossless, but for `owned_fields`, which never leave the controller.

What comes in are manifests, and those go through `manifest`.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import timestamp_pb2

from llmop.api.v1 import gateway_pb2, resources_pb2
from llmop.domain import endpoint, resources


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


def to_table(table: endpoint.EndpointTable, installation: str) -> gateway_pb2.EndpointTable:
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
                virtual=each.virtual,
            )
            for each in table.models
        ],
    )
