"""What gateways hear and say."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from tests.control import manifests
from tests.control.rig import Rig
from tests.unit.rpc import test_overview as samples

from llmop.api.v1 import gateway_pb2
from llmop.domain.client import ClientKey
from llmop.domain.endpoint import EndpointTable, NextReplica, RoutedModel, Stage
from llmop.domain.scaling import Reported
from llmop.planner.autoscale import Load
from llmop.store.interface import Create


async def read(call: Any) -> gateway_pb2.EndpointTable:
    return await asyncio.wait_for(call.read(), 10)


async def test_the_table_comes_at_once_and_after_every_change(rig: Rig) -> None:
    call = rig.gateway.WatchEndpoints(gateway_pb2.WatchEndpointsRequest(gateway="g1"))
    assert 1 == (await read(call)).version
    model = RoutedModel(name="m", deployment="default/a", protocols=("tgi",), created_at=1.0)
    rig.endpoints.publish(EndpointTable(version=2, models=(model,)))
    table = await read(call)
    assert (2, ["m"], await rig.store.installation()) == (
        table.version,
        [each.name for each in table.models],
        table.installation,
    )


async def test_keys_come_with_the_first_table_and_when_they_have_changed(rig: Rig) -> None:
    one, two = (ClientKey(name=f"default/{name}", digest=name * 64) for name in "ab")
    rig.endpoints.publish(EndpointTable(version=2, keys=(one,)))
    call = rig.gateway.WatchEndpoints(gateway_pb2.WatchEndpointsRequest(gateway="g1"))
    seen = [await read(call)]
    for version, keys in ((3, (one,)), (4, (one, two)), (5, ())):
        rig.endpoints.publish(EndpointTable(version=version, keys=keys))
        seen.append(await read(call))
    assert [["default/a"], None, ["default/a", "default/b"], []] == [
        [each.name for each in table.keys.keys] if table.HasField("keys") else None for table in seen
    ]


async def test_a_slow_gateway_gets_the_newest_table_only(rig: Rig) -> None:
    call = rig.gateway.WatchEndpoints(gateway_pb2.WatchEndpointsRequest(gateway="g1"))
    await read(call)
    for version in (2, 3, 4):
        rig.endpoints.publish(EndpointTable(version=version))
    assert 4 == (await read(call)).version


async def test_a_report_acknowledges_a_version(rig: Rig) -> None:
    request = gateway_pb2.ReportRequest(gateway="g1", table_version=7)
    assert 1000 == (await rig.gateway.Report(request)).period_ms
    assert [("g1", 7)] == rig.endpoints.acknowledged


async def test_a_report_tells_the_load_of_each_deployment(rig: Rig) -> None:
    loads = [
        gateway_pb2.DeploymentLoad(deployment="default/a", in_flight=3, queued=2, unserved=1),
        gateway_pb2.DeploymentLoad(deployment="default/b", generated_tokens=0),
    ]
    await rig.gateway.Report(gateway_pb2.ReportRequest(gateway="g1", table_version=7, loads=loads))
    told = {
        "default/a": Reported(in_flight=3, queued=2, unserved=1),
        "default/b": Reported(generated_tokens=0),
    }
    assert [("g1", told)] == rig.loads.reports


async def test_the_overview_is_of_all_namespaces_and_of_this_moment(rig: Rig) -> None:
    owners = [samples.deployment("a"), samples.deployment("b", "team")]
    stored = [*owners, samples.replica("b-1", owners[1], phase="Ready", ready=True)]
    await rig.store.commit([Create(resource=each) for each in stored])
    await rig.apply(manifests.cluster())
    following = NextReplica(stage=Stage.PENDING, starts_at=rig.clock.now() + 60)
    model = RoutedModel(
        name="m", deployment="default/a", protocols=("tgi",), created_at=1.0, next_replica=following
    )
    rig.endpoints.publish(EndpointTable(version=2, models=(model,)))
    rig.loads.of_gateways["team/b"] = Load(at=1.0, in_flight=4, queued=1)
    rig.seen["default"] = rig.clock.now() - 3
    answer = await rig.gateway.Overview(gateway_pb2.OverviewRequest(gateway="g1"))
    found = json.loads(answer.overview_json)

    assert [("default", "a"), ("team", "b")] == [
        (each["namespace"], each["name"]) for each in found["deployments"]
    ]
    assert "EarlierReplicas" == found["deployments"][0]["next"]["source"]
    assert 4 == found["deployments"][1]["load"]["in_flight"]
    assert ["b-1"] == [each["name"] for each in found["deployments"][1]["replicas"]]
    assert [int(rig.clock.now()) - 3] == [each["seen_at"] for each in found["clusters"]]

    rig.clock.advance(5)
    again = await rig.gateway.Overview(gateway_pb2.OverviewRequest(gateway="g1", etag=answer.etag))
    assert ("", answer.etag, answer.now + 5) == (again.overview_json, again.etag, again.now)
    rig.seen["default"] = rig.clock.now()
    other = await rig.gateway.Overview(gateway_pb2.OverviewRequest(gateway="g1", etag=answer.etag))
    assert int(rig.clock.now()) == json.loads(other.overview_json)["clusters"][0]["seen_at"]


async def test_a_gateway_has_a_name(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.gateway.Report(gateway_pb2.ReportRequest())
    assert grpc.StatusCode.INVALID_ARGUMENT is raised.value.code()
    call = rig.gateway.WatchEndpoints(gateway_pb2.WatchEndpointsRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError):
        await rig.gateway.Overview(gateway_pb2.OverviewRequest())
