"""What is taken in, what is refused, and what wakes the reconciler."""

import asyncio
from typing import Any

import pytest
from tests.unit.channel.desk_rig import Rig, uid_of

from llmop.channel import desk
from llmop.domain.replica import AgentPhase, End, EndReason, EngineLoad, SubmissionState

CLAIMED = {"state": SubmissionState.SUBMITTED, "job_id": "5", "claimed_restart": 0}


async def refusal(rig: Rig, job_id: str = "5", **fields: Any) -> int:
    with pytest.raises(desk.Refused) as refused:
        await rig.say(job_id, **fields)
    return refused.value.status


async def test_a_heartbeat_of_the_holder_is_kept(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say(seq=3)
    assert rig.beat(seq=3) == rig.known()


@pytest.mark.parametrize(
    "ledger",
    [CLAIMED, {**CLAIMED, "state": SubmissionState.ENDED}, {"state": SubmissionState.REJECTED}],
    ids=["another job holds it", "it was another job's", "there is no job"],
)
async def test_a_job_that_does_not_hold_the_replica_is_superseded(rig: Rig, ledger: dict[str, Any]) -> None:
    await rig.add(**ledger)
    assert 409 == await refusal(rig, "6")
    assert rig.known() is None


async def test_an_engine_that_started_while_nobody_was_there_serves_on_until_its_job_is_found(
    rig: Rig,
) -> None:
    """The link alone was enough to start; the controller is back before it has seen the queue."""
    await rig.add()
    assert 503 == await refusal(rig)
    await rig.record(**CLAIMED)
    await rig.say()
    assert rig.beat() == rig.known()


async def test_a_deleted_replica_is_superseded_once_it_is_forgotten(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    await rig.bury()
    rig.desk.forget(uid_of(1))
    assert 409 == await refusal(rig)
    assert rig.known() is None


async def test_a_heartbeat_that_was_overtaken_is_old_news(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say(seq=5, phase="draining")
    await rig.say(seq=4, phase="ready")
    assert (5, AgentPhase.DRAINING) == (rig.known().seq, rig.known().phase)  # type: ignore[union-attr]


async def test_an_earlier_start_of_the_job_is_superseded(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say(restart_count=1)
    assert 409 == await refusal(rig, restart_count=0, seq=99)
    assert 1 == rig.known().restart_count  # type: ignore[union-attr]


async def test_a_requeued_job_counts_its_heartbeats_anew(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say(seq=500)
    await rig.say(seq=1, restart_count=1)
    assert (1, 1) == (rig.known().seq, rig.known().restart_count)  # type: ignore[union-attr]


@pytest.mark.parametrize("restart_count", [0, 3])
async def test_the_job_that_took_over_is_not_measured_by_the_one_before(rig: Rig, restart_count: int) -> None:
    """Job 5 started by its link and was heard; it ended without ever having claimed, and job 6 takes over."""
    await rig.add(state=SubmissionState.SUBMITTED, job_id="5")
    await rig.say("5", seq=500, restart_count=restart_count)
    rig.over.add("5")
    assert ("run", True) == await rig.claim("6", holder=("5", restart_count))
    await rig.say("6", seq=1)
    assert ("6", 1) == (rig.known().job_id, rig.known().seq)  # type: ignore[union-attr]
    assert 409 == await refusal(rig, "5", seq=501, restart_count=restart_count)


SEEN: list[dict[str, Any]] = [
    {"phase": "unhealthy"},
    {"host": "h2"},
    {"port": 8001},
    {"node": "n2"},
    {"engine_restarts": 1},
    {"detail": "the engine failed a probe"},
    {"restart_count": 1},
    {"phase": "ended", "end": End(reason=EndReason.DRAINED, at=1.0)},
]


@pytest.mark.parametrize("change", SEEN, ids=", ".join)
async def test_what_people_or_plans_see_wakes_the_reconciler(rig: Rig, change: dict[str, Any]) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    rig.heard.clear()
    await rig.say(seq=2, **change)
    assert ["chat-r1"] == rig.heard


@pytest.mark.parametrize(
    "change",
    [{}, {"connections": 7}, {"progress": 0.5}, {"load": EngineLoad(queue_depth=5, age_s=0.5)}],
    ids=lambda change: ", ".join(change) or "nothing",
)
async def test_everything_else_is_only_kept(rig: Rig, change: dict[str, Any]) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    rig.heard.clear()
    rig.clock.advance(desk.PERIOD_S)
    await rig.say(seq=2, **change)
    assert [] == rig.heard
    assert rig.beat(seq=2, **change) == rig.known()


async def test_a_replica_that_was_silent_wakes_the_reconciler(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    rig.heard.clear()
    rig.clock.advance(2 * desk.PERIOD_S + 1)
    await rig.say(seq=2)
    assert ["chat-r1"] == rig.heard


async def test_a_refused_heartbeat_wakes_nobody(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await refusal(rig, "6")
    assert [] == rig.heard


async def test_the_store_is_asked_once_for_a_replica_that_goes_on(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    asked: list[object] = []
    rig.store.ledgers = asked.append  # type: ignore[method-assign,assignment]
    await asyncio.gather(*(rig.say(seq=number) for number in range(2, 50)))
    assert [] == asked


async def test_the_period_grows_with_the_replicas(rig: Rig) -> None:
    assert 5.0 == rig.desk.period_s
    for number in range(1, 401):
        rig.desk.heartbeats[uid_of(number)] = rig.beat(number=number)
    assert 10.0 == rig.desk.period_s


async def test_what_was_heard_keeps_its_age_when_the_clock_is_set(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.say()
    rig.clock.advance(3)
    rig.clock.step_wall(-3600)
    rig.desk.clock_stepped(-3600)
    heard = rig.known()
    assert heard is not None
    assert 3 == rig.clock.now() - heard.received_at
