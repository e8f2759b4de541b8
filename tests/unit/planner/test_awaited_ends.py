"""A replica that ends, and nobody knows yet whether that counts: its replacement waits until it is known, and not for ever."""

import pytest

from llmop.domain.job import JobState
from llmop.domain.replica import AgentPhase, Drain, DrainReason, End, EndReason, Heartbeat, Replica
from llmop.planner import compute, values
from llmop.testing import builders as make

EACH = make.a_replica(1)


def draining(why: EndReason | None, **changes: object) -> Heartbeat:
    return make.a_heartbeat(EACH, AgentPhase.DRAINING, ending=why, **changes)


def ended(why: EndReason) -> Heartbeat:
    return make.a_heartbeat(EACH, AgentPhase.ENDED, end=End(reason=why, at=make.NOW))


def plan(beat: Heartbeat, state: JobState = JobState.RUNNING, each: Replica = EACH) -> values.Plan:
    seen = make.observed([make.a_job(each, state)], [beat])
    return compute.plan(make.desired([each], max_surge=1), seen, make.names())


def makes_another(made: values.Plan) -> bool:
    return any(isinstance(action, values.CreateReplica) for action in made.actions)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMPLETING])
@pytest.mark.parametrize(
    ("beat", "is_awaited"),
    [
        (draining(EndReason.DRAINED), False),
        (draining(EndReason.TERMINATED), True),
        (ended(EndReason.DRAINED), False),
        (ended(EndReason.TERMINATED), True),
        (ended(EndReason.ENGINE_CRASHED), True),
    ],
    ids=["walltime", "SIGTERM", "ended by walltime", "ended by SIGTERM", "crashed"],
)
def test_what_may_count_is_awaited(beat: Heartbeat, state: JobState, is_awaited: bool) -> None:
    assert (not is_awaited) == makes_another(plan(beat, state))


@pytest.mark.parametrize("phase", [AgentPhase.READY, AgentPhase.LOADING])
def test_a_job_that_slurm_ends_before_its_agent_has_said_why_is_awaited(phase: AgentPhase) -> None:
    patience_s = make.observed().timing.unreachable_s
    silent = make.a_heartbeat(EACH, phase, received_at=make.NOW - patience_s - 1)
    held = plan(make.a_heartbeat(EACH, phase), JobState.COMPLETING)

    assert not makes_another(held)
    assert held.recheck_at is not None and held.recheck_at <= make.NOW + patience_s + 0.1
    assert makes_another(plan(silent, JobState.COMPLETING))


def test_a_foreign_scancel_counts_before_its_replacement_is_made() -> None:
    counted = plan(ended(EndReason.TERMINATED), JobState.CANCELLED)

    assert 1 == counted.status.record.crashes
    assert not makes_another(counted)
    assert make.NOW + 10 == counted.recheck_at


def test_a_preemption_does_not_count_and_is_replaced_at_once() -> None:
    assert makes_another(plan(ended(EndReason.TERMINATED), JobState.PREEMPTED))


def test_a_job_that_hangs_after_its_agent_fell_silent_is_not_waited_for() -> None:
    patience_s = make.observed().timing.unreachable_s
    silent = draining(EndReason.TERMINATED, received_at=make.NOW - patience_s - 1)
    waiting = draining(EndReason.TERMINATED, received_at=make.NOW - patience_s + 1)

    assert makes_another(plan(silent, JobState.COMPLETING))
    held = plan(waiting, JobState.COMPLETING)
    assert not makes_another(held)
    assert held.recheck_at is not None and held.recheck_at <= make.NOW + 1.1


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_job_that_hangs_is_not_waited_for_whoever_is_heard(is_given_up: bool) -> None:
    """An epilog hangs for hours, and what is left of the job beats on."""
    patience_s = make.observed().timing.unreachable_s
    gone = Drain(reason=DrainReason.STARTUP_TIMEOUT, requested_at=make.NOW - 600, deadline_at=make.NOW - 600)
    each = make.a_replica(1, drain=gone) if is_given_up else EACH

    def after(seconds: float) -> values.Plan:
        job = make.a_job(each, JobState.COMPLETING, ends_at=make.NOW - seconds)
        seen = make.observed([job], [make.a_heartbeat(each)])
        return compute.plan(make.desired([each], max_surge=1), seen, make.names())

    waiting = after(patience_s - 1)
    assert not makes_another(waiting)
    assert waiting.recheck_at is not None and waiting.recheck_at <= make.NOW + 1.1
    assert makes_another(after(patience_s + 1))


def test_an_old_revision_is_not_waited_for() -> None:
    seen = make.observed([make.a_job(EACH)], [draining(EndReason.TERMINATED)])
    wanted = make.desired([EACH], revision=2, max_surge=1)

    assert makes_another(compute.plan(wanted, seen, make.names()))


def test_our_own_drain_is_replaced_as_before() -> None:
    drain = Drain(reason=DrainReason.DELETED, requested_at=make.NOW, deadline_at=make.NOW + 60)

    assert makes_another(
        plan(draining(EndReason.TERMINATED), each=make.a_replica(1, drain=drain, deleted_at=make.NOW))
    )


def test_people_are_told_that_somebody_else_ends_it() -> None:
    (shown,) = plan(draining(EndReason.TERMINATED)).replicas

    assert ("Draining", "Terminated", "the job was told to end by SIGTERM, not by llmop") == (
        shown.phase,
        shown.reason,
        shown.message,
    )
