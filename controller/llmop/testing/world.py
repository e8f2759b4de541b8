"""A whole installation in one process and in virtual time: users, controllers, a Slurm, agents, gateways, and what goes wrong.

Everything follows from the seed. Time moves from event to event; at each moment everybody who has something to do does it, in a
fixed order, until nobody has. What must always hold is in `invariants`, what goes wrong in `faults`.
"""

import asyncio
import collections
import dataclasses
import functools
import heapq
import random
from collections.abc import Awaitable, Callable, Sequence

from llmop.channel import desk
from llmop.domain import endpoint, errors, replica, resources, site
from llmop.domain.job import Snapshot
from llmop.manifest import merge
from llmop.planner import values
from llmop.reconciler import loop, ports, queue, render
from llmop.rpc.writing import Writer
from llmop.store import interface
from llmop.testing import agents, builders, film, invariants, leaders
from llmop.testing.clock import FakeClock
from llmop.testing.slurm_text import VirtualJob
from llmop.testing.virtual_slurm import Shape, Signal, VirtualSlurm, constant

GATEWAYS = 2
CALM = "calm"  # a second cluster, on which nothing goes wrong
QUIET = "quiet"  # the deployment there, which its users leave alone
QUIET_REPLICAS = 2
CALM_NODE = "quiet1"
SPINS = 400  # passes at one moment of virtual time; more are a pass that never comes to rest
SWEEP_S = 20.0
RETENTION_S = 1800.0
CHANGES_KEPT = 40  # so few that a controller which stood still for a while has to read everything again
TOMBSTONES_KEPT_S = 7200.0
EVENTS_KEPT_S = 3600.0
# Passes: what one has written may be what the next one acts on (an end, then what it leaves behind). While nothing may be submitted, the
# intents of an older revision give way one by one, and no sbatch under way says that there is more to come.
COMES_TO_REST = 20
REPETITIONS = frozenset({values.OrderDrain, values.CancelJobs, values.SubmitJob})


class Gateway:
    """Routes by the last table that it has seen. Cut off, it goes on with that one and is not heard."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = endpoint.EndpointTable(version=0)
        self.is_cut = False
        self.is_pulling = False

    def is_behind(self, leader: "leaders.Leader | None") -> bool:
        """There is a newer table, which it has not got yet: after a cut it takes a moment."""
        return leader is not None and leader.reconciler.book.table().version > self.table.version

    def routed(self) -> dict[str, endpoint.Endpoint]:
        """By replica uid: what it chooses for new requests."""
        return {
            each.uid: each
            for each in self.table.endpoints
            if each.state is not endpoint.EndpointState.DRAINING
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A cluster: its Slurm, and what lies in its shared directory."""

    slurm: VirtualSlurm
    files: leaders.Files


