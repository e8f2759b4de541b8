"""What happens to slurmctld, and to single calls of its commands."""

import functools

from llmop.testing.virtual_slurm.faults import Announced, SnapshotFault, SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase
from llmop.testing.virtual_slurm.site import Site
from llmop.testing.virtual_slurm.state import HOLDS_SLOTS


class Outages(Site):
    def fail_submits(
        self, fault: SubmitFault, *, times: int = 1, text: str = "", delay_s: float = 0.0
    ) -> None:
        """The next submissions go wrong. `text` is for SAYS; `delay_s` is how late an ACCEPTED_UNSEEN job appears."""
        self._announced.submits.extend([(fault, text, delay_s)] * times)

    def fail_snapshots(self, fault: SnapshotFault, *, times: int = 1) -> None:
        self._announced.snapshots.extend([fault] * times)

    def fail_cancels(self, *, times: int = 1) -> None:
        """The next cancellations reach nobody, and say so."""
        self._announced.cancels += times

    def clear_faults(self) -> None:
        """The world heals: no fault that was announced will happen, and slurmctld and the accounting answer."""
        self._announced = Announced()
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
            if job.phase in HOLDS_SLOTS:
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
