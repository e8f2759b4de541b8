"""The Slurm job that stages an artifact: is it there, is it to be submitted, and what does its end mean?

The submit protocol of replicas (`submission`), with a note beside the artifact in place of a row in the store: it is written before
sbatch runs, and its name is never used for another job. What has been staged is known from the disk alone.
"""

import dataclasses

from llmop.domain import job, site
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.planner import canary, submission, values

STRAY_S = 60.0  # how long a job that nobody wants is left alone: a new controller has looked at every deployment by then
NO_COMMAND = (126, 127)  # how a shell ends that could not start its last command (POSIX, 2.8.2)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What is known of the job. `attempt_at` is when sbatch was last started, `unknown_at` when it came back without saying what came of
    it, `known_at` when the job's id was learned: a snapshot that began later must show the job. `asked` tells what it was made for.
    """

    name: str
    attempt_at: float
    asked: str = ""
    unknown_at: float | None = None
    job_id: str = ""
    known_at: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing can be done before the next look. `why` is for people, "" where there is nothing to say."""

    why: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Submit:
    """Under the note's name, or under a new one where there is no note."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Follow:
    """This job is the one; `twins` are others of the same name, to be cancelled."""

    job: job.ObservedJob
    twins: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Over:
    """The job has ended; None when the queue has forgotten it."""

    job: job.ObservedJob | None


Decision = Wait | Submit | Follow | Over


def decide(note: Note | None, view: values.ClusterView, now: float) -> Decision:
    """What to do about the job of `note`; None when nothing was submitted."""
    if view.brake or not view.is_current or view.snapshot_started_at is None:
        # What was told of a job stays so: Slurm is away for a moment now and then.
        why = view.brake or view.problem or "the cluster was not looked at yet"
        return Wait(why=why if note is None else "")
    may_submit: Decision = Submit()
    if not submission.may_submit(view):
        may_submit = Wait(why=view.unproven or canary.NO_IDENTITY)
    if note is None:
        return may_submit
    found = sorted(view.jobs.get(note.name, ()), key=submission.preference)
    live = [each for each in found if each.state.is_live]
    if live:
        keeper, *others = live
        twins = tuple(each.job_id for each in others if each.state is not job.JobState.COMPLETING)
        return Follow(job=keeper, twins=twins)
    if found:
        return Over(job=found[0])
    looked_at = view.snapshot_started_at
    if note.job_id:
        return Over(job=None) if _is_later(looked_at, note.known_at, now) else Wait()
    # Without an outcome the controller died meanwhile, and its sbatch may still be trying.
    ended_at = (
        note.unknown_at if note.unknown_at is not None else note.attempt_at + view.site.submit_timeout_s
    )
    factor = 1 if view.fences.singleton else submission.SETTLE_WITHOUT_SINGLETON
    is_settled = _is_later(looked_at, ended_at + view.site.settle_s * factor, now)
    return may_submit if is_settled else Wait(why="its submission may still land")


def _is_later(looked_at: float, when: float, now: float) -> bool:
    """Whether a look at `looked_at` came after `when`; also where that is so far ahead that somebody must have set the clock."""
    return looked_at >= when or when - now > submission.REFUSED_MAX_S


def waiting(seen: job.ObservedJob) -> str:
    """Why a job does not run yet, for people; "" when it does, or did."""
    if seen.state not in (job.JobState.PENDING, job.JobState.HELD, job.JobState.REQUEUED):
        return ""
    reason = seen.reason or str(seen.state)
    return (
        f"job {seen.job_id}: {reason}: {seen.explanation}"
        if seen.explanation
        else f"job {seen.job_id}: {reason}"
    )


def end(
    reference: str, seen: job.ObservedJob | None, last: str, where: site.Site, python: str
) -> NeedsUser | Unavailable:
    """What it means that the job is over and has staged nothing. `last` is the last thing that it wrote; no job ids: the next try says
    the same words.
    """
    words = f": {last}" if last else ""
    if seen is None:
        return Unavailable(f"{reference}: the job that stages it left the queue without a result{words}")
    what = f"{reference}: the job that stages it, on {seen.node or 'no node'},"
    of_cluster = f"of the Cluster {where.name}"
    if seen.exit_code in NO_COMMAND:
        fix = f"set spec.staging.python {of_cluster} to a Python on the nodes that has llmop"
        return NeedsUser("NoPython", f"{what} found no {python}{words}; {fix}")
    if "No module named" in last and "llmop" in last:
        fix = f"install llmop there, or set spec.staging.python {of_cluster}"
        return NeedsUser("NoPython", f"{what} found no llmop for {python}{words}; {fix}")
    match seen.state:
        case job.JobState.TIMEOUT | job.JobState.DEADLINE:
            fix = f"a longer spec.staging.timeLimit {of_cluster} takes fewer"
            return Unavailable(f"{what} reached its time limit; another one goes on where it was, and {fix}")
        case job.JobState.OUT_OF_MEMORY:
            return NeedsUser(
                "OutOfMemory", f"{what} ran out of memory; raise spec.staging.memory {of_cluster}"
            )
        case job.JobState.CANCELLED:
            return Unavailable(f"{what} was cancelled, and not by llmop; another one goes on where it was")
        case job.JobState.PREEMPTED | job.JobState.NODE_FAIL:
            return Unavailable(f"{what} ended with {seen.state}; another one goes on where it was")
        case _:
            code = f" with code {seen.exit_code}" if seen.exit_code else ""
            return Unavailable(f"{what} ended{code} without a result{words}")


def told(error: NeedsUser | Unavailable, seen: job.ObservedJob | None) -> NeedsUser | Unavailable:
    """What a stager said, and where: a node may have no way to a registry that the controller reaches."""
    text = f"{error} (on {seen.node})" if seen is not None and seen.node else str(error)
    return NeedsUser(error.reason, text) if isinstance(error, NeedsUser) else Unavailable(text)
