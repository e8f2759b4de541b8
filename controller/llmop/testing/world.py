"""A whole installation in one process and in virtual time: users, controllers, a Slurm, agents, gateways, and what goes wrong.

Everything follows from the seed. Time moves from event to event; at each moment everybody who has something to do does it, in a
fixed order, until nobody has. What must always hold is in `invariants`, what goes wrong in `faults`.
"""

import asyncio
import collections
import random
from collections.abc import Awaitable, Callable, Sequence

from llmop.channel import desk
from llmop.domain import replica, resources, site
from llmop.domain.job import Snapshot
from llmop.manifest import merge
from llmop.reconciler import loop, ports, render
from llmop.rpc.writing import Writer
from llmop.store import interface
from llmop.testing import agents, builders, director, film, gateways, invariants, leaders, places, plans
from llmop.testing.clock import FakeClock
from llmop.testing.timeline import Timeline
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.jobs import VirtualJob
from llmop.testing.virtual_slurm.shape import Shape
from llmop.testing.virtual_slurm.state import Signal

SWEEP_S = 20.0
RETENTION_S = 1800.0
CHANGES_KEPT = 40  # so few that a controller which stood still for a while has to read everything again
TOMBSTONES_KEPT_S = 7200.0
EVENTS_KEPT_S = 3600.0


