"""The replay behind the bench of the autoscaler: its arithmetic, its peers, and the excerpt of the trace."""

from __future__ import annotations

import random

import pytest
from hack.bench.replay import policies, traces, world
from hack.bench.replay.traces import Request

LATER = 2.0 * world.WARM_S
HOURS = (traces.DAY_S - world.WARM_S) / 3600
LONG = 100  # generated tokens: six seconds, three ticks


def moment(now: float, amount: int, *, ready: int = 1, desired: int = 1) -> world.Moment:
    return world.Moment(
        now=now, in_flight=amount, queued=0, ready=ready, coming=0, desired=desired, lead_s=None
    )


def asked(policy: world.Policy, amount: int, seconds: int, *, desired: int = 1) -> list[int]:
    """What a policy asks for, tick by tick, when everything is ready at once."""
    found = []
    for tick in range(seconds // world.TICK_S):
        desired = policy(moment(tick * world.TICK_S, amount, ready=desired, desired=desired))
        found.append(desired)
    return found


def test_the_excerpt_is_ten_minutes_of_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOP_TRACES", raising=False)
    trace = traces.load()
    assert (2867, 600) == (len(trace.requests), trace.length_s)
    day = traces.day(trace, random.Random(1))
    assert day == traces.day(trace, random.Random(1)) != traces.day(trace, random.Random(2))
    assert 0 <= day[0].at <= day[-1].at < traces.DAY_S


def test_the_clairvoyant_fills_every_slot_and_keeps_one() -> None:
    crowd = [Request(at=LATER, prompt=0, generated=LONG) for _ in range(world.SLOTS + 1)]
    day = world.work(crowd)
    assert 3 == day.holds[0]
    assert HOURS + 3 * world.TICK_S / 3600 == pytest.approx(world.clairvoyant(day))


def test_who_waits_longer_than_the_slo_is_not_served_in_time() -> None:
    crowd = [Request(at=LATER, prompt=0, generated=10 * LONG) for _ in range(2 * world.SLOTS)]
    played = world.play(world.work(crowd), lambda seen: 1, lambda now: 0.0)
    assert (HOURS, 0.5) == (played.replica_hours, played.within)


def test_replicas_that_wait_cost_nothing_and_go_first() -> None:
    day = world.work([Request(at=LATER, prompt=0, generated=1)])
    wanted = iter([2] * 50 + [1] * traces.DAY_S)
    played = world.play(day, lambda seen: next(wanted), lambda now: 3600.0)
    assert (HOURS, 2) == (played.replica_hours, played.changes)


def test_jobs_of_the_same_moment_wait_as_long_whoever_submits_them() -> None:
    one, other = (world.waits(lambda source: source.expovariate(1 / 60), draw) for draw in ("1", "2"))
    again = world.waits(lambda source: source.expovariate(1 / 60), "1")
    moments = [-1, 0, 300, 40_000, traces.DAY_S - 1]
    assert [one(now) for now in moments] == [again(now) for now in moments]
    assert one(0) == one(299) != one(300)
    assert one(0) != other(0)


def test_ours_and_knative_answer_a_step_within_seconds() -> None:
    for make in (policies.Ours, policies.Knative):
        assert 5 == asked(make(16), 80, 10)[-1]


def test_the_horizontal_pod_autoscaler_goes_by_fours_and_holds_for_five_minutes() -> None:
    assert [5, 8] == sorted(set(asked(policies.Hpa(16), 128, 60)) - {1})
    policy = policies.Hpa(16)
    asked(policy, 128, 60)
    found = [policy(moment(60 + 2 * tick, 16, ready=8, desired=8)) for tick in range(200)]
    assert 8 == min(found[:140]) and 1 == min(found)


def test_the_mean_of_ten_minutes_asks_for_the_fifth_replica_after_eight() -> None:
    """500 in flight at a target of 100, as was seen of the product that does so."""
    found = asked(policies.KubeAI(100), 500, 700)
    assert 470 <= found.index(5) * world.TICK_S <= 500
