"""Who is the replica? The controller's answer to a job that wants to start an engine."""

import dataclasses
import enum

from llmop.domain import replica


class Verdict(enum.StrEnum):
    RUN = "run"
    SUPERSEDED = "superseded"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """`record` is what the ledger has to say afterwards (None = it says so already, or nothing changes).

    `take_over`: the claim link on disk is another job's, which is known to be over; this job may replace it.
    """

    verdict: Verdict
    record: replica.Submission | None = None
    take_over: bool = False


def decide(
    submission: replica.Submission,
    *,
    is_tombstone: bool,
    is_draining: bool,
    job_id: str,
    restart_count: int,
    holds_link: bool,
    holder_is_over: bool,
    now: float,
) -> Decision:
    """Decides about the job `job_id`.

    `is_draining`: the replica is not wanted any more, so no further start of it is.
    `holds_link`: the link on disk names this very job. `holder_is_over`: the job that the link names is known to have ended.
    A job that holds the link wins over a recorded job that has never claimed: the link is what jobs race for.
    """
    if is_tombstone or submission.state in (replica.SubmissionState.ENDED, replica.SubmissionState.REJECTED):
        return Decision(verdict=Verdict.SUPERSEDED)
    if not holds_link and not holder_is_over:
        return Decision(verdict=Verdict.SUPERSEDED)
    is_own = submission.job_id == job_id
    if not is_own and submission.job_id is not None and submission.claimed_restart is not None:
        return Decision(verdict=Verdict.SUPERSEDED)
    if is_own and submission.claimed_restart is not None and restart_count < submission.claimed_restart:
        # A file that an earlier start of the job left: Slurm has started the job anew since.
        return Decision(verdict=Verdict.SUPERSEDED)
    if is_own and submission.claimed_restart == restart_count:
        return Decision(verdict=Verdict.RUN, take_over=not holds_link)
    if is_draining:
        return Decision(verdict=Verdict.SUPERSEDED)
    record = dataclasses.replace(
        submission,
        state=replica.SubmissionState.SUBMITTED,
        job_id=job_id,
        resolved_at=submission.resolved_at if is_own and submission.resolved_at is not None else now,
        claimed_restart=restart_count,
        message="",
        retry_at=None,
    )
    return Decision(verdict=Verdict.RUN, record=record, take_over=not holds_link)
