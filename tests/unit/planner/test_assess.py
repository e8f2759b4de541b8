"""The table of phases, row by row."""

import pytest

from llmop.domain import job, replica
from llmop.planner import assess, values
from llmop.testing import builders as make

_Job, _Agent, _Phase = job.JobState, replica.AgentPhase, replica.Phase
EACH = make.a_replica(1)


def _assessed(
    state: _Job | None, phase: _Agent | None, silent_s: float = 1.0, **changes: object
) -> assess.Assessment:
    jobs = [make.a_job(EACH, state)] if state is not None else []
    beats = [make.a_heartbeat(EACH, phase, received_at=make.NOW - silent_s)] if phase is not None else []
    each = make.a_replica(1, **changes)
    return assess.assess(each, make.observed(jobs, beats), asked=False)


@pytest.mark.parametrize(
    ("state", "heartbeat", "silent_s", "phase", "routed"),
    [
        (_Job.PENDING, None, 0, _Phase.PENDING, False),
        (_Job.HELD, None, 0, _Phase.BLOCKED, False),
        (_Job.CONFIGURING, None, 0, _Phase.STARTING, False),
        (_Job.RUNNING, None, 0, _Phase.STARTING, False),
        (_Job.RUNNING, _Agent.LOADING, 1, _Phase.LOADING, False),
        (_Job.RUNNING, _Agent.READY, 1, _Phase.READY, True),
        (_Job.RUNNING, _Agent.UNHEALTHY, 1, _Phase.LOADING, False),
        (_Job.RUNNING, _Agent.READY, 20, _Phase.SUSPECT, True),
        (_Job.RUNNING, _Agent.READY, 40, _Phase.UNREACHABLE, False),
        (_Job.RUNNING, _Agent.DRAINING, 1, _Phase.DRAINING, False),
        (_Job.SUSPENDED, _Agent.READY, 2, _Phase.SUSPENDED, False),
        (_Job.COMPLETING, _Agent.READY, 1, _Phase.ENDED, False),
        (_Job.FAILED, _Agent.READY, 1, _Phase.ENDED, False),
    ],
)
def test_phase_of(
    state: _Job, heartbeat: _Agent | None, silent_s: float, phase: _Phase, *, routed: bool
) -> None:
    shown = _assessed(state, heartbeat, silent_s, ready_at=None if heartbeat is None else make.NOW - 400)
    assert (phase, routed) == (shown.phase, shown.is_routed)


def test_a_word_nobody_knows_changes_nothing_about_the_traffic() -> None:
    for silent_s, routed in ((1, True), (20, True), (40, False), (400, False)):
        shown = _assessed(_Job.UNKNOWN, _Agent.READY, silent_s)
        assert (_Phase.UNKNOWN, routed, False) == (shown.phase, shown.is_routed, shown.is_replaced)


def test_a_replica_that_becomes_ready_under_a_word_nobody_knows_is_written_down_as_ready() -> None:
    """Or it would be announced in every pass."""
    shown = _assessed(_Job.UNKNOWN, _Agent.READY, ready_at=None)
    assert (True, make.NOW) == (shown.is_routed, shown.facts.ready_at)


def test_without_a_snapshot_a_replica_is_as_its_heartbeat_says() -> None:
    view = values.ClusterView(site=make.where())
    shown = assess.assess(EACH, make.observed((), [make.a_heartbeat(EACH)], view=view), asked=False)
    assert (_Phase.READY, True, None) == (shown.phase, shown.is_routed, shown.end)


def test_silent_past_t3_it_is_replaced() -> None:
    assert [False, True] == [_assessed(_Job.RUNNING, _Agent.READY, s).is_replaced for s in (299, 301)]


def test_a_file_may_be_on_its_way_for_a_minute_before_its_agent_counts_as_silent() -> None:
    phases = {}
    for silent_s in (61, 76, 91, 361):
        beat = make.a_heartbeat(EACH, received_at=make.NOW - silent_s, by_file=True)
        shown = assess.assess(EACH, make.observed([make.a_job(EACH)], [beat]), asked=False)
        phases[silent_s] = (shown.phase, shown.is_routed, shown.is_replaced)
    assert phases == {
        61: (_Phase.READY, True, False),
        76: (_Phase.SUSPECT, True, False),
        91: (_Phase.UNREACHABLE, False, False),
        361: (_Phase.UNREACHABLE, False, True),
    }


