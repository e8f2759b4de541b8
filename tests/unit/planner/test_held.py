"""A deployment whose stored spec this version refuses: what runs goes on, nothing is begun, and people are told."""

import dataclasses
from typing import Any

import pytest

from llmop.domain import job, replica
from llmop.planner import compute, values
from llmop.testing import builders as make

WORDS = "this version refuses what is stored: spec.args: ..."


def planned(
    replicas: list[replica.Replica], *, state: job.JobState = job.JobState.RUNNING, **changes: Any
) -> values.Plan:
    running = state is job.JobState.RUNNING
    seen = make.observed(
        [make.a_job(each, state) for each in replicas if each.submission.job_id],
        [make.a_heartbeat(each) for each in replicas if running and each.submission.job_id],
    )
    return compute.plan(make.desired(replicas, **changes), seen, make.names())


def actions(result: values.Plan) -> set[str]:
    return {type(each).__name__ for each in result.actions} - {"Announce"}


def conditions(result: values.Plan) -> dict[str, tuple[str, str, str]]:
    return {
        each.type: (str(each.status), each.reason, each.message) for each in result.status.record.conditions
    }


@pytest.mark.parametrize(
    ("replicas", "changes"),
    [
        (5, {}),
        (0, {}),
        (2, {"template_hash": "another"}),
        (2, {"revision": 2}),
        (2, {"paused": True, "revision": 2}),
        (2, {"revision_history_limit": 0, "revision": 3}),
        (2, {"revisions": ()}),
    ],
)
def test_running_replicas_stay_and_serve_whatever_else_is_wanted(
    replicas: int, changes: dict[str, Any]
) -> None:
    known = [make.a_replica(1), make.a_replica(2)]
    desired = wanting(make.desired(known, refusal=WORDS, **changes), replicas)
    seen = make.observed([make.a_job(each) for each in known], [make.a_heartbeat(each) for each in known])
    result = compute.plan(desired, seen, make.names())
    assert set() == actions(result)
    assert [each.name for each in known] == [each.replica for each in result.endpoints]
    assert result.model is not None
    shown = conditions(result)
    assert ("True", "SpecRefused", WORDS) == shown["Stalled"]
    assert ("False", "SpecRefused", WORDS) == shown["Ready"] == shown["SpecAccepted"]
    assert "SpecRefused" == shown["Progressing"][1]


def wanting(desired: values.Desired, replicas: int) -> values.Desired:
    owner = desired.deployment
    owner = dataclasses.replace(owner, spec=dataclasses.replace(owner.spec, replicas=replicas))
    return dataclasses.replace(desired, deployment=owner)


def test_what_was_to_be_submitted_is_not() -> None:
    waiting = make.a_replica(
        1,
        submission_changes={"state": replica.SubmissionState.SUBMITTING, "job_id": None, "attempt_at": None},
        ready_at=None,
        started_at=None,
        host="",
        was_running=False,
        phase=replica.Phase.SUBMITTING,
    )
    assert "SubmitJob" in actions(planned([waiting]))
    assert set() == actions(planned([waiting], refusal=WORDS))


def test_what_ends_is_recorded_and_not_replaced() -> None:
    over = planned([make.a_replica(1)], state=job.JobState.FAILED, refusal=WORDS)
    assert {"RecordEnd"} == actions(over)


def test_nothing_is_given_up() -> None:
    """It would not be replaced, and how long it may take to start may be among what is refused."""
    blocked = make.a_replica(
        1, ready_at=None, started_at=None, host="", was_running=False, blocked_since=make.NOW - 600
    )
    job_of = make.a_job(
        blocked, job.JobState.PENDING, pending=job.PendingClass.NEVER, reason="BadConstraints"
    )

    def plan(refusal: str) -> set[str]:
        desired = make.desired([blocked], refusal=refusal)
        return actions(compute.plan(desired, make.observed([job_of]), make.names()))

    assert "StartDrain" in plan("")
    assert set() == plan(WORDS)


def test_it_is_deleted_like_any_other() -> None:
    going = planned([make.a_replica(1)], refusal=WORDS, deleted_at=make.NOW)
    assert "StartDrain" in actions(going)
    assert "Deleting" == conditions(going)["Ready"][1]
    assert "FinishDeletion" in actions(planned([], refusal=WORDS, deleted_at=make.NOW))


def test_an_accepted_one_says_nothing_of_it() -> None:
    assert "SpecAccepted" not in conditions(planned([make.a_replica(1)]))