class World(Timeline):
    """Two clusters, one controller at a time. What goes wrong goes wrong on the first, or with what both have: controllers, the store,
    gateways. `installation` is that of the store, whose calls must not wait for a thread. Use: `begin`, then `run` as long as wanted, `end` last."""

    def __init__(
        self,
        seed: int,
        store: interface.Store,
        clock: FakeClock,
        shape: Shape,
        *,
        period_s: float = 30.0,
        orphan_policy: site.OrphanPolicy = site.OrphanPolicy.CANCEL,
        time_limit: str = "6h",
        poll_s: int = 5,
    ) -> None:
        super().__init__(clock)
        self.seed = seed
        self.store = store
        self.start = clock.now()
        self.installation = ""
        self.slurm = VirtualSlurm(clock, shape=shape, seed=seed, hooks=self)
        self.film: film.Film = self.slurm.film
        self.files = leaders.Files()
        self.places = {
            builders.CLUSTER: places.Place(self.slurm, self.files),
            places.CALM: places.calm(clock, seed, self),
        }
        self.claims: dict[str, tuple[str, int]] = {}
        self.engines: list[agents.Engine] = []
        self.agents: dict[VirtualJob, agents.Agent] = {}
        self.leader: leaders.Leader | None = None
        self.paused: list[leaders.Leader] = []
        self.leader_since: float | None = None
        self.cut_nodes: set[str] = set()
        self.walled_nodes: set[str] = set()  # only files come from there
        self.message_loss = 0.0
        self.slow: dict[str, float] = {}  # seconds that calls of the cluster take
        self.has_quota = False
        self.foreign: set[VirtualJob] = set()
        self.writes = 0  # commits of anybody: a controller follows the change log
        self.passes = 0
        self.blows: collections.Counter[str] = collections.Counter()
        self.letters: collections.Counter[str] = collections.Counter()
        self.steps: collections.Counter[str] = collections.Counter()  # of the autoscaler, by reason
        self.interlopers: list[Callable[[], Awaitable[None]]] = []  # users who write between read and write
        self.judge = invariants.Judge(self)
        self.plans = plans.Plans(self.note, self.judge)
        self.writer = Writer(store, clock, self._hint)
        self.period_s = period_s
        self._orphan_policy = orphan_policy
        self._time_limit = time_limit
        self._poll_s = poll_s
        self._random = random.Random(f"{seed}/world")
        self._agents_random = random.Random(f"{seed}/agents")
        self._calm_random = random.Random(f"{seed}/calm")
        self.tables = gateways.Tables(self._random, lambda: self.leader, self.after, self.judge.routes)
        self._director = director.Director(self, self._random)
        self._leader_number = 0

    # Life

    async def begin(self) -> None:
        """The first controller, the objects that every deployment needs, and the one on the calm cluster."""
        self.installation = await self.store.installation()
        for document in places.documents(self._orphan_policy, self._time_limit, self._poll_s):
            admitted = merge.apply(None, document, manager="simulation").resource
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
        await self._start_leader()
        self.after(SWEEP_S, self._sweep)
        self.after(RETENTION_S, self._retain)

    async def run(self, until: float) -> None:
        """Lets the world go on until then (epoch seconds)."""
        await self._director.run(until)

    async def end(self) -> None:
        for leader in [*self.paused, *([self.leader] if self.leader is not None else [])]:
            await leader.bury()
        self._director.end()

    async def _sweep(self) -> None:
        """Looks at the whole world now and then."""
        await self.judge.sweep()
        self.after(SWEEP_S, self._sweep)

    async def _retain(self) -> None:
        """History is dropped, as the controller's daemon does."""
        now = self.clock.now()
        self.wrote()
        await self.store.compact(
            changes_before=await self.store.revision() - CHANGES_KEPT,
            tombstones_before=now - TOMBSTONES_KEPT_S,
            events_before=now - EVENTS_KEPT_S,
        )
        self.after(RETENTION_S, self._retain)

    # Surroundings of agents and leaders

    def note(self, text: str) -> None:
        self.film.append((self.clock.now(), text))

    def reach(self, node: str) -> desk.Desk | None:
        if self.leader is None or node in self.cut_nodes or node in self.walled_nodes:
            return None
        return self.leader.desk

    def is_walled(self, node: str) -> bool:
        return node in self.walled_nodes and node not in self.cut_nodes

    def post(self, letter: agents.Letter) -> None:
        if not self.files.is_writable:
            return
        posted_at = self.clock.now()

        def arrive() -> Awaitable[None] | None:
            if self.leader is None or self.leader.is_paused:
                self.after(2.0, arrive)
                return None
            is_old = self.leader_since is None or posted_at < self.leader_since
            self.letters["of unknown age" if is_old else "in time"] += 1
            return letter(self.leader.desk, is_old)

        # The controller looks every two seconds; a network file system may take a minute to show what is there.
        seconds = self._agents_random.choice((2.0, 2.0, 2.0, replica.FILE_LATE_S))
        self.after(self._agents_random.uniform(0.1, seconds), arrive)

    def _deliver(self, leader: leaders.Leader, parcel: desk.Parcel) -> None:
        """Orders as a file, and the signal."""
        if leader is not self.leader or not self.files.is_writable:
            return
        for job, agent in self.agents.items():
            if (job.name, str(job.id)) == (parcel.job_name, parcel.job_id) and job.node not in self.cut_nodes:
                self.letters["orders"] += 1
                agent.read_orders(parcel.told)

    def cluster_of(self, job: VirtualJob) -> str:
        """By its directory: ids mean something on one cluster only."""
        return (
            places.CALM
            if job.request.directory.startswith(places.shared_dir(places.CALM))
            else builders.CLUSTER
        )

    def _place_of(self, job: VirtualJob) -> places.Place:
        return self.places[self.cluster_of(job)]

    def config_of(self, job: VirtualJob) -> dict[str, object]:
        return dict(self._place_of(job).files.configs[job.request.directory.rpartition("/")[2]])

    def finish(self, job: VirtualJob, exit_code: int) -> None:
        self._place_of(job).slurm.finish(job, exit_code)

    def write_end(self, job: VirtualJob, end: replica.End) -> None:
        files = self._place_of(job).files
        if files.is_writable:
            files.ends[job.request.directory.rpartition("/")[2]] = end

    def loses_message(self, node: str) -> bool:
        if self.message_loss == 0 or node == places.CALM_NODE:
            return False
        return self._agents_random.random() < self.message_loss

    def delay(self, cluster: str, call: str) -> float:
        return self.slow.get(call, 0.0) if cluster == builders.CLUSTER else 0.0

    def struck(self, leader: leaders.Leader, blow: leaders.Blow, where: str) -> None:
        self.note(f"{leader.name}: {blow.name} {where}")
        self.blows[f"{blow.name.lower()} {where}"] += 1
        if blow is leaders.Blow.CRASH:
            self.due.append(leader.bury)
            self._lose_leader(leader, self._random.choice((0.1, 3.0, 20.0, 90.0)))
        elif blow is leaders.Blow.PAUSE:
            leader.resumed = asyncio.Event()
            self.paused.append(leader)
            self._lose_leader(leader, self._random.uniform(1.0, 60.0))
            self.after(self._random.choice((2.0, 30.0, 200.0, 1000.0)), lambda: self._resume(leader))

    async def between(self, leader: leaders.Leader) -> None:
        if self.interlopers and leader is self.leader:
            await self.interlopers.pop()()

    def will_cancel(self, leader: leaders.Leader, cluster: str, job_ids: Sequence[str]) -> None:
        self.judge.cancels(leader, cluster, job_ids)

    def looked(self, cluster: str, snapshot: Snapshot) -> None:
        if cluster == builders.CLUSTER:
            self.judge.looked(snapshot)

    # Hooks of the virtual Slurm

    def on_start(self, job: VirtualJob) -> None:
        files = self._place_of(job).files
        if job in self.foreign or job.request.directory.rpartition("/")[2] not in files.configs:
            return
        is_calm = self.cluster_of(job) == places.CALM
        self.agents[job] = agents.Agent(self, job, self._calm_random if is_calm else self._agents_random)

    def on_signal(self, job: VirtualJob, signal: Signal) -> None:
        agent = self.agents.get(job)
        if agent is not None:
            agent.signal(signal)

    def on_end(self, job: VirtualJob) -> None:
        agent = self.agents.pop(job, None)
        if agent is not None:
            agent.gone()

    # Controllers

    async def _start_leader(self) -> None:
        if self.leader is not None:
            return
        self._leader_number += 1
        leader = leaders.Leader(self, f"controller-{self._leader_number}")
        self.note(f"{leader.name} starts")
        store = leaders.TappedStore(self.store, leader)
        outside = ports.Ports(
            store=store,
            clock=self.clock,
            make_cluster=lambda where: leaders.TappedCluster(
                where.name, self.places[where.name].slurm, leader
            ),
            make_files=lambda where: leaders.TappedFiles(self.places[where.name].files, leader),
            install=self._install,
            jitter=self._random.random,
            planned=lambda desired, seen, plan: self.plans.seen(leader, desired, seen, plan),
        )
        leader.reconciler = await loop.Reconciler.start(outside, leader.name)
        leader.desk = leaders.SimulatedDesk(
            store,
            self.clock,
            leader.reconciler.epoch,
            leader.reconciler.heard,
            leader.reconciler.is_over,
            given=lambda uid: self._order_given(leader, uid),
            period_s=self.period_s,
        )
        leader.desk.deliver = lambda parcel: self._deliver(leader, parcel)
        leader.reconciler.fatal.add_done_callback(
            lambda fatal: None if fatal.cancelled() else fatal.exception() and None
        )
        leader.reconciler.attach(leader.desk)
        await leader.reconciler.refresh()
        await leader.reconciler.resync()
        self.leader = leader
        self.leader_since = self.clock.now()

    async def _install(self, where: site.Site) -> render.Installation:
        self.places[where.name].files.check()
        return render.Installation(id=self.installation, agent=f"{where.shared_dir}/agent/a.py", ca="")

    def _lose_leader(self, leader: leaders.Leader, seconds: float) -> None:
        if self.leader is leader:
            self.leader = None
            self.leader_since = None
            self.after(seconds, self._start_leader)

    def _resume(self, leader: leaders.Leader) -> None:
        if leader.resumed is not None and leader.is_alive:
            self.note(f"{leader.name} goes on, not knowing that it was away")
            leader.resumed.set()
            leader.resumed = None

    def restart_leader(self) -> None:
        """Somebody restarts the controller between two effects."""
        leader = self.leader
        if leader is not None:
            self.note(f"{leader.name} is restarted")
            leader.is_alive = False
            self._lose_leader(leader, 1.0)
            self.due.append(leader.bury)

    def wrote(self) -> None:
        self.writes += 1

    def _hint(self, kind: str, namespace: str, name: str) -> None:
        self.wrote()
        if self.leader is not None:
            self.leader.reconciler.hint(kind, namespace, name)

    def _order_given(self, leader: leaders.Leader, uid: str) -> None:
        self.judge.orders_drain(leader, uid)
        for agent in self.agents.values():
            if agent.uid == uid and leader is self.leader and self.reach(agent.node) is not None:
                agent.hear()
