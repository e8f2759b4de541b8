"""The gateway's line to the controller: the endpoint table comes in, the version in force and the load go out.

The only module of the gateway that speaks gRPC. Whatever happens to this line, the table in force stays in force.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc
import grpc.aio

from llmop.api.v1 import gateway_pb2, gateway_pb2_grpc
from llmop.clock import Clock
from llmop.domain.scaling import Reported
from llmop.gateway import loads
from llmop.gateway.app import Presence
from llmop.gateway.metrics import Counts
from llmop.gateway.table import ReceivedTable, from_message

LOG = logging.getLogger(__name__)

REPORT_PERIOD = 1.0
_REPORT_TIMEOUT = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Tables(Protocol):
    """Where tables take effect: in this process, or in all workers."""

    received: ReceivedTable | None

    def apply(self, received: ReceivedTable) -> bool:
        """False for a table that is older than the one in force."""
        ...

    async def settled(self) -> None:
        """Returns once the last table is acted on and every connection that was told to close is closed."""
        ...

    def counts(self) -> Counts:
        """Of all processes of this gateway."""
        ...


class ControllerLine:
    """`save` writes a table to disk; it is called before the table's version is acknowledged, so that a gateway that starts again
    never sends anything to an endpoint which it had promised to leave alone.
    """

    def __init__(
        self,
        target: str,
        name: str,
        fleet: Tables,
        presence: Presence,
        clock: Clock,
        save: Callable[[ReceivedTable], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._target = target
        self._name = name
        self._fleet = fleet
        self._presence = presence
        self._clock = clock
        self._save = save
        self._random = random
        self._acknowledged = fleet.received.table.version if fleet.received is not None else 0
        self._applied = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(stub))
                group.create_task(self._report(stub))

    async def _watch(self, stub: gateway_pb2_grpc.GatewayServiceStub) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async for message in stub.WatchEndpoints(
                    gateway_pb2.WatchEndpointsRequest(gateway=self._name)
                ):
                    pause = _FIRST_PAUSE
                    await self._receive(message)
                LOG.info("the controller ended the watch")
            except Exception as error:  # the table in force outlives every fault of this line
                if not isinstance(error, grpc.aio.AioRpcError):
                    LOG.exception("the table could not be taken over")
                elif self._presence.connected:
                    LOG.warning("the controller is away, serving with the last table: %s", error.details())
            self._presence.connected = False
            await asyncio.sleep(pause * (0.5 + self._random() / 2))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _receive(self, message: gateway_pb2.EndpointTable) -> None:
        now = self._clock.now()
        self._presence.connected = True
        received = from_message(message, now)
        if not self._fleet.apply(received):
            return
        self._presence.confirmed_at = now
        await self._fleet.settled()
        await self._save(received)
        self._acknowledged = received.table.version
        self._applied.set()

    async def _report(self, stub: gateway_pb2_grpc.GatewayServiceStub) -> None:
        period = REPORT_PERIOD
        unserved: dict[str, int] = {}  # what the controller was told of
        while True:
            try:
                async with asyncio.timeout(period):
                    await self._applied.wait()
            except TimeoutError:
                pass
            self._applied.clear()
            table = self._fleet.received
            load = loads.of(self._fleet.counts(), table.table.models if table else (), unserved)
            try:
                response = await stub.Report(
                    gateway_pb2.ReportRequest(
                        gateway=self._name,
                        table_version=self._acknowledged,
                        loads=[_to_message(deployment, each) for deployment, each in load.items()],
                    ),
                    timeout=_REPORT_TIMEOUT,
                )
            except grpc.aio.AioRpcError as error:
                LOG.debug("report not taken: %s", error.details())
                continue
            unserved = {name: unserved.get(name, 0) + each.unserved for name, each in load.items()}
            if self._presence.connected:
                self._presence.confirmed_at = self._clock.now()
            if response.period_ms > 0:
                period = min(REPORT_PERIOD, response.period_ms / 1000)


def _to_message(deployment: str, load: Reported) -> gateway_pb2.DeploymentLoad:
    return gateway_pb2.DeploymentLoad(
        deployment=deployment,
        in_flight=load.in_flight,
        queued=load.queued,
        unserved=load.unserved,
        generated_tokens=load.generated_tokens,
    )
