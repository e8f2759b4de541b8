"""Keeps stagers at work for what plans ask for, and tells the next pass how far they are. Decides nothing.

What is known here is rebuilt after a restart: what is finished lies on the disk, what a reference was is in the revision, and a stager
takes up what an earlier one has left.
"""

import asyncio
import dataclasses
import posixpath
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import structlog

from llmop.artifacts import order
from llmop.clock import Clock
from llmop.cluster import file_threads
from llmop.domain import artifact, os_errors, site, staging
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.planner import artifacts, values
from llmop.reconciler import queue

_log = structlog.get_logger()

CONCURRENT = 2  # stagers at a time; the rest waits for its turn
LOOK_AGAIN_S = 60.0  # what was there is looked for again: sites purge scratch file systems
ASK_AGAIN_S = 600.0  # after a failure that a person has to act upon, which may happen outside of llmop
RETRY_BASE_S = 5.0
RETRY_MAX_S = 300.0
_Step = staging.Step
_FIRST = staging.Progress(step=_Step.RESOLVING)


class Runner(Protocol):
    """Carries out orders (`artifacts.runner.ProcessRunner` is one)."""

    async def run(self, wanted: order.Order, report: Callable[[staging.Progress], None]) -> str:
        """The digest. Raises NeedsUser or Unavailable."""
        ...

    def is_there(self, shared_dir: str, entry: str) -> bool:
        """Whether a finished artifact is on the disk. May take as long as the file system does."""
        ...


class Jobs(Protocol):
    """Carries out orders in jobs of a cluster (`reconciler.staging_jobs.StagingJobs` is one)."""

    async def run(self, cluster: str, wanted: order.Order, report: Callable[[staging.Progress], None]) -> str:
        """The digest. Raises NeedsUser or Unavailable. Cancelled, it leaves the job to the next one that asks."""
        ...

    def give_up(self, cluster: str, wanted: order.Order) -> None:
        """Nobody wants it any more."""
        ...

    def is_there(self, shared_dir: str, entry: str) -> bool:
        """As a `Runner` says it."""
        ...


class NoRunner:
    """Where nothing is staged: references are told to be unavailable."""

    async def run(self, wanted: order.Order, report: Callable[[staging.Progress], None]) -> str:
        raise Unavailable(f"{wanted.reference}: this controller stages nothing")

    def is_there(self, shared_dir: str, entry: str) -> bool:
        return False


def retry_s(failures: int) -> float:
    """5 s after the first failure in a row, doubled for each further one, 5 minutes at most."""
    return min(RETRY_MAX_S, RETRY_BASE_S * 2.0 ** min(max(failures - 1, 0), 10))


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """What makes one piece of work different from another."""

    reference: artifact.Reference
    digest: str
    cluster: str
    shared_dir: str
    staging: site.Staging
    secrets: tuple[str, ...]

    @property
    def is_by_job(self) -> bool:
        return self.staging.where is site.StagingPlace.JOB and bool(self.digest)


@dataclasses.dataclass(slots=True)
class _Work:
    """One piece of work under way, and how it went. `failure` is shown until the next try gets further."""

    wanters: set[queue.Key] = dataclasses.field(default_factory=set)
    progress: staging.Progress = _FIRST
    failure: staging.Progress | None = None
    failures: int = 0
    due: float = 0.0  # when a failed one is tried again, by a clock that nobody sets
    resolved: str = ""
    task: asyncio.Task[None] | None = None
    is_started: bool = False


