"""The reconciler: keys come in, passes go out.

One pass: bring the mirror up to date, gather, plan, commit, act. A pass never waits for Slurm: sbatch and scancel run as tasks, and
what comes of them is a new key in the queue.
"""

import asyncio
import collections
import dataclasses
import types
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import structlog

from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import errors, job, replica, resources, site
from llmop.manifest import convert
from llmop.planner import brake, compute, orphans, values
from llmop.reconciler import (
    clusters,
    codec,
    execute,
    gather,
    mirror,
    observe,
    queue,
    render,
    routes,
    shared,
    submit,
)
from llmop.store import interface

_log = structlog.get_logger()

CANCEL_AGAIN_S = 60.0
GAP_S = 20.0  # a loop that should come round every 0.2 s and did not for so long was not running
FILES_PATIENCE_S = 10.0  # for a shared file system; network file systems hang rather than fail


class Agents(Protocol):
    """What the reconciler needs of the agent channel (`channel.desk.Desk` is one)."""

    @property
    def heartbeats(self) -> Mapping[str, replica.Heartbeat]:
        """By replica uid."""
        ...

    @property
    def period_s(self) -> float:
        """Seconds between the heartbeats of one agent."""
        ...

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        """Gives the order to drain; the same order twice is one."""
        ...

    def forget(self, uid: str) -> None:
        """The replica is gone."""
        ...


class _NoAgents:
    """Before the channel is attached nobody was heard."""

    heartbeats: Mapping[str, replica.Heartbeat] = types.MappingProxyType({})
    period_s = 5.0

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        raise AssertionError("orders need a channel")

    def forget(self, uid: str) -> None:
        """Nothing was known."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Everything outside: given by the composition root, or by a simulation."""

    store: interface.Store
    clock: Clock
    make_cluster: Callable[[site.Site], driver.Cluster]
    make_files: Callable[[site.Site], shared.SharedDirectory]
    install: Callable[
        [site.Site], Awaitable[render.Installation]
    ]  # makes the shared directory usable; raises OSError
    jitter: Callable[[], float]  # 0..1
    url: str = ""  # what status.url shows: the gateway's address
    # Called with what every pass over a deployment saw and decided, before it is carried out.
    planned: Callable[[values.Desired, values.Observed, values.Plan], None] = lambda _desired, _seen, _plan: (
        None
    )


