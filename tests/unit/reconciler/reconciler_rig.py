"""A reconciler over a store in memory and the virtual Slurm, in virtual time; its shared directory can hang."""

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

from llmop.channel import desk
from llmop.domain import replica, resources, site
from llmop.manifest import merge
from llmop.reconciler import loop, observe, ports, queue, render
from llmop.store import interface
from llmop.testing import builders
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.shape import Shape, constant

CHAT = queue.Key(kind=resources.MODEL_DEPLOYMENT, namespace="default", name=builders.DEPLOYMENT)


class Directory:
    """A shared directory in memory. While it `hangs` nothing of it answers in time."""

    def __init__(self) -> None:
        self.hangs = False
        self.ends: dict[str, replica.End] = {}
        self.asked_for_ends = 0
        self.cleared: list[str] = []

    async def _answer(self) -> None:
        if self.hangs:
            raise OSError(errno.ETIMEDOUT, "does not answer within 10 s")

    async def install(self, where: site.Site) -> render.Installation:
        await self._answer()
        return render.Installation(id=builders.INSTALLATION, agent="/shared/llmop/agent/a.py", ca="")

    async def prepare(self, name: str, config: Mapping[str, Any]) -> None:
        await self._answer()

    async def read_end(self, name: str) -> replica.End | None:
        self.asked_for_ends += 1
        await self._answer()
        return self.ends.get(name)

    async def clear(self, name: str) -> int:
        await self._answer()
        self.cleared.append(name)
        return 0


class Rig:
    """Use: `start`, then `poll` and `settle` as often as wanted."""

    def __init__(self, **shape: Any) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(builders.INSTALLATION)
        settings = {"queue_wait": constant(0), "completing": constant(0), "purge_lag": constant(0), **shape}
        self.slurm = VirtualSlurm(self.clock, shape=Shape(**settings))
        self.directory = Directory()
        self.reconciler: loop.Reconciler
        self.desk: desk.Desk

    async def start(self, cluster: Mapping[str, Any] | None = None, **deployment: Any) -> None:
        """A controller with one cluster and, when `deployment` says something, a deployment of it."""
        wanted = {"pollInterval": {"min": "5s", "max": "60s"}, **(cluster or {})}
        documents = [
            builders.cluster_manifest(**wanted),
            builders.runtime_manifest(),
            builders.profile_manifest(),
        ]
        if deployment:
            documents.append(builders.deployment_manifest(**deployment))
        for document in documents:
            admitted = merge.apply(None, document, manager="test").resource
            made = resources.Resource(
                kind=admitted.kind,
                namespace=admitted.namespace,
                name=admitted.name,
                uid=self.clock.uid(),
                spec=admitted.spec,
                owned_fields=admitted.owned_fields,
                created_at=self.clock.now(),
            )
            await self.store.commit([interface.Create(resource=made)])
        await self.restart()

    async def restart(self) -> None:
        """The next controller takes over; the one before is not heard of any more."""
        outside = ports.Ports(
            store=self.store,
            clock=self.clock,
            make_cluster=lambda _: self.slurm,
            make_files=lambda _: self.directory,
            install=self.directory.install,
            jitter=lambda: 0.0,
        )
        self.reconciler = await loop.Reconciler.start(outside, "test")
        self.desk = desk.Desk(
            self.store, self.clock, self.reconciler.epoch, self.reconciler.heard, self.reconciler.is_over
        )
        self.reconciler.attach(self.desk)
        await self.reconciler.refresh()
        await self.reconciler.resync()

    @property
    def watch(self) -> observe.ClusterWatch:
        return self.reconciler.fleet.watches[builders.CLUSTER]

    async def poll(self) -> None:
        await self.reconciler.lookout.poll(builders.CLUSTER)

    async def settle(self) -> None:
        """Passes and their effects, until nothing is left to do now."""
        while True:
            key = self.reconciler.queue.take(self.clock.monotonic())
            if key is not None:
                await self.reconciler.process(key)
            elif self.reconciler.tasks:
                await asyncio.wait(self.reconciler.tasks)
            else:
                return

    async def replicas(self) -> list[resources.Resource]:
        return list((await self.store.list(resources.REPLICA)).items)

    async def condition(self, kind: str, name: str, namespace: str, word: str) -> Mapping[str, Any]:
        shown = await self.store.get(kind, namespace, name)
        return next(each for each in shown.status["conditions"] if each["type"] == word)
