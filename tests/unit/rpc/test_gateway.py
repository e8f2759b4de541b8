"""What gateways hear and say."""

import asyncio
from typing import Any

import grpc
import pytest
from tests.control.rig import Rig

from llmop.api.v1 import gateway_pb2
from llmop.domain.client import ClientKey
from llmop.domain.endpoint import EndpointTable, RoutedModel
from llmop.domain.scaling import Reported


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


async def test_a_gateway_has_a_name(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.gateway.Report(gateway_pb2.ReportRequest())
    assert grpc.StatusCode.INVALID_ARGUMENT is raised.value.code()
    call = rig.gateway.WatchEndpoints(gateway_pb2.WatchEndpointsRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
