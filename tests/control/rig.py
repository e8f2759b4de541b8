"""A control server on a Unix socket over a store, in the test's event loop."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from llmop.api.v1 import (
    admin_pb2_grpc,
    gateway_pb2_grpc,
    logs_pb2_grpc,
    resources_pb2,
    resources_pb2_grpc,
    rollout_pb2_grpc,
)
from llmop.domain import checks
from llmop.domain.endpoint import EndpointTable
from llmop.domain.replica import EngineLoad
from llmop.domain.resources import Resource
from llmop.domain.scaling import Reported
from llmop.planner.autoscale import Decision, Load
from llmop.rpc import server
from llmop.store.interface import Store
from llmop.testing.clock import FakeClock


class Endpoints:
    """An EndpointSource that a test changes by hand."""

    def __init__(self) -> None:
        self._table = EndpointTable(version=1)
        self._news = asyncio.Event()
        self.acknowledged: list[tuple[str, int]] = []

    def table(self) -> EndpointTable:
        return self._table

    async def changed(self, after_version: int) -> EndpointTable:
        while self._table.version <= after_version:
            news = self._news
            await news.wait()
        return self._table

    def acknowledge(self, gateway: str, version: int) -> None:
        self.acknowledged.append((gateway, version))

    def publish(self, table: EndpointTable) -> None:
        self._table = table
        news, self._news = self._news, asyncio.Event()
        news.set()


class Loads:
    """A LoadSink that keeps what it is told and answers what a test has given it."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Mapping[str, Reported]]] = []
        self.decisions: dict[str, Decision] = {}
        self.loads: dict[str, dict[str, EngineLoad | None]] = {}  # by uid of the deployment
        self.of_gateways: dict[str, Load] = {}

    def report(self, gateway: str, loads: Mapping[str, Reported]) -> None:
        self.reports.append((gateway, loads))

    def load(self, deployment: str) -> Load | None:
        return self.of_gateways.get(deployment)

    def decision(self, uid: str) -> Decision | None:
        return self.decisions.get(uid)

    def engines(self, owner: Resource) -> Mapping[str, EngineLoad | None]:
        return self.loads.get(owner.uid, {})


class Administration:
    """An Administration that answers what a test has given it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.checks: list[checks.Check] = []
        self.questions: list[checks.PreflightQuestion] = []
        self.discovered: list[tuple[str, str]] = []

    async def discover(self, cluster: str, shared_dir: str) -> Mapping[str, str]:
        self.discovered.append((cluster, shared_dir))
        return self.files

    async def preflight(self, question: checks.PreflightQuestion) -> AsyncIterator[checks.Check]:
        self.questions.append(question)
        for each in self.checks:
            yield each

    async def doctor(self) -> Sequence[checks.Check]:
        return self.checks


@dataclasses.dataclass(kw_only=True)
class Rig:
    """A running server, its parts, and stubs that call it."""

    address: str
    channel: Any
    store: Store
    clock: FakeClock
    endpoints: Endpoints
    loads: Loads
    administration: Administration
    hints: list[tuple[str, str, str]]
    seen: dict[str, float]  # when clusters were looked at

    def __post_init__(self) -> None:
        self.resources: Any = resources_pb2_grpc.ResourceServiceStub(self.channel)
        self.rollout: Any = rollout_pb2_grpc.RolloutServiceStub(self.channel)
        self.logs: Any = logs_pb2_grpc.LogServiceStub(self.channel)
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.gateway: Any = gateway_pb2_grpc.GatewayServiceStub(self.channel)

    async def apply(self, document: Mapping[str, Any], **options: Any) -> Any:
        return await self.resources.Apply(
            resources_pb2.ApplyRequest(manifest_json=json.dumps(document), **options)
        )

    async def get(self, kind: str, name: str, namespace: str = "") -> Any:
        return await self.resources.Get(resources_pb2.GetRequest(kind=kind, namespace=namespace, name=name))

    async def delete(self, kind: str, name: str, **options: Any) -> Any:
        return await self.resources.Delete(resources_pb2.DeleteRequest(kind=kind, name=name, **options))


def listed(store: Store) -> Any:
    """The objects of kinds without a copy in memory."""

    async def objects(*kinds: str) -> list[Sequence[Resource]]:
        return [(await store.list(kind)).items for kind in kinds]

    return objects


@contextlib.asynccontextmanager
async def serving(store: Store, directory: Path) -> AsyncIterator[Rig]:
    clock, endpoints, administration, hints = FakeClock(), Endpoints(), Administration(), []
    loads, seen = Loads(), {}
    address = f"unix://{directory}/run/control.sock"
    control = server.build(
        address,
        store=store,
        objects=listed(store),
        clock=clock,
        endpoints=endpoints,
        loads=loads,
        seen_at=seen.get,
        hint=lambda *key: hints.append(key),
        administration=administration,
        log_poll_s=0.01,
    )
    await control.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Rig(
                address=address,
                channel=channel,
                store=store,
                clock=clock,
                endpoints=endpoints,
                loads=loads,
                administration=administration,
                hints=hints,
                seen=seen,
            )
    finally:
        await control.stop(grace_s=0)
