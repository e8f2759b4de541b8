"""The endpoint table: message, JSON, order of versions, file."""

import stat
from pathlib import Path

import pytest

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
from llmop.gateway import table
from llmop.gateway.table import ReceivedTable
from llmop.gateway.table_file import TableFile

RECEIVED = ReceivedTable(
    installation="abc123",
    received_at=12.5,
    table=EndpointTable(
        version=7,
        endpoints=(
            Endpoint(
                replica="r-1",
                uid="u-1",
                host="n1",
                port=8000,
                api_key="k",
                state=EndpointState.SUSPECT,
                deployment="default/d",
            ),
        ),
        models=(
            RoutedModel(
                name="m",
                deployment="default/d",
                protocols=("openai",),
                created_at=3.0,
                upstream_model="tgi",
                usage_in_stream=True,
                retry_attempts=4,
                max_in_flight=16,
                queue=QueueBounds(
                    max_requests=10, max_bytes=2**33, request_ttl_s=60, no_endpoint_request_ttl_s=600
                ),
                next_replica=NextReplica(stage=Stage.LOADING, ready_at=300.0),
                wakes=True,
            ),
        ),
        keys=(
            ClientKey(
                name="default/ci",
                digest="0f" * 32,
                models=("m", "org/n"),
                priority=Priority.BULK,
                limits=Limits(requests_per_minute=1, tokens_per_minute=2, parallel_requests=3),
                shadow=True,
                operations=True,
                expires_at=77.0,
            ),
            ClientKey(name="default/x", digest="ff" * 32),
        ),
    ),
)


def message() -> gateway_pb2.EndpointTable:
    return gateway_pb2.EndpointTable(
        version=7,
        installation="abc123",
        endpoints=[
            gateway_pb2.Endpoint(
                replica="r-1",
                uid="u-1",
                host="n1",
                port=8000,
                api_key="k",
                state=gateway_pb2.Endpoint.STATE_SUSPECT,
                deployment="default/d",
            )
        ],
        models=[
            gateway_pb2.Model(
                name="m",
                deployment="default/d",
                protocols=["openai"],
                created_at=3,
                retry_attempts=4,
                max_in_flight=16,
                queue=gateway_pb2.Queue(
                    max_requests=10, max_bytes=2**33, request_ttl_s=60, no_endpoint_request_ttl_s=600
                ),
                next_replica=gateway_pb2.NextReplica(
                    stage=gateway_pb2.NextReplica.STAGE_LOADING, ready_at=300
                ),
                upstream_model="tgi",
                usage_in_stream=True,
                wakes=True,
            )
        ],
        keys=gateway_pb2.ClientKeys(
            keys=[
                gateway_pb2.ClientKey(
                    name="default/ci",
                    digest=b"\x0f" * 32,
                    models=["m", "org/n"],
                    priority=gateway_pb2.ClientKey.PRIORITY_BULK,
                    expires_at=77,
                    requests_per_minute=1,
                    tokens_per_minute=2,
                    parallel_requests=3,
                    shadow=True,
                    operations=True,
                ),
                gateway_pb2.ClientKey(
                    name="default/x",
                    digest=b"\xff" * 32,
                    priority=gateway_pb2.ClientKey.PRIORITY_DEFAULT,
                ),
            ]
        ),
    )


def test_a_message_becomes_a_table() -> None:
    assert RECEIVED == table.from_message(message(), 12.5, None)


def test_an_unknown_state_gets_nothing_new() -> None:
    unknown = message()
    unknown.endpoints[0].state = 17  # type: ignore[assignment]  # of a later version
    assert EndpointState.DRAINING is table.from_message(unknown, 0.0, None).table.endpoints[0].state


def test_a_message_without_keys_leaves_those_that_there_were() -> None:
    later = message()
    later.version = 8
    later.ClearField("keys")
    assert RECEIVED.table.keys == table.from_message(later, 13.0, RECEIVED).table.keys
    later.keys.SetInParent()
    assert () == table.from_message(later, 13.0, RECEIVED).table.keys


def test_the_file_gives_back_what_was_saved_and_is_private(tmp_path: Path) -> None:
    file = TableFile(tmp_path)
    assert file.load() is None
    file.save(RECEIVED)
    assert RECEIVED == file.load()
    assert [0o600] == [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 2}', '{"format": 1, "table": {}}'])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        TableFile(tmp_path).load()


def at(version: int, installation: str = "abc123") -> ReceivedTable:
    return ReceivedTable(installation=installation, received_at=0.0, table=EndpointTable(version=version))


def test_versions_only_rise_within_an_installation() -> None:
    assert [True, True, True, False, True] == [
        table.replaces(at(1), None),
        table.replaces(at(3), at(2)),
        table.replaces(at(2), at(2)),
        table.replaces(at(1), at(2)),
        table.replaces(at(1, "other1"), at(2)),
    ]
