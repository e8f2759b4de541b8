"""A Slurm in memory: deterministic, driven by a fake clock, with the faults of a real one on demand.

What it prints it prints as Slurm does, and reads it back with the driver's own parser, so that the parser and the tables of
words work in every simulation. It keeps to what tests saw a Slurm 22.05 do; the contract suite of the drivers holds it to that.

The inside of a job is not simulated here. Whoever drives the world hears of a job's process by `Hooks` and ends it with
`VirtualSlurm.finish`.
"""

import collections
import dataclasses
import enum
import functools
import heapq
import math
import random
import signal as signals
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from llmop.cluster.slurm import parse, states
from llmop.domain.job import (
    Capabilities,
    History,
    JobRequest,
    ObservedJob,
    Refused,
    Rejected,
    Snapshot,
    SubmitOutcome,
    Submitted,
    SubmitUnknown,
)
from llmop.testing import slurm_text
from llmop.testing.clock import FakeClock
from llmop.testing.slurm_text import Phase, VirtualJob

Draw = Callable[[random.Random], float]  # a random number of seconds


class Signal(enum.StrEnum):
    """What the batch process of a job gets. KILL is not among them: a killed process is told by `Hooks.on_end`."""

    USR1 = "USR1"
    TERM = "TERM"
    STOP = "STOP"  # it stands still from now on, until CONT
    CONT = "CONT"


_HOLDS_SLOTS = frozenset({Phase.CONFIGURING, Phase.RUNNING, Phase.SUSPENDED, Phase.COMPLETING})


class Hooks(Protocol):
    """What the world hears of jobs. A hook may call back (`finish` from `on_signal`)."""

    def on_start(self, job: VirtualJob) -> None:
        """The batch process of the job runs now."""
        ...

    def on_signal(self, job: VirtualJob, signal: Signal) -> None: ...

    def on_end(self, job: VirtualJob) -> None:
        """The batch process is gone: it finished, was killed, or its node died."""
        ...


class SubmitFault(enum.Enum):
    """What happens to an sbatch."""

    ACCEPTED_UNSEEN = enum.auto()  # there is a job, and a time-out; with a delay the job comes later
    LOST = enum.auto()  # there is no job, and a time-out
    SAYS = enum.auto()  # there is no job, and the text given


class SnapshotFault(enum.Enum):
    """What happens to an squeue. EMPTY, MISSING and STALE look complete."""

    TIMEOUT = enum.auto()
    FAILS = enum.auto()
    TRUNCATED = enum.auto()
    GARBAGE = enum.auto()
    NOISE = enum.auto()
    EMPTY = enum.auto()
    MISSING = enum.auto()  # some jobs are left out
    STALE = enum.auto()  # as it was the time before


def constant(seconds: float) -> Draw:
    return lambda _: seconds


def lognormal(median: float, sigma: float, at_most: float = math.inf) -> Draw:
    return lambda source: min(source.lognormvariate(math.log(median), sigma), at_most)


def uniform(low: float, high: float) -> Draw:
    return lambda source: source.uniform(low, high)


def unchanged(request: JobRequest) -> JobRequest:
    """What a site without plugins makes of a submission."""
    return request