class Stagers:
    """`runner` works beside this controller, `jobs` in jobs of the clusters that ask for it: then only what a reference is now is found
    out here. `spawn` runs a coroutine beside the passes; `wake` is called with the key of a deployment for which something is new.
    """

    def __init__(
        self,
        runner: Runner,
        jobs: Jobs,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wake: Callable[[queue.Key], None],
    ) -> None:
        self._runner = runner
        self._jobs = jobs
        self._clock = clock
        self._spawn = spawn
        self._wake = wake
        self._work: dict[_Job, _Work] = {}
        self._seen: dict[
            tuple[str, str], float
        ] = {}  # (shared directory, entry) -> when it was there last, by a clock that nobody sets
        self._threads: dict[str, file_threads.FileThreads] = {}  # one for each shared directory
        self._slots = asyncio.Semaphore(CONCURRENT)

    async def views(self, desired: values.Desired, where: site.Site) -> Mapping[str, staging.View]:
        """What is known of the references of the newest revision, by their text."""
        template = desired.deployment.spec.template
        needed = staging.wanted(desired.runtime, template) if desired.runtime is not None else ()
        if not needed:
            return {}
        newest = max(desired.revisions, key=lambda each: each.number, default=None)
        is_current = newest is not None and newest.hash == desired.template_hash
        pins = {pin.reference: pin.digest for pin in newest.pins} if newest is not None and is_current else {}
        views = {}
        for reference in needed:
            digest = pins.get(reference.text, "")
            views[reference.text] = await self._view(_job(reference, digest, template.env_files, where))
        return views

    async def _view(self, job: _Job) -> staging.View:
        work = self._work.get(job)
        if job.digest:
            is_there = await self._is_there(job)
            if is_there is None:
                return staging.View(digest=job.digest)
            if is_there:
                return staging.View(digest=job.digest, progress=staging.Progress(step=_Step.READY))
            shown = self._shown(work) if work is not None else staging.Progress(step=_Step.DOWNLOADING)
            return staging.View(digest=job.digest, progress=shown)
        if work is None:
            return staging.View(progress=_FIRST)
        return staging.View(digest=work.resolved, progress=self._shown(work))

    def _shown(self, work: _Work) -> staging.Progress:
        if work.failure is None:
            return work.progress
        left_s = max(0.0, work.due - self._clock.monotonic())
        return dataclasses.replace(work.failure, retry_at=self._clock.now() + left_s)

    async def _is_there(self, job: _Job) -> bool | None:
        """None when the shared directory does not answer: a file system that hangs must not stop the passes."""
        place = (job.shared_dir, artifact.entry(job.reference, job.digest))
        if self._clock.monotonic() - self._seen.get(place, float("-inf")) < LOOK_AGAIN_S:
            return True
        thread = self._threads.setdefault(job.shared_dir, file_threads.FileThreads("artifacts"))
        try:
            is_there = await thread.run((self._jobs if job.is_by_job else self._runner).is_there, *place)
        except OSError as error:
            _log.warning(
                "the shared directory cannot be read",
                cluster=job.cluster,
                error=os_errors.sentence(error, job.shared_dir),
            )
            return None
        if is_there:
            self._seen[place] = self._clock.monotonic()
        else:
            self._seen.pop(place, None)
        return is_there

    def keep(self, key: queue.Key, wanted: Sequence[tuple[values.StageArtifact, site.Site]]) -> None:
        """From now on the deployment `key` wants this and nothing else; what nobody wants any more is stopped."""
        jobs = {_job(each.reference, each.digest, each.secret_files, where) for each, where in wanted}
        for job in [job for job, work in self._work.items() if key in work.wanters and job not in jobs]:
            self._work[job].wanters.discard(key)
            if not self._work[job].wanters:
                self._drop(job)
        for job in sorted(jobs, key=lambda each: (each.reference.text, each.digest)):
            work = self._work.setdefault(job, _Work())
            work.wanters.add(key)
            is_due = work.failure is None or work.due <= self._clock.monotonic()
            if is_due and not work.is_started and not work.resolved:
                work.is_started = True
                self._spawn(self._run(job, work))

    def _drop(self, job: _Job) -> None:
        work = self._work.pop(job)
        if job.is_by_job:
            self._jobs.give_up(job.cluster, _order(job))
        if work.task is not None:
            work.task.cancel()

    async def _run(self, job: _Job, work: _Work) -> None:
        if not work.wanters:
            return
        work.task = asyncio.current_task()
        try:
            digest = await self._carry_out(job, work)
        except NeedsUser as error:
            work.failures += 1
            message = f"{error}; it is tried again every {ASK_AGAIN_S / 60:.0f} minutes"
            self._failed(job, work, f"Artifact{error.reason}", message, ASK_AGAIN_S, needs_user=True)
        except Unavailable as error:
            work.failures += 1
            self._failed(
                job, work, "ArtifactUnavailable", str(error), retry_s(work.failures), needs_user=False
            )
        else:
            work.failures, work.failure = 0, None
            if not job.digest:
                work.resolved, work.progress = digest, _FIRST
        finally:
            work.task, work.is_started = None, False
        self._tell(work)

    async def _carry_out(self, job: _Job, work: _Work) -> str:
        def report(seen: staging.Progress) -> None:
            self._heard(job, work, seen)

        if job.is_by_job:
            return await self._jobs.run(job.cluster, _order(job), report)
        if job.digest and self._slots.locked():
            report(staging.Progress(step=_Step.QUEUED))
        async with self._slots:
            return await self._runner.run(_order(job), report)

    def _failed(
        self, job: _Job, work: _Work, reason: str, message: str, after_s: float, *, needs_user: bool
    ) -> None:
        _log.warning(
            "staging failed", cluster=job.cluster, artifact=job.reference.text, reason=reason, error=message
        )
        work.failure = staging.Progress(
            step=_Step.FAILED,
            reason=reason,
            message=message,
            needs_user=needs_user,
        )
        work.due = self._clock.monotonic() + after_s

    def _heard(self, job: _Job, work: _Work, seen: staging.Progress) -> None:
        """Wakes the deployments only when people would read something else."""
        before = artifacts.words(job.reference.text, work.progress)
        work.progress = seen
        is_further = seen.step in (_Step.BUILDING, _Step.VERIFYING) or (
            seen.step is _Step.DOWNLOADING and seen.done > 0
        )
        if is_further and work.failure is not None:
            work.failure = None
            self._tell(work)
        elif artifacts.words(job.reference.text, seen) != before:
            self._tell(work)

    def _tell(self, work: _Work) -> None:
        for key in sorted(work.wanters):
            self._wake(key)


def _job(reference: artifact.Reference, digest: str, secret_files: Sequence[str], where: site.Site) -> _Job:
    return _Job(
        reference=reference,
        digest=digest,
        cluster=where.name,
        shared_dir=where.shared_dir,
        staging=where.staging,
        secrets=tuple(posixpath.join(where.allowed.secret_root, path) for path in secret_files),
    )


def _order(job: _Job) -> order.Order:
    return order.Order(
        reference=job.reference.text,
        digest=job.digest,
        shared_dir=job.shared_dir,
        endpoint=job.staging.hub,
        insecure=job.staging.insecure_registries,
        tmp_dir=job.staging.tmp_dir,
        secret_files=job.secrets,
    )
