"""The endpoint table as the gateway keeps it: from the controller's message, to JSON and back; and what is reported of it. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from llmop.api.v1 import gateway_pb2
from llmop.domain.client import ClientKey, Limits, Priority
from llmop.domain.endpoint import (
    Endpoint,
    EndpointState,
    EndpointTable,
    NextReplica,
    QueueBounds,
    RoutedModel,
    Stage,
)
from llmop.domain.scaling import Reported

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedTable:
    """`received_at` is epoch seconds."""

    installation: str
    received_at: float
    table: EndpointTable


_STATES = {
    gateway_pb2.Endpoint.STATE_READY: EndpointState.READY,
    gateway_pb2.Endpoint.STATE_SUSPECT: EndpointState.SUSPECT,
}
_STAGES = {
    gateway_pb2.NextReplica.STAGE_PENDING: Stage.PENDING,
    gateway_pb2.NextReplica.STAGE_LOADING: Stage.LOADING,
}


_PRIORITIES = {
    gateway_pb2.ClientKey.PRIORITY_SYSTEM: Priority.SYSTEM,
    gateway_pb2.ClientKey.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    gateway_pb2.ClientKey.PRIORITY_BULK: Priority.BULK,
}


def from_message(
    message: gateway_pb2.EndpointTable, now: float, before: ReceivedTable | None
) -> ReceivedTable:
    """A state that this version does not know counts as draining: nothing new goes there. A message without keys leaves those that there
    were `before`.
    """
    return ReceivedTable(
        installation=message.installation,
        received_at=now,
        table=EndpointTable(
            version=message.version,
            endpoints=tuple(
                Endpoint(
                    replica=endpoint.replica,
                    uid=endpoint.uid,
                    host=endpoint.host,
                    port=endpoint.port,
                    api_key=endpoint.api_key,
                    state=_STATES.get(endpoint.state, EndpointState.DRAINING),
                    deployment=endpoint.deployment,
                )
                for endpoint in message.endpoints
            ),
            models=tuple(
                RoutedModel(
                    name=model.name,
                    deployment=model.deployment,
                    protocols=tuple(model.protocols),
                    created_at=float(model.created_at),
                    upstream_model=model.upstream_model,
                    retry_attempts=model.retry_attempts,
                    usage_in_stream=model.usage_in_stream,
                    max_in_flight=model.max_in_flight,
                    queue=QueueBounds(
                        max_requests=model.queue.max_requests,
                        max_bytes=model.queue.max_bytes,
                        request_ttl_s=model.queue.request_ttl_s,
                        no_endpoint_request_ttl_s=model.queue.no_endpoint_request_ttl_s,
                    ),
                    next_replica=NextReplica(
                        stage=_STAGES.get(model.next_replica.stage, Stage.NONE),
                        starts_at=float(model.next_replica.starts_at) or None,
                        ready_at=float(model.next_replica.ready_at) or None,
                    ),
                    virtual=model.virtual,
                    wakes=model.wakes,
                )
                for model in message.models
            ),
            keys=tuple(_key(each) for each in message.keys.keys)
            if message.HasField("keys") or before is None
            else before.table.keys,
        ),
    )


def to_report(gateway: str, version: int, loads: Mapping[str, Reported]) -> gateway_pb2.ReportRequest:
    return gateway_pb2.ReportRequest(
        gateway=gateway,
        table_version=version,
        loads=[
            gateway_pb2.DeploymentLoad(
                deployment=name,
                in_flight=load.in_flight,
                queued=load.queued,
                unserved=load.unserved,
                generated_tokens=load.generated_tokens,
            )
            for name, load in loads.items()
        ],
    )


def _key(message: gateway_pb2.ClientKey) -> ClientKey:
    return ClientKey(
        name=message.name,
        digest=message.digest.hex(),
        models=tuple(message.models),
        priority=_PRIORITIES.get(message.priority, Priority.DEFAULT),
        limits=Limits(
            requests_per_minute=message.requests_per_minute,
            tokens_per_minute=message.tokens_per_minute,
            parallel_requests=message.parallel_requests,
        ),
        shadow=message.shadow,
        operations=message.operations,
        expires_at=float(message.expires_at) or None,
    )


def to_json(received: ReceivedTable) -> bytes:
    """Holds the replicas' keys: whoever writes it to a file makes the file private."""
    return orjson.dumps({"format": FORMAT} | dataclasses.asdict(received))


def from_json(text: bytes) -> ReceivedTable:
    """Raises ValueError for anything that `to_json` did not write."""
    try:
        value: dict[str, Any] = orjson.loads(text)
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']} is not known")
        table = value["table"]
        return ReceivedTable(
            installation=value["installation"],
            received_at=value["received_at"],
            table=EndpointTable(
                version=table["version"],
                endpoints=tuple(
                    Endpoint(**(endpoint | {"state": EndpointState(endpoint["state"])}))
                    for endpoint in table["endpoints"]
                ),
                models=tuple(_model(model) for model in table["models"]),
                keys=tuple(
                    ClientKey(
                        **(
                            key
                            | {
                                "models": tuple(key["models"]),
                                "priority": Priority(key["priority"]),
                                "limits": Limits(**key["limits"]),
                            }
                        )
                    )
                    for key in table["keys"]
                ),
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an endpoint table: {error!r}") from error


def _model(value: dict[str, Any]) -> RoutedModel:
    following = value["next_replica"]
    return RoutedModel(
        **(
            value
            | {
                "protocols": tuple(value["protocols"]),
                "queue": QueueBounds(**value["queue"]),
                "next_replica": NextReplica(**(following | {"stage": Stage(following["stage"])})),
            }
        )
    )


def replaces(new: ReceivedTable, old: ReceivedTable | None) -> bool:
    """Versions only rise within an installation; a lower one is a late message."""
    if old is None or new.installation != old.installation:
        return True
    return new.table.version >= old.table.version
