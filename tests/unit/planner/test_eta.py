"""When the next replica will be there, and what is learned from those that came."""

from __future__ import annotations

import dataclasses

from llmop.domain import endpoint, job, replica
from llmop.planner import assess, compute, eta, values
from llmop.testing import builders as make

LEADS = tuple(values.Lead(wait_s=wait_s, boot_s=boot_s) for wait_s, boot_s in ((10, 50), (40, 60), (900, 70)))


def assessed(phase: replica.Phase, **facts: object) -> assess.Assessment:
    estimate = facts.pop("estimated_start_at", None)
    each = dataclasses.replace(
        make.a_replica(1, ready_at=None, started_at=None, created_at=make.NOW - 5),
        **facts,  # type: ignore[arg-type]
    )
    return assess.Assessment(
        facts=each,
        phase=phase,
        is_routed=phase is replica.Phase.READY,
        estimated_start_at=estimate,  # type: ignore[arg-type]
    )


def following(*replicas: assess.Assessment, leads: tuple[values.Lead, ...] = LEADS) -> endpoint.NextReplica:
    return eta.next_replica(replicas, leads, make.NOW)


def test_nothing_is_known_where_nothing_comes() -> None:
    assert following() == endpoint.NextReplica()
    assert following(assessed(replica.Phase.ENDED), assessed(replica.Phase.BLOCKED)) == endpoint.NextReplica()


def test_nothing_is_told_where_one_serves() -> None:
    pending = assessed(replica.Phase.PENDING)
    assert following(assessed(replica.Phase.READY), pending) == endpoint.NextReplica()


def test_slurms_estimate_comes_before_our_own() -> None:
    pending = assessed(replica.Phase.PENDING, estimated_start_at=make.NOW + 100)
    assert following(pending) == endpoint.NextReplica(
        stage=endpoint.Stage.PENDING, starts_at=make.NOW + 100, ready_at=make.NOW + 160
    )


def test_without_an_estimate_the_waits_of_late_count() -> None:
    found = following(assessed(replica.Phase.PENDING))
    assert found.starts_at == make.NOW + 40  # 35 s, rounded up
    assert found.ready_at == make.NOW + 100


def test_what_should_have_been_is_not_told() -> None:
    late = assessed(replica.Phase.PENDING, created_at=make.NOW - 600)
    assert following(late) == endpoint.NextReplica(stage=endpoint.Stage.PENDING)


def test_the_first_replica_ever_is_known_by_its_stage_only() -> None:
    pending, loading = (
        following(assessed(phase), leads=()) for phase in (replica.Phase.PENDING, replica.Phase.LOADING)
    )
    assert pending == endpoint.NextReplica(stage=endpoint.Stage.PENDING)
    assert loading == endpoint.NextReplica(stage=endpoint.Stage.LOADING)


def test_one_that_loads_is_nearer_than_one_that_waits() -> None:
    pending = assessed(replica.Phase.PENDING, estimated_start_at=make.NOW + 1)
    loading = assessed(replica.Phase.LOADING, started_at=make.NOW - 20)
    assert following(pending, loading) == endpoint.NextReplica(
        stage=endpoint.Stage.LOADING, ready_at=make.NOW + 40
    )


def test_one_that_drains_does_not_come() -> None:
    decided = replica.Drain(
        reason=replica.DrainReason.DELETED, requested_at=make.NOW, deadline_at=make.NOW + 60
    )
    assert following(assessed(replica.Phase.LOADING, drain=decided)) == endpoint.NextReplica()


def test_an_estimate_that_moves_a_little_is_the_same_table() -> None:
    """Slurm plans anew every half minute; gateways shall not hear of every second of it."""
    shown = {
        following(assessed(replica.Phase.PENDING, estimated_start_at=make.NOW + 7201 + second))
        for second in range(300)
    }
    assert len(shown) <= 3


def test_lead_times_are_learned_when_a_replica_becomes_ready_and_once() -> None:
    each = make.a_replica(
        1, ready_at=None, started_at=make.NOW - 30, created_at=make.NOW - 100, phase=replica.Phase.LOADING
    )
    seen = make.observed(
        [dataclasses.replace(make.a_job(each), started_at=make.NOW - 30)], [make.a_heartbeat(each)]
    )
    plan = compute.plan(make.desired([each]), seen, make.names())
    assert plan.status.record.leads == (values.Lead(wait_s=70, boot_s=30),)

    known = next(shown.replica for shown in plan.replicas)
    desired = make.desired([known], record=plan.status.record)
    again = compute.plan(desired, dataclasses.replace(seen, now=make.NOW + 50), make.names())
    assert again.status.record.leads == plan.status.record.leads


def test_a_lead_time_is_learned_once_also_where_the_agent_was_heard_before_the_start_was_seen() -> None:
    heard = make.a_replica(1, ready_at=make.NOW, started_at=None, created_at=make.NOW - 100)
    ready = assess.Assessment(facts=heard, phase=replica.Phase.READY, is_routed=True)
    assert eta.learned((), [heard], [ready], 1800) == ()
    seen = dataclasses.replace(ready, facts=dataclasses.replace(heard, started_at=make.NOW - 30))
    found = eta.learned((), [heard], [seen], 1800)
    assert found == (values.Lead(wait_s=70, boot_s=30),)
    assert eta.learned(found, [seen.facts], [seen], 1800) == found


def test_only_the_last_lead_times_are_kept_and_strange_ones_are_not() -> None:
    many = tuple(values.Lead(wait_s=number, boot_s=1) for number in range(eta.KEPT))
    before = make.a_replica(1, ready_at=None, started_at=make.NOW - 30, created_at=make.NOW - 100)
    ready = assess.Assessment(
        facts=dataclasses.replace(before, ready_at=make.NOW), phase=replica.Phase.READY, is_routed=True
    )
    found = eta.learned(many, [before], [ready], 1800)
    assert len(found) == eta.KEPT
    assert found[-1] == values.Lead(wait_s=70, boot_s=30)
    assert eta.learned((), [before], [ready], 20) == ()
    restarted = dataclasses.replace(ready, facts=dataclasses.replace(ready.facts, engine_restarts=1))
    assert eta.learned((), [before], [restarted], 1800) == ()


def test_a_model_tells_gateways_its_bounds() -> None:
    bounds = endpoint.QueueBounds(max_requests=1, max_bytes=2, request_ttl_s=3, no_endpoint_request_ttl_s=4)
    desired = make.desired()
    for own, told in ((0, 16), (8, 8)):
        spec = dataclasses.replace(desired.deployment.spec, queue=bounds, max_in_flight=own)
        asked = dataclasses.replace(
            desired,
            deployment=dataclasses.replace(desired.deployment, spec=spec),
            runtime=dataclasses.replace(make.engine(), max_in_flight=16),
        )
        model = compute.plan(asked, make.observed(), make.names()).model
        assert model is not None
        assert (model.queue, model.max_in_flight) == (bounds, told)


def test_a_job_that_waits_is_told_with_its_stage() -> None:
    each = make.a_replica(1, ready_at=None, started_at=None, host="", port=0)
    waits = dataclasses.replace(
        make.a_job(each, job.JobState.PENDING), reason="Priority", started_at=make.NOW + 60
    )
    plan = compute.plan(make.desired([each]), make.observed([waits]), make.names())
    assert plan.model is not None
    assert plan.model.next_replica == endpoint.NextReplica(
        stage=endpoint.Stage.PENDING, starts_at=make.NOW + 60
    )
