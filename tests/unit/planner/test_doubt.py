"""When what is seen is more likely our fault than the world's, nothing is given up for it."""

import dataclasses

import pytest

from llmop.domain import job, replica
from llmop.planner import brake, compute, values
from llmop.testing import builders as make

SILENT_S = 301.0


def _silent(number: int) -> tuple[replica.Replica, job.ObservedJob, replica.Heartbeat]:
    each = make.a_replica(number)
    return each, make.a_job(each), make.a_heartbeat(each, received_at=make.NOW - SILENT_S)


def _wanted(replicas: list[replica.Replica]) -> values.Desired:
    desired = make.desired(replicas)
    spec = dataclasses.replace(desired.deployment.spec, replicas=len(replicas))
    return dataclasses.replace(desired, deployment=dataclasses.replace(desired.deployment, spec=spec))


@pytest.mark.parametrize(
    ("silent", "talking", "expected"),
    [(2, 0, False), (3, 0, True), (3, 7, True), (3, 8, False), (4, 10, False), (5, 10, True)],
)
def test_many_silent_agents_at_once_are_our_fault(silent: int, talking: int, expected: bool) -> None:
    beats = {str(number): _silent(number)[2] for number in range(1, silent + 1)}
    beats |= {str(number): make.a_heartbeat(make.a_replica(number)) for number in range(50, 50 + talking)}
    assert expected is brake.is_blind(beats, make.NOW, 300.0)


def test_a_single_silent_replica_is_drained_and_a_blind_controller_drains_none() -> None:
    each, its_job, beat = _silent(1)
    seen = make.observed([its_job], [beat])
    seeing = compute.plan(_wanted([each]), seen, make.names())
    blind = compute.plan(_wanted([each]), dataclasses.replace(seen, is_blind=True), make.names())
    assert [each.uid] == [one.replica.uid for one in seeing.actions if isinstance(one, values.StartDrain)]
    assert [] == [one for one in blind.actions if isinstance(one, values.StartDrain)]


@pytest.mark.parametrize(("blocked_for_s", "given_up"), [(None, False), (119.0, False), (120.0, True)])
def test_a_job_that_never_runs_is_given_up_only_when_slurm_has_said_so_for_two_minutes(
    blocked_for_s: float | None, given_up: bool
) -> None:
    """An account database that is being reloaded must not cost hours in the queue."""
    since = None if blocked_for_s is None else make.NOW - blocked_for_s
    each = make.a_replica(1, ready_at=None, was_running=False, host="", port=0, blocked_since=since)
    waiting = make.a_job(
        each, job.JobState.PENDING, pending=job.PendingClass.NEVER, submitted_at=make.NOW - 10_000
    )
    plan = compute.plan(_wanted([each]), make.observed([waiting]), make.names())
    assert given_up is any(isinstance(one, values.CancelJobs) for one in plan.actions)


def test_the_last_pass_over_a_deployment_takes_its_revisions_along() -> None:
    desired = make.desired([], deleted_at=make.NOW - 1, revision=2)
    plan = compute.plan(desired, make.observed(), make.names())
    gone = {one.revision.number for one in plan.actions if isinstance(one, values.RemoveRevision)}
    assert ({1, 2}, True) == (gone, any(isinstance(one, values.FinishDeletion) for one in plan.actions))
