"""The virtual Slurm as llmop's drivers are: commands go in, and what Slurm prints comes out."""

import functools
from collections.abc import Iterable, Sequence

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
from llmop.testing.virtual_slurm.faults import SnapshotFault, SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.outages import Outages
from llmop.testing.virtual_slurm.state import Signal
from llmop.testing.virtual_slurm.text import squeue_record


class VirtualSlurm(Outages):
    """Implements `llmop.cluster.driver.Cluster`, for one account."""

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        self.calls["submit held" if request.held else "submit"] += 1
        if self._down:
            return self._failure("Unable to contact slurm controller (connect failure)")
        if self._frozen is not None:
            self._frozen.append(request)
            return self._failure("Socket timed out on send/recv operation")
        fault, text, delay = self._announced.submits.popleft() if self._announced.submits else (None, "", 0.0)
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
        if self._announced.cancels or self._down or self._frozen is not None:
            self._announced.cancels = max(0, self._announced.cancels - 1)
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

    def _squeue(self) -> tuple[str, str]:
        """The problem with the call, or "" and what squeue prints."""
        if self._down:
            return "Unable to contact slurm controller (connect failure)", ""
        if self._frozen is not None:
            return "squeue did not end in time", ""
        fault = self._announced.snapshots.popleft() if self._announced.snapshots else None
        before = self._last_text
        jobs: Iterable[VirtualJob] = self._jobs.values()
        if fault is SnapshotFault.MISSING:
            jobs = [job for job in jobs if self._random.random() < 0.5]
        text = "".join(squeue_record(job, self.shape.skew_s) for job in jobs)
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
