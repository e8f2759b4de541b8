"""The submit protocol's decisions: one job per replica, whatever crashed in between.

The intent is stored before sbatch runs, so a row without a job id says one of three things: sbatch has not run (no `attempt_at`),
it runs now (in flight), or nobody knows. The last is settled by looking for the job's name, which nobody else ever uses:

| found under the name, complete snapshot   | then                                                     |
|-------------------------------------------|----------------------------------------------------------|
| one job                                   | adopt it                                                 |
| several                                   | keep the running or oldest one, cancel the others        |
| none, the settle time is not over         | wait: the submission may land late                       |
| none, settled                             | submit the same name again: singleton makes a late twin inert |
| none, settled, three attempts without one | say so, and go on slowly                                 |

At sites whose plugins take the dependency away (see `canary`) a late twin is not inert but costs a node until it has lost the claim, so
settling takes three times as long. Where jobs cannot be found again at all, nothing is submitted.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import fences, job, replica
from llmop.planner import backoff, values

ROUNDS_BEFORE_STALLED = 3
SLOW_RETRY_S = 600.0
REFUSED_MAX_S = 600.0  # the longest wait after a refusal
SETTLE_WITHOUT_SINGLETON = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """What to do about one unresolved submission; `wait_until` when nothing can be done before that."""

    actions: tuple[values.Action, ...] = ()
    wait_until: float | None = None
    is_stalled: bool = False


def may_submit(view: values.ClusterView) -> bool:
    """A job that could not be found again must not be made."""
    return not view.unproven and view.fences.identity is not fences.Identity.NOTHING


def preference(candidate: job.ObservedJob) -> tuple[int, float, int]:
    """Sorts the jobs of one name: running before waiting before ended, then the oldest."""
    if candidate.state in (
        job.JobState.RUNNING,
        job.JobState.CONFIGURING,
        job.JobState.SUSPENDED,
        job.JobState.COMPLETING,
    ):
        rank = 0
    elif candidate.state.is_live:
        rank = 1
    else:
        rank = 2
    digits = "".join(character for character in candidate.job_id if character.isdigit())
    return (rank, candidate.submitted_at or 0.0, int(digits or 0))


def resolve(each: replica.Replica, seen: values.Observed) -> Resolution:
    """For a replica whose submission is Submitting or Unknown."""
    submission = each.submission
    view = seen.clusters.get(each.cluster)
    if view is None or view.brake or each.uid in seen.in_flight:
        return Resolution()
    found = sorted(view.jobs.get(submission.job_name, ()), key=preference) or list(
        view.history.get(submission.job_name, ())
    )
    if found:
        return Resolution(actions=_adopt(each, found))
    if submission.attempt_at is None:
        return _first_attempt(each, view, seen.now)
    # Without an outcome the controller died meanwhile, and its sbatch may still be trying.
    ended_at = submission.unknown_at or submission.attempt_at + view.site.submit_timeout_s
    settles_at = ended_at + view.site.settle_s * (1 if view.fences.singleton else SETTLE_WITHOUT_SINGLETON)
    if submission.rounds >= ROUNDS_BEFORE_STALLED:
        settles_at = max(settles_at, submission.attempt_at + SLOW_RETRY_S)
    is_stalled = submission.rounds >= ROUNDS_BEFORE_STALLED
    if seen.now < settles_at:
        return Resolution(wait_until=settles_at, is_stalled=is_stalled)
    looked_after_settling = (
        view.is_current and view.snapshot_started_at is not None and view.snapshot_started_at >= settles_at
    )
    asked_accounting = not view.accounting or submission.job_name in view.history
    if not looked_after_settling or not asked_accounting:
        return Resolution(is_stalled=is_stalled)
    if each.drain is not None:
        # Nothing landed and nothing is wanted any more: as far as anybody can know there is no job.
        return Resolution(
            actions=(
                values.RemoveReplica(
                    replica=each, why="its submission left no job, and it is not wanted any more"
                ),
            )
        )
    if not may_submit(view):
        return Resolution(is_stalled=is_stalled)
    return Resolution(
        actions=(
            values.SubmitJob(
                replica=each, round=submission.rounds + 1, why="the last submission left no job"
            ),
        ),
        is_stalled=is_stalled,
    )


def _first_attempt(each: replica.Replica, view: values.ClusterView, now: float) -> Resolution:
    if each.drain is not None:
        return Resolution(
            actions=(
                values.RemoveReplica(
                    replica=each, why="it was not submitted yet, and it is not wanted any more"
                ),
            )
        )
    retry_at = each.submission.retry_at
    if backoff.is_ahead(retry_at, REFUSED_MAX_S, now):
        return Resolution(wait_until=retry_at)
    if not view.is_current or not may_submit(view):
        return Resolution()
    return Resolution(
        actions=(values.SubmitJob(replica=each, round=each.submission.rounds, why="a replica is missing"),)
    )


def _adopt(each: replica.Replica, found: Sequence[job.ObservedJob]) -> tuple[values.Action, ...]:
    keeper, *others = found
    actions: list[values.Action] = [
        values.AdoptJob(replica=each, job_id=keeper.job_id, why="found by its name")
    ]
    twins = tuple(other.job_id for other in others if other.state.is_live)
    if twins:
        actions.append(
            values.CancelJobs(replica=each, job_ids=twins, why="another job of the same replica is kept")
        )
    return tuple(actions)


def leftovers(each: replica.Replica, view: values.ClusterView | None) -> tuple[values.Action, ...]:
    """For a replica that is over: a job of its name that lives came late, or back, and nobody waits for it."""
    if view is None or view.brake or not view.is_current:
        return ()
    job_ids = tuple(
        candidate.job_id
        for candidate in sorted(view.jobs.get(each.submission.job_name, ()), key=preference)
        if candidate.state.is_live and candidate.state is not job.JobState.COMPLETING
    )
    return (
        (values.CancelJobs(replica=each, job_ids=job_ids, why="its replica has ended already"),)
        if job_ids
        else ()
    )


def twins(each: replica.Replica, view: values.ClusterView | None) -> tuple[values.Action, ...]:
    """For a replica whose job is known: other live jobs of its name go, unless one of them runs in its place.

    A submission that landed late can win the race to run. What runs is kept, unless the recorded job has claimed the replica.
    """
    if view is None or view.brake or not view.is_current:
        return ()
    jobs = sorted(view.jobs.get(each.submission.job_name, ()), key=preference)
    live = [candidate for candidate in jobs if candidate.state.is_live]
    others = [candidate for candidate in live if candidate.job_id != each.submission.job_id]
    if not others:
        return ()
    own = next((candidate for candidate in jobs if candidate.job_id == each.submission.job_id), None)
    best = others[0]
    own_is_idle = own is None or not own.state.is_live or own.state is job.JobState.PENDING
    if each.submission.claimed_restart is None and own_is_idle and preference(best)[0] == 0:
        idle = (own.job_id,) if own is not None and own.state.is_live else ()
        rest = tuple(candidate.job_id for candidate in others[1:]) + idle
        adopt = values.AdoptJob(
            replica=each, job_id=best.job_id, why="this job of the replica runs, the recorded one does not"
        )
        return (
            (adopt, values.CancelJobs(replica=each, job_ids=rest, why="another job of the same replica runs"))
            if rest
            else (adopt,)
        )
    doomed = tuple(candidate.job_id for candidate in others)
    return (values.CancelJobs(replica=each, job_ids=doomed, why="another job of the same replica is kept"),)
