"""Why a replica ended, what may not be believed, whose a job is, when not to submit."""

import dataclasses

import pytest

from llmop.domain import ids, job, replica, site
from llmop.planner import backoff, brake, classify, orphans, values
from llmop.testing import builders as make

_Job, _Reason = job.JobState, replica.EndReason
EACH = make.a_replica(1)


def _end(state: _Job, *, asked: bool = False, **changes: object) -> replica.End:
    return classify.end_of(make.a_job(EACH, state, **changes), None, asked=asked, now=make.NOW)


@pytest.mark.parametrize(
    ("state", "changes", "reason"),
    [
        (_Job.CANCELLED, {}, _Reason.CANCELLED_BY_OTHER),
        (_Job.TIMEOUT, {}, _Reason.WALLTIME),
        (_Job.DEADLINE, {}, _Reason.WALLTIME),
        (_Job.PREEMPTED, {}, _Reason.PREEMPTED),
        (_Job.NODE_FAIL, {}, _Reason.NODE_FAIL),
        (_Job.OUT_OF_MEMORY, {}, _Reason.OUT_OF_MEMORY),
        (_Job.FAILED, {"signal": 53}, _Reason.LAUNCH_FAILED),
        (_Job.FAILED, {"reason": "JobLaunchFailure"}, _Reason.LAUNCH_FAILED),
        (_Job.COMPLETED, {}, _Reason.COMPLETED),
        (_Job.FAILED, {"exit_code": 1}, _Reason.FAILED),
        (_Job.FAILED, {"exit_code": 64}, _Reason.BAD_SPEC),
        (_Job.FAILED, {"exit_code": 69}, _Reason.NODE_UNUSABLE),
        (_Job.FAILED, {"exit_code": 70}, _Reason.ENGINE_CRASHED),
        (_Job.FAILED, {"exit_code": 73}, _Reason.STORAGE),
        (_Job.FAILED, {"exit_code": 75}, _Reason.TEMPORARY),
        (_Job.FAILED, {"exit_code": 78}, _Reason.MISSING_ARTIFACT),
        (_Job.FAILED, {"exit_code": 124}, _Reason.STARTUP_TIMEOUT),
    ],
)
def test_an_end_that_nobody_asked_for(state: _Job, changes: dict[str, object], reason: _Reason) -> None:
    assert reason == _end(state, **changes).reason


def test_an_end_that_was_asked_for_is_no_failure() -> None:
    reasons = {state: _end(state, asked=True).reason for state in (_Job.CANCELLED, _Job.FAILED, _Job.TIMEOUT)}
    assert {
        _Job.CANCELLED: _Reason.CANCELLED,
        _Job.FAILED: _Reason.DRAINED,
        _Job.TIMEOUT: _Reason.DRAINED,
    } == reasons


def test_the_agents_own_record_knows_best() -> None:
    own = replica.End(reason=_Reason.STORAGE, at=make.NOW - 5, message="no space")
    end = classify.end_of(make.a_job(EACH, _Job.FAILED), own, asked=False, now=make.NOW)
    assert (_Reason.STORAGE, "no space", EACH.node) == (end.reason, end.message, end.node)


def _fleet(count: int) -> list[replica.Replica]:
    return [make.a_replica(number) for number in range(1, count + 1)]


def _judge(fleet: list[replica.Replica], gone: int, before: brake.Verdict | None = None) -> brake.Verdict:
    jobs = tuple(make.a_job(each) for each in fleet[gone:])
    snapshot = job.Snapshot(started_at=make.NOW, taken_at=make.NOW, jobs=jobs)
    beats = {each.uid: make.a_heartbeat(each) for each in fleet}
    return brake.judge(fleet, snapshot, beats, {}, before, 30.0)


@pytest.mark.parametrize(
    ("count", "gone", "pulled"), [(3, 2, False), (3, 3, True), (20, 5, False), (20, 6, True)]
)
def test_the_brake_is_pulled_at_three_or_thirty_percent(count: int, gone: int, *, pulled: bool) -> None:
    assert pulled == bool(_judge(_fleet(count), gone).problem)


def test_a_second_look_that_agrees_releases_the_brake() -> None:
    fleet = _fleet(6)
    first = _judge(fleet, 3)
    assert (True, False) == (bool(first.problem), bool(_judge(fleet, 3, first).problem))
    assert _judge(fleet, 5, first).problem


@pytest.mark.parametrize(
    "explained",
    [
        {"ends_at": make.NOW - 1},
        {"drain": replica.Drain(reason=replica.DrainReason.DELETED, requested_at=0, deadline_at=0)},
        {"was_running": False},
    ],
    ids=["its walltime is over", "it was asked to end", "it never ran"],
)
def test_what_is_explained_pulls_no_brake(explained: dict[str, object]) -> None:
    assert "" == _judge([dataclasses.replace(each, **explained) for each in _fleet(5)], 5).problem


