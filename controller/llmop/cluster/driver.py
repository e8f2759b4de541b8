"""The interface of a cluster driver."""

from collections.abc import Sequence
from typing import Protocol

from llmop.domain import job


class Cluster(Protocol):
    """One cluster, used by one account.

    No method raises for what a cluster does: failures are values (`SubmitUnknown`, an incomplete `Snapshot`, a text).
    Every call ends by itself: commands have time limits.
    """

    async def submit(self, request: job.JobRequest) -> job.SubmitOutcome:
        """Submits one job, once, with `--no-requeue` and the name of the request.

        With `request.singleton` of several jobs of one name at most one may run at a time (Slurm's singleton). The caller has
        stored its intent before.
        """
        ...

    async def snapshot(self) -> job.Snapshot:
        """All jobs of this account, ended ones as long as the cluster remembers them."""
        ...

    async def history(self, names: Sequence[str], since: float) -> job.History:
        """What the accounting knows of the jobs with these names submitted at or after `since`."""
        ...

    async def cancel(self, job_ids: Sequence[str]) -> str:
        """Cancels jobs by id; those that are over already are no error. "" or what went wrong, for people."""
        ...

    async def signal(self, job_id: str) -> str:
        """Sends USR1 to the batch process of a running job, and to nothing else in it. "" or what went wrong, for people."""
        ...

    async def capabilities(self) -> job.Capabilities | str:
        """What the cluster says about itself, or the problem as a sentence."""
        ...
