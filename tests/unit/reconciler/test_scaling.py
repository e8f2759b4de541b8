"""From reports of gateways to replicas: windows, what is not known, wake-up, and what the next controller goes on with."""

import dataclasses
from typing import Any

from tests.unit.reconciler.reconciler_rig import Rig

from llmop.domain import replica, resources, scaling
from llmop.store import interface
from llmop.testing import builders

NAME = f"default/{builders.DEPLOYMENT}"
DRAIN = {"reason": "ScaledDown", "requestedAt": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:02:00Z"}
SCALING = {"minReplicas": 1, "maxReplicas": 5, "metrics": [{"type": "InFlight", "target": 10}]}


async def started(**changes: Any) -> Rig:
    rig = Rig()
    await rig.start(scaling={**SCALING, **changes})
    await rig.poll()
    await rig.settle()
    return rig


async def pass_time(rig: Rig, seconds: float, *gateways: str, **load: Any) -> None:
    """Second by second, with reports of these gateways."""
    for _ in range(int(seconds)):
        rig.clock.advance(1)
        for gateway in gateways:
            rig.reconciler.scaler.report(gateway, {NAME: scaling.Reported(**load)})
        rig.reconciler.scaler.tick()
        await rig.settle()


async def status(rig: Rig) -> Any:
    return (await rig.store.get(resources.MODEL_DEPLOYMENT, "default", builders.DEPLOYMENT)).status


async def desired(rig: Rig) -> int:
    return int((await status(rig))["scaling"]["desiredReplicas"])


async def events(rig: Rig) -> list[str]:
    found = (await rig.store.list(resources.EVENT)).items
    return [each.spec["message"] for each in found if each.spec["reason"] == "Scaled"]


async def test_the_loads_of_all_gateways_are_one_load() -> None:
    rig = await started()
    await pass_time(rig, 90, "a", "b", in_flight=15)

    assert 3 == await desired(rig)
    assert 3 == len(await rig.replicas())
    (step, *_) = (await status(rig))["scalingHistory"]
    assert (1, 3, "LoadRose") == (step["from"], step["to"], step["reason"])
    assert 30.0 == step["inputs"]["metrics"][0]["average"]
    assert 30 == step["inputs"]["inFlight"]
    load = rig.reconciler.scaler.load(NAME)
    assert load is not None and (30, 0, True) == (load.in_flight, load.queued, load.is_whole)
    assert [
        "from 1 to 3 replicas: the load is more than the replicas are meant for (InFlight 30.0, target 10)"
    ] == (await events(rig))


async def test_without_a_gateway_nothing_changes() -> None:
    rig = await started(minReplicas=0)
    assert rig.reconciler.scaler.load(NAME) is None
    await pass_time(rig, 30, "a", in_flight=25)
    assert 3 == await desired(rig)
    await pass_time(rig, 2000)

    assert 3 == await desired(rig)
    condition = await rig.condition(
        resources.MODEL_DEPLOYMENT, builders.DEPLOYMENT, "default", "ScalingActive"
    )
    assert ("False", "LoadUnknown") == (condition["status"], condition["reason"])


async def test_a_gateway_that_falls_silent_hides_what_it_has_until_it_is_gone() -> None:
    rig = await started(
        minReplicas=0, behavior={"scaleDown": {"stabilizationWindow": "0s"}}, scaleToZeroAfter="10s"
    )
    await pass_time(rig, 80, "a", "b", in_flight=5)
    await pass_time(rig, 150, "a")
    assert 1 == await desired(rig)
    await pass_time(rig, 150, "a")

    assert 0 == await desired(rig)


async def test_a_request_for_a_deployment_at_zero_is_answered_within_its_report() -> None:
    for load, replicas in (({"queued": 12}, 2), ({"unserved": 12}, 1)):
        rig = await started(minReplicas=0)
        await pass_time(rig, 20, "a")
        assert 0 == await desired(rig) == len(await rig.replicas())
        rig.reconciler.scaler.report("a", {NAME: scaling.Reported(**load)})
        await rig.settle()

        assert replicas == await desired(rig) == len(await rig.replicas())
        assert "Woken" == (await status(rig))["scalingHistory"][-1]["reason"]


async def test_the_next_controller_goes_on_with_what_was_decided_and_knows_no_load() -> None:
    rig = await started(behavior={"scaleDown": {"stabilizationWindow": "2m"}})
    await pass_time(rig, 30, "a", in_flight=40)
    assert 4 == await desired(rig)
    await rig.restart()
    await rig.settle()
    assert 4 == await desired(rig)
    await pass_time(rig, 170, "a", in_flight=1)
    assert 4 == await desired(
        rig
    )  # a stable window is not known in full before, and the other one begins after it
    await pass_time(rig, 20, "a", in_flight=1)

    assert 1 == await desired(rig)
    assert ["LoadRose", "LoadFell"] == [each["reason"] for each in (await status(rig))["scalingHistory"]]


async def test_a_load_that_stays_writes_nothing() -> None:
    rig = await started()
    await pass_time(rig, 90, "a", in_flight=18)
    before = await rig.store.revision()
    await pass_time(rig, 120, "a", in_flight=19)

    assert before == await rig.store.revision()


async def test_tokens_are_counted_between_reports_and_unknown_after_a_new_start() -> None:
    rig = await started(metrics=[{"type": "TokensPerSecond", "target": 100}])
    for second in range(90):
        await pass_time(rig, 1, "a", generated_tokens=second * 250)
    assert 3 == await desired(rig)
    await pass_time(rig, 1, "a", generated_tokens=0)
    await pass_time(rig, 1, "a", generated_tokens=250)
    decision = rig.reconciler.scaler.decision(
        (await rig.store.get(resources.MODEL_DEPLOYMENT, "default", builders.DEPLOYMENT)).uid
    )

    assert decision is not None and not decision.is_known
    assert 3 == await desired(rig)


async def test_reports_in_a_hurry_make_no_peak_of_tokens() -> None:
    """Workers tell their parent once a second what they counted: much of it may lie between two reports that follow each other at once."""
    rig = await started(metrics=[{"type": "TokensPerSecond", "target": 100}])
    for second in range(90):
        await pass_time(rig, 1, "a", generated_tokens=second * 100)
        rig.clock.advance(0.02)
        told = scaling.Reported(generated_tokens=(second + 1) * 100)
        rig.reconciler.scaler.report("a", {NAME: told})
        rig.reconciler.scaler.tick()
        await rig.settle()
    decision = rig.reconciler.scaler.decision(
        (await rig.store.get(resources.MODEL_DEPLOYMENT, "default", builders.DEPLOYMENT)).uid
    )

    assert decision is not None and decision.is_known
    assert 1 == await desired(rig)


async def test_a_deployment_that_cannot_be_read_keeps_no_other_from_following_its_load() -> None:
    rig = await started()
    live = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", builders.DEPLOYMENT)
    for name in ("aaa", "zzz"):
        broken = resources.Resource(
            kind=live.kind,
            namespace=live.namespace,
            name=name,
            uid=rig.clock.uid(),
            spec={**live.spec, "scaling": {"maxReplicas": "of another version"}},
            status={"scaling": {"desiredReplicas": 1}},
            created_at=rig.clock.now(),
        )
        await rig.store.commit([interface.Create(resource=broken)])
    await rig.reconciler.refresh()
    for _ in range(30):  # no passes: those over what cannot be read fail, again and again
        rig.clock.advance(1)
        rig.reconciler.scaler.report("a", {NAME: scaling.Reported(in_flight=30)})
        rig.reconciler.scaler.tick()
    decision = rig.reconciler.scaler.decision(live.uid)

    assert decision is not None and 3 == decision.desired


async def test_a_schedule_is_in_force_without_any_load() -> None:
    rig = await started(
        schedules=[{"name": "always", "start": "* * * * *", "end": "0 0 1 1 *", "minReplicas": 2}]
    )
    await pass_time(rig, 5)

    assert 2 == await desired(rig)
    assert "Schedule" == (await status(rig))["scalingHistory"][-1]["reason"]


async def test_a_deployment_with_a_fixed_number_is_left_alone() -> None:
    rig = Rig()
    await rig.start(replicas=2)
    await rig.poll()
    await rig.settle()
    before = await rig.store.revision()
    await pass_time(rig, 60, "a", in_flight=100)

    assert before == await rig.store.revision()
    assert "scaling" not in await status(rig)
    load = rig.reconciler.scaler.load(NAME)
    assert load is not None and 100 == load.in_flight


async def heard(rig: Rig, *loads: replica.EngineLoad | None) -> None:
    """Every replica is heard ready, with what its engine says, by age of the replica; the last one said is that of all further ones."""
    serving = [each for each in await rig.replicas() if not each.spec.get("drain")]
    for number, each in enumerate(sorted(serving, key=lambda each: (each.created_at, each.name))):
        ledger = (await rig.store.ledgers([each.uid]))[0]
        rig.desk.heartbeats[each.uid] = replica.Heartbeat(
            replica_uid=each.uid,
            job_id=str(ledger.submission.job_id),
            restart_count=0,
            phase=replica.AgentPhase.READY,
            received_at=rig.clock.now(),
            host="h",
            port=8000,
            load=loads[min(number, len(loads) - 1)] if loads else None,
        )
        rig.reconciler.heard(each.namespace, each.name)
    await rig.settle()
    await rig.reconciler.refresh()


def engine(queue_depth: int | None = None, kv_cache_usage: float | None = None) -> replica.EngineLoad:
    return replica.EngineLoad(queue_depth=queue_depth, kv_cache_usage=kv_cache_usage)


async def listened(rig: Rig, seconds: int, *loads: replica.EngineLoad | None, **reported: Any) -> None:
    """Time passes; gateways and agents are heard every second."""
    for _ in range(seconds):
        await heard(rig, *loads)
        await pass_time(rig, 1, "a", **reported)


def metric(kind: str, target: int) -> dict[str, Any]:
    return {
        "metrics": [{"type": kind, "target": target}],
        "behavior": {"scaleDown": {"stabilizationWindow": "10s"}},
    }


async def ready(rig: Rig) -> None:
    """Jobs run, and their agents are heard."""
    rig.clock.advance(5)
    await rig.poll()
    await rig.settle()
    await heard(rig)


async def test_what_waits_in_the_engines_asks_for_replicas() -> None:
    rig = await started(**metric("QueueDepth", 4))
    await ready(rig)
    await listened(rig, 70, engine(queue_depth=12), engine(queue_depth=0))

    assert 3 == await desired(rig)
    step = (await status(rig))["scalingHistory"][-1]
    seen = step["inputs"]["engines"]
    assert {"replicas": 1, "queued": 12, "running": None, "silent": 0, "kvCaches": None} == seen


async def test_replicas_whose_engines_are_not_heard_are_not_given_up() -> None:
    rig = await started(**metric("QueueDepth", 4))
    await ready(rig)
    await listened(rig, 70, engine(queue_depth=12), engine(queue_depth=0))
    await ready(rig)
    assert 3 == (await status(rig))["readyReplicas"]
    await listened(rig, 120, None)
    assert 3 == await desired(rig)
    assert {None} == set(rig.reconciler.scaler.engines(await stored(rig)).values())
    await listened(rig, 120, engine(queue_depth=0))

    assert 1 == await desired(rig)


async def test_full_caches_hold_the_replicas_that_there_are() -> None:
    rig = await started(**metric("InFlight", 10))
    await ready(rig)
    await listened(rig, 70, engine(kv_cache_usage=0.1), in_flight=20)
    await ready(rig)
    await listened(rig, 10, engine(kv_cache_usage=0.6), in_flight=20)
    await listened(rig, 120, engine(kv_cache_usage=0.6), in_flight=5)
    decision = rig.reconciler.scaler.decision((await stored(rig)).uid)
    assert decision is not None
    assert (2, "KVCacheFull") == (await desired(rig), decision.reason)
    before = await rig.store.revision()
    await listened(rig, 20, engine(kv_cache_usage=0.61), in_flight=5)
    assert before == await rig.store.revision()
    await listened(rig, 120, engine(kv_cache_usage=0.2), in_flight=5)

    assert 1 == await desired(rig)


async def test_a_load_that_was_heard_long_ago_is_not_known_any_more() -> None:
    rig = await started()
    await ready(rig)
    await heard(rig, engine(queue_depth=5))
    (known,) = rig.reconciler.scaler.engines(await stored(rig)).values()
    assert known is not None and 5 == known.queue_depth
    rig.clock.advance(26)

    assert [None] == list(rig.reconciler.scaler.engines(await stored(rig)).values())


async def test_a_draining_replica_and_one_that_is_not_ready_do_not_count() -> None:
    rig = await started(minReplicas=2)
    assert {} == rig.reconciler.scaler.engines(await stored(rig))
    await ready(rig)
    assert 2 == len(rig.reconciler.scaler.engines(await stored(rig)))
    (first, second) = await rig.replicas()
    drained = dataclasses.replace(first, spec={**first.spec, "drain": DRAIN})
    await rig.store.commit([interface.Update(resource=drained, expected_version=first.resource_version)])
    await rig.reconciler.refresh()

    assert {second.name: None} == rig.reconciler.scaler.engines(await stored(rig))


async def stored(rig: Rig) -> resources.Resource:
    return await rig.store.get(resources.MODEL_DEPLOYMENT, "default", builders.DEPLOYMENT)
