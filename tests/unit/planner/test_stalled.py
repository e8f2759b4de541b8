"""A deployment that has all that it wants is not stalled, whatever has happened before."""

import dataclasses

import pytest

from llmop.domain import job, replica
from llmop.planner import backoff, compute, values
from llmop.testing import builders as make

CRASHED = dataclasses.replace(
    backoff.after_crashes(values.Record(), 4, revision=1, now=make.NOW - 1),
    last_failure=values.Failure(reason="EngineCrashed", message="it ended", at=make.NOW - 1),
)
SPENT = backoff.after_submissions(values.Record(), 100, make.NOW - 1)
NEEDS_SOMEBODY = backoff.stalled(values.Record(), "ModelMissing", "no such file", 1, make.NOW - 1)
RECORDS = {"CrashLoopBackOff": CRASHED, "SubmissionBudgetSpent": SPENT, "ModelMissing": NEEDS_SOMEBODY}


def conditions(
    record: values.Record, *, wanted: int, ready: int, loading: int = 0, draining: int = 0
) -> dict[str, tuple[str, str]]:
    served = [make.a_replica(number) for number in range(1, ready + 1)]
    started = [
        make.a_replica(ready + number, ready_at=None, phase=replica.Phase.LOADING)
        for number in range(1, loading + 1)
    ]
    drain = replica.Drain(
        reason=replica.DrainReason.SCALED_DOWN,
        requested_at=make.NOW - 1,
        deadline_at=make.NOW + 100,
        message="w",
    )
    leaving = [make.a_replica(ready + loading + number, drain=drain) for number in range(1, draining + 1)]
    seen = make.observed(
        [make.a_job(each) for each in (*served, *started, *leaving)],
        [
            *(make.a_heartbeat(each) for each in served),
            *(make.a_heartbeat(each, replica.AgentPhase.LOADING) for each in started),
            *(make.a_heartbeat(each, replica.AgentPhase.DRAINING) for each in leaving),
        ],
    )
    base = make.desired([*served, *started, *leaving], record=record)
    spec = dataclasses.replace(base.deployment.spec, replicas=wanted)
    desired = dataclasses.replace(base, deployment=dataclasses.replace(base.deployment, spec=spec))
    plan = compute.plan(desired, seen, make.names())
    return {each.type: (str(each.status), each.reason) for each in plan.status.record.conditions}


@pytest.mark.parametrize("reason", RECORDS)
def test_it_is_stalled_as_long_as_a_replica_is_missing(reason: str) -> None:
    found = conditions(RECORDS[reason], wanted=3, ready=2)

    assert ("True", reason) == found["Stalled"]
    assert ("False", reason) == found["Ready"]


@pytest.mark.parametrize("reason", RECORDS)
def test_after_a_scale_down_to_what_serves_it_is_ready(reason: str) -> None:
    found = conditions(RECORDS[reason], wanted=2, ready=2)

    assert ("False", "NotStalled") == found["Stalled"]
    assert ("True", "AllReplicasReady") == found["Ready"]


@pytest.mark.parametrize("reason", RECORDS)
def test_while_the_rest_ends_it_says_so(reason: str) -> None:
    found = conditions(RECORDS[reason], wanted=2, ready=2, draining=1)

    assert ("False", "NotStalled") == found["Stalled"]
    assert ("False", "DrainingReplicas") == found["Ready"]


def test_one_that_loads_again_after_crashes_does_not_end_the_stall() -> None:
    assert ("True", "CrashLoopBackOff") == conditions(CRASHED, wanted=2, ready=1, loading=1)["Stalled"]


def test_a_cancel_by_somebody_else_is_told_as_what_it_is() -> None:
    one = make.a_replica(1)
    seen = make.observed([make.a_job(one, job.JobState.CANCELLED)], [])
    plan = compute.plan(make.desired([one]), seen, make.names())
    (ready,) = [each for each in plan.status.record.conditions if each.type == "Ready"]
    assert "CrashLoopBackOff" == ready.reason
    assert ready.message.startswith(
        "1 replica of this template ended although it was wanted; no new one before "
    )
    assert "; the last one: CancelledByOther: " in ready.message


def test_nothing_is_wanted_and_nothing_is_stalled() -> None:
    assert ("True", "AllReplicasReady") == conditions(CRASHED, wanted=0, ready=0)["Ready"]


def test_old_replicas_do_not_hide_that_the_new_ones_crash() -> None:
    """All that are wanted serve, and the rollout does not get on."""
    old = make.a_replica(1)
    new = make.a_replica(2, revision=2, ready_at=None, phase=replica.Phase.LOADING)
    crashed = backoff.after_crashes(values.Record(), 4, revision=2, now=make.NOW - 1)
    seen = make.observed(
        [make.a_job(old), make.a_job(new)],
        [make.a_heartbeat(old), make.a_heartbeat(new, replica.AgentPhase.LOADING)],
    )

    plan = compute.plan(make.desired([old, new], revision=2, record=crashed), seen, make.names())

    assert {"Stalled": ("True", "CrashLoopBackOff")}.items() <= {
        each.type: (str(each.status), each.reason) for each in plan.status.record.conditions
    }.items()
