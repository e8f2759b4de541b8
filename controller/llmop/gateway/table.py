"""The endpoint table as the gateway keeps it: from the controller's message, to JSON and back. Pure."""

import dataclasses
from typing import Any

import orjson

from llmop.api.v1 import gateway_pb2
from llmop.domain.endpoint import Endpoint, EndpointState, EndpointTable, RoutedModel

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


def from_message(message: gateway_pb2.EndpointTable, now: float) -> ReceivedTable:
    """A state that this version does not know counts as draining: nothing new goes there."""
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
                    virtual=model.virtual,
                )
                for model in message.models
            ),
        ),
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
                models=tuple(
                    RoutedModel(**(model | {"protocols": tuple(model["protocols"])}))
                    for model in table["models"]
                ),
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an endpoint table: {error!r}") from error


def replaces(new: ReceivedTable, old: ReceivedTable | None) -> bool:
    """Versions only rise within an installation; a lower one is a late message."""
    if old is None or new.installation != old.installation:
        return True
    return new.table.version >= old.table.version
