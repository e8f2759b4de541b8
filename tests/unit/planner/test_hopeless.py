"""Jobs that come to nothing are cancelled, and end as the failure that they are."""

import dataclasses

import pytest

from llmop.domain import deployment, job, replica
from llmop.planner import assess, compute, hopeless, values
from llmop.testing import builders as make

_Drain, _End = replica.DrainReason, replica.EndReason
TEMPLATE = make.template()
LIMIT_S = float(TEMPLATE.startup_timeout_s)


def _silent(unheard_s: float | None, **changes: object) -> replica.Replica:
    """A replica whose job runs; nobody has heard of its agent for so long."""
    since = None if unheard_s is None else make.NOW - unheard_s
    fields = {"ready_at": None, "host": "", "port": 0, "unheard_since": since, **changes}
    return make.a_replica(1, **fields)


def _outlook(
    each: replica.Replica, seen: values.Observed, template: deployment.Template = TEMPLATE
) -> hopeless.Outlook:
    return hopeless.outlook(assess.assess(each, seen, asked=False), template, seen)


def _seen(each: replica.Replica, *beats: replica.Heartbeat, **changes: object) -> values.Observed:
    return make.observed([make.a_job(each)], beats, controller_since=make.NOW - 10 * LIMIT_S, **changes)


@pytest.mark.parametrize(
    ("unheard_s", "reason"), [(LIMIT_S - 1, None), (LIMIT_S, _Drain.STARTUP_TIMEOUT)], ids=["before", "at"]
)
def test_a_job_without_a_word_of_its_agent_is_given_up_when_the_engine_would_have_to_be_ready(
    unheard_s: float, reason: replica.DrainReason | None
) -> None:
    each = _silent(unheard_s)
    assert reason == _outlook(each, _seen(each)).reason


def test_until_then_it_is_looked_at_again_in_time() -> None:
    each = _silent(None)
    assert make.NOW + LIMIT_S == _outlook(each, _seen(each)).wait_until


def test_a_short_limit_leaves_time_to_find_out_whether_it_is_our_own_fault() -> None:
    template = make.template(startup_timeout_s=30)
    reasons = [_outlook(_silent(s), _seen(_silent(s)), template).reason for s in (599.0, 600.0)]
    assert [None, _Drain.STARTUP_TIMEOUT] == reasons


def test_the_words_say_where_to_look() -> None:
    each = _silent(LIMIT_S)
    message = _outlook(each, _seen(each)).message
    assert "1800 s without a word of its agent" in message
    assert f"/shared/llmop/replicas/{each.name}/job.log" in message
    assert "python3" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"controller_since": make.NOW - LIMIT_S + 1},
        {"is_blind": True},
        {"view": make.a_view([make.a_job(_silent(1))], problem="squeue did not end in time")},
        {"view": make.a_view([make.a_job(_silent(1))], brake="3 of 4 jobs vanished")},
        {"view": make.a_view()},
    ],
    ids=["we are new", "nobody is heard", "an old snapshot", "a strange snapshot", "no job"],
)
def test_what_is_not_the_agents_fault_is_not_held_against_it(changes: dict[str, object]) -> None:
    each = _silent(LIMIT_S + 1)
    seen = dataclasses.replace(_seen(each), **{k: v for k, v in changes.items() if k != "view"})
    if "view" in changes:
        seen = dataclasses.replace(seen, clusters={make.CLUSTER: changes["view"]})  # type: ignore[dict-item]
    assert None is _outlook(each, seen).reason


@pytest.mark.parametrize(
    ("state", "beats", "since"),
    [
        (job.JobState.RUNNING, False, make.NOW - 7),
        (job.JobState.RUNNING, True, None),
        (job.JobState.CONFIGURING, False, None),
        (job.JobState.PENDING, False, None),
        (job.JobState.SUSPENDED, False, None),
    ],
)
def test_the_clock_runs_while_the_job_runs_and_nobody_is_heard(
    state: job.JobState, *, beats: bool, since: float | None
) -> None:
    each = _silent(7)
    heard = [make.a_heartbeat(each, replica.AgentPhase.LOADING)] if beats else []
    seen = make.observed([make.a_job(each, state)], heard)
    assert since == assess.assess(each, seen, asked=False).facts.unheard_since


def test_the_clock_begins_when_the_job_is_first_seen_to_run() -> None:
    """By our own clock: that of Slurm may be another one."""
    each = _silent(None)
    seen = make.observed([make.a_job(each, started_at=make.NOW - 86_400)])
    assert make.NOW == assess.assess(each, seen, asked=False).facts.unheard_since


def _plan(each: replica.Replica, seen: values.Observed, **wanted: object) -> values.Plan:
    return compute.plan(make.desired([each], **wanted), seen, make.names())


