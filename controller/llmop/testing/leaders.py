"""Controllers of a simulation: they can die, or stand still, before and after each of their effects."""

import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from llmop.channel import desk
from llmop.cluster import driver
from llmop.domain import errors, job, replica, resources
from llmop.domain.usage import UsageBy, UsageRow
from llmop.reconciler import loop
from llmop.store import interface


class Crash(BaseException):
    """The controller's process dies here. Not an Exception: nothing of ours may survive it."""


class Blow(enum.Enum):
    """What happens to a controller at one of its effects."""

    CRASH = enum.auto()
    PAUSE = enum.auto()  # it stands still, others take over, and later it goes on
    LOSE_ANSWER = enum.auto()  # the store did it, and says Unavailable
    REFUSE = enum.auto()  # the store does nothing, and says Unavailable


@dataclasses.dataclass(slots=True)
class Aim:
    """The blow falls at the `left`-th next effect of its kind."""

    blow: Blow
    left: int


class Surroundings(Protocol):
    """What a controller has around it."""

    def note(self, text: str) -> None: ...

    def struck(self, leader: "Leader", blow: Blow, where: str) -> None:
        """A blow has fallen."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Virtual time."""
        ...

    async def between(self, leader: "Leader") -> None:
        """Between what a controller has read and what it writes somebody else may write."""
        ...

    def delay(self, cluster: str, call: str) -> float:
        """How long this call of a cluster takes, seconds of virtual time."""
        ...

    def will_cancel(self, leader: "Leader", cluster: str, job_ids: Sequence[str]) -> None: ...

    def looked(self, cluster: str, snapshot: job.Snapshot) -> None: ...

    def wrote(self) -> None:
        """Something is about to be committed."""
        ...


class Leader:
    """One controller process: a reconciler and a desk, and the blows that it gets."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self.name = name
        self.around = around
        self.is_alive = True
        self.resumed: asyncio.Event | None = None  # set while it stands still
        self.has_read = -1  # how many writes it has followed
        self.blocked = 0  # how many of its coroutines wait for virtual time
        self.aims: list[Aim] = []
        self.work: asyncio.Task[None] | None = None  # a pass that stands still
        self.polls: dict[str, asyncio.Task[None]] = {}
        self.reconciler: loop.Reconciler
        self.desk: desk.Desk

    @property
    def is_paused(self) -> bool:
        return self.resumed is not None

    async def gate(self, where: str, blows: frozenset[Blow]) -> Blow | None:
        """An effect: a blow may fall here. The store's blows are returned, a crash is raised, a pause lasts."""
        if not self.is_alive:
            raise Crash
        fallen = None
        for aim in [aim for aim in self.aims if aim.blow in blows]:
            aim.left -= 1
            if aim.left <= 0 and fallen is None:
                self.aims.remove(aim)
                fallen = aim.blow
        if fallen is not None:
            self.around.struck(self, fallen, where)
        if fallen is Blow.CRASH:
            self.is_alive = False
            raise Crash
        if self.resumed is not None:
            self.blocked += 1
            try:
                await self.resumed.wait()
            finally:
                self.blocked -= 1
            if not self.is_alive:
                raise Crash
        return fallen

    async def wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self.blocked += 1
        try:
            await self.around.sleep(seconds)
        finally:
            self.blocked -= 1
        if not self.is_alive:
            raise Crash

    def tasks(self) -> list[asyncio.Task[None]]:
        """Everything that it does at the moment."""
        own = [*self.reconciler.tasks, *self.polls.values()]
        if self.work is not None:
            own.append(self.work)
        return [task for task in own if not task.done()]

    async def bury(self) -> None:
        """Its process is gone."""
        self.is_alive = False
        if self.resumed is not None:
            self.resumed.set()
        tasks = self.tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        finished = [*self.polls.values(), *([self.work] if self.work is not None else [])]
        for task in finished:
            if task.done() and not task.cancelled():
                task.exception()
        if self.reconciler.fatal.done() and not self.reconciler.fatal.cancelled():
            self.reconciler.fatal.exception()


_COMMIT_BEFORE = frozenset({Blow.CRASH, Blow.PAUSE, Blow.REFUSE})
_COMMIT_AFTER = frozenset({Blow.CRASH, Blow.PAUSE, Blow.LOSE_ANSWER})
_EFFECT = frozenset({Blow.CRASH, Blow.PAUSE})