def test_orphans_are_ours_alone() -> None:
    def named(name: str, job_id: str) -> job.ObservedJob:
        return make.a_job(EACH, job_id=job_id, name=name)

    ours = [ids.job_name(make.INSTALLATION, "chat-x", f"{number:08x}") for number in range(3)]
    jobs = [named(name, str(number)) for number, name in enumerate(ours)]
    jobs += [
        named(ids.job_name("zzzzzz", "chat-x", "00000009"), "97"),
        named(f"llmop-{make.INSTALLATION}-chat", "98"),
        named("train", "99"),
    ]
    live, tombstones = {ours[0]: "u"}, frozenset({ours[1]})
    for policy, cancelled in (
        (site.OrphanPolicy.REPORT, ("1",)),
        (site.OrphanPolicy.CANCEL, ("1", "2")),
    ):
        found = orphans.find(jobs, make.INSTALLATION, live, tombstones, policy, 300.0, make.NOW, {})
        assert (cancelled, (f"{ours[2]} (2)",)) == (found.cancel, found.report)


def test_jobs_that_look_at_the_site_are_no_orphans() -> None:
    """Whoever sent a canary cancels it; a preflight that nobody can wait for any more is an orphan like others."""
    canary = make.a_job(EACH, name=ids.canary_name(make.INSTALLATION, "0123abcd"))
    young = make.a_job(EACH, name=ids.preflight_name(make.INSTALLATION, "0123abcd"))
    old = dataclasses.replace(young, submitted_at=make.NOW - orphans.PREFLIGHT_LIVES_S)
    for each, reported in ((canary, ()), (young, ()), (old, (old.name,))):
        found = orphans.find(
            [each], make.INSTALLATION, {}, frozenset(), site.OrphanPolicy.CANCEL, 300.0, make.NOW, {}
        )
        assert reported == found.seen


def test_a_young_orphan_is_left_alone() -> None:
    young = make.a_job(EACH, submitted_at=make.NOW - 299)
    found = orphans.find(
        [young], make.INSTALLATION, {}, frozenset(), site.OrphanPolicy.CANCEL, 300.0, make.NOW, {}
    )
    assert ((), (young.name,)) == (found.cancel, found.seen)


def test_an_orphan_from_a_clock_ahead_of_ours_is_as_old_as_we_know_it() -> None:
    ahead = make.a_job(EACH, submitted_at=make.NOW + 600)
    for known_for_s, cancelled in ((299, ()), (300, (ahead.job_id,))):
        first_seen = {ahead.name: make.NOW - known_for_s}
        found = orphans.find(
            [ahead], make.INSTALLATION, {}, frozenset(), site.OrphanPolicy.CANCEL, 300.0, make.NOW, first_seen
        )
        assert cancelled == found.cancel


def test_crashes_delay_the_next_replica_longer_and_longer() -> None:
    assert [0, 10, 20, 40, 80, 160, 300, 300] == [backoff.crash_delay_s(count) for count in range(8)]


def test_a_new_revision_starts_without_the_crashes_of_the_one_before() -> None:
    record = backoff.after_crashes(values.Record(), 4, 1, make.NOW)
    assert 1 == backoff.after_crashes(record, 1, 2, make.NOW).crashes


def test_the_budget_is_spent_after_its_submissions_and_comes_back_after_an_hour() -> None:
    record = backoff.after_submissions(values.Record(), backoff.budget(2, 1), make.NOW)
    spent = backoff.creation(record, 2, 1, make.NOW)
    assert (0, "SubmissionBudgetSpent", make.NOW + 3600) == (spent.allowed, spent.reason, spent.until)
    assert 9 == backoff.creation(record, 2, 1, make.NOW + 3600).allowed
    assert 9 == backoff.creation(backoff.after_ready(record), 2, 1, make.NOW).allowed


def test_a_stall_ends_when_the_manifest_changes_or_its_time_is_over() -> None:
    record = backoff.stalled(values.Record(), "NeverRuns", "too long", 3, make.NOW)
    assert "NeverRuns" == backoff.released(record, 3, make.NOW + 1).stalled_reason
    assert "" == backoff.released(record, 4, make.NOW + 1).stalled_reason
    assert "" == backoff.released(record, 3, make.NOW + 600).stalled_reason


@pytest.mark.parametrize(("stepped_s", "waits"), [(0.0, True), (-3600.0, False)], ids=["no step", "an hour"])
def test_a_delay_does_not_grow_when_somebody_sets_the_clock_back(stepped_s: float, *, waits: bool) -> None:
    crashed = backoff.after_crashes(values.Record(), 20, 1, make.NOW)
    stalled = backoff.stalled(values.Record(), "NeverRuns", "too long", 3, make.NOW)
    now = make.NOW + stepped_s
    assert waits == (backoff.creation(crashed, 1, 1, now).allowed == 0)
    assert waits == bool(backoff.released(stalled, 3, now).stalled_reason)
