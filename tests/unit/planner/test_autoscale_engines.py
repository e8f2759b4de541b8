"""The engines' own word in how many replicas there are: their queues count, full caches hold, and silence is never 0."""

import dataclasses

import pytest
from tests.unit.planner.test_autoscale import HOUR, MINUTE, QUEUE, Play, spec

from llmop.domain import scaling
from llmop.planner import autoscale
from llmop.planner.engine_load import Engines

SOON = scaling.Direction(stabilization_s=60)
BY_QUEUE = (scaling.Metric(type=QUEUE, target=4),)


def by_queue(**changes: object) -> scaling.Scaling:
    return spec(metrics=BY_QUEUE, down=SOON, **changes)


def test_what_waits_in_engines_counts_with_what_waits_in_gateways() -> None:
    play = Play(by_queue())
    made = play.run(2 * MINUTE, queued=3, engines=Engines(replicas=1, queued=9))

    assert 3 == play.desired
    assert 12.0 == made.readings[0].stable
    assert 9 == autoscale.step(play.wanted, 1, made).inputs["engines"]["queued"]


def test_requests_in_flight_count_once() -> None:
    """Gateways know them wherever they are."""
    play = Play(spec())
    play.run(2 * MINUTE, 10, engines=Engines(replicas=1, queued=100, running=4))

    assert [1] == play.steps


def test_what_some_engines_say_is_enough_to_grow() -> None:
    play = Play(by_queue())
    play.run(2 * MINUTE, engines=Engines(replicas=2, queued=9, silent=1))

    assert 3 == play.desired


def test_an_engine_that_does_not_say_its_queue_is_not_taken_for_an_empty_one() -> None:
    play = Play(by_queue(), desired=3)
    made = play.run(HOUR, engines=Engines(replicas=3, queued=0, silent=1))
    assert [3] == play.steps
    assert ("LoadUnknown", False) == (made.reason, made.is_known)

    play.run(5 * MINUTE, engines=Engines(replicas=3, queued=0))
    assert 1 == play.desired


def test_a_moment_without_a_word_of_an_engine_changes_nothing() -> None:
    """As when a replica has become ready and was not looked at yet."""
    play = Play(by_queue(), desired=3)
    for _ in range(20):
        play.run(2, engines=Engines(replicas=3, queued=0, silent=1))
        play.run(10, engines=Engines(replicas=3, queued=0))

    assert all(each.is_known for each in play.decisions[30:])
    assert 1 == play.desired


def test_silent_engines_hold_no_replica_of_those_that_go_by_requests_in_flight() -> None:
    play = Play(spec(down=SOON), desired=3)
    play.run(5 * MINUTE, 10, engines=Engines(replicas=3, silent=3))

    assert 1 == play.desired


def test_engines_queues_that_fill_while_replicas_are_on_their_way_ask_for_no_more() -> None:
    """What a replica would take waits in the engines that are there: where engines take all that comes, gateways queue nothing."""
    play = Play(spec(metrics=BY_QUEUE, max_replicas=100), lead_s=HOUR)
    play.run(2 * MINUTE, engines=Engines(replicas=1, queued=8))
    asked = play.desired
    play.run(30 * MINUTE, engines=Engines(replicas=1, queued=300))

    assert asked == play.desired


@pytest.mark.parametrize("queues", [(20, 0), (0, 20)], ids=["in gateways", "in engines"])
def test_a_replica_on_its_way_is_not_given_up_because_what_waits_came_after_it_was_asked_for(
    queues: tuple[int, int],
) -> None:
    """As when one of two was lost in a quiet moment, and its successor waits in Slurm's queue while the load comes back."""
    play = Play(spec(metrics=BY_QUEUE, down=scaling.Direction(stabilization_s=300)), desired=2, lead_s=HOUR)
    play.asked[1] = play.now
    play.run(90, 5, engines=Engines(replicas=1, queued=0))
    play.run(30 * MINUTE, 30, queued=queues[0], engines=Engines(replicas=1, queued=queues[1]))

    assert [2, 5] == play.steps  # more is asked for, and nobody is given up


