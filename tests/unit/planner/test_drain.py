"""How a replica that shall end is brought to its end."""

import pytest

from llmop.domain import job, replica
from llmop.planner import compute, values
from llmop.testing import builders as make

_Job = job.JobState


def _cancelled(state: _Job, **view: str) -> list[tuple[str, ...]]:
    """What is cancelled of a replica that drains past its deadline, or was never ready."""
    drain = replica.Drain(
        reason=replica.DrainReason.SCALED_DOWN, requested_at=make.NOW - 900, deadline_at=make.NOW - 600
    )
    each = make.a_replica(1, drain=drain)
    seen = make.observed(view=make.a_view([make.a_job(each, state)], **view))
    plan = compute.plan(make.desired([each]), seen, make.names())
    return [action.job_ids for action in plan.actions if isinstance(action, values.CancelJobs)]


@pytest.mark.parametrize("state", [_Job.PENDING, _Job.RUNNING])
def test_a_job_is_cancelled_by_what_the_newest_look_says_and_not_by_an_older_one(state: _Job) -> None:
    """Its id may have been given to somebody else's job since (slurmctld lost its state, or the ids began anew)."""
    assert 1 == len(_cancelled(state))
    assert [] == _cancelled(state, problem="squeue printed 3 lines that are no records")
    assert [] == _cancelled(state, brake="4 of 5 running jobs vanished at once")
