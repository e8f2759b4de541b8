"""Plans for one deployment, by what they hold."""

import dataclasses

from llmop.domain import job, replica
from llmop.planner import compute, values
from llmop.testing import builders as make


def _plan(desired: values.Desired, seen: values.Observed) -> values.Plan:
    return compute.plan(desired, seen, make.names())


def _kinds(plan: values.Plan) -> list[str]:
    return [type(action).__name__ for action in plan.actions if not isinstance(action, values.Announce)]


def test_a_new_deployment_gets_its_revision_and_its_replicas() -> None:
    plan = _plan(make.desired(revisions=()), make.observed())
    assert ["CreateRevision", "CreateReplica"] == _kinds(plan)


def test_nothing_is_made_on_a_cluster_that_does_not_answer() -> None:
    away = make.observed(view=make.a_view(problem="squeue did not end in time"))
    assert [] == _kinds(_plan(make.desired(), away))


def test_nothing_is_done_while_the_brake_is_pulled() -> None:
    braked = make.observed(view=make.a_view(brake="3 of 4 jobs vanished"))
    assert [] == _kinds(_plan(make.desired([make.a_replica(1)], deleted_at=make.NOW), braked))


def test_a_healthy_world_needs_nothing_and_says_so_in_the_same_words_each_time() -> None:
    each = make.a_replica(1)
    seen = make.observed([make.a_job(each)], [make.a_heartbeat(each)])
    plan = _plan(make.desired([each]), seen)
    assert [] == _kinds(plan)
    conditions = {one.type: (str(one.status), one.reason) for one in plan.status.record.conditions}
    assert ("True", "AllReplicasReady") == conditions["Ready"]
    later = dataclasses.replace(seen, now=make.NOW + 3)
    again = _plan(make.desired([each], record=plan.status.record), later)
    assert plan.status == again.status


def test_a_deployment_is_ready_when_gateways_know_its_replicas() -> None:
    """Not a moment earlier, since the first request would be refused; and a slow gateway takes nothing back."""
    each = make.a_replica(1, ready_at=make.NOW - 1)
    seen = make.observed([make.a_job(each)], [make.a_heartbeat(each)])

    def said(routed: frozenset[str] | None) -> tuple[str, str]:
        observed = dataclasses.replace(seen, routed_by_gateways=routed)
        conditions = {one.type: one for one in _plan(desired, observed).status.record.conditions}
        return str(conditions["Ready"].status), conditions["Ready"].reason

    desired = make.desired([each])
    assert ("False", "AwaitingGateways") == said(frozenset())
    recheck_at = _plan(desired, dataclasses.replace(seen, routed_by_gateways=frozenset())).recheck_at
    assert recheck_at is not None and recheck_at <= make.NOW + 9
    for routed in (frozenset({each.uid}), None):
        assert ("True", "AllReplicasReady") == said(routed)
    heard = make.observed([make.a_job(each)], [make.a_heartbeat(each, received_at=make.NOW + 9)])
    late = dataclasses.replace(heard, now=make.NOW + 9, routed_by_gateways=frozenset())
    conditions = {one.type: one.reason for one in _plan(desired, late).status.record.conditions}
    assert "AllReplicasReady" == conditions["Ready"]
    desired = make.desired([each], record=_plan(desired, seen).status.record)
    assert ("True", "AllReplicasReady") == said(frozenset())


def test_a_failed_replica_is_kept_for_people_and_replaced_after_a_while() -> None:
    each = make.a_replica(1)
    plan = _plan(make.desired([each]), make.observed([make.a_job(each, job.JobState.FAILED, exit_code=70)]))
    (end,) = [action for action in plan.actions if isinstance(action, values.RecordEnd)]
    assert (True, replica.EndReason.ENGINE_CRASHED) == (end.keep, end.end.reason)
    assert make.NOW + 10 == plan.status.record.retry_at
    assert "CreateReplica" not in _kinds(plan)


def test_a_deleted_deployment_goes_when_its_last_replica_is_gone() -> None:
    each = make.a_replica(1)
    seen = make.observed([make.a_job(each)], [make.a_heartbeat(each)])
    assert ["StartDrain"] == _kinds(_plan(make.desired([each], deleted_at=make.NOW), seen))
    assert "FinishDeletion" in _kinds(_plan(make.desired([], deleted_at=make.NOW), make.observed()))


def test_the_stop_order_waits_for_gateways_but_not_for_long() -> None:
    drain = replica.Drain(
        reason=replica.DrainReason.SCALED_DOWN, requested_at=make.NOW, deadline_at=make.NOW + 120
    )
    each = make.a_replica(1, drain=drain)
    seen = make.observed([make.a_job(each)], [make.a_heartbeat(each)])
    wanted = make.desired([each], deleted_at=make.NOW)
    assert [] == _kinds(_plan(wanted, seen))
    acknowledged = dataclasses.replace(seen, drained_by_gateways=frozenset({each.uid}))
    assert ["OrderDrain"] == _kinds(_plan(wanted, acknowledged))
    assert ["OrderDrain"] == _kinds(_plan(wanted, dataclasses.replace(seen, now=make.NOW + 5)))
    late = dataclasses.replace(seen, now=make.NOW + 181)
    assert ["CancelJobs"] == _kinds(_plan(wanted, late))
