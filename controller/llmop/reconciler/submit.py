"""Running sbatch: at the site's rate, two at a time, each attempt written down durably before it starts."""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Coroutine, Mapping

from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import job, os_errors, replica, site
from llmop.planner import submission as protocol
from llmop.reconciler import queue, shared
from llmop.store import interface

CONCURRENT = 2
REFUSED_BASE_S = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A submission that is ready to run: the job, and what goes into the replica's replica.json."""

    request: job.JobRequest
    config: Mapping[str, object]
    script_hash: str


class TokenBucket:
    """At most `rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), now

    def take(self, now: float) -> float:
        """0.0 when a token was taken, else the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0 - 1e-9:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


def refused_delay_s(refusals: int) -> float:
    """15 s after the first refusal, doubled for each further one, 10 minutes at most."""
    return min(protocol.REFUSED_MAX_S, REFUSED_BASE_S * 2.0 ** min(max(refusals - 1, 0), 10))


def after(submission: replica.Submission, outcome: job.SubmitOutcome, now: float) -> replica.Submission:
    """The ledger row after sbatch came back with `outcome`."""
    match outcome:
        case job.Submitted(job_id=job_id):
            return dataclasses.replace(
                submission,
                state=replica.SubmissionState.SUBMITTED,
                job_id=job_id,
                resolved_at=now,
                retry_at=None,
                message="",
            )
        case job.Rejected(message=message):
            return dataclasses.replace(submission, state=replica.SubmissionState.REJECTED, message=message)
        case job.Refused(message=message):
            refusals = submission.refusals + 1
            return dataclasses.replace(
                submission,
                state=replica.SubmissionState.SUBMITTING,
                attempt_at=None,
                refusals=refusals,
                retry_at=now + refused_delay_s(refusals),
                message=message,
            )
        case job.SubmitUnknown(message=message):
            return dataclasses.replace(
                submission, state=replica.SubmissionState.UNKNOWN, unknown_at=now, message=message
            )


class Submitter:
    """Owns every sbatch of this process.

    `prepare(replica uid)` renders the job when its turn comes, says why it cannot be run now, or (a text) that it is not wanted any more.
    `locked(key)` is held while an attempt is written down, so that no pass removes the row in the meantime.
    `later(key, seconds)` has the key looked at again.
    """

    def __init__(
        self,
        store: interface.Store,
        clock: Clock,
        epoch: int,
        prepare: Callable[[replica.Replica], Coroutine[None, None, Prepared | job.Refused | str]],
        locked: Callable[[queue.Key], asyncio.Lock],
        done: Callable[[queue.Key, str], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
        later: Callable[[queue.Key, float], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._prepare = prepare
        self._locked = locked
        self._done = done
        self._spawn = spawn
        self._later = later
        self._waiting: dict[str, collections.OrderedDict[str, tuple[queue.Key, replica.Replica, int]]] = {}
        self._buckets: dict[tuple[str, float, int], TokenBucket] = {}
        self._in_flight: dict[str, str] = {}  # replica uid -> cluster

    @property
    def in_flight(self) -> frozenset[str]:
        """Replicas whose attempt has begun and whose outcome is not written down yet."""
        return frozenset(self._in_flight)

    def enqueue(
        self,
        key: queue.Key,
        each: replica.Replica,
        round_number: int,
        where: site.Site,
        cluster: driver.Cluster,
        files: shared.SharedDirectory,
    ) -> None:
        """Runs sbatch for this replica when its turn comes. Asking twice is asking once."""
        if each.uid in self._in_flight:
            return
        waiting = self._waiting.setdefault(where.name, collections.OrderedDict())
        waiting[each.uid] = (key, each, round_number)
        self.pump(where, cluster, files)

    def pump(self, where: site.Site, cluster: driver.Cluster, files: shared.SharedDirectory) -> None:
        """Starts as many attempts as rate and concurrency allow; those that wait for the rate are looked at again in time."""
        waiting = self._waiting.get(where.name)
        limits = (where.name, where.submit_rate, where.submit_burst)
        bucket = self._buckets.setdefault(
            limits, TokenBucket(where.submit_rate, where.submit_burst, self._clock.monotonic())
        )
        while waiting and sum(name == where.name for name in self._in_flight.values()) < CONCURRENT:
            wait_s = bucket.take(self._clock.monotonic())
            if wait_s > 0:
                # A key's next pass asks for the submission again, which pumps. Each is looked at when it would be its turn: the first
                # one may not be wanted any more by then.
                for position, (key, _, _) in enumerate(waiting.values()):
                    self._later(key, wait_s + position / where.submit_rate)
                return
            uid, (key, each, round_number) = waiting.popitem(last=False)
            self._in_flight[uid] = where.name
            self._spawn(self._run(key, each, round_number, where, cluster, files))

    async def _run(
        self,
        key: queue.Key,
        each: replica.Replica,
        round_number: int,
        where: site.Site,
        cluster: driver.Cluster,
        files: shared.SharedDirectory,
    ) -> None:
        try:
            await self._attempt(key, each, round_number, cluster, files)
        finally:
            self._in_flight.pop(each.uid, None)
            self._done(key, where.name)
            self.pump(where, cluster, files)

    async def _attempt(
        self,
        key: queue.Key,
        each: replica.Replica,
        round_number: int,
        cluster: driver.Cluster,
        files: shared.SharedDirectory,
    ) -> None:
        try:
            prepared = await self._prepare(each)
        except ValueError as error:
            # What cannot be rendered will not be better next time: a person has to change the manifest.
            rejected = job.Rejected(reject_class=job.RejectClass.INVALID_OPTION, message=str(error))
            await self._record(each, after(each.submission, rejected, self._clock.now()))
            return
        if isinstance(prepared, str):
            return
        if isinstance(prepared, job.Refused):
            await self._record(each, after(each.submission, prepared, self._clock.now()))
            return
        begun = dataclasses.replace(
            each.submission,
            state=replica.SubmissionState.SUBMITTING,
            attempt_at=self._clock.now(),
            rounds=round_number,
            retry_at=None,
            unknown_at=None,
            script_hash=prepared.script_hash,
        )
        try:
            await files.prepare(each.name, prepared.config)
        except OSError as error:
            refused = job.Refused(
                message=f"cannot write the replica's directory: {os_errors.sentence(error, prepared.request.directory)}"
            )
            await self._record(each, after(each.submission, refused, self._clock.now()))
            return
        async with self._locked(key):
            # The row may have gone while this attempt waited: then its state has moved on and nothing is written.
            if not await self._record(each, begun, durable=True):
                return
        outcome: job.SubmitOutcome
        try:
            outcome = await cluster.submit(prepared.request)
        except ValueError as error:
            # Drivers refuse what no command line can hold before they run anything.
            outcome = job.Rejected(reject_class=job.RejectClass.INVALID_OPTION, message=str(error))
        await self._record(each, after(begun, outcome, self._clock.now()))

    async def _record(
        self, each: replica.Replica, submission: replica.Submission, *, durable: bool = False
    ) -> bool:
        write = interface.RecordSubmission(
            replica_uid=each.uid, states=replica.UNRESOLVED, submission=submission
        )
        committed = await self._store.commit([write], epoch=self._epoch, durable=durable)
        return committed.applied[0]
