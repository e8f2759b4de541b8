"""The reconciler: keys come in, passes go out.

One pass: bring the mirror up to date, gather, plan, commit, act. A pass never waits for Slurm: sbatch and scancel run as tasks, and
what comes of them is a new key in the queue.
"""

import asyncio
import collections
import weakref
from collections.abc import Coroutine
from typing import Any

import structlog

from llmop.domain import endpoint, errors, resources
from llmop.planner import compute, values
from llmop.planner import virtual as names
from llmop.reconciler import (
    artifacts,
    cancel,
    clients,
    clusters,
    execute,
    exits,
    gather,
    lookout,
    mirror,
    observe,
    ports,
    prepare,
    queue,
    refusals,
    routes,
    scaling,
    staging_jobs,
    submit,
    tasks,
    virtual,
)
from llmop.store import interface

_log = structlog.get_logger()

FOLLOW_AGAIN_S = 1.0  # after the store was away
LULL_S = (
    0.01  # without a write of a user: somebody who applies one manifest after the other comes again sooner
)
BURST_S = 0.5  # passes wait no longer than this for a lull


class Reconciler:
    """Reconciles until `Deposed`. Built by `start`, which takes over the installation."""

    def __init__(self, outside: ports.Ports, epoch: int, installation: str) -> None:
        self._ports = outside
        self._store = outside.store
        self._clock = outside.clock
        self.epoch = epoch
        self._installation = installation
        self.queue = queue.WorkQueue()
        self._failures: collections.Counter[queue.Key] = collections.Counter()
        self.failing: dict[queue.Key, Exception] = {}  # why the last pass over a key came to nothing
        # Each as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[queue.Key, asyncio.Lock] = weakref.WeakValueDictionary()
        # Of writes by users, in the clock's monotonic seconds.
        self._burst_since = self._written_at = -BURST_S
        self._tasks = tasks.Tasks()
        self._mirror = mirror.Mirror(outside.store)
        self._gatherer = gather.Gatherer(self._mirror)
        self.fleet = observe.Fleet(
            make_cluster=outside.make_cluster,
            make_files=outside.make_files,
            clock=outside.clock,
            installation=installation,
        )
        self._exits = exits.ExitRecords(self.fleet)
        self._canceller = cancel.Canceller(outside.clock, spawn=self.spawn, later=self._later)
        self.lookout = lookout.Lookout(
            outside,
            epoch,
            installation,
            stored=self._mirror,
            gatherer=self._gatherer,
            fleet=self.fleet,
            records=self._exits,
            canceller=self._canceller,
            keys=self.queue,
        )
        self.book = routes.EndpointBook(epoch, outside.clock.monotonic, self._on_acknowledged)
        self._agents: ports.Agents = ports.NoAgents()
        self.scaler = scaling.Scaler(
            outside.clock, self._mirror, self._gatherer, self.queue.add, lambda: self._agents
        )
        self._staging_jobs = staging_jobs.StagingJobs(
            outside.clock,
            installation,
            watch=self.lookout.watch,
            confirm=self.lookout.confirm,
            cancel=lambda watch, job_ids: self._canceller.cancel(
                watch, job_ids, queue.Key(kind=resources.CLUSTER, namespace="", name=watch.site.name)
            ),
        )
        self.lookout.looked = self._staging_jobs.looked
        self._stagers = artifacts.Stagers(
            outside.stage, self._staging_jobs, outside.clock, spawn=self.spawn, wake=self.queue.add
        )
        preparer = prepare.Preparer(
            outside.store,
            self._mirror,
            self._gatherer,
            refresh=self.refresh,
            install=outside.install,
            holding=self.lookout.fences,
        )
        self.submitter = submit.Submitter(
            outside.store,
            outside.clock,
            epoch,
            prepare=preparer.prepare,
            locked=self._lock,
            done=self._submitted,
            spawn=self.spawn,
            later=self._later,
        )

    @classmethod
    async def start(cls, outside: ports.Ports, holder: str) -> "Reconciler":
        """Deposes every earlier controller and reads the world."""
        installation = await outside.store.installation()
        epoch = await outside.store.take_over(holder, outside.clock.now())
        return cls(outside, epoch, installation)

    def attach(self, agents: ports.Agents) -> None:
        """The agent channel, which needs this reconciler's epoch and hints."""
        self._agents = self.lookout.agents = agents

    # Hints: something may have changed. They only enqueue.

    def hint(self, kind: str, namespace: str, name: str) -> None:
        """A user has written this object."""
        now = self._clock.monotonic()
        if now - self._written_at >= LULL_S:
            self._burst_since = now
        self._written_at = now
        if kind == resources.CLUSTER or kind in mirror.PUBLIC:
            self.queue.add(queue.Key(kind=kind, namespace=namespace, name=name), queue.URGENT)
        elif kind == resources.REPLICA:
            self.heard(namespace, name)
        elif kind != resources.API_KEY:  # those take effect as soon as the change is seen
            self._enqueue_all(queue.NORMAL)

    def heard(self, namespace: str, name: str) -> None:
        """Something was heard of this replica."""
        stored = self._mirror.get(resources.REPLICA, namespace, name)
        if stored is not None and stored.owner is not None:
            self.queue.add(
                queue.Key(kind=stored.owner.kind, namespace=namespace, name=stored.owner.name), queue.URGENT
            )

    def _on_acknowledged(self, deployment: str) -> None:
        namespace, _, name = deployment.partition("/")
        self.queue.add(
            queue.Key(kind=resources.MODEL_DEPLOYMENT, namespace=namespace, name=name), queue.URGENT
        )

    async def resync(self) -> None:
        """Everything once more, behind what somebody waits for. A coroutine: a scheduler runs plain functions in a thread."""
        self._enqueue_all(queue.RESYNC)

    def _enqueue_all(self, priority: int) -> None:
        for key in self._mirror.subjects():
            self.queue.add(key, priority)

    def _later(self, key: queue.Key, delay_s: float) -> None:
        self.queue.add_at(key, self._clock.monotonic() + delay_s)

    def is_over(self, cluster: str, job_name: str, job_id: str) -> bool:
        watch = self.fleet.watches.get(cluster)
        return watch is not None and watch.is_over(job_name, job_id)

    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs an effect beside the passes."""
        self._tasks.spawn(work)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """Effects under way."""
        return self._tasks.running

    @property
    def fatal(self) -> asyncio.Future[None]:
        """Gets the error of an effect that must stop this controller."""
        return self._tasks.fatal

    def _lock(self, key: queue.Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    # The loop

    async def run(self) -> None:
        """Reconciles until cancelled. Raises Deposed when another controller has taken over."""
        await self._begin()
        workers = [
            asyncio.create_task(self._follow(), name="follow"),
            asyncio.create_task(self._work(), name="work"),
            asyncio.create_task(self.lookout.run(), name="observe"),
            asyncio.create_task(self.scaler.run(), name="scale"),
        ]
        try:
            done, _ = await asyncio.wait([*workers, self.fatal], return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                finished.result()
        finally:
            for task in [*workers, *self.tasks]:
                task.cancel()
            await asyncio.gather(*workers, *self.tasks, return_exceptions=True)

    async def _begin(self) -> None:
        """Reads everything. A store that is away at this very moment is no reason to end: it was there a moment ago."""
        while True:
            try:
                await self.refresh()
                await self.resync()
                return
            except errors.Unavailable as error:
                _log.warning("store unavailable", error=str(error))
            await asyncio.sleep(FOLLOW_AGAIN_S)

    async def _follow(self) -> None:
        """Turns changes of the store into keys."""
        while True:
            try:
                await self.refresh()
                after = max(self._mirror.revision, 0)
                revision: list[interface.Change] = []
                async for change in self._store.watch(after):
                    revision.append(change)
                    if change.complete:
                        self._take_in(await self._mirror.take(after, revision), None)
                        after = change.revision
                        revision.clear()
            except errors.Expired as error:
                _log.warning("the store's history has a gap; everything is read again", error=str(error))
            except errors.Unavailable as error:
                _log.warning("store unavailable", error=str(error))
            await asyncio.sleep(FOLLOW_AGAIN_S)

    async def _work(self) -> None:
        while True:
            if (lull_s := self.lull_s()) > 0:
                await asyncio.sleep(lull_s)
                continue
            key = self.queue.take(self._clock.monotonic())
            if key is None:
                next_at = self.queue.next_at()
                await self.queue.wait(
                    None if next_at is None else max(0.0, next_at - self._clock.monotonic())
                )
                continue
            await self.process(key)

    def lull_s(self) -> float:
        """How long passes wait for the end of a burst of writes: whoever waits for an answer goes before what nobody waits for yet."""
        now = self._clock.monotonic()
        return min(self._written_at + LULL_S, self._burst_since + BURST_S) - now

    async def process(self, key: queue.Key) -> None:
        """One pass over a key that was taken from the queue."""
        try:
            await self._reconcile(key)
        except errors.Conflict:
            # Somebody else wrote in between: read again.
            self.queue.add(key)
        except (errors.Unavailable, errors.NotFound, errors.AlreadyExists) as error:
            self._retry(key, error)
        except errors.Deposed:
            raise
        except Exception as error:  # noqa: BLE001  (one broken object must not stop the others)
            _log.exception("pass failed", kind=key.kind, namespace=key.namespace, name=key.name)
            self._retry(key, error)
        else:
            self._failures.pop(key, None)
            self.failing.pop(key, None)
        finally:
            self.queue.done(key)

    def _retry(self, key: queue.Key, error: Exception) -> None:
        failures = self._failures[key]
        self._failures[key] += 1
        self.failing[key] = error
        if not isinstance(error, errors.Unavailable):
            self.book.skip(_place(key))
        delay_s = queue.backoff_s(failures, self._ports.jitter())
        _log.warning(
            "pass is tried again",
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            error=str(error),
            delay_s=round(delay_s, 3),
        )
        self._later(key, delay_s)

    async def refresh(self) -> None:
        """Brings the mirror up to date and enqueues what has changed."""
        await self._catch_up(None)

    async def objects(self, *kinds: str) -> tuple[tuple[resources.Resource, ...], ...]:
        """All objects of each of these kinds, out of the copy in memory. Raises Unavailable."""
        await self.refresh()
        return tuple(tuple(self._mirror.all(kind)) for kind in kinds)

    async def _catch_up(self, looking_at: queue.Key | None) -> None:
        """Enqueues all but the key that is about to be looked at anyway."""
        refreshed = await self._mirror.refresh()
        self.book.expect(_place(key) for key in self._mirror.subjects() if key.kind != resources.CLUSTER)
        self._take_in(refreshed, looking_at)

    def _take_in(self, refreshed: mirror.Refreshed, looking_at: queue.Key | None) -> None:
        if refreshed.clients:
            self.book.grant(clients.keys(self._mirror.all(resources.API_KEY)))
        if refreshed.everything:
            self._gatherer.forget()
            self._enqueue_all(queue.NORMAL)
        for key in sorted(refreshed.keys):  # the same world, the same order
            if key != looking_at:
                self.queue.add(key)

    async def _reconcile(self, key: queue.Key) -> None:
        await self._catch_up(key)
        if key.kind == resources.CLUSTER:
            await self.lookout.reconcile(key)
        elif key.kind in resources.VIRTUAL:
            await self._reconcile_virtual(key)
        elif key.kind in refusals.KINDS:
            await self._reconcile_refused(key)
        else:
            await self._reconcile_deployment(key)

    async def _reconcile_refused(self, key: queue.Key) -> None:
        owner = self._mirror.get(key.kind, key.namespace, key.name)
        if owner is None:
            self.queue.forget(key)
            return
        status = refusals.status(owner, self._clock.now())
        if status != owner.status:
            await self._store.commit([clusters.write(owner, status)], epoch=self.epoch)

    # Models without replicas

    async def _reconcile_virtual(self, key: queue.Key) -> None:
        owner = self._mirror.get(key.kind, key.namespace, key.name)
        if owner is None:
            self.queue.forget(key)
            self._publish(key, (), None)
            return
        conflict = self._gatherer.name_conflict(owner)
        model, status = virtual.look(owner, self._gatherer.public(), conflict, self._clock.now())
        if status != owner.status:
            await self._store.commit([clusters.write(owner, status)], epoch=self.epoch)
        self._publish(key, (), model)

    def _publish(
        self, key: queue.Key, endpoints: tuple[endpoint.Endpoint, ...], model: endpoint.RoutedModel | None
    ) -> None:
        """What gateways get to see of one object. Others may have waited for its name, or may miss it."""
        before = self.book.model(_place(key))
        self.book.put(_place(key), endpoints, model)
        if (before and before.name) != (model and model.name):
            for each in self._mirror.subjects():
                if each != key and (each.kind in resources.VIRTUAL or key.kind in resources.VIRTUAL):
                    self.queue.add(each)

    # Deployments

    async def _reconcile_deployment(self, key: queue.Key) -> None:
        async with self._lock(key):
            owner = self._mirror.get(key.kind, key.namespace, key.name)
            if owner is None:
                self._publish(key, (), None)
                self.queue.forget(key)
                self._stagers.keep(key, ())
                self._gatherer.drop(key.namespace, key.name)
                return
            desired, seen = await self._gather(owner)
            plan = compute.plan(desired, seen, self._fresh_name)
            self._ports.planned(desired, seen, plan)
            writes, effects = execute.transaction(
                plan, owner, self._gatherer.template(owner), self._mirror, self._clock, self._ports.url
            )
            if writes:
                durable = any(
                    isinstance(write, interface.Create) and write.ledger is not None for write in writes
                )
                await self._store.commit(writes, epoch=self.epoch, durable=durable)
            is_gone = any(isinstance(action, values.FinishDeletion) for action in plan.actions)
        self._publish(key, () if is_gone else plan.endpoints, None if is_gone else plan.model)
        self._act(key, effects)
        if plan.recheck_at is not None:
            self._later(key, plan.recheck_at - self._clock.now())
        if any(not isinstance(action, values.StageArtifact) for action in plan.actions):
            _log.info(
                "reconciled",
                namespace=key.namespace,
                name=key.name,
                generation=owner.generation,
                actions=dict(
                    sorted(collections.Counter(type(each).__name__ for each in plan.actions).items())
                ),
            )

    def _fresh_name(self) -> values.FreshName:
        return values.FreshName(suffix=self._clock.suffix(5), uid=self._clock.uid())

    async def _gather(self, owner: resources.Resource) -> tuple[values.Desired, values.Observed]:
        children = self._mirror.children(owner.uid, resources.REPLICA)
        ledgers = (
            {
                ledger.replica_uid: ledger
                for ledger in await self._store.ledgers([each.uid for each in children])
            }
            if children
            else {}
        )
        desired = self._gatherer.desired(owner, ledgers)
        views = {}
        for name in {desired.deployment.spec.template.cluster, *(each.cluster for each in desired.replicas)}:
            watch = self.lookout.watch(name)
            if watch is not None:
                views[name] = watch.view()
        await self._exits.read(desired.replicas, views)
        view = views.get(desired.deployment.spec.template.cluster)
        staged = await self._stagers.views(desired, view.site) if view is not None else {}
        now = self._clock.now()
        ends = self._exits.known
        seen = values.Observed(
            now=now,
            controller_since=self.lookout.since,
            installation=self._installation,
            clusters=views,
            heartbeats={
                each.uid: self._agents.heartbeats[each.uid]
                for each in desired.replicas
                if each.uid in self._agents.heartbeats
            },
            exits={each.uid: ends[each.uid] for each in desired.replicas if each.uid in ends},
            in_flight=self.submitter.in_flight,
            writers=frozenset(each.uid for each in desired.replicas if each.uid in self._agents.writers),
            drained_by_gateways=self.book.drained(),
            routed_by_gateways=self.book.routed(),
            api_keys={uid: ledger.secrets.api_key for uid, ledger in ledgers.items()},
            artifacts=staged,
            timing=self.lookout.timing,
            scaling=self.scaler.decision(owner.uid),
            is_blind=self.lookout.is_blind(now),
        )
        return desired, seen

    def _act(self, key: queue.Key, effects: execute.Effects) -> None:
        for over in effects.ended:
            self._agents.ended(over.uid)
            self.spawn(self._exits.clear(over))
        for gone in effects.removed:
            self._agents.forget(gone.uid)
            self._exits.forget(gone.uid)
        for order in effects.orders:
            drain = order.replica.drain
            if drain is not None:
                self._agents.drain(
                    order.replica.uid, f"{drain.requested_at:.6f}", drain.reason, drain.deadline_at
                )
        sites = self._gatherer.known()[2]
        self._stagers.keep(
            key, [(each, sites[each.cluster]) for each in effects.stage if each.cluster in sites]
        )
        for wanted in effects.submit:
            watch = self.lookout.watch(wanted.replica.cluster)
            if watch is not None:
                self.submitter.enqueue(
                    key, wanted.replica, wanted.round, watch.site, watch.cluster, watch.files
                )
        by_cluster: dict[str, list[str]] = {}
        for doomed in effects.cancel:
            by_cluster.setdefault(doomed.replica.cluster, []).extend(doomed.job_ids)
        for name, job_ids in by_cluster.items():
            watch = self.fleet.watches.get(name)
            if watch is not None:
                self._canceller.cancel(watch, job_ids, key)

    def _submitted(self, key: queue.Key, cluster: str) -> None:
        watch = self.fleet.watches.get(cluster)
        if watch is not None:
            watch.soon()
        self.queue.add(key)


def _place(key: queue.Key) -> str:
    """Where an object stands in the table of endpoints."""
    if key.kind in resources.VIRTUAL:
        return names.place(key.kind, key.namespace, key.name)
    return f"{key.namespace}/{key.name}"
