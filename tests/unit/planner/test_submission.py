"""How an unresolved submission is settled, row by row."""

import dataclasses

import pytest

from llmop.domain import fences, job, replica
from llmop.planner import submission, values
from llmop.testing import builders as make

_State = replica.SubmissionState
ATTEMPT = make.NOW - 100  # older than the settle time of 60 s


def _unresolved(**changes: object) -> replica.Replica:
    given = {
        "state": _State.UNKNOWN,
        "job_id": None,
        "attempt_at": ATTEMPT,
        "unknown_at": ATTEMPT,
        "resolved_at": None,
        "claimed_restart": None,
    }
    return make.a_replica(1, submission_changes={**given, **changes}, ready_at=None, was_running=False)


def _job(job_id: str, state: job.JobState, submitted_at: float = make.NOW - 90) -> job.ObservedJob:
    return make.a_job(_unresolved(), state, job_id=job_id, submitted_at=submitted_at)


def _kinds(resolution: submission.Resolution) -> list[str]:
    return [type(action).__name__ for action in resolution.actions]


def test_one_job_of_the_name_is_adopted() -> None:
    resolution = submission.resolve(_unresolved(), make.observed([_job("7", job.JobState.PENDING)]))
    (adopt,) = resolution.actions
    assert isinstance(adopt, values.AdoptJob)
    assert "7" == adopt.job_id


def _with_fences(holding: fences.Fences, unproven: str = "") -> values.Observed:
    seen = make.observed()
    views = {
        name: dataclasses.replace(view, fences=holding, unproven=unproven)
        for name, view in seen.clusters.items()
    }
    return dataclasses.replace(seen, clusters=views)


def test_without_singleton_settling_takes_three_times_as_long() -> None:
    """A late twin would not wait: it costs a node until it has lost the claim."""
    seen = _with_fences(fences.Fences(singleton=False))
    resolution = submission.resolve(_unresolved(), seen)
    assert ((), ATTEMPT + 180) == (resolution.actions, resolution.wait_until)
    later = _unresolved(attempt_at=make.NOW - 200, unknown_at=make.NOW - 200)
    assert ["SubmitJob"] == _kinds(submission.resolve(later, seen))


@pytest.mark.parametrize(
    ("holding", "unproven"),
    [(fences.Fences(identity=fences.Identity.NOTHING), ""), (fences.STANDARD, "the canary is not back")],
    ids=["jobs cannot be found again", "nobody knows yet"],
)
def test_nothing_is_submitted_where_it_might_not_be_found_again(
    holding: fences.Fences, unproven: str
) -> None:
    seen = _with_fences(holding, unproven)
    fresh = _unresolved(state=_State.SUBMITTING, attempt_at=None, unknown_at=None)
    assert () == submission.resolve(fresh, seen).actions
    assert () == submission.resolve(_unresolved(), seen).actions
    assert ["SubmitJob"] == _kinds(submission.resolve(fresh, _with_fences(fences.STANDARD)))


@pytest.mark.parametrize(
    ("jobs", "kept", "cancelled"),
    [
        ([("7", job.JobState.PENDING), ("8", job.JobState.RUNNING)], "8", ("7",)),
        ([("8", job.JobState.PENDING), ("7", job.JobState.PENDING)], "7", ("8",)),
        ([("7", job.JobState.FAILED), ("8", job.JobState.PENDING)], "8", ()),
    ],
    ids=["the running one is kept", "of waiting ones the oldest is kept", "what has ended is not cancelled"],
)
def test_of_several_jobs_one_is_kept(
    jobs: list[tuple[str, job.JobState]], kept: str, cancelled: tuple[str, ...]
) -> None:
    seen = make.observed([_job(job_id, state, make.NOW - 90 + int(job_id)) for job_id, state in jobs])
    resolution = submission.resolve(_unresolved(), seen)
    assert [kept] == [one.job_id for one in resolution.actions if isinstance(one, values.AdoptJob)]
    doomed = [one.job_ids for one in resolution.actions if isinstance(one, values.CancelJobs)]
    assert ([cancelled] if cancelled else []) == doomed


def test_before_the_settle_time_is_over_nothing_is_done() -> None:
    each = _unresolved(unknown_at=make.NOW - 10)
    resolution = submission.resolve(each, make.observed())
    assert ((), make.NOW + 50) == (resolution.actions, resolution.wait_until)


