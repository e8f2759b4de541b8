"""The gRPC server: all services on one Unix socket, with health and reflection."""

import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from llmop.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    artifacts_pb2,
    artifacts_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    logs_pb2,
    logs_pb2_grpc,
    resources_pb2,
    resources_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from llmop.clock import Clock
from llmop.domain.errors import NeedsUser
from llmop.rpc import socket
from llmop.rpc.admin import Administration, AdminServicer
from llmop.rpc.artifacts import ArtifactServicer
from llmop.rpc.endpoints import EndpointSource
from llmop.rpc.gateway import GatewayServicer, Objects
from llmop.rpc.interceptor import ErrorInterceptor
from llmop.rpc.loads import LoadSink
from llmop.rpc.logs import LogServicer
from llmop.rpc.resources import ResourceServicer
from llmop.rpc.rollout import RolloutServicer
from llmop.rpc.usage import UsageServicer
from llmop.rpc.writing import Hint, Writer
from llmop.store.interface import Store

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (resources_pb2, "ResourceService"),
        (rollout_pb2, "RolloutService"),
        (logs_pb2, "LogService"),
        (gateway_pb2, "GatewayService"),
        (admin_pb2, "AdminService"),
        (artifacts_pb2, "ArtifactService"),
        (usage_pb2, "UsageService"),
    )
)
_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
)


class ControlServer:
    """Listens from `start` to `stop`; belongs to the event loop it was started in."""

    def __init__(self, server: grpc.aio.Server, health_servicer: Any, address: str) -> None:
        self.address = address
        self._server = server
        self._health = health_servicer
        self._claim = contextlib.ExitStack()

    async def start(self) -> None:
        """Raises NeedsUser when the socket's directory is unsafe or the address is taken."""
        path = socket.parse(self.address)
        self._claim.enter_context(socket.claim(path))
        try:
            try:
                self._server.add_insecure_port(f"unix://{path}")
            except RuntimeError as error:  # all that gRPC says about a failed bind
                raise NeedsUser("CannotListen", f"{path}: no socket can be made here: {error}") from error
            path.chmod(0o600)
            await self._server.start()
            for name in ("", *SERVICES):
                await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        except BaseException:
            self._claim.close()
            raise

    async def stop(self, grace_s: float = 1.0) -> None:
        """Calls get `grace_s` to end, streams are cut then."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        self._claim.close()


def build(
    address: str,
    *,
    store: Store,
    objects: Objects,
    clock: Clock,
    endpoints: EndpointSource,
    loads: LoadSink,
    seen_at: Callable[[str], float | None],
    hint: Hint,
    administration: Administration,
    log_poll_s: float = 0.5,
) -> ControlServer:
    """The server of the control API at `unix:///absolute/path`, not listening yet.

    `objects(kind, ...)` gives all objects of each kind, from memory where there is a copy; `seen_at(cluster)` says when a cluster was
    looked at last (epoch seconds, None: never); `hint(kind, namespace, name)` is called after each write; `log_poll_s` is how often a
    followed log is looked at.
    Raises NeedsUser for an address that is not supported.
    """
    socket.parse(address)
    server = grpc.aio.server(interceptors=(ErrorInterceptor(clock),), options=_OPTIONS)
    writer = Writer(store, clock, hint)
    services: tuple[tuple[Any, Any], ...] = (
        (resources_pb2_grpc.add_ResourceServiceServicer_to_server, ResourceServicer(store, clock, writer)),
        (rollout_pb2_grpc.add_RolloutServiceServicer_to_server, RolloutServicer(store, clock, writer, loads)),
        (logs_pb2_grpc.add_LogServiceServicer_to_server, LogServicer(store, log_poll_s)),
        (
            gateway_pb2_grpc.add_GatewayServiceServicer_to_server,
            GatewayServicer(store, objects, clock, endpoints, loads, seen_at),
        ),
        (admin_pb2_grpc.add_AdminServiceServicer_to_server, AdminServicer(administration)),
        (artifacts_pb2_grpc.add_ArtifactServiceServicer_to_server, ArtifactServicer(store)),
        (usage_pb2_grpc.add_UsageServiceServicer_to_server, UsageServicer(store)),
    )
    for add, servicer in services:
        add(servicer, server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return ControlServer(server, health_servicer, address)
