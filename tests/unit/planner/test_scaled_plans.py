"""Plans of deployments whose load says how many replicas there are."""

import dataclasses

from llmop.domain import scaling
from llmop.planner import autoscale, compute, values
from llmop.testing import builders as make

BOUNDS = scaling.Scaling(min_replicas=1, max_replicas=6)


def decided(desired: int, **changes: object) -> autoscale.Decision:
    base = autoscale.Decision(
        desired=desired,
        reason="LoadRose",
        message="the load is more than the replicas are meant for",
        recommended=desired,
        last=None,
        readings=(
            autoscale.Reading(
                type=scaling.MetricType.IN_FLIGHT,
                target=16,
                stable=40.25,
                panic=40.0,
                forecast=40.0,
                replicas=desired,
            ),
        ),
        fleet=autoscale.Fleet(ready=1, on_the_way=0),
        is_known=True,
        is_panic=False,
        limit="",
        memory=autoscale.remember(desired, 0.0),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def plan(desired: values.Desired, decision: autoscale.Decision | None = None) -> values.Plan:
    running = [(make.a_job(each), make.a_heartbeat(each)) for each in desired.replicas]
    seen = make.observed([job for job, _ in running], [beat for _, beat in running], scaling=decision)
    return compute.plan(desired, seen, make.names())


def record(desired: int, *history: values.ScalingStep) -> values.Record:
    return values.Record(scaling=values.ScalingRecord(desired=desired, history=history))


def made(found: values.Plan) -> int:
    return sum(1 for action in found.actions if isinstance(action, values.CreateReplica))


def drained(found: values.Plan) -> int:
    return sum(1 for action in found.actions if isinstance(action, values.StartDrain))


def test_a_new_deployment_begins_with_the_fewest() -> None:
    found = plan(make.desired(scaling=dataclasses.replace(BOUNDS, min_replicas=2)))

    assert 2 == made(found)
    assert values.ScalingRecord(desired=2) == found.status.record.scaling


def test_what_there_is_when_scaling_begins_stays() -> None:
    replicas = [make.a_replica(number) for number in range(1, 5)]
    found = plan(make.desired(replicas, scaling=BOUNDS))

    assert 0 == made(found) == drained(found)
    assert values.ScalingRecord(desired=4) == found.status.record.scaling


def test_a_decision_becomes_replicas_a_step_of_the_history_and_an_event() -> None:
    found = plan(make.desired([make.a_replica(1)], scaling=BOUNDS, record=record(1)), decided(3))

    assert 2 == made(found)
    kept = found.status.record.scaling
    assert kept is not None and 3 == kept.desired
    (step,) = kept.history
    assert (1, 3, "LoadRose", make.NOW) == (step.before, step.after, step.reason, step.at)
    assert 40.2 == step.inputs["metrics"][0]["average"]
    said = [one for one in found.actions if isinstance(one, values.Announce) and one.reason == "Scaled"]
    words = (
        "from 1 to 3 replicas: the load is more than the replicas are meant for (InFlight 40.2, target 16)"
    )
    assert [words] == [each.message for each in said]


def test_the_same_decision_again_is_no_step() -> None:
    first = plan(make.desired([make.a_replica(1)], scaling=BOUNDS, record=record(1)), decided(3))
    again = plan(make.desired([make.a_replica(1)], scaling=BOUNDS, record=first.status.record), decided(3))

    assert first.status.record.scaling == again.status.record.scaling
    assert not [one for one in again.actions if isinstance(one, values.Announce) and one.reason == "Scaled"]


def test_without_a_decision_what_was_decided_last_holds() -> None:
    replicas = [make.a_replica(number) for number in range(1, 4)]
    found = plan(make.desired(replicas, scaling=BOUNDS, record=record(3)))

    assert 0 == made(found) == drained(found)
    conditions = {each.type: (str(each.status), each.reason) for each in found.status.record.conditions}
    assert ("Unknown", "NotLookedYet") == conditions["ScalingActive"]


def test_new_limits_hold_at_once_and_without_a_decision() -> None:
    replicas = [make.a_replica(number) for number in range(1, 5)]
    for decision in (None, decided(4)):
        bounds = dataclasses.replace(BOUNDS, max_replicas=2)
        found = plan(make.desired(replicas, scaling=bounds, record=record(4)), decision)

        assert 2 == drained(found)
        kept = found.status.record.scaling
        assert kept is not None and "MaxReplicas" == kept.history[-1].reason


def test_the_history_keeps_the_last_ten_steps() -> None:
    old = [
        values.ScalingStep(at=float(number), before=1, after=2, reason="a", message="", inputs={})
        for number in range(10)
    ]
    found = plan(make.desired([make.a_replica(1)], scaling=BOUNDS, record=record(1, *old)), decided(2))

    kept = found.status.record.scaling
    assert kept is not None and [*range(1, 10), make.NOW] == [each.at for each in kept.history]


def test_a_fixed_number_forgets_what_was_decided() -> None:
    found = plan(make.desired([make.a_replica(1)], record=record(5)), None)

    assert found.status.record.scaling is None
    assert 0 == made(found)
    assert not {"ScalingActive", "ScalingLimited"} & {each.type for each in found.status.record.conditions}


def test_people_see_whether_the_load_is_known_and_whether_it_asks_for_too_much() -> None:
    def conditions(decision: autoscale.Decision) -> dict[str, tuple[str, str]]:
        found = plan(make.desired([make.a_replica(1)], scaling=BOUNDS, record=record(1)), decision)
        return {each.type: (str(each.status), each.reason) for each in found.status.record.conditions}

    known = conditions(decided(1))
    assert (("True", "LoadKnown"), ("False", "WithinBounds")) == (
        known["ScalingActive"],
        known["ScalingLimited"],
    )
    blind = conditions(decided(1, is_known=False, limit="TooManyReplicas"))
    assert (("False", "LoadUnknown"), ("True", "TooManyReplicas")) == (
        blind["ScalingActive"],
        blind["ScalingLimited"],
    )


def test_gateways_are_told_whether_a_request_starts_a_replica() -> None:
    scaled, fixed = plan(make.desired(scaling=BOUNDS)).model, plan(make.desired()).model
    assert scaled is not None and fixed is not None

    assert (True, False) == (scaled.wakes, fixed.wakes)
