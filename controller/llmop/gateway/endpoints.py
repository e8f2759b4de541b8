"""The gateway's line to the controller: the endpoint table comes in, the version in force and the load go out.

The only module of the gateway that speaks gRPC. Whatever happens to this line, the table in force stays in force.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import grpc
import grpc.aio

from llmop.api.v1 import gateway_pb2, gateway_pb2_grpc
from llmop.clock import Clock
from llmop.domain.scaling import Reported
from llmop.gateway import operations
from llmop.gateway.app import Presence
from llmop.gateway.operations import Overview
from llmop.gateway.spool import Batch, Spool
from llmop.gateway.table import ReceivedTable, from_message, to_report

LOG = logging.getLogger(__name__)

REPORT_PERIOD = 1.0
_REPORT_TIMEOUT = 2.0
USAGE_PERIOD = 5.0
_USAGE_TIMEOUT = 10.0
_OVERVIEW_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_BREATH = 0.02  # between two reports, whatever the hurry
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

    @property
    def received(self) -> ReceivedTable | None: ...

    def apply(self, received: ReceivedTable) -> bool:
        """False for a table that is older than the one in force."""
        ...

    async def settled(self) -> None:
        """Returns once the last table is acted on and every connection that was told to close is closed."""
        ...

    def loads(self) -> Mapping[str, Reported]:
        """One per deployment of the table, as it is now."""
        ...

    def reported(self, loads: Mapping[str, Reported]) -> None:
        """The controller has got these."""
        ...


class ControllerLine:
    """`save` writes a table to disk; it is called before the table's version is acknowledged, so that a gateway that starts again
    never sends anything to an endpoint which it had promised to leave alone. `hurry` is set by whoever has something that should be
    reported at once.
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
        hurry: asyncio.Event,
        spool: Spool | None,
        own_tally: str,
    ) -> None:
        self._target = target
        self._name = name
        self._fleet = fleet
        self._presence = presence
        self._clock = clock
        self._save = save
        self._random = random
        self._spool = spool
        self._own_tally = own_tally
        self._acknowledged = fleet.received.table.version if fleet.received is not None else 0
        self._hurry = hurry
        self._stub: gateway_pb2_grpc.GatewayServiceStub | None = None  # while the line is up
        self._overview = Overview()

    async def run(self) -> None:
        """Until cancelled."""
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            stub = self._stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch(stub))
                    group.create_task(self._report(stub))
                    if self._spool is not None:
                        group.create_task(self._report_usage(stub, self._spool))
            finally:
                self._stub = None

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
        received = from_message(message, now, self._fleet.received)
        if not self._fleet.apply(received):
            return
        self._presence.confirmed_at = now
        await self._fleet.settled()
        await self._save(received)
        self._acknowledged = received.table.version
        self._hurry.set()

    async def _report(self, stub: gateway_pb2_grpc.GatewayServiceStub) -> None:
        period = REPORT_PERIOD
        while True:
            try:
                async with asyncio.timeout(period):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            loads = self._fleet.loads()
            try:
                response = await stub.Report(
                    to_report(self._name, self._acknowledged, loads), timeout=_REPORT_TIMEOUT
                )
            except grpc.aio.AioRpcError as error:
                LOG.debug("report not taken: %s", error.details())
                await asyncio.sleep(_FIRST_PAUSE)
                continue
            self._fleet.reported(loads)
            await asyncio.sleep(_BREATH)
            if self._presence.connected:
                self._presence.confirmed_at = self._clock.now()
            if response.period_ms > 0:
                period = min(REPORT_PERIOD, response.period_ms / 1000)

    async def _report_usage(self, stub: gateway_pb2_grpc.GatewayServiceStub, spool: Spool) -> None:
        while True:
            await asyncio.sleep(USAGE_PERIOD)
            try:
                await self._hand_over(stub, spool)
            except OSError as error:
                LOG.error("what clients used stays in memory for now: %s", error)
            except grpc.aio.AioRpcError as error:
                LOG.debug("usage not taken: %s", error.details())
            except Exception:  # this line goes on whatever is wrong with one batch
                LOG.exception("usage could not be handed over")

    async def _hand_over(self, stub: gateway_pb2_grpc.GatewayServiceStub, spool: Spool) -> None:
        """Everything that there is. Raises OSError and AioRpcError; nothing is lost then."""
        while (batch := await asyncio.to_thread(spool.collect, self._own_tally)) is not None:
            await stub.ReportUsage(_to_request(self._name, spool.name, batch), timeout=_USAGE_TIMEOUT)
            spool.arrived(batch.number)

    async def overview(self) -> Overview:
        """As the controller gives it now."""
        if self._stub is not None:
            try:
                last = self._overview
                answer = await self._stub.Overview(
                    gateway_pb2.OverviewRequest(gateway=self._name, etag=last.etag), timeout=_OVERVIEW_TIMEOUT
                )
                text = answer.overview_json or operations.at(last.text or "", last.now, answer.now)
                self._overview = Overview(text, self._clock.now(), answer.etag, answer.now)
                return self._overview
            except grpc.aio.AioRpcError as error:
                is_away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                LOG.log(logging.DEBUG if is_away else logging.WARNING, "no overview: %s", error.details())
            except Exception:  # who looks at it must not end a gateway
                LOG.exception("the overview could not be asked for")
        return Overview(None, self._overview.heard_at)

    async def last_words(self) -> None:
        """What was used before the end; what the controller does not hear now it hears from the next gateway here."""
        if self._spool is None:
            return
        try:
            async with (
                asyncio.timeout(_REPORT_TIMEOUT),
                grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel,
            ):
                stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
                await self._hand_over(stub, self._spool)
        except (OSError, TimeoutError, grpc.aio.AioRpcError) as error:
            LOG.info("what was used last is told when a gateway starts here again: %s", error)


def _to_request(gateway: str, spool: str, batch: Batch) -> gateway_pb2.ReportUsageRequest:
    return gateway_pb2.ReportUsageRequest(
        gateway=gateway,
        spool=spool,
        number=batch.number,
        rows=[
            gateway_pb2.UsageRow(
                hour=row.hour, key=row.key, model=row.model, **dataclasses.asdict(row.amount)
            )
            for row in batch.rows
        ],
    )
