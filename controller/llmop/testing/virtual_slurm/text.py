"""How Slurm 22.05 prints jobs (`squeue -O`, `sacct -P`)."""

from llmop.cluster.slurm.parse import FIELD_END, RECORD_END
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob

_END_REASONS = {"FAILED": "NonZeroExitCode", "TIMEOUT": "TimeLimit", "NODE_FAIL": "NodeDown"}


def squeue_record(job: VirtualJob, skew_s: float) -> str:
    """One record as `squeue --Format=parse.SQUEUE_FORMAT` prints it; Slurm's clock is `skew_s` ahead."""

    def time(value: float | None) -> str:
        return "N/A" if value is None else str(int(value + skew_s))

    pending = job.phase is Phase.PENDING
    reason = job.reason if pending else _END_REASONS.get(job.final, "None")
    fields = (
        str(job.id),
        str(job.id),
        "N/A",
        job.name,
        state_word(job),
        reason,
        job.partition,
        "(null)",
        "(null)",
        job.node or "n/a",
        job.node,
        "1",
        time(job.submitted_at),
        "N/A" if reason in ("Dependency", "JobHeldUser", "JobHeldAdmin") else time(job.submitted_at),
        time(job.eligible_at if pending and reason in ("Priority", "Resources") else job.started_at),
        time(job.ended_at or job.ends_at),
        _limit(job.time_limit_s),
        time(job.preempted_at),
        str(job.restarts),
        str(job.status),
        "4294901759",
        "(null)",
        "(null)",
        "singleton(unfulfilled)" if pending and _depends(job, reason) else "(null)",
        "(null)",
        time(job.submitted_at),
        "(null)",
        "cpu=1,mem=1000M,node=1,billing=1",
        job.comment or "(null)",
        "(null)",
        "(null)",
    )
    return FIELD_END.join(fields) + RECORD_END + "\n"


def sacct_fields(job: VirtualJob, skew_s: float) -> tuple[str, ...]:
    """The fields of one record of `sacct -o parse.SACCT_FIELDS`."""

    def time(value: float | None) -> str:
        return "Unknown" if value is None else str(int(value + skew_s))

    return (
        str(job.id),
        job.name,
        state_word(job) if job.phase is Phase.ENDED else (job.final or state_word(job)),
        f"{job.status >> 8}:{job.status & 127}",
        "None",
        time(job.submitted_at),
        time(job.started_at),
        time(job.ended_at),
        "UNLIMITED" if job.time_limit_s is None else str(job.time_limit_s // 60),
        job.partition,
        job.node or "None assigned",
        "",
    )


def state_word(job: VirtualJob) -> str:
    """What squeue calls the state of the job."""
    if job.shown_as and job.phase is Phase.RUNNING:
        return job.shown_as
    return job.final if job.phase is Phase.ENDED else job.phase.name


def _limit(seconds: int | None) -> str:
    if seconds is None:
        return "UNLIMITED"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _depends(job: VirtualJob, reason: str) -> bool:
    """A held job keeps its dependency for ever: nobody looks whether it is fulfilled."""
    return job.request.singleton and (reason == "Dependency" or bool(job.held))
