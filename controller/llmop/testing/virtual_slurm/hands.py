"""What people do to jobs, the site's administrators and schedulers among them."""

import functools

from llmop.domain.job import JobRequest
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.life import Life
from llmop.testing.virtual_slurm.state import Signal


class Hands(Life):
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
