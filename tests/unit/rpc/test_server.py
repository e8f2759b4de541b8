"""The socket is private, the services are announced."""

import os
import stat
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.control.rig import Administration, Endpoints, Loads, Rig, listed

from llmop.domain.errors import NeedsUser
from llmop.rpc import server, socket
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore


def build(address: str) -> server.ControlServer:
    store = MemoryStore()
    return server.build(
        address,
        store=store,
        objects=listed(store),
        clock=FakeClock(),
        endpoints=Endpoints(),
        loads=Loads(),
        seen_at=lambda _name: None,
        hint=lambda kind, namespace, name: None,
        administration=Administration(),
    )


async def test_health_says_serving_for_every_service(rig: Rig) -> None:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    for service in ("", *server.SERVICES):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert health_pb2.HealthCheckResponse.SERVING == answer.status


async def test_reflection_lists_the_services(rig: Rig) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    assert set(server.SERVICES) <= {each.name for each in answer.list_services_response.service}


async def test_the_directory_and_the_socket_are_their_owners_only(tmp_path: Path) -> None:
    control = build(f"unix://{tmp_path}/run/control.sock")
    await control.start()
    try:
        assert 0o700 == stat.S_IMODE((tmp_path / "run").stat().st_mode)
        assert 0o600 == stat.S_IMODE((tmp_path / "run" / "control.sock").stat().st_mode)
    finally:
        await control.stop()
    assert not (tmp_path / "run" / "control.sock").exists()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o770, 0o777])
async def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(NeedsUser, match=f"chmod 700 {tmp_path}/run"):
        await build(f"unix://{tmp_path}/run/control.sock").start()
    assert [] == list((tmp_path / "run").iterdir())


async def test_a_directory_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(NeedsUser, match="no symbolic link"):
        await build(f"unix://{tmp_path}/run/control.sock").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
async def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(NeedsUser, match="belongs to user id 65534"):
        await build(f"unix://{tmp_path}/run/control.sock").start()


async def test_a_second_controller_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    with pytest.raises(NeedsUser, match="another controller listens here"):
        await build(rig.address).start()
    assert await rig.store.installation()
    stub = health_pb2_grpc.HealthStub(rig.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status


async def test_a_socket_left_by_a_killed_controller_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "control.sock").touch()
    control = build(f"unix://{tmp_path}/run/control.sock")
    await control.start()
    await control.stop()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:8000", "TCP is not"),
        ("tcp://0.0.0.0:1", "TCP is not"),
        ("unix:///", "must be absolute"),
        ("unix://relative/x", "must be absolute"),
        ("unix:///a/../b", "must be absolute"),
        (f"unix:///{'x' * 120}", "at most 107 bytes"),
    ],
)
def test_other_addresses_are_refused_by_name(address: str, text: str) -> None:
    with pytest.raises(NeedsUser, match=text) as raised:
        socket.parse(address)
    assert address in str(raised.value)


async def test_watches_end_when_the_server_stops(tmp_path: Path) -> None:
    from llmop.api.v1 import resources_pb2, resources_pb2_grpc

    control = build(f"unix://{tmp_path}/run/control.sock")
    await control.start()
    async with grpc.aio.insecure_channel(control.address) as channel:
        call = resources_pb2_grpc.ResourceServiceStub(channel).Watch(resources_pb2.WatchRequest(kind="md"))
        await call.read()
        await control.stop(grace_s=0)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert grpc.StatusCode.UNAVAILABLE is raised.value.code()
