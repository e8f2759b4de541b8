"""Orders: at once, until acknowledged, never later than before."""

import asyncio
from typing import Any

import pytest
from tests.unit.channel.desk_rig import Rig, uid_of
from tests.waiting import PATIENCE_S

from llmop.domain.replica import SubmissionState

UID = uid_of(1)
LONG_S = 30.0  # never waited out: a test that does runs into its own timeout
CLAIMED = {"state": SubmissionState.SUBMITTED, "job_id": "5", "claimed_restart": 0}


@pytest.fixture(autouse=True)
async def _claimed(rig: Rig) -> None:
    await rig.add(**CLAIMED)


def held(rig: Rig) -> "asyncio.Task[list[dict[str, Any]]]":
    return asyncio.create_task(rig.desk.orders(UID, LONG_S))


async def until_held() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def at_once(task: "asyncio.Task[list[dict[str, Any]]]") -> list[dict[str, Any]]:
    return await asyncio.wait_for(task, PATIENCE_S)


def drain(rig: Rig, seconds: float = 120.0, order_id: str = "a") -> None:
    rig.desk.drain(UID, order_id, "ScaledDown", rig.clock.now() + seconds)


ORDER = {"id": "a", "type": "drain", "reason": "ScaledDown", "deadline": 120.0}


async def test_nothing_to_do_is_said_when_the_time_is_over(rig: Rig) -> None:
    assert [] == await rig.desk.orders(UID, 0.01)


async def test_a_heartbeat_that_does_not_wait_is_answered_at_once(rig: Rig) -> None:
    assert [] == await at_once(asyncio.create_task(rig.desk.orders(UID, 0)))


async def test_an_order_ends_the_wait_of_every_held_reply(rig: Rig) -> None:
    waiting = [held(rig), held(rig)]
    await until_held()
    assert [False, False] == [each.done() for each in waiting]
    drain(rig)
    assert [[ORDER], [ORDER]] == [await at_once(each) for each in waiting]


async def test_an_order_is_repeated_until_a_draining_heartbeat_acknowledges_it(rig: Rig) -> None:
    drain(rig)
    await rig.say(seq=1, phase="ready")
    assert [ORDER] == await at_once(held(rig))
    assert [ORDER] == await at_once(held(rig))
    await rig.say(seq=2, phase="draining")
    waiting = held(rig)
    await until_held()
    assert not waiting.done()  # no busy loop while it drains
    rig.desk.close()
    assert [ORDER] == await at_once(waiting)


async def test_an_overtaken_heartbeat_acknowledges_nothing(rig: Rig) -> None:
    await rig.say(seq=9, phase="ready")
    drain(rig)
    await rig.say(seq=8, phase="draining")
    assert [ORDER] == await at_once(held(rig))


async def test_the_deadline_is_told_in_seconds_from_now_and_never_negative(rig: Rig) -> None:
    drain(rig)
    rig.clock.advance(50)
    assert [{**ORDER, "deadline": 70.0}] == await rig.desk.orders(UID, 0)
    rig.clock.advance(500)
    assert [{**ORDER, "deadline": 0.0}] == await rig.desk.orders(UID, 0)


async def test_the_same_order_again_ends_no_wait(rig: Rig) -> None:
    drain(rig)
    await rig.say(phase="draining")
    waiting = held(rig)
    await until_held()
    drain(rig)
    await until_held()
    assert not waiting.done()
    rig.desk.close()
    await waiting


async def test_a_shorter_deadline_is_pushed_to_an_agent_that_drains_already(rig: Rig) -> None:
    drain(rig)
    await rig.say(phase="draining")
    waiting = held(rig)
    await until_held()
    drain(rig, 10.0)
    assert [{**ORDER, "deadline": 10.0}] == await at_once(waiting)


async def test_a_later_deadline_changes_nothing(rig: Rig) -> None:
    drain(rig)
    await rig.say(phase="draining")
    waiting = held(rig)
    await until_held()
    drain(rig, 600.0, order_id="b")
    await until_held()
    assert not waiting.done()
    rig.desk.close()
    assert [ORDER] == await waiting


async def test_a_controller_that_ends_answers_what_it_holds_and_holds_nothing_more(rig: Rig) -> None:
    waiting = held(rig)
    await until_held()
    rig.desk.close()
    assert [] == await at_once(waiting)
    assert [] == await at_once(held(rig))


async def test_a_replica_that_is_forgotten_leaves_nothing_behind(rig: Rig) -> None:
    await rig.say(phase="draining")
    drain(rig)
    rig.desk.forget(UID)
    assert {} == rig.desk.heartbeats
    assert [] == await rig.desk.orders(UID, 0)
    rig.desk.forget(UID)


async def test_an_order_for_one_replica_does_not_reach_another(rig: Rig) -> None:
    await rig.add(2, **{**CLAIMED, "job_id": "6"})
    other = asyncio.create_task(rig.desk.orders(uid_of(2), LONG_S))
    await until_held()
    drain(rig)
    await until_held()
    assert not other.done()
    rig.desk.close()
    assert [] == await other


async def test_a_reply_held_for_a_replica_that_goes_is_sent_at_once(rig: Rig) -> None:
    """Nothing else would wake it: it would outlive the listener and be cut with an error."""
    waiting = held(rig)
    await until_held()
    rig.desk.forget(UID)
    assert [] == await at_once(waiting)
