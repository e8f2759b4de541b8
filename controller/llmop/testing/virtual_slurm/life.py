"""What becomes of a job by itself: it lands in the queue, starts, runs, ends, and is forgotten."""

import functools
import math
import signal as signals
from collections.abc import Mapping

from llmop.cluster.slurm import states
from llmop.domain.job import JobRequest, Refused, Rejected, SubmitUnknown
from llmop.testing.virtual_slurm import placement, text
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.state import HOLDS_SLOTS, Node, Record, Signal, State


class Life(State):
    def finish(self, job: VirtualJob, exit_code: int, *, signal: int = 0) -> None:
        """The batch process of the job exits, or dies of a signal; nothing happens when it is gone already."""
        if job not in self._processes:
            return
        self._note(f"job {job.id} ({job.name}): exits with {exit_code}:{signal}")
        job.status = exit_code << 8 | signal
        job.exited = True
        self._process_gone(job)

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
                job.reason, fitting = placement.place(job, self._cluster())
                if fitting:
                    self._start(job, self._random.choice(fitting))
        finally:
            self._scheduling = False

    def _cluster(self) -> placement.Cluster:
        return placement.Cluster(
            now=self._clock.now(),
            nodes=self._nodes.values(),
            jobs=self._jobs.values(),
            closed_partitions=self._closed_partitions,
            maintenance=self._maintenance,
            max_running=self._max_running,
        )

    def _start(self, job: VirtualJob, node: Node) -> None:
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
        if job.phase in HOLDS_SLOTS:
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

    def _signal(self, job: VirtualJob, signal: Signal) -> None:
        if job.has_process and self._is_reachable(job):
            self._note(f"job {job.id} ({job.name}) gets {signal}")
            if self.hooks is not None:
                self.hooks.on_signal(job, signal)

    def _record(self, job: VirtualJob) -> None:
        if self.shape.accounting:
            key = (job.id, job.submitted_at, job.restarts)
            self._records[key] = Record(
                self._clock.now() + self.shape.accounting_lag_s,
                job.name,
                job.submitted_at,
                text.sacct_fields(job, self.shape.skew_s),
            )

    def _failure(self, text: str) -> Rejected | Refused | SubmitUnknown:
        self.fired[states.submit_row(text).id] += 1
        self._note(f"sbatch says: {states.said(text)}")
        return states.submit_failure(text)


def _slots(options: Mapping[str, str]) -> int:
    """GPUs that the options ask for, at least one slot."""
    asked = options.get("gres") or options.get("gpus-per-node") or options.get("gpus") or ""
    count = asked.rpartition(":")[2]
    return int(count) if count.isdecimal() and count != "0" else 1


def _minutes_up(seconds: int) -> int:
    return math.ceil(seconds / 60) * 60
