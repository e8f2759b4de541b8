"""How long it takes from an apply until the last of 100 clients that watch has seen it, against a single client that watches.

The clients are connections of their own in one process (asyncio), and their work is in the figure: on a machine with few cores it is
most of it. Beside it the CPU time that the controller spends on each event of each client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import bench
import grpc
from embedded import place
from fleets import usage

from llmop.api.v1 import resources_pb2, resources_pb2_grpc

ROUNDS = 25
CLIENTS = 100
PATIENCE_S = 30.0
NAME = "watched"


class Crowd:
    """Clients that watch deployments. `seen[n]` is how many have seen the value n of the annotation `bench`."""

    def __init__(self, address: str, clients: int) -> None:
        self._address = address
        self._clients = clients
        self._seen: dict[str, int] = {}
        self._synced = 0  # clients that have seen the first state
        self._news = asyncio.Event()
        self._number = 0

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        self._synced = 0
        tasks = [asyncio.create_task(self._watch()) for _ in range(self._clients)]
        try:
            await self._until(lambda: self._synced == self._clients)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until(self, is_so: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def _watch(self) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub: Any = resources_pb2_grpc.ResourceServiceStub(channel)
            async for answer in stub.Watch(resources_pb2.WatchRequest(kind="ModelDeployment")):
                if answer.type == resources_pb2.WatchResponse.TYPE_BOOKMARK:
                    self._synced += 1
                else:
                    value = answer.row.object.metadata.annotations.get("bench", "")
                    self._seen[value] = self._seen.get(value, 0) + 1
                self._news.set()

    async def once(self, stub: Any) -> float:
        """Milliseconds from the apply of a change until everybody has seen it."""
        self._number += 1
        value = str(self._number)
        request = resources_pb2.ApplyRequest(
            manifest_json=json.dumps(_manifest(value)), field_manager="bench"
        )
        began = time.perf_counter()
        await asyncio.gather(
            stub.Apply(request), self._until(lambda: self._seen.get(value, 0) >= self._clients)
        )
        return (time.perf_counter() - began) * 1000


def _manifest(value: str) -> Mapping[str, object]:
    made = dict(place.deployment(NAME))
    made["metadata"] = {"name": NAME, "annotations": {"bench": value}}
    return made


def run() -> bench.Result:
    conditions = bench.machine()
    with place.controller() as at:
        values, cpu_ms = asyncio.run(_measure(at))
    middle = bench.medians(values)
    return bench.Result(
        name="watch_fanout",
        unit=f"ms from an apply until the last of {CLIENTS} clients has seen it",
        ours=middle["all"],
        peers={"one client": middle["one"]},
        higher_is_better=False,
        more={
            "p90_ms": round(statistics.quantiles(values["all"], n=10)[-1], 1),
            "added_ms": round(middle["all"] - middle["one"], 1),
            "controller_cpu_ms_per_client_and_event": round(cpu_ms, 3),
        },
        conditions={**conditions, "load_average_after": round(os.getloadavg()[0], 2), "rounds": ROUNDS},
    )


async def _measure(at: place.Controller) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of each round with all clients and with one, and the controller's CPU milliseconds for each client and event."""
    values: dict[str, list[float]] = {"all": [], "one": []}
    cpu = {"all": 0.0, "one": 0.0}
    crowds = {"all": Crowd(at.address, CLIENTS), "one": Crowd(at.address, 1)}
    async with grpc.aio.insecure_channel(at.address) as channel:
        stub: Any = resources_pb2_grpc.ResourceServiceStub(channel)
        for name in (
            *crowds,
            *reversed(crowds),
        ):  # one at a time, each of them once in the first half and once in the second
            crowd = crowds[name]
            async with crowd.watching():
                await crowd.once(stub)
                before = usage.cpu_of(at.pid)
                values[name] += [await crowd.once(stub) for _ in range(ROUNDS)]
                cpu[name] += usage.cpu_of(at.pid).since(before).own
    # What an apply costs without watchers is in both.
    return values, 1000 * (cpu["all"] - cpu["one"]) / (2 * ROUNDS * (CLIENTS - 1))
