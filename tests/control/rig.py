"""A control server on a Unix socket over a store, in the test's event loop."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from llmop.api.v1 import (
    gateway_pb2_grpc,
    logs_pb2_grpc,
    resources_pb2,
    resources_pb2_grpc,
    rollout_pb2_grpc,
)
from llmop.domain.endpoint import EndpointTable
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


@dataclasses.dataclass(kw_only=True)
class Rig:
    """A running server, its parts, and stubs that call it."""

    address: str
    channel: Any
    store: Store
    clock: FakeClock
    endpoints: Endpoints
    hints: list[tuple[str, str, str]]

    def __post_init__(self) -> None:
        self.resources: Any = resources_pb2_grpc.ResourceServiceStub(self.channel)
        self.rollout: Any = rollout_pb2_grpc.RolloutServiceStub(self.channel)
        self.logs: Any = logs_pb2_grpc.LogServiceStub(self.channel)
        self.gateway: Any = gateway_pb2_grpc.GatewayServiceStub(self.channel)

    async def apply(self, document: Mapping[str, Any], **options: Any) -> Any:
        return await self.resources.Apply(
            resources_pb2.ApplyRequest(manifest_json=json.dumps(document), **options)
        )

    async def get(self, kind: str, name: str, namespace: str = "") -> Any:
        return await self.resources.Get(resources_pb2.GetRequest(kind=kind, namespace=namespace, name=name))

    async def delete(self, kind: str, name: str, **options: Any) -> Any:
        return await self.resources.Delete(resources_pb2.DeleteRequest(kind=kind, name=name, **options))


@contextlib.asynccontextmanager
async def serving(store: Store, directory: Path) -> AsyncIterator[Rig]:
    clock, endpoints, hints = FakeClock(), Endpoints(), []
    address = f"unix://{directory}/run/control.sock"
    control = server.build(
        address,
        store=store,
        clock=clock,
        endpoints=endpoints,
        hint=lambda *key: hints.append(key),
        log_poll_s=0.01,
    )
    await control.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Rig(
                address=address, channel=channel, store=store, clock=clock, endpoints=endpoints, hints=hints
            )
    finally:
        await control.stop(grace_s=0)
