"""The half of the reconciler that looks at clusters: when to look, what follows from what was seen, and what people are told."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from llmop.domain import errors, fences, os_errors, replica, resources, site
from llmop.planner import brake, orphans, values
from llmop.reconciler import cancel, clusters, codec, exits, gather, mirror, observe, ports, queue, refusals

_log = structlog.get_logger()

ROUND_S = 0.2
GAP_S = 20.0  # a loop that should come round every 0.2 s and did not for so long was not running
STEP_S = 1.0  # more than any slewing moves the wall clock against the monotonic one in a round


class Lookout:
    """Polls each cluster when it is due; what is different there puts deployments into `keys`."""

    def __init__(
        self,
        outside: ports.Ports,
        epoch: int,
        installation: str,
        stored: mirror.Mirror,
        gatherer: gather.Gatherer,
        fleet: observe.Fleet,
        records: exits.ExitRecords,
        canceller: cancel.Canceller,
        keys: queue.WorkQueue,
    ) -> None:
        self._ports = outside
        self._store = outside.store
        self._clock = outside.clock
        self._epoch = epoch
        self._installation = installation
        self._mirror = stored
        self._gatherer = gatherer
        self._fleet = fleet
        self._exits = records
        self._canceller = canceller
        self._queue = keys
        self.since = outside.clock.now()  # when this controller began
        self._blind_until = outside.clock.monotonic()
        self._seen_at = (outside.clock.now(), outside.clock.monotonic())
        self.agents: ports.Agents = ports.NoAgents()
        self.looked: Callable[[str], None] = lambda _name: (
            None
        )  # called with the name of a cluster after each look at it

    @property
    def timing(self) -> values.Timing:
        return values.Timing.of_period(self.agents.period_s)

    def is_blind(self, now: float) -> bool:
        """Silence of agents says nothing about them now: we were away, or they are silent together.

        Nor does it for a while after that, until each had time to be heard again.
        """
        if self.agents.is_deaf or brake.is_blind(self.agents.heartbeats, now, self.timing.replaced_s):
            self._blind_for_a_while()
        return self._clock.monotonic() < self._blind_until

    def _blind_for_a_while(self) -> None:
        self._blind_until = self._clock.monotonic() + self.timing.unreachable_s

    def watch(self, name: str) -> observe.ClusterWatch | None:
        """None when there is no such cluster (any more)."""
        where = self._sites().get(name)
        return None if where is None else self._fleet.ensure(where)

    def seen_at(self, name: str) -> float | None:
        """When the last complete snapshot of a cluster was taken; None where there is none."""
        watch = self._fleet.watches.get(name)
        return watch.taken_at if watch is not None else None

    def places(self) -> Mapping[str, str]:
        """The shared directory of each cluster."""
        return {name: where.shared_dir for name, where in self._sites().items()}

    async def signal(self, cluster: str, job_name: str, job_id: str) -> str:
        """Tells the agent of a job to read its orders. "" or why it was not told: an id may be somebody else's job by now."""
        watch = self._fleet.watches.get(cluster)
        if watch is None or not watch.is_running(job_name, job_id):
            return "the last look at the queue does not show the job running"
        return await watch.cluster.signal(job_id)

    def fences(self, name: str) -> fences.Fences:
        """Those that hold on a cluster, as far as it is known."""
        watch = self.watch(name)
        return watch.canary.holding if watch is not None else fences.STANDARD

    def _sites(self) -> Mapping[str, site.Site]:
        return self._gatherer.known()[2]

    # When to look

    async def run(self) -> None:
        """Different clusters at the same time, each by one task. Raises Deposed."""
        polling: dict[str, asyncio.Task[None]] = {}
        while True:
            self.look_at_the_clock()
            for each in list(self._mirror.all(resources.CLUSTER)):
                task = polling.get(each.name)
                if task is not None and task.done():
                    task.result()
                    del polling[each.name]
                    task = None
                watch = self.watch(each.name)
                if task is None and watch is not None and watch.due_at <= self._clock.monotonic():
                    polling[each.name] = asyncio.create_task(self._poll_when_due(each.name))
            await asyncio.sleep(ROUND_S)

    def look_at_the_clock(self) -> None:
        """Called every round: notices that this process stood still or slept, or that somebody has set the clock."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        wall_before, monotonic_before = self._seen_at
        self._seen_at = (wall, monotonic)
        away_s = monotonic - monotonic_before
        stepped_s = wall - wall_before - away_s
        if max(away_s, abs(stepped_s)) > GAP_S:
            self._blind_for_a_while()
        if abs(stepped_s) > STEP_S:
            _log.warning("the clock was set, or this machine slept", seconds=round(stepped_s, 3))
            self.since += stepped_s
            self.agents.clock_stepped(stepped_s)
            for watch in self._fleet.watches.values():
                watch.clock_stepped(stepped_s)
            for key in self._mirror.subjects():
                self._queue.add(key)

    async def _poll_when_due(self, name: str) -> None:
        try:
            await self.poll(name)
        except errors.Unavailable as error:
            _log.warning("store unavailable", error=str(error))
        except errors.Deposed:
            raise
        except Exception:  # noqa: BLE001  (a fault in one driver)
            # One cluster that cannot be looked at must not stop the others; it is tried again in a while.
            _log.exception("looking at a cluster failed", cluster=name)
            await asyncio.sleep(observe.IDLE_S)

    async def poll(self, name: str) -> None:
        """Takes a snapshot of one cluster; what is different enqueues its deployments.

        Raises Deposed: a controller that has nothing to write would otherwise not learn for long that it is none any more.
        """
        watch = self.watch(name)
        if watch is None:
            return
        await self.confirm()
        await self._announce(watch)
        replicas = await self._replicas_on(name)
        owner = self._mirror.get(resources.CLUSTER, "", name)
        if owner is not None:
            watch.canary.restore(owner.status.get("canary") or {})
        changed = await watch.poll(
            replicas,
            self.agents.heartbeats,
            self._exits.known,
            self.timing.unreachable_s,
            self._ports.jitter(),
        )
        if owner is not None:
            here = [each for each in self._gatherer.known()[1].values() if each.cluster == name]
            changed = await watch.prove(owner, here) or changed
        self.looked(name)
        waiting = {each.deployment_uid for each in replicas if each.submission.state in replica.UNRESOLVED}
        missing = {each.deployment_uid for each in replicas if each.missing_since is not None}
        for each in self._mirror.all(resources.MODEL_DEPLOYMENT):
            if changed or each.uid in waiting or each.uid in missing:
                self._queue.add(queue.Key(kind=each.kind, namespace=each.namespace, name=each.name))
        if changed or watch.is_current:
            self._queue.add(queue.Key(kind=resources.CLUSTER, namespace="", name=name))

    async def confirm(self) -> None:
        """Raises Deposed when another controller has taken over."""
        if await self._store.epoch() != self._epoch:
            raise errors.Deposed(self._epoch)

    async def _announce(self, watch: observe.ClusterWatch) -> None:
        """Tells the agents of this cluster where this controller is; they may run since long before it."""
        try:
            await self._ports.install(watch.site)
            watch.directory_problem = ""
        except OSError as error:
            watch.directory_problem = os_errors.sentence(error, watch.site.shared_dir)

    async def _replicas_on(self, cluster: str) -> list[replica.Replica]:
        stored = [
            each
            for each in self._mirror.all(resources.REPLICA)
            if each.spec.get("cluster") == cluster or not codec.is_replica(each)
        ]
        ledgers = (
            {
                ledger.replica_uid: ledger
                for ledger in await self._store.ledgers([each.uid for each in stored])
            }
            if stored
            else {}
        )
        found = [codec.replica_of(each, ledgers[each.uid]) for each in stored if each.uid in ledgers]
        return [each for each in found if each.cluster == cluster]

    # What people are told

    async def reconcile(self, key: queue.Key) -> None:
        """One pass over a Cluster: jobs without an owner, and its status."""
        owner = self._mirror.get(key.kind, "", key.name)
        if owner is None:
            self._fleet.drop(key.name)
            return
        watch = self.watch(key.name)
        if watch is None:  # of its spec too little can be read
            status = {**owner.status, **refusals.status(owner, self._clock.now())}
            if status != owner.status:
                await self._store.commit([clusters.write(owner, status)], epoch=self._epoch)
            return
        found = await self._find_orphans(watch)
        if found.cancel:
            self._canceller.cancel(watch, found.cancel, key)
        status = clusters.status(
            owner, watch, found.report, self._clock.now(), writes_files=self._writes_files(key.name)
        )
        if status != owner.status:
            await self._store.commit([clusters.write(owner, status)], epoch=self._epoch)

    def _writes_files(self, cluster: str) -> bool | None:
        """Whether agents of this cluster report through its inbox; None when none was heard."""
        beats = [
            self.agents.heartbeats[each.uid]
            for each in self._mirror.all(resources.REPLICA)
            if each.spec.get("cluster") == cluster and each.uid in self.agents.heartbeats
        ]
        return any(beat.by_file for beat in beats) if beats else None

    async def _find_orphans(self, watch: observe.ClusterWatch) -> orphans.Orphans:
        """Jobs of ours without a replica. The first look after a start only adopts: rows may be read before jobs."""
        if not watch.is_current or watch.braked:
            return orphans.Orphans()
        watch.orphan_passes += 1
        prefix = f"llmop-{self._installation}-"
        if watch.orphan_passes == 1 or not any(
            seen.name.startswith(prefix) and seen.state.is_live for seen in watch.jobs
        ):
            return orphans.Orphans()
        ledgers = await self._store.ledgers()
        live = {
            ledger.submission.job_name: ledger.replica_uid
            for ledger in ledgers
            if ledger.tombstoned_at is None
        }
        tombstones = frozenset(
            ledger.submission.job_name for ledger in ledgers if ledger.tombstoned_at is not None
        )
        now = self._clock.now()
        found = orphans.find(
            watch.jobs,
            self._installation,
            live,
            tombstones,
            watch.site.orphan_policy,
            watch.site.orphan_grace_s,
            now,
            watch.orphans_seen,
        )
        watch.orphans_seen = {name: watch.orphans_seen.get(name, now) for name in found.seen}
        return found