_TURN, _NOTHING, _EPILOG, _PURGE = lognormal(20, 1.0, 3600), constant(0), constant(1), uniform(0, 60)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the cluster is like. `nodes` is slots (GPUs) by node name; `partitions` are all over all nodes, the first is the default."""

    nodes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {f"n{i}": 4 for i in range(1, 9)})
    partitions: tuple[str, ...] = ("gpu",)
    queue_wait: Draw = _TURN
    configuring: Draw = _NOTHING
    completing: Draw = _EPILOG
    min_job_age_s: int = 300
    purge_lag: Draw = _PURGE
    kill_wait_s: int = 30
    message_timeout_s: int = 10
    node_timeout_s: int = 300  # SlurmdTimeout
    requeue_wait_s: int = 121
    default_time_s: int = 3600
    accounting: bool = False
    accounting_lag_s: float = 5.0
    max_submit: int | None = None  # jobs in the queue; more are refused
    max_running: int | None = None  # more wait with a QOS reason
    plugin: Callable[[JobRequest], JobRequest] = unchanged  # what the site makes of a submission
    skew_s: float = 0.0  # Slurm's clock is that much ahead of the true one


@dataclasses.dataclass(slots=True, eq=False)
class _Node:
    name: str
    slots: int
    used: int = 0
    reachable: bool = True  # by slurmctld
    drained: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """A line of the accounting, known from `since` on."""

    since: float
    name: str
    submitted_at: float
    fields: tuple[str, ...]


class VirtualSlurm:
    """Implements `llmop.cluster.driver.Cluster`, for one account.

    `advance` moves the clock and lets things happen. `film` is what happened, in words; `fired` counts the rows of
    `llmop.cluster.slurm.states` that were used (compare with `states.ALL_ROWS`). `calls` counts the calls by name.
    """

    def __init__(
        self, clock: FakeClock, *, shape: Shape | None = None, seed: int = 0, hooks: Hooks | None = None
    ) -> None:
        self.shape = shape or Shape()
        self.hooks = hooks
        self.film: collections.deque[tuple[float, str]] = collections.deque(maxlen=20_000)
        self.fired: collections.Counter[str] = collections.Counter()
        self.calls: collections.Counter[str] = collections.Counter()
        self._clock = clock
        self._random = random.Random(seed)
        self._nodes = {name: _Node(name, slots) for name, slots in self.shape.nodes.items()}
        self._jobs: dict[int, VirtualJob] = {}
        self._pending: dict[int, VirtualJob] = {}
        self._processes: dict[VirtualJob, None] = {}
        self._records: dict[tuple[int, float, int], _Record] = {}
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._event_number = 0
        self._next_id = 1
        self._max_submit = self.shape.max_submit
        self._max_running = self.shape.max_running
        self._down = False
        self._frozen: list[JobRequest] | None = None
        self._accounting_down = False
        self._closed_partitions: set[str] = set()
        self._maintenance: tuple[float, float] | None = None
        self._submit_faults: collections.deque[tuple[SubmitFault, str, float]] = collections.deque()
        self._snapshot_faults: collections.deque[SnapshotFault] = collections.deque()
        self._cancel_failures = 0
        self._last_text = ""
        self._scheduling = False

    # The driver

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        self.calls["submit held" if request.held else "submit"] += 1
        if self._down:
            return self._failure("Unable to contact slurm controller (connect failure)")
        if self._frozen is not None:
            self._frozen.append(request)
            return self._failure("Socket timed out on send/recv operation")
        fault, text, delay = self._submit_faults.popleft() if self._submit_faults else (None, "", 0.0)
        if fault is SubmitFault.SAYS:
            return self._failure(text)
        if fault is SubmitFault.LOST:
            self._note(f"sbatch {request.name}: lost")
            return self._failure("Socket timed out on send/recv operation")
        if fault is SubmitFault.ACCEPTED_UNSEEN:
            self._note(f"sbatch {request.name}: times out, lands in {delay:.0f} s")
            if delay:
                self._at(self._clock.now() + delay, functools.partial(self._land, request, is_late=True))
            else:
                self._land(request)
            return self._failure("Socket timed out on send/recv operation")
        landed = self._land(request)
        return (
            landed
            if isinstance(landed, Rejected | Refused | SubmitUnknown)
            else Submitted(job_id=str(landed.id))
        )

    async def snapshot(self) -> Snapshot:
        self.calls["snapshot"] += 1
        now = self._clock.now()
        problem, text = self._squeue()
        jobs: tuple[ObservedJob, ...] = ()
        if not problem:
            try:
                jobs = parse.squeue(text)
            except parse.Garbled as garbled:
                problem = str(garbled)
        for job in jobs:
            self.fired[states.state_row(job.state_text).id] += 1
            if job.pending is not None:
                self.fired[states.pending_row(job.reason).id] += 1
        return Snapshot(started_at=now, taken_at=now, jobs=jobs, problem=problem)

    async def history(self, names: Sequence[str], since: float) -> History:
        self.calls["history"] += 1
        if not self.shape.accounting:
            return History(available=False, problem="Slurm accounting storage is disabled")
        if self._accounting_down:
            return History(available=True, problem="slurmdbd: Connection refused")
        wanted, now = frozenset(names), self._clock.now()
        records = [
            record
            for _, record in sorted(self._records.items())
            if record.name in wanted and record.submitted_at >= since and record.since <= now
        ]
        text = "".join(parse.FIELD_END.join(record.fields) + "\n" for record in records)
        return History(available=True, jobs=parse.sacct(text))

    async def cancel(self, job_ids: Sequence[str]) -> str:
        self.calls["cancel"] += 1
        if self._cancel_failures or self._down or self._frozen is not None:
            self._cancel_failures = max(0, self._cancel_failures - 1)
            return "Unable to contact slurm controller (connect failure)"
        for job_id in job_ids:
            job = self._jobs.get(int(job_id))
            if job is not None and job.phase not in (Phase.ENDED, Phase.COMPLETING):
                self._note(f"scancel {job_id}")
                self._stop(job, "CANCELLED")
        return ""

    async def signal(self, job_id: str) -> str:
        self.calls["signal"] += 1
        if self._down or self._frozen is not None:
            return "Unable to contact slurm controller (connect failure)"
        job = self._jobs.get(int(job_id))
        if job is None or job.phase is not Phase.RUNNING:
            return f"Kill job error on job id {job_id}: Invalid job id specified"
        self._signal(job, Signal.USR1)
        return ""

    async def capabilities(self) -> Capabilities | str:
        self.calls["capabilities"] += 1
        if self._down or self._frozen is not None:
            return "Unable to contact slurm controller (connect failure)"
        return Capabilities(
            version="22.05.8",
            min_job_age_s=self.shape.min_job_age_s,
            kill_wait_s=self.shape.kill_wait_s,
            message_timeout_s=self.shape.message_timeout_s,
            accounting=self.shape.accounting,
            partitions=self.shape.partitions,
        )

    # Time

    def next_event_at(self) -> float | None:
        """When something happens next by itself; None when nothing will."""
        return self._events[0][0] if self._events else None

    def advance(self, to: float) -> None:
        """Moves the clock to `to` (epoch seconds), stopping at everything that happens on the way."""
        while self._events and self._events[0][0] <= to:
            when, _, action = heapq.heappop(self._events)
            self._clock.move_to(max(when, self._clock.now()))
            action()
        self._clock.move_to(to)

    # What is

    def jobs(self) -> tuple[VirtualJob, ...]:
        """Every job that slurmctld remembers, by id."""
        return tuple(self._jobs.values())

    def job(self, job_id: str | int) -> VirtualJob | None:
        return self._jobs.get(int(job_id))

    def live_jobs(self) -> tuple[VirtualJob, ...]:
        """The jobs that wait, run, stand still or are being cleaned up."""
        return tuple(job for job in self._jobs.values() if job.phase is not Phase.ENDED)

    def running_jobs(self) -> tuple[VirtualJob, ...]:
        """The jobs whose batch process is alive, also those that slurmctld has given up or forgotten."""
        return tuple(self._processes)

    # What jobs do

    def finish(self, job: VirtualJob, exit_code: int, *, signal: int = 0) -> None:
        """The batch process of the job exits, or dies of a signal; nothing happens when it is gone already."""
        if job not in self._processes:
            return
        self._note(f"job {job.id} ({job.name}): exits with {exit_code}:{signal}")
        job.status = exit_code << 8 | signal
        job.exited = True
        self._process_gone(job)

    # What people and the site do

    def submit_by_hand(self, request: JobRequest) -> VirtualJob:
        """Somebody else submits a job with the same account."""
        landed = self._land(request)
        assert isinstance(landed, VirtualJob), landed
        return landed

    def cancel_by_hand(self, job_id: str | int) -> None:
        """An administrator cancels a job."""
        job = self._jobs[int(job_id)]
        if job.phase not in (Phase.ENDED, Phase.COMPLETING):
            self._note(f"an administrator cancels job {job.id}")
            self._stop(job, "CANCELLED")

    def hold(self, job_id: str | int, *, by_admin: bool) -> None:
        """A waiting job is held."""
        job = self._jobs[int(job_id)]
        job.held = "JobHeldAdmin" if by_admin else "JobHeldUser"
        self._schedule()

    def release(self, job_id: str | int) -> None:
        """Lifts `hold` and `block`."""
        job = self._jobs[int(job_id)]
        job.held = job.blocked = ""
        self._schedule()

    def block(self, job_id: str | int, reason: str) -> None:
        """A waiting job does not start, for this reason, until `release`."""
        self._jobs[int(job_id)].blocked = reason
        self._schedule()

    def show_as(self, job_id: str | int, word: str) -> None:
        """squeue calls the state of the job by this word from now on; "" = by the right one again."""
        self._jobs[int(job_id)].shown_as = word

    def suspend(self, job_id: str | int) -> None:
        job = self._jobs[int(job_id)]
        if job.phase is Phase.RUNNING:
            job.phase = Phase.SUSPENDED
            self._note(f"job {job.id} is suspended")
            self._signal(job, Signal.STOP)

    def resume(self, job_id: str | int) -> None:
        job = self._jobs[int(job_id)]
        if job.phase is Phase.SUSPENDED:
            job.phase = Phase.RUNNING
            self._note(f"job {job.id} runs on")
            self._signal(job, Signal.CONT)

    def preempt(self, job_id: str | int, *, grace_s: float = 0) -> None:
        """The job has to go. With a grace time its end moves nearer, and its batch process hears nothing until then."""
        job = self._jobs[int(job_id)]
        if job.phase not in (Phase.RUNNING, Phase.SUSPENDED):
            return
        self._note(f"job {job.id} is preempted, grace {grace_s:.0f} s")
        job.preempted_at = self._clock.now()
        if not grace_s:
            self._stop(job, "PREEMPTED")
            return
        end = self._clock.now() + grace_s
        if job.ends_at is None or end < job.ends_at:
            job.ends_at = end
            self._at(end, functools.partial(self._walltime, job, job.run))

    def requeue(self, job_id: str | int) -> None:
        """The site puts a running job back into the queue, `--no-requeue` or not: same id, one more restart."""
        job = self._jobs[int(job_id)]
        if job.phase in (Phase.RUNNING, Phase.SUSPENDED, Phase.CONFIGURING):
            self._note(f"job {job.id} is requeued")
            job.requeue = True
            self._stop(job, "REQUEUED")

    def kill_node(self, name: str) -> None:
        """Power cut: the processes die at once, slurmctld notices after its time-out."""
        self._note(f"node {name} dies")
        for job in [job for job in self._processes if job.node == name]:
            self._process_lost(job)
        self._lose_contact(name)

    def cut_off_node(self, name: str) -> None:
        """The network of a node is gone: slurmctld gives its jobs up, their processes live until `restore_node`."""
        self._note(f"node {name} is cut off")
        self._lose_contact(name)

    def restore_node(self, name: str) -> None:
        """The node is back; what slurmctld has given up is killed there."""
        node = self._nodes[name]
        node.reachable = True
        self._note(f"node {name} is back")
        for job in [job for job in self._processes if job.node == name]:
            if self._jobs.get(job.id) is not job or job.phase is Phase.ENDED:
                self._process_lost(job)
            elif job.phase is Phase.COMPLETING:
                self._kill(job, job.run)
        for job in [job for job in self._jobs.values() if job.node == name and job not in self._processes]:
            if job.exited:
                self._process_gone(job)  # slurmstepd had kept the exit code
            elif job.phase in (Phase.RUNNING, Phase.SUSPENDED, Phase.CONFIGURING):
                self._end(job, "NODE_FAIL")
            elif job.phase is Phase.COMPLETING:
                self._clean_up(job)
        self._schedule()

    def drain_node(self, name: str, *, drained: bool = True) -> None:
        """Nothing new starts there; what runs goes on."""
        self._nodes[name].drained = drained
        self._schedule()

    def close_partition(self, name: str, *, closed: bool = True) -> None:
        """Its jobs wait with PartitionDown."""
        (self._closed_partitions.add if closed else self._closed_partitions.discard)(name)
        self._schedule()

    def reserve(self, start: float, end: float) -> None:
        """Maintenance on all nodes: jobs that could not end before wait until it is over."""
        self._maintenance = (start, end)
        self._at(end, self._schedule)
        self._schedule()

    def limit(self, *, max_submit: int | None = None, max_running: int | None = None) -> None:
        """Sets the account's quotas; None = no limit."""
        self._max_submit, self._max_running = max_submit, max_running
        self._schedule()

    # Faults of Slurm itself

    def fail_submits(
        self, fault: SubmitFault, *, times: int = 1, text: str = "", delay_s: float = 0.0
    ) -> None:
        """The next submissions go wrong. `text` is for SAYS; `delay_s` is how late an ACCEPTED_UNSEEN job appears."""
        self._submit_faults.extend([(fault, text, delay_s)] * times)

    def fail_snapshots(self, fault: SnapshotFault, *, times: int = 1) -> None:
        self._snapshot_faults.extend([fault] * times)

    def fail_cancels(self, *, times: int = 1) -> None:
        """The next cancellations reach nobody, and say so."""
        self._cancel_failures += times

    def clear_faults(self) -> None:
        """The world heals: no fault that was announced will happen, and slurmctld and the accounting answer."""
        self._submit_faults.clear()
        self._snapshot_faults.clear()
        self._cancel_failures = 0
        self._accounting_down = False
        self._down = False
        self.thaw()

    def set_down(self, down: bool) -> None:
        """slurmctld is away: every call fails, nothing is scheduled, jobs run on."""
        self._note("slurmctld goes away" if down else "slurmctld is back")
        self._down = down
        self._schedule()

    def freeze(self) -> None:
        """slurmctld hangs: every call times out, but what was submitted meanwhile becomes a job at `thaw`."""
        self._note("slurmctld hangs")
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        frozen, self._frozen = self._frozen, None
        for request in frozen or ():
            self._land(request, is_late=True)
        self._schedule()

    def set_accounting_down(self, down: bool) -> None:
        self._accounting_down = down

    def restart_ids(self, at: int = 1) -> None:
        """Ids go on from `at`, skipping those in use (MaxJobId was reached)."""
        self._next_id = at

    def crash(self, *, unsaved_s: float = 5.0) -> None:
        """slurmctld is killed and starts again with its state of `unsaved_s` ago, as a real one was seen to do.

        Jobs submitted since are gone and their ids are given again. Jobs started since wait again, with the same restart
        count; when slurmd registers their processes are killed, and a little later they start a second time.
        """
        self._note(f"slurmctld is killed and has lost the last {unsaved_s:.0f} s")
        now, saved = self._clock.now(), self._clock.now() - unsaved_s
        for job in [job for job in self._jobs.values() if job.phase is not Phase.ENDED]:
            submitted_since = job.submitted_at > saved and not job.restarts
            started_since = job.started_at is not None and job.started_at > saved
            if not submitted_since and not started_since:
                continue
            if job.phase in _HOLDS_SLOTS:
                self._nodes[job.node].used -= job.slots
                self._at(now + 4, functools.partial(self._process_lost, job))
            if submitted_since:
                del self._jobs[job.id]
                self._pending.pop(job.id, None)
                self._next_id = min(self._next_id, job.id)
            elif job.phase is not Phase.PENDING:
                job.phase, job.node, job.status, job.final = Phase.PENDING, "", 0, ""
                job.started_at = job.ends_at = job.ended_at = job.preempted_at = None
                job.requeue = False
                job.eligible_at = now + 5
                self._pending[job.id] = job
                self._at(job.eligible_at, self._schedule)
        self._schedule()

    def lose_state(self, *, kill_after_s: float = 60.0) -> None:
        """StateSaveLocation is lost: every job is forgotten, ids begin at 1; processes die when slurmd registers."""
        self._note("slurmctld has lost its state")
        self._jobs.clear()
        self._pending.clear()
        for node in self._nodes.values():
            node.used = 0
        self._next_id = 1
        for job in tuple(self._processes):
            self._at(self._clock.now() + kill_after_s, functools.partial(self._process_lost, job))

    # Inside: a job's life

    def _land(
        self, request: JobRequest, *, is_late: bool = False
    ) -> VirtualJob | Rejected | Refused | SubmitUnknown:
        request = self.shape.plugin(request)
        options = dict(request.options)
        partition = options.get("partition", self.shape.partitions[0])
        if partition not in self.shape.partitions:
            return self._failure(
                f"sbatch: error: invalid partition specified: {partition}\n"
                "sbatch: error: Batch job submission failed: Invalid partition name specified"
            )
        if self._max_submit is not None and len(self.live_jobs()) >= self._max_submit:
            return self._failure(
                "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
                " (job submit limit, user's size and/or time limits)"
            )
        now = self._clock.now()
        while self._next_id in self._jobs:
            self._next_id += 1
        job = VirtualJob(
            id=self._next_id,
            request=request,
            partition=partition,
            slots=_slots(options),
            submitted_at=now,
            eligible_at=now + self.shape.queue_wait(self._random),
            time_limit_s=_minutes_up(request.time_limit_s or self.shape.default_time_s),
            comment=request.comment or options.get("comment", ""),
            held="JobHeldUser" if request.held else "",
            is_late=is_late,
        )
        self._next_id += 1
        self._jobs[job.id] = self._pending[job.id] = job
        self._note(f"job {job.id} ({job.name}) is submitted")
        self._at(job.eligible_at, self._schedule)
        self._schedule()
        return job

    def _schedule(self) -> None:
        if self._scheduling or self._down or self._frozen is not None:
            return
        self._scheduling = True
        try:
            for job in sorted(self._pending.values(), key=lambda job: (job.eligible_at, job.id)):
                node = self._place(job)
                if node is not None:
                    self._start(job, node)
        finally:
            self._scheduling = False

    def _place(self, job: VirtualJob) -> _Node | None:
        """The node on which the job starts now, or None and `job.reason` says why."""
        now = self._clock.now()
        free = [node for node in self._nodes.values() if node.reachable and not node.drained]
        fitting = [node for node in free if node.slots - node.used >= job.slots]
        if job.held or job.blocked:
            job.reason = job.held or job.blocked
        elif self._has_twin(job):
            job.reason = "Dependency"
        elif job.partition in self._closed_partitions:
            job.reason = "PartitionDown"
        elif job.restarts and now < job.eligible_at:
            job.reason = "BeginTime"
        elif all(node.slots < job.slots for node in self._nodes.values()):
            job.reason = "PartitionConfig"
        elif self._running() >= (math.inf if self._max_running is None else self._max_running):
            job.reason = "QOSMaxJobsPerUserLimit"
        elif self._is_reserved(now, job.time_limit_s):
            job.reason = "ReqNodeNotAvail, Reserved for maintenance"
        elif now < job.eligible_at:
            job.reason = "Priority"
        elif not free:
            job.reason = "ReqNodeNotAvail, UnavailableNodes:" + ",".join(self._nodes)
        elif not fitting:
            job.reason = "Resources"
        else:
            job.reason = "None"
            return self._random.choice(fitting)
        return None

    def _has_twin(self, job: VirtualJob) -> bool:
        """Singleton: another job of this name runs, or waits and has a lower id."""
        return job.request.singleton and any(
            other.name == job.name and (other.phase is not Phase.PENDING or other.id < job.id)
            for other in self._jobs.values()
            if other is not job and other.phase is not Phase.ENDED
        )

    def _running(self) -> int:
        return sum(job.phase in _HOLDS_SLOTS for job in self._jobs.values())

    def _is_reserved(self, now: float, limit: int | None) -> bool:
        if self._maintenance is None:
            return False
        start, end = self._maintenance
        return now < end and now + (limit or math.inf) > start

    def _start(self, job: VirtualJob, node: _Node) -> None:
        del self._pending[job.id]
        node.used += job.slots
        job.run += 1
        job.node = node.name
        job.started_at = self._clock.now()
        job.ends_at = None if job.time_limit_s is None else job.started_at + job.time_limit_s
        job.preempted_at = None
        job.phase = Phase.CONFIGURING
        configuring = self.shape.configuring(self._random)
        begin = functools.partial(self._run, job, job.run)
        if configuring > 0:
            self._at(self._clock.now() + configuring, begin)
        else:
            begin()

    def _run(self, job: VirtualJob, run: int) -> None:
        if job.phase is not Phase.CONFIGURING or job.run != run or not self._nodes[job.node].reachable:
            return
        job.phase = Phase.RUNNING
        job.has_process, job.exited = True, False
        self._processes[job] = None
        self._note(f"job {job.id} ({job.name}) runs on {job.node}")
        if job.ends_at is not None:
            self._at(job.ends_at, functools.partial(self._walltime, job, run))
            before = job.request.signal_before_end_s
            if before:
                # Slurm looks at limits once a minute (job_mgr.c, job_time_limit): up to 60 s early.
                when = max(self._clock.now(), job.ends_at - before - self._random.uniform(0, 60))
                self._at(when, functools.partial(self._warn, job, run))
        if self.hooks is not None:
            self.hooks.on_start(job)

    def _warn(self, job: VirtualJob, run: int) -> None:
        if job.phase is Phase.RUNNING and job.run == run and self._jobs.get(job.id) is job:
            self._signal(job, Signal.USR1)

    def _walltime(self, job: VirtualJob, run: int) -> None:
        if job.run != run or job.ends_at is None or self._clock.now() < job.ends_at:
            return
        if self._jobs.get(job.id) is not job:
            return
        if job.phase in (Phase.RUNNING, Phase.SUSPENDED):
            self._stop(job, "TIMEOUT" if job.preempted_at is None else "PREEMPTED")

    def _stop(self, job: VirtualJob, final: str) -> None:
        """TERM, and KILL after KillWait. squeue says COMPLETING from now on, while the process may still live."""
        if job.phase is Phase.PENDING:
            self._end(job, final)
            return
        was = job.phase
        job.phase, job.final = Phase.COMPLETING, final
        job.ended_at = self._clock.now()
        self._at(
            self._clock.now() + max(5, self.shape.kill_wait_s),
            functools.partial(self._kill, job, job.run),
        )
        if not job.has_process:
            self._clean_up(job)
            return
        if was is Phase.SUSPENDED:
            self._signal(job, Signal.CONT)
        self._signal(job, Signal.TERM)

    def _kill(self, job: VirtualJob, run: int) -> None:
        if job.run == run and job.has_process and self._is_reachable(job):
            self._note(f"job {job.id} is killed")
            job.status = signals.SIGKILL
            self._process_gone(job)

    def _process_lost(self, job: VirtualJob) -> None:
        """The process dies without a word to slurmctld."""
        if job in self._processes:
            del self._processes[job]
            job.has_process = False
            if self.hooks is not None:
                self.hooks.on_end(job)

    def _process_gone(self, job: VirtualJob) -> None:
        """The process ended; slurmd tells slurmctld when it can reach it and the job is still known."""
        self._process_lost(job)
        if self._jobs.get(job.id) is not job or job.phase is Phase.ENDED or not self._is_reachable(job):
            return
        if job.phase is not Phase.COMPLETING:
            job.final = "COMPLETED" if job.status == 0 else "FAILED"
            job.phase = Phase.COMPLETING
            job.ended_at = self._clock.now()
        self._clean_up(job)

    def _is_reachable(self, job: VirtualJob) -> bool:
        """By slurmctld; no process is that slurmctld, after a crash, believes to wait (`crash`)."""
        node = self._nodes.get(job.node)
        return node is not None and node.reachable

    def _clean_up(self, job: VirtualJob) -> None:
        delay = self.shape.completing(self._random)
        cleaned = functools.partial(self._cleaned, job, job.run)
        if delay > 0:
            self._at(self._clock.now() + delay, cleaned)
        else:
            cleaned()

    def _cleaned(self, job: VirtualJob, run: int) -> None:
        if job.phase is not Phase.COMPLETING or job.run != run or self._jobs.get(job.id) is not job:
            return
        if job.has_process:
            return
        if job.requeue:
            self._record(job)
            self._nodes[job.node].used -= job.slots
            job.requeue = False
            job.restarts += 1
            job.submitted_at = self._clock.now()
            job.eligible_at = job.submitted_at + self.shape.requeue_wait_s
            job.phase, job.final, job.node, job.status = Phase.PENDING, "", "", 0
            job.exited = False
            job.started_at = job.ends_at = job.ended_at = None
            self._pending[job.id] = job
            self._at(job.eligible_at, self._schedule)
            self._schedule()
        else:
            self._end(job, job.final)

    def _end(self, job: VirtualJob, final: str) -> None:
        if job.phase in _HOLDS_SLOTS:
            self._nodes[job.node].used -= job.slots
        self._pending.pop(job.id, None)
        job.phase, job.final = Phase.ENDED, final
        if job.ended_at is None or final == "NODE_FAIL":
            job.ended_at = self._clock.now()
        if final == "CANCELLED" and not job.node:
            job.status = 0
        self._note(f"job {job.id} ({job.name}): {final}")
        self._record(job)
        forget = job.ended_at + self.shape.min_job_age_s + self.shape.purge_lag(self._random)
        self._at(max(forget, self._clock.now()), functools.partial(self._purge, job))
        self._schedule()

    def _purge(self, job: VirtualJob) -> None:
        if self._jobs.get(job.id) is job and job.phase is Phase.ENDED:
            del self._jobs[job.id]

    def _lose_contact(self, name: str) -> None:
        self._nodes[name].reachable = False
        self._at(self._clock.now() + self.shape.node_timeout_s, functools.partial(self._give_up, name))
        self._schedule()

    def _give_up(self, name: str) -> None:
        if self._nodes[name].reachable:
            return
        for job in [job for job in self._jobs.values() if job.node == name and job.phase in _HOLDS_SLOTS]:
            self._end(job, "NODE_FAIL" if job.phase is not Phase.COMPLETING else job.final)

    def _signal(self, job: VirtualJob, signal: Signal) -> None:
        if job.has_process and self._is_reachable(job):
            self._note(f"job {job.id} ({job.name}) gets {signal}")
            if self.hooks is not None:
                self.hooks.on_signal(job, signal)

    # Inside: what it prints

    def _squeue(self) -> tuple[str, str]:
        """The problem with the call, or "" and what squeue prints."""
        if self._down:
            return "Unable to contact slurm controller (connect failure)", ""
        if self._frozen is not None:
            return "squeue did not end in time", ""
        fault = self._snapshot_faults.popleft() if self._snapshot_faults else None
        before = self._last_text
        jobs: Iterable[VirtualJob] = self._jobs.values()
        if fault is SnapshotFault.MISSING:
            jobs = [job for job in jobs if self._random.random() < 0.5]
        text = "".join(slurm_text.squeue_record(job, self.shape.skew_s) for job in jobs)
        self._last_text = text
        if fault is not None:
            self._note(f"squeue goes wrong: {fault.name}")
        if fault is SnapshotFault.TIMEOUT:
            return "squeue did not end in time", ""
        if fault is SnapshotFault.FAILS:
            return "slurm_load_jobs error: Zero Bytes were transmitted or received", ""
        if fault is SnapshotFault.TRUNCATED:
            return "", text[: self._random.randrange(1, len(text) - 1)] if text else "1"
        if fault is SnapshotFault.GARBAGE:
            return "", "".join(chr(self._random.randrange(32, 127)) for _ in range(200))
        if fault is SnapshotFault.NOISE:
            return "", self._random.choice(["Welcome to the cluster\n" + text, text + "Have a nice day\n"])
        if fault is SnapshotFault.EMPTY:
            return "", ""
        if fault is SnapshotFault.STALE:
            self._last_text = before
            return "", before
        return "", text

    def _record(self, job: VirtualJob) -> None:
        if self.shape.accounting:
            key = (job.id, job.submitted_at, job.restarts)
            self._records[key] = _Record(
                self._clock.now() + self.shape.accounting_lag_s,
                job.name,
                job.submitted_at,
                slurm_text.sacct_fields(job, self.shape.skew_s),
            )

    def _failure(self, text: str) -> Rejected | Refused | SubmitUnknown:
        self.fired[states.submit_row(text).id] += 1
        self._note(f"sbatch says: {states.said(text)}")
        return states.submit_failure(text)

    def _note(self, text: str) -> None:
        self.film.append((self._clock.now(), text))

    def _at(self, when: float, action: Callable[[], object]) -> None:
        self._event_number += 1
        heapq.heappush(self._events, (when, self._event_number, action))


def _slots(options: Mapping[str, str]) -> int:
    """GPUs that the options ask for, at least one slot."""
    asked = options.get("gres") or options.get("gpus-per-node") or options.get("gpus") or ""
    count = asked.rpartition(":")[2]
    return int(count) if count.isdecimal() and count != "0" else 1


def _minutes_up(seconds: int) -> int:
    return math.ceil(seconds / 60) * 60
