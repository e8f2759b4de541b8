"""Looking at one cluster: one shared snapshot per interval, whatever the number of replicas."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import fences, ids, job, profile, replica, resources, site
from llmop.planner import brake, values
from llmop.reconciler import canary, shared

SOON_S = 2.0  # after a submission or a cancellation, coalesced
IDLE_S = 30.0
FAILURE_MAX_S = 120.0
HISTORY_EVERY_S = 60.0
HISTORY_PATIENCE_S = 600.0  # an accounting that fails for longer is treated as none
CAPABILITIES_EVERY_S = 600.0


def interval_s(where: site.Site, duration_s: float, failures: int, *, is_idle: bool) -> float:
    """When to look again: 20 times as long as the last look took, within the site's bounds; slower while it fails."""
    if failures:
        return min(FAILURE_MAX_S, where.poll_min_s * 2.0 ** min(failures - 1, 10))
    if is_idle:
        return max(where.poll_min_s, min(IDLE_S, where.poll_max_s))
    return min(where.poll_max_s, max(where.poll_min_s, 20.0 * duration_s))


class ClusterWatch:
    """What is known of one cluster. `poll` is called by one task at a time."""

    def __init__(
        self,
        where: site.Site,
        cluster: driver.Cluster,
        files: shared.SharedDirectory,
        clock: Clock,
        installation: str,
    ) -> None:
        self.site = where
        self.cluster = cluster
        self.files = files
        self.capabilities: job.Capabilities | None = None
        self.canary = canary.CanaryWatch(where, cluster, clock, installation)
        self.orphan_passes = 0
        self.orphans_seen: dict[str, float] = {}  # job name -> when it was seen without an owner first
        self.directory_problem: str | None = (
            None  # why the shared directory cannot be used; None = not looked yet
        )
        self._clock = clock
        self._installation = installation
        self._snapshot: job.Snapshot | None = None
        self._jobs: Mapping[str, tuple[job.ObservedJob, ...]] = {}
        self._problem = ""
        self._failures = 0
        self._last_s = 0.0
        self._verdict: brake.Verdict | None = None
        self._history: dict[str, tuple[job.ObservedJob, ...]] = {}
        self._history_at: float | None = None
        self._history_failing_since: float | None = None
        self._capabilities_at: float | None = None
        self._due_at = clock.monotonic()
        self._era = 0  # how often the wall clock was set

    @property
    def due_at(self) -> float:
        """When the next look is due (monotonic)."""
        return self._due_at

    def soon(self) -> None:
        """Something was submitted or cancelled: look earlier, once for all that happens in the meantime."""
        if not self._failures:
            self._due_at = min(self._due_at, self._clock.monotonic() + min(SOON_S, self.site.poll_min_s))

    def clock_stepped(self, seconds: float) -> None:
        """Somebody has set the wall clock: the times of the last snapshot mean nothing any more, and a look under way is void."""
        self._era += 1
        self._snapshot, self._jobs = None, {}
        self.orphans_seen = {name: since + seconds for name, since in self.orphans_seen.items()}
        self._due_at = self._clock.monotonic()

    @property
    def problem(self) -> str:
        return self._problem

    @property
    def braked(self) -> str:
        return self._verdict.problem if self._verdict is not None else ""

    @property
    def jobs(self) -> tuple[job.ObservedJob, ...]:
        return self._snapshot.jobs if self._snapshot is not None else ()

    @property
    def taken_at(self) -> float | None:
        """When the last complete snapshot was taken."""
        return self._snapshot.taken_at if self._snapshot is not None else None

    @property
    def is_current(self) -> bool:
        return self._snapshot is not None and not self._problem

    def view(self) -> values.ClusterView:
        return values.ClusterView(
            site=self.site,
            snapshot_started_at=self._snapshot.started_at if self._snapshot is not None else None,
            snapshot_taken_at=self._snapshot.taken_at if self._snapshot is not None else None,
            jobs=self._jobs,
            problem=self._problem,
            brake=self.braked,
            accounting=self._has_accounting(),
            history=self._history,
            fences=self.canary.holding,
            unproven=self.canary.unproven,
        )

    def _has_accounting(self) -> bool:
        """There is an accounting, and it has not been failing for so long that waiting for it helps nobody."""
        if not self._can_ask_accounting:
            return False
        failing_since = self._history_failing_since
        return failing_since is None or self._clock.monotonic() - failing_since < HISTORY_PATIENCE_S

    @property
    def _can_ask_accounting(self) -> bool:
        """sacct finds jobs by the name that the site gave them, and knows comments at few sites only."""
        has_names = self.canary.holding.identity is fences.Identity.NAME
        return has_names and self.capabilities is not None and self.capabilities.accounting

    def is_running(self, job_name: str, job_id: str) -> bool:
        """The last look shows this job running, under this name."""
        return self.is_current and any(
            seen.job_id == job_id and seen.state is job.JobState.RUNNING
            for seen in self._jobs.get(job_name, ())
        )

    def is_over(self, job_name: str, job_id: str) -> bool:
        """A complete snapshot says that this job has ended. Absence says nothing: it may have begun after the snapshot."""
        if not self.is_current or self.braked:
            return False
        found = [seen for seen in self._jobs.get(job_name, ()) if seen.job_id == job_id]
        return bool(found) and all(seen.state.is_terminal for seen in found)

    async def poll(
        self,
        replicas: Sequence[replica.Replica],
        heartbeats: Mapping[str, replica.Heartbeat],
        exits: Mapping[str, replica.End],
        fresh_s: float,
        jitter: float = 0.0,
    ) -> bool:
        """Takes a snapshot. True when something is different from before. `jitter` in 0..1 stretches the interval by up to a tenth."""
        await self._learn_capabilities()
        before, era = self._clock.monotonic(), self._era
        snapshot = await self._look()
        self._last_s = self._clock.monotonic() - before
        # Ended replicas hold nothing and end by themselves: only live ones, and jobs that stage, make the cluster busy.
        is_idle = not (any(each.end is None for each in replicas) or self._is_staging())
        if era != self._era:
            return False
        if not snapshot.is_complete:
            self._failures += 1
            changed = self._problem != snapshot.problem
            self._problem = snapshot.problem
            self._schedule(jitter, is_idle=is_idle)
            return changed
        was_unusable = bool(self._problem) or self._snapshot is None
        self._failures = 0
        self._problem = ""
        verdict_before = self._verdict
        self._verdict = brake.judge(replicas, snapshot, heartbeats, exits, verdict_before, fresh_s)
        jobs = _by_name(snapshot.jobs, self._installation)
        changed = was_unusable or jobs != self._jobs or self._verdict != verdict_before
        self._snapshot, self._jobs = snapshot, jobs
        changed = await self._ask_history(replicas) or changed
        self._schedule(jitter, is_idle=is_idle)
        return changed

    def _is_staging(self) -> bool:
        return any(
            ids.is_staging(name, self._installation) and any(seen.state.is_live for seen in found)
            for name, found in self._jobs.items()
        )

    async def _look(self) -> job.Snapshot:
        """A snapshot with our jobs under the names that we gave them."""
        snapshot = await self.cluster.snapshot()
        found = fences.identified(snapshot.jobs, self.canary.holding.identity)
        return dataclasses.replace(snapshot, jobs=found)

    async def prove(self, owner: resources.Resource, profiles: Sequence[profile.Profile]) -> bool:
        """Sends the canary when it is time to; `owner` is the stored Cluster. True when something is different from before."""
        if not self.is_current or self.braked:
            return False
        return await self.canary.step(owner.generation, self.capabilities, profiles, self.jobs)

    def _schedule(self, jitter: float, *, is_idle: bool) -> None:
        wait_s = interval_s(self.site, self._last_s, self._failures, is_idle=is_idle)
        self._due_at = self._clock.monotonic() + wait_s * (1.0 + 0.1 * jitter)

    async def _learn_capabilities(self) -> None:
        now = self._clock.monotonic()
        if self._capabilities_at is not None and now - self._capabilities_at < CAPABILITIES_EVERY_S:
            return
        learned = await self.cluster.capabilities()
        if isinstance(learned, job.Capabilities):
            self.capabilities = learned
            self._capabilities_at = now

    async def _ask_history(self, replicas: Sequence[replica.Replica]) -> bool:
        """Asks the accounting for jobs that are not in the queue although a replica waits for them; once a minute at most."""
        if not self._can_ask_accounting:
            return False
        live = {each.submission.job_name for each in replicas if each.end is None}
        self._history = {name: found for name, found in self._history.items() if name in live}
        wanted = left_the_queue(replicas, self._jobs)
        now = self._clock.monotonic()
        is_new = any(submission.job_name not in self._history for submission in wanted)
        is_due = self._history_at is None or now - self._history_at >= HISTORY_EVERY_S
        if not wanted or not (is_due or (is_new and self._history_failing_since is None)):
            return False
        self._history_at = now
        since = min(submission.intent_at for submission in wanted) - 60.0
        answer = await self.cluster.history([submission.job_name for submission in wanted], since)
        if not answer.available or answer.problem:
            if self._history_failing_since is None:
                self._history_failing_since = now
            return False
        self._history_failing_since = None
        found = _by_name(answer.jobs, self._installation)
        self._history.update(
            {submission.job_name: found.get(submission.job_name, ()) for submission in wanted}
        )
        return True