def _kinds(plan: values.Plan) -> list[str]:
    return [type(action).__name__ for action in plan.actions if not isinstance(action, values.Announce)]


def test_it_is_cancelled_and_not_replaced_before_that_counts() -> None:
    each = _silent(LIMIT_S)
    plan = _plan(each, _seen(each))
    assert ["StartDrain", "CancelJobs"] == _kinds(plan)
    drained = dataclasses.replace(each, drain=_drain_of(plan))
    assert ["CancelJobs"] == _kinds(_plan(drained, _seen(drained)))


def _drain_of(plan: values.Plan) -> replica.Drain:
    (drain,) = (action.drain for action in plan.actions if isinstance(action, values.StartDrain))
    return drain


def _given_up(reason: replica.DrainReason, **changes: object) -> replica.Replica:
    drain = replica.Drain(
        reason=reason, requested_at=make.NOW - 9, deadline_at=make.NOW - 9, message="why it was"
    )
    return _silent(LIMIT_S, drain=drain, **changes)


def _end_of(plan: values.Plan) -> values.RecordEnd:
    (end,) = (action for action in plan.actions if isinstance(action, values.RecordEnd))
    return end


CANCELLED = job.JobState.CANCELLED


@pytest.mark.parametrize(
    ("drain", "end", "crashes", "stalled"),
    [
        (_Drain.STARTUP_TIMEOUT, _End.STARTUP_TIMEOUT, 1, ""),
        (_Drain.LAUNCH_FAILED, _End.LAUNCH_FAILED, 1, ""),
        (_Drain.NEVER_RUNS, _End.NEVER_RUNS, 0, "NeverRuns"),
        (_Drain.SCALED_DOWN, _End.CANCELLED, 0, ""),
    ],
)
def test_its_end_is_what_it_was_given_up_for(
    drain: replica.DrainReason, end: replica.EndReason, crashes: int, stalled: str
) -> None:
    each = _given_up(drain)
    plan = _plan(each, make.observed([make.a_job(each, CANCELLED)]))
    is_failure = end is not _End.CANCELLED
    recorded = _end_of(plan)
    assert (end, is_failure) == (recorded.end.reason, recorded.keep)
    record = plan.status.record
    assert (crashes, stalled) == (record.crashes, record.stalled_reason)
    failure = (record.last_failure.reason, record.last_failure.message) if record.last_failure else None
    assert failure == ((str(end), "why it was") if is_failure else None)
    (shown,) = plan.replicas
    assert (str(end), "why it was" if is_failure else "cancelled as asked") == (shown.reason, shown.message)


@pytest.mark.parametrize("drain", [_Drain.STARTUP_TIMEOUT, _Drain.NEVER_RUNS])
def test_the_end_of_an_older_revision_says_nothing_about_the_newest(drain: replica.DrainReason) -> None:
    """The manifest was mended in the meantime."""
    each = _given_up(drain)
    plan = _plan(each, make.observed([make.a_job(each, CANCELLED)]), revision=2)
    record = plan.status.record
    assert (0, "") == (record.crashes, record.stalled_reason)
    assert record.last_failure is not None


def test_a_job_that_left_the_queue_meanwhile_ends_the_same_way() -> None:
    each = _given_up(_Drain.STARTUP_TIMEOUT)
    assert _End.STARTUP_TIMEOUT == _end_of(_plan(each, make.observed())).end.reason


@pytest.mark.parametrize(
    ("own", "reason"),
    [(_End.TERMINATED, _End.STARTUP_TIMEOUT), (_End.NODE_UNUSABLE, _End.NODE_UNUSABLE)],
    ids=["it was signalled, by us", "it knows more"],
)
def test_what_the_agent_says_of_a_failure_stands(own: replica.EndReason, reason: replica.EndReason) -> None:
    each = _given_up(_Drain.STARTUP_TIMEOUT)
    exits = {each.uid: replica.End(reason=own, at=make.NOW)}
    plan = _plan(each, make.observed([make.a_job(each, CANCELLED)], exits=exits))
    assert reason == _end_of(plan).end.reason


@pytest.mark.parametrize(
    ("pending", "reason"),
    [
        (job.PendingClass.NEVER, _Drain.NEVER_RUNS),
        (job.PendingClass.HELD, _Drain.LAUNCH_FAILED),
        (job.PendingClass.HELD_BY_ADMIN, None),
    ],
)
def test_what_slurm_will_not_run(pending: job.PendingClass, reason: replica.DrainReason | None) -> None:
    each = _silent(None, was_running=False, blocked_since=make.NOW - hopeless.CONFIRMED_S)
    waiting = make.a_job(each, job.JobState.HELD, pending=pending, explanation="so it is")
    outlook = _outlook(each, make.observed([waiting]))
    assert (reason, "so it is" if reason else "") == (outlook.reason, outlook.message)