def test_a_file_does_not_say_that_a_frozen_job_runs_again() -> None:
    """It may have been written before the job was frozen."""
    for by_file, phase in ((False, _Phase.READY), (True, _Phase.SUSPENDED)):
        beat = make.a_heartbeat(EACH, received_at=make.NOW, by_file=by_file)
        seen = make.observed([make.a_job(EACH, _Job.SUSPENDED)], [beat])
        assert phase is assess.assess(EACH, seen, asked=False).phase


def test_a_job_that_has_served_since_an_old_look_at_the_queue_runs_though_its_agent_writes_files_now() -> (
    None
):
    """The queue could not be looked at again meanwhile, and the firewall has closed."""
    beat = make.a_heartbeat(EACH, received_at=make.NOW, by_file=True)
    for looked_s, phase in ((-1, _Phase.PENDING), (1, _Phase.READY)):
        ready_at = make.NOW - 60
        view = make.a_view(
            [make.a_job(EACH, _Job.PENDING)], snapshot_started_at=ready_at - looked_s, problem="noise"
        )
        each = make.a_replica(1, ready_at=ready_at)
        assert phase is assess.assess(each, make.observed((), [beat], view=view), asked=False).phase


def test_after_a_restart_of_the_controller_the_stored_readiness_counts_for_a_while() -> None:
    for since, routed in ((10, True), (40, False)):
        seen = make.observed([make.a_job(EACH)], controller_since=make.NOW - since)
        assert routed == assess.assess(EACH, seen, asked=False).is_routed


def test_stored_readiness_counts_longer_where_the_agent_writes_files() -> None:
    for since, routed in ((40, True), (100, False)):
        seen = make.observed(
            [make.a_job(EACH)], controller_since=make.NOW - since, writers=frozenset({EACH.uid})
        )
        assert routed == assess.assess(EACH, seen, asked=False).is_routed


def test_a_missing_job_is_believed_gone_only_when_two_looks_agree() -> None:
    first = assess.assess(EACH, make.observed(), asked=False)
    assert (None, make.NOW) == (first.end, first.facts.missing_since)
    second = assess.assess(make.a_replica(1, missing_since=make.NOW - 60), make.observed(), asked=False)
    assert second.end is not None
    assert replica.EndReason.LOST == second.end.reason


def test_the_second_look_is_another_one_that_began_when_the_first_was_over() -> None:
    first = assess.assess(EACH, make.observed(), asked=False).facts.missing_since
    for taken, looks in ((0.0, 1), (5.0, 2)):
        view = values.ClusterView(
            site=make.where(), snapshot_started_at=make.NOW + taken, snapshot_taken_at=make.NOW + taken
        )
        each = make.a_replica(1, missing_since=first)
        again = assess.assess(each, make.observed((), view=view), asked=False)
        assert looks == (1 if again.end is None else 2)
    slow = values.ClusterView(
        site=make.where(), snapshot_started_at=make.NOW - 1, snapshot_taken_at=make.NOW + 30
    )
    each = make.a_replica(1, missing_since=first)
    assert None is assess.assess(each, make.observed((), view=slow), asked=False).end


def test_a_missing_job_whose_engine_still_serves_stays_in_the_traffic() -> None:
    lost = make.a_replica(1, missing_since=make.NOW - 60)
    shown = assess.assess(lost, make.observed((), [make.a_heartbeat(lost)]), asked=False)
    assert (_Phase.ORPHAN_ALIVE, True, None) == (shown.phase, shown.is_routed, shown.end)


def test_a_snapshot_older_than_the_job_id_says_nothing() -> None:
    young = make.a_replica(1, submission_changes={"resolved_at": make.NOW - 0.5})
    assert None is assess.assess(young, make.observed(), asked=False).facts.missing_since


def test_what_an_earlier_start_of_a_requeued_job_said_is_void() -> None:
    again = make.a_job(EACH, restart_count=1)
    shown = assess.assess(EACH, make.observed([again], [make.a_heartbeat(EACH)]), asked=False)
    assert (_Phase.STARTING, False, None) == (shown.phase, shown.is_routed, shown.facts.ready_at)


def test_a_heartbeat_is_believed_over_an_older_snapshot_in_which_the_job_still_waits() -> None:
    seen = make.observed(
        [make.a_job(EACH, _Job.PENDING)], [make.a_heartbeat(EACH, received_at=make.NOW - 0.5)]
    )
    assert _Phase.READY == assess.assess(EACH, seen, asked=False).phase