class World:
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
        self.seed = seed
        self.store = store
        self.clock = clock
        self.start = clock.now()
        self.installation = ""
        self.slurm = VirtualSlurm(clock, shape=shape, seed=seed, hooks=self)
        self.film: film.Film = self.slurm.film
        self.files = leaders.Files()
        calm = Shape(
            nodes={CALM_NODE: QUIET_REPLICAS + 2},
            queue_wait=constant(0),
            completing=constant(0),
            purge_lag=constant(0),
        )
        self.places = {
            builders.CLUSTER: Place(self.slurm, self.files),
            CALM: Place(VirtualSlurm(clock, shape=calm, seed=seed, hooks=self), leaders.Files()),
        }
        self.claims: dict[str, tuple[str, int]] = {}
        self.engines: list[agents.Engine] = []
        self.agents: dict[VirtualJob, agents.Agent] = {}
        self.gateways = [Gateway(f"gateway-{number}") for number in range(GATEWAYS)]
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
        self.acting = 0
        self.actions: collections.Counter[str] = collections.Counter()
        self.blows: collections.Counter[str] = collections.Counter()
        self.letters: collections.Counter[str] = collections.Counter()
        self.transitions: collections.Counter[tuple[str, str]] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self.steps: collections.Counter[str] = collections.Counter()  # of the autoscaler, by reason
        self.interlopers: list[Callable[[], Awaitable[None]]] = []  # users who write between read and write
        self.calm_node, self.quiet_replicas = CALM_NODE, QUIET_REPLICAS
        self.judge = invariants.Judge(self)
        self.writer = Writer(store, clock, self._hint)
        self.period_s = period_s
        self._orphan_policy = orphan_policy
        self._time_limit = time_limit
        self._poll_s = poll_s
        self._random = random.Random(f"{seed}/world")
        self._agents_random = random.Random(f"{seed}/agents")
        self._calm_random = random.Random(f"{seed}/calm")
        self._events: list[tuple[float, int, Callable[[], Awaitable[None] | None]]] = []
        self._event_number = 0
        self._due: collections.deque[Callable[[], Awaitable[None] | None]] = collections.deque()
        self._hanging: set[asyncio.Future[None]] = set()
        self._leader_number = 0
        self._last_plan: values.Plan | None = None
        self._ordered: set[tuple[str, str]] = set()

    # Surroundings of agents and leaders

    def at(self, when: float, action: Callable[[], Awaitable[None] | None]) -> None:
        self._event_number += 1
        heapq.heappush(self._events, (when, self._event_number, action))

    def after(self, seconds: float, action: Callable[[], Awaitable[None] | None]) -> None:
        self.at(self.clock.now() + seconds, action)

    async def sleep(self, seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        self.after(seconds, lambda: None if over.done() else over.set_result(None))
        await over

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
        return CALM if job.request.directory.startswith(_shared_dir(CALM)) else builders.CLUSTER

    def _place_of(self, job: VirtualJob) -> Place:
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
        if self.message_loss == 0 or node == CALM_NODE:
            return False
        return self._agents_random.random() < self.message_loss

    def delay(self, cluster: str, call: str) -> float:
        return self.slow.get(call, 0.0) if cluster == builders.CLUSTER else 0.0

    def struck(self, leader: leaders.Leader, blow: leaders.Blow, where: str) -> None:
        self.note(f"{leader.name}: {blow.name} {where}")
        self.blows[f"{blow.name.lower()} {where}"] += 1
        if blow is leaders.Blow.CRASH:
            self._due.append(leader.bury)
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
        is_calm = self.cluster_of(job) == CALM
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

    async def begin(self) -> None:
        """The first controller, the objects that every deployment needs, and the one on the calm cluster."""
        self.installation = await self.store.installation()
        cluster = builders.cluster_manifest(
            settleTime="60s",
            pollInterval={"min": f"{self._poll_s}s", "max": f"{max(60, self._poll_s)}s"},
            orphanPolicy=self._orphan_policy.value,
            submitRate={"perSecond": 1, "burst": 10},
        )
        for document in (
            cluster,
            builders.manifest(
                "Cluster",
                CALM,
                {
                    **cluster["spec"],
                    "sharedDir": _shared_dir(CALM),
                    "pollInterval": {"min": "60s", "max": "60s"},
                },
            ),
            builders.runtime_manifest(),
            builders.profile_manifest(timeLimit=self._time_limit),
            builders.manifest("ResourceProfile", CALM, {"cluster": CALM, "timeLimit": "30-00:00:00"}),
            builders.deployment_manifest(QUIET, replicas=QUIET_REPLICAS, resourceProfile=CALM),
        ):
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

    async def end(self) -> None:
        for leader in [*self.paused, *([self.leader] if self.leader is not None else [])]:
            await leader.bury()
        for task in self._hanging:
            task.cancel()

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
            planned=lambda desired, seen, plan: self._planned(leader, desired, seen, plan),
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
            self._due.append(leader.bury)

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

    # Time

    async def run(self, until: float) -> None:
        """Lets the world go on until then (epoch seconds)."""
        await self._settle()
        while True:
            when = min([until, *self._next_times()])
            for place in self.places.values():
                place.slurm.advance(max(when, self.clock.now()))
            while self._events and self._events[0][0] <= self.clock.now():
                self._due.append(heapq.heappop(self._events)[2])
            await self._settle()
            if self.clock.now() >= until:
                return

    def _next_times(self) -> list[float]:
        times = [
            at for place in self.places.values() for at in (place.slurm.next_event_at(),) if at is not None
        ]
        if self._events:
            times.append(self._events[0][0])
        leader = self.leader
        if leader is not None and leader.work is None:
            at = leader.reconciler.queue.next_at()
            if at is not None:
                times.append(self.clock.wall(at))
            times += [
                self.clock.wall(watch.due_at)
                for name, watch in leader.reconciler.fleet.watches.items()
                if name not in leader.polls
            ]
        return times

    async def _settle(self) -> None:
        """Everybody does what there is to do now."""
        for _ in range(SPINS):
            while self._due:
                action = self._due.popleft()()
                if action is not None:
                    await self._act(action)
            for old in [each for each in self.paused if not each.is_paused]:
                await self._let_old_leader_finish(old)
            did = await self._lead()
            self._move_gateways()
            if not did and not self._due:
                return
        raise invariants.Violation(
            "a pass comes to rest", f"more than {SPINS} passes at one moment, {self._last_words()}"
        )

    async def _act(self, action: Awaitable[None]) -> None:
        """Somebody's deed. One that talks to a controller that stands still goes on when that one does."""
        task = asyncio.ensure_future(_shielded(action))
        spins = 0
        while not task.done():
            await asyncio.sleep(0)
            spins += 1
            if self.paused and spins > 50:
                self._hanging.add(task)
                task.add_done_callback(self._hanging.discard)
                return
        task.result()

    async def _lead(self) -> bool:
        """One step of the controller. False when it has nothing to do."""
        leader = self.leader
        if leader is None:
            return False
        reconciler = leader.reconciler
        if leader.has_read != self.writes:
            leader.has_read = self.writes
            await reconciler.refresh()
        for cluster in self.places:
            watch = reconciler.fleet.watches.get(cluster)
            if cluster not in leader.polls and (watch is None or watch.due_at <= self.clock.monotonic()):
                leader.polls[cluster] = asyncio.ensure_future(reconciler.lookout.poll(cluster))
                await self._quiesce(leader)
                return True
        key = None if leader.work is not None else reconciler.queue.take(self.clock.monotonic())
        if key is None:
            busy = len(leader.tasks())
            await self._quiesce(leader)
            return len(leader.tasks()) != busy
        self._acknowledge(leader)
        self._last_plan = None
        await self._process(leader, key)
        is_rest = leader is self.leader and leader.work is None and self._last_plan is not None
        if is_rest and self._random.random() < 0.05:
            await self._look_twice(leader, key)
        return True

    async def _process(self, leader: leaders.Leader, key: queue.Key) -> None:
        self.passes += 1
        leader.work = asyncio.ensure_future(leader.reconciler.process(key))
        await self._quiesce(leader)
        error = leader.reconciler.failing.get(key)
        if isinstance(error, invariants.Violation):
            raise error
        if error is not None and not isinstance(error, errors.Unavailable):
            raise invariants.Violation("no pass breaks", f"{key.name}: {error!r}") from error

    async def _look_twice(self, leader: leaders.Leader, key: queue.Key) -> None:
        """Passes over a world in which nothing happens come to plan nothing and to write nothing."""
        if leader.reconciler.tasks or leader.aims or self.interlopers:
            return
        planned: Sequence[values.Action] = ()
        for _ in range(COMES_TO_REST):
            before = await self.store.revision()
            await self._again(leader, key)
            if leader is not self.leader or leader.work is not None or self._last_plan is None:
                return
            planned = [action for action in self._last_plan.actions if type(action) not in REPETITIONS]
            if leader.reconciler.tasks or (not planned and await self.store.revision() == before):
                return
        raise invariants.Violation(
            "a second pass over an unchanged world plans nothing",
            f"{key.name}: {planned or 'it wrote something'}, {self._last_words()}",
        )

    async def _again(self, leader: leaders.Leader, key: queue.Key) -> None:
        leader.reconciler.queue.add(key, queue.URGENT)
        taken = leader.reconciler.queue.take(self.clock.monotonic())
        if taken is None:
            return
        self._last_plan = None
        await self._process(leader, taken)
        if taken != key:
            self._last_plan = None

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
                if isinstance(failure, errors.Deposed) and leader is self.leader:
                    raise invariants.Violation("the newest controller leads", str(failure))
                if not leader.is_paused:
                    await leader.bury()
                    if leader in self.paused:
                        self.paused.remove(leader)
                return
            raise failure

    async def _let_old_leader_finish(self, old: leaders.Leader) -> None:
        """It goes on where it stood, and finds out that it is none any more."""
        await self._quiesce(old)
        for _ in range(20):
            if not old.is_alive or old.tasks():
                break
            key = old.reconciler.queue.take(self.clock.monotonic())
            if key is None:
                break
            await self._process(old, key)
        if old.is_alive and not old.tasks():
            await old.bury()
        if not old.is_alive and old in self.paused:
            self.paused.remove(old)

    # Gateways

    def _acknowledge(self, leader: leaders.Leader) -> None:
        """Every gateway that can be heard has reported within the last second."""
        for gateway in self.gateways:
            if not gateway.is_cut:
                leader.reconciler.book.acknowledge(gateway.name, gateway.table.version)

    def _move_gateways(self) -> None:
        leader = self.leader
        if leader is None:
            return
        version = leader.reconciler.book.table().version
        self._pull(self.gateways[0])  # the quickest one sees every version
        for gateway in self.gateways[1:]:
            if version != gateway.table.version and not gateway.is_pulling and not gateway.is_cut:
                gateway.is_pulling = True
                self.after(self._random.uniform(0.01, 0.8), functools.partial(self._pull, gateway))

    def _pull(self, gateway: Gateway) -> None:
        gateway.is_pulling = False
        leader = self.leader
        if leader is None or gateway.is_cut:
            return
        table = leader.reconciler.book.table()
        if table.version <= gateway.table.version:
            return
        before, gateway.table = gateway.routed(), table
        self.judge.routes(gateway, before)
        leader.reconciler.book.acknowledge(gateway.name, table.version)

    # What is seen of plans

    def _planned(
        self, leader: leaders.Leader, desired: values.Desired, seen: values.Observed, plan: values.Plan
    ) -> None:
        self._last_plan = plan
        fresh = 0
        for action in plan.actions:
            name = type(action).__name__
            if isinstance(action, values.OrderDrain | values.CancelJobs | values.SubmitJob):
                subject = (
                    name,
                    action.replica.uid
                    + ("/".join(action.job_ids) if isinstance(action, values.CancelJobs) else "")
                    + (str(action.round) if isinstance(action, values.SubmitJob) else ""),
                )
                if subject in self._ordered:
                    continue
                self._ordered.add(subject)
            fresh += 1
            self.actions[name] += 1
            self._describe(leader, action)
        self.acting += fresh > 0
        known = {each.uid: each for each in desired.replicas}
        for shown in plan.replicas:
            before = known[shown.replica.uid].phase if shown.replica.uid in known else None
            if before != shown.phase:
                self.transitions[(str(before), str(shown.phase))] += 1
        self.judge.planned(leader, desired, seen, plan)

    def _describe(self, leader: leaders.Leader, action: values.Action) -> None:
        match action:
            case values.Announce():
                return
            case values.RecordEnd(replica=each, end=end):
                self.reasons[str(end.reason)] += 1
                self.note(f"{leader.name}: {each.name} has ended: {end.reason} ({end.message})")
            case values.StartDrain(replica=each, why=why):
                self.note(f"{leader.name}: drains {each.name}: {why}")
            case values.CancelJobs(replica=each, job_ids=job_ids, why=why):
                self.note(f"{leader.name}: cancels {','.join(job_ids)} of {each.name}: {why}")
            case values.SubmitJob(replica=each, round=number):
                self.note(f"{leader.name}: submits {each.name} as {each.submission.job_name}, round {number}")
            case values.AdoptJob(replica=each, job_id=job_id, why=why):
                self.note(f"{leader.name}: adopts job {job_id} for {each.name}: {why}")
            case values.CreateReplica(replica=each) | values.RemoveReplica(replica=each):
                self.note(f"{leader.name}: {type(action).__name__} {each.name}")
            case values.OrderDrain(replica=each):
                self.note(f"{leader.name}: orders {each.name} to drain")
            case values.CreateRevision(revision=revision) | values.RemoveRevision(revision=revision):
                self.note(f"{leader.name}: {type(action).__name__} {revision.name}")
            case values.FinishDeletion():
                self.note(f"{leader.name}: the deployment is gone")

    def _last_words(self) -> str:
        return "" if self._last_plan is None else f"last plan: {self._last_plan.actions}"

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


def _shared_dir(cluster: str) -> str:
    return f"/shared/{cluster}"


async def _shielded(action: Awaitable[None]) -> None:
    try:
        await action
    except leaders.Crash:
        pass  # the controller died while it answered; `struck` has noted it