@pytest.mark.parametrize("place", ["gateways", "engines"])
def test_a_queue_that_comes_after_a_replica_was_lost_in_a_quiet_moment_asks_for_what_it_needs(
    place: str,
) -> None:
    """And for no more than that: what waits on from then on waits for replicas that are on their way."""
    play = Play(
        spec(metrics=BY_QUEUE, max_replicas=100, down=scaling.Direction(stabilization_s=HOUR)),
        desired=2,
        lead_s=HOUR,
    )
    play.asked[1] = play.now
    play.run(5 * MINUTE, 5, engines=Engines(replicas=1, queued=0))
    assert [2] == play.steps

    def wait(seconds: float, amount: int) -> None:
        queued, in_engines = (amount, 0) if place == "gateways" else (0, amount)
        play.run(seconds, 30, queued=queued, engines=Engines(replicas=1, queued=in_engines))

    wait(2 * MINUTE, 20)
    asked = play.desired
    assert asked > 2
    wait(30 * MINUTE, 300)
    assert asked == play.desired


def test_one_request_that_waits_for_a_moment_now_and_then_is_no_queue() -> None:
    play = Play(spec(metrics=BY_QUEUE, down=SOON), desired=3)
    for _ in range(20):
        play.run(48, 5, engines=Engines(replicas=3, queued=0))
        play.run(2, 5, engines=Engines(replicas=3, queued=1))

    assert [3, 2, 1] == play.steps


def test_a_replica_is_not_given_up_while_the_caches_of_the_rest_would_be_too_full() -> None:
    play = Play(spec(down=SOON), desired=3)
    made = play.run(HOUR, 5, engines=Engines(replicas=3, kv_caches=2.1))
    assert [3] == play.steps
    assert "KVCacheFull" == made.reason
    assert "with one replica fewer the KV caches would be more than 90% full" == made.message

    play.run(5 * MINUTE, 5, engines=Engines(replicas=3, kv_caches=1.2))
    assert [3, 2] == play.steps
    made = play.run(5 * MINUTE, 5, engines=Engines(replicas=2, kv_caches=0.3))
    assert [3, 2, 1] == play.steps


def test_full_caches_start_no_replica() -> None:
    play = Play(spec(down=SOON), desired=2)
    play.run(10 * MINUTE, 20, engines=Engines(replicas=2, kv_caches=2.0))

    assert [2] == play.steps


def test_a_cache_that_was_full_for_a_moment_counts_for_the_stabilization_window() -> None:
    play = Play(spec(down=dataclasses.replace(SOON, stabilization_s=600)), desired=3)
    for _ in range(6):
        play.run(9 * MINUTE, 5, engines=Engines(replicas=3, kv_caches=0.5))
        play.run(10, 5, engines=Engines(replicas=3, kv_caches=2.5))

    assert [3] == play.steps


def test_caches_that_fall_silent_hold_what_there_is_and_not_for_ever() -> None:
    play = Play(spec(down=dataclasses.replace(SOON, stabilization_s=300)), desired=3)
    play.run(2 * MINUTE, 5, engines=Engines(replicas=3, kv_caches=0.1))
    made = play.run(20 * MINUTE, 5, engines=Engines(replicas=3))
    assert ([3], "KVCacheUnknown") == (play.steps, made.reason)

    play.run(8 * MINUTE, 5, engines=Engines(replicas=3))
    assert 1 == play.desired


def test_the_last_replica_goes_by_its_own_rule_whatever_its_cache_says() -> None:
    play = Play(spec(min_replicas=0, down=SOON))
    play.run(11 * MINUTE, 0, engines=Engines(replicas=1, kv_caches=1.0))

    assert 0 == play.desired


@pytest.mark.parametrize("ready", [0, 3], ids=["all on their way", "some ready"])
def test_more_may_be_asked_for_whatever_caches_say(ready: int) -> None:
    play = Play(spec(), desired=3)
    play.run(2 * MINUTE, 60, engines=Engines(replicas=ready, kv_caches=None))

    assert 6 == play.desired