class Reconciler:
    """Reconciles until `Deposed`. Built by `start`, which takes over the installation."""

    def __init__(self, ports: Ports, epoch: int, installation: str) -> None:
        self._ports = ports
        self._store = ports.store
        self._clock = ports.clock
        self.epoch = epoch
        self._installation = installation
        self._since = ports.clock.now()
        self._blind_until = 0.0
        self.queue = queue.WorkQueue()
        self._failures: collections.Counter[queue.Key] = collections.Counter()
        self.failing: dict[queue.Key, Exception] = {}  # why the last pass over a key came to nothing
        self._mirror = mirror.Mirror(ports.store)
        self._gatherer = gather.Gatherer(self._mirror)
        self.fleet = observe.Fleet(make=ports.make_cluster, clock=ports.clock, installation=installation)
        self._files: dict[str, shared.SharedDirectory] = {}
        self._locks: dict[queue.Key, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: dict[tuple[str, str], float] = {}
        self._exits: dict[str, replica.End] = {}
        # Gets the error of an effect that must stop this controller.
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.book = routes.EndpointBook(epoch, ports.clock.now, self._on_drained)
        self._agents: Agents = _NoAgents()
        self.submitter = submit.Submitter(
            ports.store,
            ports.clock,
            epoch,
            prepare=self._prepare,
            locked=self._lock,
            done=self._submitted,
            spawn=self.spawn,
            later=self.queue.add_at,
        )

    @classmethod
    async def start(cls, ports: Ports, holder: str) -> "Reconciler":
        """Deposes every earlier controller and reads the world."""
        installation = await ports.store.installation()
        epoch = await ports.store.take_over(holder)
        return cls(ports, epoch, installation)

    def attach(self, agents: Agents) -> None:
        """The agent channel, which needs this reconciler's epoch and hints."""
        self._agents = agents

    # Hints: something may have changed. They only enqueue.

    def hint(self, kind: str, namespace: str, name: str) -> None:
        """A user has written this object."""
        if kind in (resources.MODEL_DEPLOYMENT, resources.CLUSTER):
            self.queue.add(queue.Key(kind=kind, namespace=namespace, name=name), queue.URGENT)
        elif kind == resources.REPLICA:
            self.heard(namespace, name)
        else:
            self._enqueue_all(queue.NORMAL)

    def heard(self, namespace: str, name: str) -> None:
        """Something was heard of this replica."""
        stored = self._mirror.get(resources.REPLICA, namespace, name)
        if stored is not None and stored.owner is not None:
            self.queue.add(
                queue.Key(kind=stored.owner.kind, namespace=namespace, name=stored.owner.name), queue.URGENT
            )

    def _on_drained(self, deployment: str) -> None:
        namespace, _, name = deployment.partition("/")
        self.queue.add(
            queue.Key(kind=resources.MODEL_DEPLOYMENT, namespace=namespace, name=name), queue.URGENT
        )

    async def resync(self) -> None:
        """Everything once more, behind what somebody waits for. A coroutine: a scheduler runs plain functions in a thread."""
        self._enqueue_all(queue.RESYNC)

    def _enqueue_all(self, priority: int) -> None:
        for kind in (resources.CLUSTER, resources.MODEL_DEPLOYMENT):
            for each in self._mirror.all(kind):
                self.queue.add(queue.Key(kind=kind, namespace=each.namespace, name=each.name), priority)

    def is_over(self, cluster: str, job_name: str, job_id: str) -> bool:
        watch = self.fleet.watches.get(cluster)
        return watch is not None and watch.is_over(job_name, job_id)

    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs an effect beside the passes. An error that is not the store's or a deposal is a fault of ours: it stops the controller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if isinstance(error, errors.Unavailable):
            _log.warning("effect not recorded", error=str(error))
            return
        if not self.fatal.done():
            self.fatal.set_exception(error)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """Effects under way."""
        return frozenset(self._tasks)

    def _lock(self, key: queue.Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    # The loop

    async def run(self) -> None:
        """Reconciles until cancelled. Raises Deposed when another controller has taken over."""
        await self.refresh()
        await self.resync()
        workers = [
            asyncio.create_task(self._follow(), name="follow"),
            asyncio.create_task(self._work(), name="work"),
            asyncio.create_task(self._observe_for_ever(), name="observe"),
        ]
        try:
            done, _ = await asyncio.wait([*workers, self.fatal], return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                finished.result()
        finally:
            for task in [*workers, *self._tasks]:
                task.cancel()
            await asyncio.gather(*workers, *self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        """Turns changes of the store into keys."""
        while True:
            try:
                async for _ in self._store.watch(max(self._mirror.revision, 0)):
                    await self.refresh()
            except errors.Expired:
                await self.refresh()
            except errors.Unavailable as error:
                _log.warning("store unavailable", error=str(error))
                await asyncio.sleep(1.0)

    async def _work(self) -> None:
        while True:
            key = self.queue.take(self._clock.now())
            if key is None:
                next_at = self.queue.next_at()
                await self.queue.wait(None if next_at is None else max(0.0, next_at - self._clock.now()))
                continue
            await self.process(key)

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
            self.book.skip(f"{key.namespace}/{key.name}")
        delay_s = queue.backoff_s(failures, self._ports.jitter())
        _log.warning(
            "pass is tried again",
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            error=str(error),
            delay_s=round(delay_s, 3),
        )
        self.queue.add_at(key, self._clock.now() + delay_s)

    async def refresh(self) -> None:
        """Brings the mirror up to date and enqueues what has changed."""
        refreshed = await self._mirror.refresh()
        self.book.expect(
            f"{each.namespace}/{each.name}" for each in self._mirror.all(resources.MODEL_DEPLOYMENT)
        )
        if refreshed.everything:
            self._gatherer.forget()
            self._enqueue_all(queue.NORMAL)
        for key in sorted(refreshed.keys):  # the same world, the same order
            self.queue.add(key)

    async def _reconcile(self, key: queue.Key) -> None:
        await self.refresh()
        if key.kind == resources.CLUSTER:
            await self._reconcile_cluster(key)
        else:
            await self._reconcile_deployment(key)

    # Deployments

    async def _reconcile_deployment(self, key: queue.Key) -> None:
        async with self._lock(key):
            owner = self._mirror.get(key.kind, key.namespace, key.name)
            if owner is None:
                self.book.put(f"{key.namespace}/{key.name}", (), None)
                self.queue.forget(key)
                self._gatherer.drop(key.namespace, key.name)
                return
            desired, seen = await self._gather(owner)
            plan = compute.plan(desired, seen, self._fresh_name)
            self._ports.planned(desired, seen, plan)
            writes, effects = execute.transaction(plan, owner, self._mirror, self._clock, self._ports.url)
            if writes:
                durable = any(
                    isinstance(write, interface.Create) and write.ledger is not None for write in writes
                )
                await self._store.commit(writes, epoch=self.epoch, durable=durable)
            is_gone = any(isinstance(action, values.FinishDeletion) for action in plan.actions)
        self.book.put(
            f"{key.namespace}/{key.name}", () if is_gone else plan.endpoints, None if is_gone else plan.model
        )
        self._act(key, effects)
        if plan.recheck_at is not None:
            self.queue.add_at(key, plan.recheck_at)
        if plan.actions:
            _log.info(
                "reconciled",
                namespace=key.namespace,
                name=key.name,
                generation=owner.generation,
                actions=sorted(type(action).__name__ for action in plan.actions),
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
            watch = self._watch(name)
            if watch is not None:
                views[name] = watch.view()
        await self._read_exits(desired.replicas, views)
        now = self._clock.now()
        timing = values.Timing.of_period(self._agents.period_s)
        seen = values.Observed(
            now=now,
            controller_since=self._since,
            installation=self._installation,
            clusters=views,
            heartbeats={
                each.uid: self._agents.heartbeats[each.uid]
                for each in desired.replicas
                if each.uid in self._agents.heartbeats
            },
            exits={each.uid: self._exits[each.uid] for each in desired.replicas if each.uid in self._exits},
            in_flight=self.submitter.in_flight,
            drained_by_gateways=self.book.drained(),
            api_keys={uid: ledger.secrets.api_key for uid, ledger in ledgers.items()},
            timing=timing,
            is_blind=now < self._blind_until
            or brake.is_blind(self._agents.heartbeats, now, timing.replaced_s),
        )
        return desired, seen

    def _watch(self, name: str) -> observe.ClusterWatch | None:
        where = self._gatherer.known()[2].get(name)
        if where is None:
            return None
        known = self.fleet.watches.get(name)
        if name not in self._files or (known is not None and known.site.shared_dir != where.shared_dir):
            self._files[name] = self._ports.make_files(where)
        return self.fleet.ensure(where)

    async def _read_exits(
        self, replicas: tuple[replica.Replica, ...], views: Mapping[str, values.ClusterView]
    ) -> None:
        """Reads the death records of those whose job is over or gone, once each."""
        for each in replicas:
            view = views.get(each.cluster)
            if (
                each.end is not None
                or each.uid in self._exits
                or view is None
                or each.submission.job_id is None
            ):
                continue
            found = [
                seen
                for seen in view.jobs.get(each.submission.job_name, ())
                if seen.job_id == each.submission.job_id
            ]
            is_over = all(seen.state.is_terminal for seen in found) if found else view.is_current
            if is_over:
                end = await self._read_end(each)
                if end is not None:
                    self._exits[each.uid] = end

    async def _read_end(self, each: replica.Replica) -> replica.End | None:
        """A file system that hangs must not stop the passes of all clusters: no answer in time is no record."""
        try:
            async with asyncio.timeout(FILES_PATIENCE_S):
                return await self._files[each.cluster].read_end(each.name)
        except TimeoutError:
            _log.warning("the shared directory does not answer", cluster=each.cluster, replica=each.name)
            return None

    def _act(self, key: queue.Key, effects: execute.Effects) -> None:
        for gone in effects.removed:
            self._agents.forget(gone.uid)
            self._exits.pop(gone.uid, None)
        for order in effects.orders:
            drain = order.replica.drain
            if drain is not None:
                self._agents.drain(
                    order.replica.uid, f"{drain.requested_at:.6f}", drain.reason, drain.deadline_at
                )
        for wanted in effects.submit:
            watch = self._watch(wanted.replica.cluster)
            if watch is not None:
                files = self._files[wanted.replica.cluster]
                self.submitter.enqueue(key, wanted.replica, wanted.round, watch.site, watch.cluster, files)
        by_cluster: dict[str, list[str]] = {}
        for doomed in effects.cancel:
            by_cluster.setdefault(doomed.replica.cluster, []).extend(doomed.job_ids)
        for name, job_ids in by_cluster.items():
            self._cancel(name, job_ids, key)

    def _cancel(self, cluster: str, job_ids: list[str], key: queue.Key) -> None:
        """Cancels what was not cancelled a moment ago: the next snapshot shows whether it worked."""
        now = self._clock.now()
        self._cancelled = {known: at for known, at in self._cancelled.items() if now - at < CANCEL_AGAIN_S}
        fresh = [job_id for job_id in dict.fromkeys(job_ids) if (cluster, job_id) not in self._cancelled]
        watch = self.fleet.watches.get(cluster)
        if not fresh or watch is None:
            return
        self._cancelled.update(dict.fromkeys(((cluster, job_id) for job_id in fresh), now))
        self.spawn(self._run_cancel(watch, fresh, key))

    async def _run_cancel(self, watch: observe.ClusterWatch, job_ids: list[str], key: queue.Key) -> None:
        problem = await watch.cluster.cancel(job_ids)
        if problem:
            _log.warning("scancel failed", cluster=watch.site.name, jobs=job_ids, problem=problem)
            for job_id in job_ids:
                self._cancelled.pop((watch.site.name, job_id), None)
            self.queue.add_at(key, self._clock.now() + observe.SOON_S)
            return
        watch.soon()

    # Submissions

    async def _prepare(self, each: replica.Replica) -> submit.Prepared | job.Refused | str:
        """Renders the job of a replica from what is stored now; a text when it is not wanted any more."""
        await self.refresh()
        stored = self._mirror.get(resources.REPLICA, each.namespace, each.name)
        if stored is None or stored.uid != each.uid or stored.owner is None or stored.spec.get("drain"):
            return "the replica is not wanted any more"
        revisions = self._mirror.children(stored.owner.uid, resources.REVISION)
        revision = next((one for one in revisions if int(one.spec["revision"]) == each.revision), None)
        ledgers = await self._store.ledgers([each.uid])
        runtimes, profiles, sites = self._gatherer.known()
        if revision is None or not ledgers:
            return "its revision is gone"
        template = convert.template(revision.spec["template"])
        engine = runtimes.get(template.runtime)
        resource_profile = profiles.get(template.profile) or gather.no_profile(each.cluster)
        where = sites.get(each.cluster)
        if engine is None or where is None:
            return "its runtime or its cluster is gone"
        try:
            installation = await self._ports.install(where)
        except OSError as error:
            return job.Refused(message=f"{where.shared_dir}: {error.strerror or error}")
        return render.prepared(installation, each, ledgers[0], template, engine, resource_profile, where)

    def _submitted(self, key: queue.Key, cluster: str) -> None:
        watch = self.fleet.watches.get(cluster)
        if watch is not None:
            watch.soon()
        self.queue.add(key)

    # Clusters

    async def _observe_for_ever(self) -> None:
        """Polls each cluster when it is due; different clusters at the same time."""
        polling: dict[str, asyncio.Task[None]] = {}
        looked_at = self._clock.now()
        while True:
            now = self._clock.now()
            if abs(now - looked_at) > GAP_S:
                # Stopped, suspended, or the clock was set: agents need a while to be heard again.
                self._blind_until = now + values.Timing.of_period(self._agents.period_s).unreachable_s
            looked_at = now
            for each in list(self._mirror.all(resources.CLUSTER)):
                task = polling.get(each.name)
                if task is not None and task.done():
                    task.result()
                    del polling[each.name]
                    task = None
                watch = self._watch(each.name)
                if task is None and watch is not None and watch.due_at <= self._clock.now():
                    polling[each.name] = asyncio.create_task(self._poll_when_due(each.name))
            await asyncio.sleep(0.2)

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
        """Takes a snapshot of one cluster; what is different enqueues its deployments."""
        watch = self._watch(name)
        if watch is None:
            return
        await self._announce(watch)
        replicas = await self._replicas_on(name)
        fresh_s = values.Timing.of_period(self._agents.period_s).unreachable_s
        changed = await watch.poll(
            replicas, self._agents.heartbeats, self._exits, fresh_s, self._ports.jitter()
        )
        waiting = {each.deployment_uid for each in replicas if each.submission.state in replica.UNRESOLVED}
        missing = {each.deployment_uid for each in replicas if each.missing_since is not None}
        for owner in self._mirror.all(resources.MODEL_DEPLOYMENT):
            if changed or owner.uid in waiting or owner.uid in missing:
                self.queue.add(queue.Key(kind=owner.kind, namespace=owner.namespace, name=owner.name))
        if changed or watch.is_current:
            self.queue.add(queue.Key(kind=resources.CLUSTER, namespace="", name=name))

    async def _announce(self, watch: observe.ClusterWatch) -> None:
        """Tells the agents of this cluster where this controller is; they may run since long before it."""
        try:
            async with asyncio.timeout(FILES_PATIENCE_S):
                await self._ports.install(watch.site)
            watch.directory_problem = ""
        except TimeoutError:
            watch.directory_problem = (
                f"{watch.site.shared_dir}: does not answer within {FILES_PATIENCE_S:.0f} s"
            )
        except OSError as error:
            watch.directory_problem = f"{watch.site.shared_dir}: {error.strerror or error}"

    async def _replicas_on(self, cluster: str) -> list[replica.Replica]:
        stored = [each for each in self._mirror.all(resources.REPLICA) if each.spec.get("cluster") == cluster]
        ledgers = (
            {
                ledger.replica_uid: ledger
                for ledger in await self._store.ledgers([each.uid for each in stored])
            }
            if stored
            else {}
        )
        return [codec.replica_of(each, ledgers[each.uid]) for each in stored if each.uid in ledgers]

    async def _reconcile_cluster(self, key: queue.Key) -> None:
        owner = self._mirror.get(key.kind, "", key.name)
        if owner is None:
            self.fleet.drop(key.name)
            self._files.pop(key.name, None)
            return
        watch = self._watch(key.name)
        if watch is None:
            return
        found = await self._find_orphans(watch)
        if found.cancel:
            self._cancel(key.name, list(found.cancel), key)
        status = clusters.status(owner, watch, found.report, self._clock.now())
        if status != owner.status:
            await self._store.commit([clusters.write(owner, status)], epoch=self.epoch)

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
