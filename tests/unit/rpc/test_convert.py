"""Nothing of an object is lost on the wire."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmop.api.v1 import gateway_pb2, resources_pb2
from llmop.domain import client, endpoint, resources
from llmop.gateway import table
from llmop.rpc import convert

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.floats(min_value=2**24, max_value=2**33)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
COUNTS = st.integers(min_value=0, max_value=2**62)
RESOURCES = st.builds(
    resources.Resource,
    kind=st.sampled_from(sorted(resources.KINDS)),
    name=TEXT,
    namespace=TEXT,
    uid=TEXT,
    generation=COUNTS,
    resource_version=COUNTS,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    annotations=st.dictionaries(TEXT, TEXT, max_size=3),
    finalizers=st.lists(TEXT, max_size=2).map(tuple),
    owner=st.none() | st.builds(resources.Owner, kind=TEXT, name=TEXT, uid=TEXT),
    created_at=st.just(0.0) | TIMES,
    deleted_at=st.none() | TIMES,
    owned_fields=st.just({}),
    spec=OBJECTS,
    status=OBJECTS,
)


def read(message: resources_pb2.Object) -> resources.Resource:
    """The inverse, written down a second time."""
    metadata = message.metadata

    def at(field: str) -> float | None:
        stamp = getattr(metadata, field)
        return stamp.seconds + stamp.nanos / 1e9 if metadata.HasField(field) else None

    return resources.Resource(
        kind=message.kind,
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        generation=metadata.generation,
        resource_version=metadata.resource_version,
        labels=dict(metadata.labels),
        annotations=dict(metadata.annotations),
        finalizers=tuple(metadata.finalizers),
        owner=resources.Owner(kind=metadata.owner.kind, name=metadata.owner.name, uid=metadata.owner.uid)
        if metadata.HasField("owner")
        else None,
        created_at=at("creation_time") or 0.0,
        deleted_at=at("deletion_time"),
        spec=json.loads(message.spec_json),
        status=json.loads(message.status_json),
    )


@given(RESOURCES)
def test_an_object_comes_back_as_it_was(resource: resources.Resource) -> None:
    wire = convert.to_object(resource).SerializeToString()
    assert resource == read(resources_pb2.Object.FromString(wire))


def test_the_owners_of_fields_stay_in_the_controller() -> None:
    resource = resources.Resource(kind="Cluster", name="x", owned_fields={"llmctl": ("spec.driver",)})
    assert b"llmctl" not in convert.to_object(resource).SerializeToString()


def test_a_table_of_endpoints_is_complete_on_the_wire() -> None:
    one: dict[str, Any] = {
        "replica": "a-1",
        "uid": "u",
        "host": "n1",
        "port": 8000,
        "api_key": "k",
        "deployment": "default/a",
    }
    model: dict[str, Any] = {
        "name": "m",
        "deployment": "default/a",
        "protocols": ("openai", "tgi"),
        "upstream_model": "up",
        "usage_in_stream": True,
        "retry_attempts": 2,
        "max_in_flight": 16,
        "wakes": True,
    }
    bounds = {
        "max_requests": 10,
        "max_bytes": 2**33,
        "request_ttl_s": 60,
        "no_endpoint_request_ttl_s": 600,
    }
    table = endpoint.EndpointTable(
        version=7,
        endpoints=(
            endpoint.Endpoint(**one, state=endpoint.EndpointState.DRAINING),
            endpoint.Endpoint(**one, state=endpoint.EndpointState.READY),
        ),
        models=(
            endpoint.RoutedModel(
                **model,
                created_at=100.0,
                queue=endpoint.QueueBounds(**bounds),
                next_replica=endpoint.NextReplica(
                    stage=endpoint.Stage.PENDING, starts_at=200.0, ready_at=300.0
                ),
            ),
        ),
    )
    expected = gateway_pb2.EndpointTable(
        version=7,
        installation="abc123",
        endpoints=[
            gateway_pb2.Endpoint(**one, state=gateway_pb2.Endpoint.STATE_DRAINING),
            gateway_pb2.Endpoint(**one, state=gateway_pb2.Endpoint.STATE_READY),
        ],
        models=[
            gateway_pb2.Model(
                **model,
                created_at=100,
                queue=gateway_pb2.Queue(**bounds),
                next_replica=gateway_pb2.NextReplica(
                    stage=gateway_pb2.NextReplica.STAGE_PENDING, starts_at=200, ready_at=300
                ),
            )
        ],
    )
    assert expected == convert.to_table(table, "abc123", with_keys=False)


def test_every_state_of_an_endpoint_has_a_number() -> None:
    for state in endpoint.EndpointState:
        each = endpoint.Endpoint(
            replica="a", uid="u", host="h", port=1, api_key="k", state=state, deployment="d/a"
        )
        message = convert.to_table(
            endpoint.EndpointTable(version=1, endpoints=(each,)), "i", with_keys=True
        ).endpoints[0]
        assert f"STATE_{state.value.upper()}" == gateway_pb2.Endpoint.State.Name(message.state)


def test_every_priority_of_a_key_has_a_number() -> None:
    for priority in client.Priority:
        (message,) = convert.to_keys(
            [client.ClientKey(name="default/a", digest="00" * 32, priority=priority)]
        ).keys
        assert f"PRIORITY_{priority.value.upper()}" == gateway_pb2.ClientKey.Priority.Name(message.priority)


def test_a_key_that_has_expired_long_ago_does_not_become_one_that_never_does() -> None:
    for at in (None, 0.0, 0.5, -62_135_596_800.0, 77.0):
        (message,) = convert.to_keys(
            [client.ClientKey(name="default/a", digest="00" * 32, expires_at=at)]
        ).keys
        assert (at is None) == (message.expires_at == 0)
        assert at is None or message.expires_at <= at


def test_what_a_key_may_do_arrives_at_gateways() -> None:
    keys = (
        client.ClientKey(
            name="default/a",
            digest="0f" * 32,
            models=("m",),
            priority=client.Priority.BULK,
            limits=client.Limits(requests_per_minute=1, tokens_per_minute=2, parallel_requests=3),
            shadow=True,
            operations=True,
            expires_at=77.0,
        ),
        client.ClientKey(name="default/b", digest="ff" * 32),
    )
    message = convert.to_table(endpoint.EndpointTable(version=1, keys=keys), "i", with_keys=True)
    assert keys == table.from_message(message, 0.0, None).table.keys