def left_the_queue(
    replicas: Sequence[replica.Replica], jobs: Mapping[str, object]
) -> list[replica.Submission]:
    """Submissions of live replicas that have a job, or may have one, which the queue does not show under its name.

    A job can be known although no attempt is recorded: one that landed late has claimed the replica after a later attempt was refused.
    """
    return [
        each.submission
        for each in replicas
        if each.end is None
        and (each.submission.attempt_at is not None or each.submission.job_id is not None)
        and each.submission.job_name not in jobs
    ]


def _by_name(jobs: Sequence[job.ObservedJob], installation: str) -> dict[str, tuple[job.ObservedJob, ...]]:
    """The jobs of this installation by name; other people's jobs are none of our business."""
    result: dict[str, list[job.ObservedJob]] = {}
    prefix = f"llmop-{installation}-"
    for seen in jobs:
        if seen.name.startswith(prefix) and ids.parse_job_name(seen.name) is not None:
            result.setdefault(seen.name, []).append(seen)
    return {name: tuple(found) for name, found in result.items()}


@dataclasses.dataclass(slots=True)
class Fleet:
    """All clusters. `make_cluster` builds the driver of a site, `make_files` its shared directory."""

    make_cluster: Callable[[site.Site], driver.Cluster]
    make_files: Callable[[site.Site], shared.SharedDirectory]
    clock: Clock
    installation: str
    watches: dict[str, ClusterWatch] = dataclasses.field(default_factory=dict)

    def ensure(self, where: site.Site) -> ClusterWatch:
        """The watch of this site; a new one when what the driver was built from has changed."""
        known = self.watches.get(where.name)
        if known is not None and _built_from(known.site) == _built_from(where):
            known.site = where
            return known
        watch = ClusterWatch(
            where, self.make_cluster(where), self.make_files(where), self.clock, self.installation
        )
        self.watches[where.name] = watch
        return watch

    def drop(self, name: str) -> None:
        self.watches.pop(name, None)


def _built_from(where: site.Site) -> tuple[object, ...]:
    """What a driver cannot change once it is made."""
    return (where.driver, where.shared_dir, where.submit_timeout_s)
