"""Lets everybody act in virtual time: at each moment, in a fixed order, until nobody has anything to do.

A controller runs as tasks on the event loop; the director gives them turns until all of them wait for virtual time or are done.
"""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from llmop.domain import errors
from llmop.planner import values
from llmop.reconciler import queue
from llmop.testing import invariants, leaders

if TYPE_CHECKING:
    from llmop.testing.world import World

SPINS = 400  # passes at one moment of virtual time; more are a pass that never comes to rest
# Passes: what one has written may be what the next one acts on (an end, then what it leaves behind). While nothing may be submitted, the
# intents of an older revision give way one by one, and no sbatch under way says that there is more to come.
COMES_TO_REST = 20
REPETITIONS = frozenset({values.OrderDrain, values.CancelJobs, values.SubmitJob})


class Director:
    def __init__(self, world: "World", source: random.Random) -> None:
        self._world = world
        self._source = source
        self._hanging: set[asyncio.Future[None]] = set()

    def end(self) -> None:
        for task in self._hanging:
            task.cancel()

    async def run(self, until: float) -> None:
        """Lets the world go on until then (epoch seconds)."""
        await self._settle()
        while True:
            when = min([until, *self._next_times()])
            for place in self._world.places.values():
                place.slurm.advance(max(when, self._world.clock.now()))
            self._world.fall_due()
            await self._settle()
            if self._world.clock.now() >= until:
                return

    def _next_times(self) -> list[float]:
        times = [
            at
            for place in self._world.places.values()
            for at in (place.slurm.next_event_at(),)
            if at is not None
        ]
        if (at := self._world.next_event_at()) is not None:
            times.append(at)
        leader = self._world.leader
        if leader is not None and leader.work is None:
            at = leader.reconciler.queue.next_at()
            if at is not None:
                times.append(self._world.clock.wall(at))
            times += [
                self._world.clock.wall(watch.due_at)
                for name, watch in leader.reconciler.fleet.watches.items()
                if name not in leader.polls
            ]
        return times

    async def _settle(self) -> None:
        """Everybody does what there is to do now."""
        for _ in range(SPINS):
            while self._world.due:
                action = self._world.due.popleft()()
                if action is not None:
                    await self._act(action)
            for old in [each for each in self._world.paused if not each.is_paused]:
                await self._let_old_leader_finish(old)
            did = await self._lead()
            self._world.tables.move()
            if not did and not self._world.due:
                return
        raise invariants.Violation(
            "a pass comes to rest",
            f"more than {SPINS} passes at one moment, {self._world.plans.last_words()}",
        )

    async def _act(self, action: Awaitable[None]) -> None:
        """Somebody's deed. One that talks to a controller that stands still goes on when that one does."""
        task = asyncio.ensure_future(_shielded(action))
        spins = 0
        while not task.done():
            await asyncio.sleep(0)
            spins += 1
            if self._world.paused and spins > 50:
                self._hanging.add(task)
                task.add_done_callback(self._hanging.discard)
                return
        task.result()

    async def _lead(self) -> bool:
        """One step of the controller. False when it has nothing to do."""
        leader = self._world.leader
        if leader is None:
            return False
        reconciler = leader.reconciler
        if leader.has_read != self._world.writes:
            leader.has_read = self._world.writes
            await reconciler.refresh()
        for cluster in self._world.places:
            watch = reconciler.fleet.watches.get(cluster)
            if cluster not in leader.polls and (
                watch is None or watch.due_at <= self._world.clock.monotonic()
            ):
                leader.polls[cluster] = asyncio.ensure_future(reconciler.lookout.poll(cluster))
                await self._quiesce(leader)
                return True
        key = None if leader.work is not None else reconciler.queue.take(self._world.clock.monotonic())
        if key is None:
            busy = len(leader.tasks())
            await self._quiesce(leader)
            return len(leader.tasks()) != busy
        self._world.tables.acknowledge(leader)
        self._world.plans.last = None
        await self._process(leader, key)
        is_rest = leader is self._world.leader and leader.work is None and self._world.plans.last is not None
        if is_rest and self._source.random() < 0.05:
            await self._look_twice(leader, key)
        return True

    async def _process(self, leader: leaders.Leader, key: queue.Key) -> None:
        self._world.passes += 1
        leader.work = asyncio.ensure_future(leader.reconciler.process(key))
        await self._quiesce(leader)
        error = leader.reconciler.failing.get(key)
        if isinstance(error, invariants.Violation):
            raise error
        if error is not None and not isinstance(error, errors.Unavailable):
            raise invariants.Violation("no pass breaks", f"{key.name}: {error!r}") from error

    async def _look_twice(self, leader: leaders.Leader, key: queue.Key) -> None:
        """Passes over a world in which nothing happens come to plan nothing and to write nothing."""
        if leader.reconciler.tasks or leader.aims or self._world.interlopers:
            return
        planned: Sequence[values.Action] = ()
        for _ in range(COMES_TO_REST):
            before = await self._world.store.revision()
            await self._again(leader, key)
            if leader is not self._world.leader or leader.work is not None or self._world.plans.last is None:
                return
            planned = [action for action in self._world.plans.last.actions if type(action) not in REPETITIONS]
            if leader.reconciler.tasks or (not planned and await self._world.store.revision() == before):
                return
        raise invariants.Violation(
            "a second pass over an unchanged world plans nothing",
            f"{key.name}: {planned or 'it wrote something'}, {self._world.plans.last_words()}",
        )

    async def _again(self, leader: leaders.Leader, key: queue.Key) -> None:
        leader.reconciler.queue.add(key, queue.URGENT)
        taken = leader.reconciler.queue.take(self._world.clock.monotonic())
        if taken is None:
            return
        self._world.plans.last = None
        await self._process(leader, taken)
        if taken != key:
            self._world.plans.last = None

    async def _quiesce(self, leader: leaders.Leader) -> None:
        """Until all that the controller does waits for virtual time, or is done."""
        spins = 0
        while len(leader.tasks()) > leader.blocked:
            await asyncio.sleep(0)
            spins += 1
            if leader.is_paused and spins > 50:
                break  # the rest waits for what stands still
        await self._harvest(leader)

    async def _harvest(self, leader: leaders.Leader) -> None:
        finished = [task for task in leader.polls.values() if task.done()]
        if leader.work is not None and leader.work.done():
            finished.append(leader.work)
            leader.work = None
        leader.polls = {name: task for name, task in leader.polls.items() if not task.done()}
        failures = [task.exception() for task in finished if not task.cancelled()]
        if leader.reconciler.fatal.done():
            failures.append(leader.reconciler.fatal.exception())
        for failure in failures:
            if failure is None or isinstance(failure, errors.Unavailable):
                continue
            if isinstance(failure, leaders.Crash | errors.Deposed):
                if isinstance(failure, errors.Deposed) and leader is self._world.leader:
                    raise invariants.Violation("the newest controller leads", str(failure))
                if not leader.is_paused:
                    await leader.bury()
                    if leader in self._world.paused:
                        self._world.paused.remove(leader)
                return
            raise failure

    async def _let_old_leader_finish(self, old: leaders.Leader) -> None:
        """It goes on where it stood, and finds out that it is none any more."""
        await self._quiesce(old)
        for _ in range(20):
            if not old.is_alive or old.tasks():
                break
            key = old.reconciler.queue.take(self._world.clock.monotonic())
            if key is None:
                break
            await self._process(old, key)
        if old.is_alive and not old.tasks():
            await old.bury()
        if not old.is_alive and old in self._world.paused:
            self._world.paused.remove(old)


async def _shielded(action: Awaitable[None]) -> None:
    try:
        await action
    except leaders.Crash:
        pass  # the controller died while it answered; `struck` has noted it
