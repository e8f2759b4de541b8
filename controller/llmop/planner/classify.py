"""Why did a replica end? Ordered tables, first match wins, the last row always matches."""

import dataclasses
from collections.abc import Callable

from llmop.domain import job, replica

_Reason = replica.EndReason

# Bad ends that say something about the revision or the site; they count for the crash back-off. The others are Slurm's doing or ours.
CRASHES = frozenset(
    {
        _Reason.COMPLETED,
        _Reason.ENGINE_CRASHED,
        _Reason.BAD_SPEC,
        _Reason.NODE_UNUSABLE,
        _Reason.STORAGE,
        _Reason.TEMPORARY,
        _Reason.MISSING_ARTIFACT,
        _Reason.STARTUP_TIMEOUT,
        _Reason.OUT_OF_MEMORY,
        _Reason.LAUNCH_FAILED,
        _Reason.FAILED,
        _Reason.CANCELLED_BY_OTHER,  # somebody may be fighting us: slow down
    }
)

# Ends that nobody needs to look at afterwards.
QUIET = frozenset(
    {_Reason.DRAINED, _Reason.SUPERSEDED, _Reason.TERMINATED, _Reason.CANCELLED, _Reason.WALLTIME}
)

# What we cancel for a reason of its own (`hopeless`).
_GIVEN_UP = {
    replica.DrainReason.NEVER_RUNS: _Reason.NEVER_RUNS,
    replica.DrainReason.LAUNCH_FAILED: _Reason.LAUNCH_FAILED,
    replica.DrainReason.STARTUP_TIMEOUT: _Reason.STARTUP_TIMEOUT,
}

# Ends that Slurm brings about by signals, which the agent survives long enough to say that it was signalled.
_SIGNALLED = frozenset(
    {job.JobState.CANCELLED, job.JobState.TIMEOUT, job.JobState.DEADLINE, job.JobState.PREEMPTED}
)

# The agent's own exit codes (docs/reference/agent-channel.md).
_EXIT_CODES = {
    64: (_Reason.BAD_SPEC, "the agent could not use its replica.json"),
    69: (_Reason.NODE_UNUSABLE, "the node has not what the replica needs"),
    70: (_Reason.ENGINE_CRASHED, "the engine ended by itself"),
    73: (_Reason.STORAGE, "no space or no permission on the node's or the shared file system"),
    75: (_Reason.TEMPORARY, "a temporary problem on the node"),
    78: (_Reason.MISSING_ARTIFACT, "the image or the model is not there"),
    124: (_Reason.STARTUP_TIMEOUT, "the engine was not ready in time"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    id: str
    matches: Callable[[job.ObservedJob, bool], bool]
    reason: replica.EndReason
    message: str


# (job, asked to end) -> reason. Slurm's words are those of squeue(1) "JOB STATE CODES".
_ROWS = (
    _Row(
        "cancelled-asked",
        lambda seen, asked: seen.state is job.JobState.CANCELLED and asked,
        _Reason.CANCELLED,
        "cancelled as asked",
    ),
    _Row("asked", lambda _, asked: asked, _Reason.DRAINED, "ended as asked"),
    _Row(
        "cancelled-by-other",
        lambda seen, _: seen.state is job.JobState.CANCELLED,
        _Reason.CANCELLED_BY_OTHER,
        "the job was cancelled by somebody else (scancel, or an administrator)",
    ),
    _Row(
        "timeout",
        lambda seen, _: seen.state is job.JobState.TIMEOUT,
        _Reason.WALLTIME,
        "the job reached its time limit",
    ),
    _Row(
        "deadline",
        lambda seen, _: seen.state is job.JobState.DEADLINE,
        _Reason.WALLTIME,
        "the job could not end before its deadline",
    ),
    _Row(
        "preempted",
        lambda seen, _: seen.state is job.JobState.PREEMPTED,
        _Reason.PREEMPTED,
        "the job was preempted",
    ),
    _Row(
        "node-fail",
        lambda seen, _: seen.state is job.JobState.NODE_FAIL,
        _Reason.NODE_FAIL,
        "the node failed",
    ),
    _Row(
        "oom",
        lambda seen, _: seen.state is job.JobState.OUT_OF_MEMORY,
        _Reason.OUT_OF_MEMORY,
        "the job used more memory than it asked for",
    ),
    # 0:53 in the first second: slurmstepd could not create the --output file.
    _Row(
        "launch-53",
        lambda seen, _: seen.signal == 53 or "JobLaunchFailure" in seen.reason,
        _Reason.LAUNCH_FAILED,
        "Slurm could not start the job: the directory of its log is not writable on the node",
    ),
    _Row(
        "completed",
        lambda seen, _: seen.state is job.JobState.COMPLETED,
        _Reason.COMPLETED,
        "the job ended without an error, but nobody asked it to",
    ),
    _Row("other", lambda _seen, _asked: True, _Reason.FAILED, "the job failed"),
)


def end_of(seen: job.ObservedJob, record: replica.End | None, *, asked: bool, now: float) -> replica.End:
    """How a replica whose job is terminal ended. The agent's own `record` knows best, Slurm's words come second.

    `asked`: we wanted it to end (it drains, or its deployment goes).
    """
    ended_at = seen.ends_at or now
    if record is not None:
        told = dataclasses.replace(record, node=record.node or seen.node, at=record.at or ended_at)
        if record.reason is not _Reason.TERMINATED or asked or seen.state not in _SIGNALLED:
            return told
        # The agent only knows that it was signalled; Slurm knows why.
        row = _row(seen, asked=asked)
        return dataclasses.replace(told, reason=row.reason, message=row.message)
    if seen.exit_code in _EXIT_CODES and seen.state is job.JobState.FAILED:
        reason, message = _EXIT_CODES[seen.exit_code]
        return replica.End(
            reason=reason, at=ended_at, message=message, exit_code=seen.exit_code, node=seen.node
        )
    row = _row(seen, asked=asked)
    message = row.message
    if row.id == "other":
        detail = f"exit code {seen.exit_code}" if not seen.signal else f"signal {seen.signal}"
        message = f"{message} ({seen.state_text}, {detail})"
    return replica.End(
        reason=row.reason, at=ended_at, message=message, exit_code=seen.exit_code, node=seen.node
    )


def is_given_up(each: replica.Replica) -> bool:
    """It drains because its job came to nothing: its end will be a failure."""
    return each.drain is not None and each.drain.reason in _GIVEN_UP


def given_up(each: replica.Replica, end: replica.End) -> replica.End:
    """`end` with what the job was given up for, in the place of our own cancelling; what the agent says about a failure stands."""
    if each.drain is None or each.drain.reason not in _GIVEN_UP or end.reason not in QUIET:
        return end
    return dataclasses.replace(end, reason=_GIVEN_UP[each.drain.reason], message=each.drain.message)


def _row(seen: job.ObservedJob, *, asked: bool) -> _Row:
    return next(row for row in _ROWS if row.matches(seen, asked))


def lost(now: float, node: str) -> replica.End:
    return replica.End(
        reason=_Reason.LOST,
        at=now,
        node=node,
        message="the job is gone from the queue and left no record",
    )


def is_crash(end: replica.End) -> bool:
    return end.reason in CRASHES


def is_quiet(end: replica.End) -> bool:
    return end.reason in QUIET