class TappedStore:
    """A controller's view of the store. Implements `interface.Store`."""

    def __init__(self, inner: interface.Store, leader: Leader) -> None:
        self._inner = inner
        self._leader = leader

    async def installation(self) -> str:
        return await self._inner.installation()

    async def get(self, kind: str, namespace: str, name: str) -> resources.Resource:
        return await self._inner.get(kind, namespace, name)

    async def list(self, kind: str, namespace: str | None = None) -> interface.Listing:
        return await self._inner.list(kind, namespace)

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        return await self._inner.ledgers(replica_uids)

    async def commit(
        self, writes: Sequence[interface.Write], *, epoch: int | None = None, durable: bool = False
    ) -> interface.Committed:
        await self._leader.around.between(self._leader)
        if await self._leader.gate("before commit", _COMMIT_BEFORE) is Blow.REFUSE:
            raise errors.Unavailable("the store does not answer")
        self._leader.around.wrote()
        committed = await self._inner.commit(writes, epoch=epoch, durable=durable)
        if await self._leader.gate("after commit", _COMMIT_AFTER) is Blow.LOSE_ANSWER:
            raise errors.Unavailable("the store's answer was lost")
        return committed

    async def add_usage(self, spool: str, number: int, rows: Sequence[UsageRow]) -> bool:
        return await self._inner.add_usage(spool, number, rows)

    async def usage(
        self, by: Sequence[UsageBy], *, since: float, until: float, key: str = "", model: str = ""
    ) -> tuple[UsageRow, ...]:
        return await self._inner.usage(by, since=since, until=until, key=key, model=model)

    async def drop_usage(self, before: float) -> None:
        await self._inner.drop_usage(before)

    async def take_over(self, holder: str, now: float) -> int:
        return await self._inner.take_over(holder, now)

    async def epoch(self) -> int:
        return await self._inner.epoch()

    async def revision(self) -> int:
        return await self._inner.revision()

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        return await self._inner.changes(after, limit)

    def watch(self, after: int) -> AsyncIterator[interface.Change]:
        return self._inner.watch(after)

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        await self._inner.compact(
            changes_before=changes_before, tombstones_before=tombstones_before, events_before=events_before
        )

    async def close(self) -> None:
        """The store outlives its controllers."""


class TappedCluster:
    """A controller's commands on one cluster. Implements `driver.Cluster`."""

    def __init__(self, name: str, inner: driver.Cluster, leader: Leader) -> None:
        self._name = name
        self._inner = inner
        self._leader = leader

    async def submit(self, request: job.JobRequest) -> job.SubmitOutcome:
        await self._leader.gate("before sbatch", _EFFECT)
        outcome = await self._inner.submit(request)
        await self._leader.wait(self._leader.around.delay(self._name, "submit"))
        await self._leader.gate("after sbatch", _EFFECT)
        return outcome

    async def snapshot(self) -> job.Snapshot:
        snapshot = await self._inner.snapshot()
        seconds = self._leader.around.delay(self._name, "snapshot")
        await self._leader.wait(seconds)
        self._leader.around.looked(self._name, snapshot)
        return dataclasses.replace(snapshot, taken_at=round(snapshot.taken_at + seconds, 6))

    async def history(self, names: Sequence[str], since: float) -> job.History:
        return await self._inner.history(names, since)

    async def cancel(self, job_ids: Sequence[str]) -> str:
        await self._leader.gate("before scancel", _EFFECT)
        self._leader.around.will_cancel(self._leader, self._name, job_ids)
        problem = await self._inner.cancel(job_ids)
        await self._leader.gate("after scancel", _EFFECT)
        return problem

    async def signal(self, job_id: str) -> str:
        return await self._inner.signal(job_id)

    async def capabilities(self) -> job.Capabilities | str:
        return await self._inner.capabilities()


class TappedFiles:
    """A controller's view of the shared directory, which is a dictionary. Implements `shared.SharedDirectory`."""

    def __init__(self, files: "Files", leader: Leader) -> None:
        self._files = files
        self._leader = leader

    async def prepare(self, name: str, config: Mapping[str, Any]) -> None:
        await self._leader.gate("before prepare", _EFFECT)
        self._files.write(name, config)
        await self._leader.gate("after prepare", _EFFECT)

    async def read_end(self, name: str) -> replica.End | None:
        return self._files.ends.get(name)

    async def clear(self, name: str) -> int:
        await self._leader.gate("before clear", _EFFECT)
        return 0

    async def remove(self, name: str) -> None:
        self._files.remove(name)


class Files:
    """The shared directory: replica.json and exit.json by replica name."""

    def __init__(self) -> None:
        self.configs: dict[str, Mapping[str, Any]] = {}
        self.ends: dict[str, replica.End] = {}
        self.is_writable = True

    def check(self) -> None:
        if not self.is_writable:
            raise OSError(28, "No space left on device")

    def write(self, name: str, config: Mapping[str, Any]) -> None:
        self.check()
        self.configs[name] = config

    def remove(self, name: str) -> None:
        self.ends.pop(name, None)


class SimulatedDesk(desk.Desk):
    """A desk that says when it gives an order, and whose agents may report less often than every 5 s."""

    def __init__(self, *arguments: Any, given: Callable[[str], None], period_s: float) -> None:
        super().__init__(*arguments)
        self._given = given
        self._period_s = period_s

    @property
    def period_s(self) -> float:
        return self._period_s

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        is_new = uid not in self._orders
        super().drain(uid, order_id, reason, deadline_at)
        if is_new:
            self._given(uid)