def test_an_sbatch_without_an_outcome_may_go_on_for_its_whole_time_first() -> None:
    """The controller died while it ran: it lives on, and tries again by itself for up to two minutes."""
    crashed = _unresolved(state=_State.SUBMITTING, unknown_at=None)
    resolution = submission.resolve(crashed, make.observed())
    assert ((), ATTEMPT + 180 + 60) == (resolution.actions, resolution.wait_until)


def test_after_it_the_same_name_is_submitted_again() -> None:
    (again,) = submission.resolve(_unresolved(), make.observed()).actions
    assert isinstance(again, values.SubmitJob)
    assert (1, _unresolved().submission.job_name) == (again.round, again.replica.submission.job_name)


@pytest.mark.parametrize(
    "view",
    [
        make.a_view(problem="squeue did not end in time"),
        make.a_view(snapshot_started_at=ATTEMPT + 59),
        make.a_view(snapshot_started_at=None, snapshot_taken_at=None),
        make.a_view(accounting=True),
        make.a_view(brake="3 of 4 jobs vanished"),
    ],
    ids=["stale", "taken before it was settled", "never looked", "accounting not asked", "brake pulled"],
)
def test_without_a_look_that_counts_nothing_is_submitted_again(view: values.ClusterView) -> None:
    assert () == submission.resolve(_unresolved(), make.observed(view=view)).actions


def test_what_the_accounting_remembers_is_adopted_and_not_submitted_again() -> None:
    each = _unresolved()
    past = make.a_job(each, job.JobState.FAILED, job_id="9")
    view = make.a_view(accounting=True, history={each.submission.job_name: (past,)})
    assert ["AdoptJob"] == _kinds(submission.resolve(each, make.observed(view=view)))


def test_after_three_rounds_it_is_said_and_goes_on_slowly() -> None:
    resolution = submission.resolve(_unresolved(rounds=3), make.observed())
    assert (True, (), ATTEMPT + submission.SLOW_RETRY_S) == (
        resolution.is_stalled,
        resolution.actions,
        resolution.wait_until,
    )


def test_an_attempt_that_runs_now_is_left_alone() -> None:
    each = _unresolved()
    assert () == submission.resolve(each, make.observed(in_flight=frozenset({each.uid}))).actions


def test_what_is_not_wanted_any_more_goes_only_when_no_job_can_come() -> None:
    drain = replica.Drain(reason=replica.DrainReason.SCALED_DOWN, requested_at=make.NOW, deadline_at=make.NOW)
    settled = dataclasses.replace(_unresolved(), drain=drain)
    young = dataclasses.replace(_unresolved(unknown_at=make.NOW - 10), drain=drain)
    assert ["RemoveReplica"] == _kinds(submission.resolve(settled, make.observed()))
    assert [] == _kinds(submission.resolve(young, make.observed()))


def test_a_late_twin_that_runs_replaces_the_recorded_job_that_waits() -> None:
    each = make.a_replica(1, submission_changes={"job_id": "7", "claimed_restart": None})
    view = make.a_view(
        [
            make.a_job(each, job.JobState.PENDING, job_id="7"),
            make.a_job(each, job.JobState.RUNNING, job_id="8"),
        ]
    )
    adopt, cancel = submission.twins(each, view)
    assert isinstance(adopt, values.AdoptJob)
    assert isinstance(cancel, values.CancelJobs)
    assert ("8", ("7",)) == (adopt.job_id, cancel.job_ids)


def test_a_job_of_a_replica_that_has_ended_is_cancelled() -> None:
    each = make.a_replica(1)
    late = make.a_job(each, job.JobState.PENDING, job_id="8")
    (cancel,) = submission.leftovers(each, make.a_view([late]))
    assert isinstance(cancel, values.CancelJobs)
    assert ("8",) == cancel.job_ids


@pytest.mark.parametrize(
    ("retry_in_s", "actions"), [(600.0, []), (4200.0, ["SubmitJob"])], ids=["refused", "set back an hour"]
)
def test_a_refused_submission_waits_no_longer_when_somebody_sets_the_clock_back(
    retry_in_s: float, actions: list[str]
) -> None:
    refused = _unresolved(
        state=_State.SUBMITTING, attempt_at=None, unknown_at=None, retry_at=make.NOW + retry_in_s
    )
    assert actions == _kinds(submission.resolve(refused, make.observed()))
