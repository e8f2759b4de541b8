"""What engines say of their own load: how old it may be, what it makes together, and what full caches hold back."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmop.domain import replica, runtime
from llmop.planner import engine_load
from llmop.testing import builders as make

NAMED = runtime.Metrics(path="/metrics", queue_depth="q", running="r", kv_cache_usage="u")
PERIOD_S = 5.0


def load(
    queue_depth: int | None = None,
    kv_cache_usage: float | None = None,
    running: int | None = None,
    age_s: float = 0.0,
) -> replica.EngineLoad:
    return replica.EngineLoad(
        queue_depth=queue_depth, running=running, kv_cache_usage=kv_cache_usage, age_s=age_s
    )


def beat(said: replica.EngineLoad | None, at: float = make.NOW) -> replica.Heartbeat:
    return dataclasses.replace(make.a_heartbeat(make.a_replica()), load=said, received_at=at)


def full(*caches: float | None, replicas: int = 2) -> list[engine_load.Engines | None]:
    return [engine_load.Engines(replicas=replicas, kv_caches=each) for each in caches]


def test_an_engine_load_becomes_older_with_its_heartbeat() -> None:
    said = beat(load(3, age_s=2.0))

    assert load(3, age_s=6.0) == engine_load.fresh(said, PERIOD_S, make.NOW + 4)
    assert load(3, age_s=25.0) == engine_load.fresh(said, PERIOD_S, make.NOW + 23)
    assert engine_load.fresh(said, PERIOD_S, make.NOW + 23.1) is None


def test_where_heartbeats_are_rare_a_load_counts_for_longer() -> None:
    assert engine_load.fresh(beat(load(3)), 25.0, make.NOW + 60) is not None
    assert engine_load.fresh(beat(load(3)), 25.0, make.NOW + 66) is None


def test_an_agent_that_says_nothing_of_it_leaves_it_unknown() -> None:
    assert engine_load.fresh(None, PERIOD_S, make.NOW) is None
    assert engine_load.fresh(beat(None), PERIOD_S, make.NOW) is None


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        pytest.param(
            [load(3, 0.5, 2), load(0, 0.25, 1)],
            engine_load.Engines(replicas=2, queued=3, running=3, silent=0, kv_caches=0.75),
            id="all known: sums",
        ),
        pytest.param(
            [load(3, 0.5, 2), None, load(None, 0.1, None)],
            engine_load.Engines(replicas=3, queued=3, running=2, silent=2, kv_caches=1.1),
            id="who says nothing is silent, and as full as the fullest",
        ),
        pytest.param([None, None], engine_load.Engines(replicas=2, silent=2), id="nothing is known"),
        pytest.param([], engine_load.Engines(replicas=0), id="nobody serves"),
    ],
)
def test_what_engines_say_together(
    loads: list[replica.EngineLoad | None], expected: engine_load.Engines
) -> None:
    assert expected == engine_load.together(NAMED, loads)


def test_an_engine_whose_runtime_names_no_queue_is_not_silent() -> None:
    named = runtime.Metrics(path="/metrics", kv_cache_usage="u")

    assert 0 == engine_load.together(named, [load(None, 0.5), None]).silent


@pytest.mark.parametrize(
    ("caches", "replicas"),
    [
        pytest.param(0.0, 0, id="empty"),
        pytest.param(0.9, 1, id="one is as full as may be"),
        pytest.param(0.91, 2, id="and no fuller"),
        pytest.param(1.8, 2, id="two of four"),
        pytest.param(3.0, 4, id="all: three would be full"),
        pytest.param(4.0, 4, id="no more than there are"),
    ],
)
def test_as_many_replicas_are_kept_as_hold_what_is_in_the_caches(caches: float, replicas: int) -> None:
    seen = full(caches, replicas=4)

    assert replicas == engine_load.hold(seen, seen, seen, 4).replicas


def test_the_fullest_moment_of_the_last_ones_counts() -> None:
    seen = full(3.9, 0.1, 1.9, 0.2, replicas=4)

    assert 3 == engine_load.hold(seen, seen[1:], seen[1:], 4).replicas


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([], id="nothing was ever looked at"),
        pytest.param([None, None], id="engines that are not asked"),
        pytest.param(full(None, None), id="engines that never said it"),
        pytest.param([*full(1.9), None], id="engines that are not asked any more"),
    ],
)
def test_who_never_says_it_forbids_nothing(seen: list[engine_load.Engines | None]) -> None:
    assert engine_load.Hold() == engine_load.hold(seen, seen, seen, 3)


@pytest.mark.parametrize("seen", [full(0.1, None), full(0.1, 0.1, None, None)], ids=["at once", "for long"])
def test_what_is_not_known_any_more_holds_what_there_is(seen: list[engine_load.Engines | None]) -> None:
    held = engine_load.hold(seen, seen[1:], seen[-1:], 3)

    assert (3, "KVCacheUnknown") == (held.replicas, held.reason)


def test_one_answer_that_is_missing_is_no_silence() -> None:
    seen = full(0.1, 0.1, None)

    assert 1 == engine_load.hold(seen, seen[1:], seen[1:], 3).replicas


def test_what_was_known_before_the_time_that_counts_is_not_known_now() -> None:
    assert "KVCacheUnknown" == engine_load.hold(full(0.1), [], [], 3).reason


@given(
    caches=some.lists(some.floats(0, 1), min_size=2, max_size=20),
    silent=some.integers(0, 5),
)
def test_with_what_is_kept_no_cache_would_be_too_full(caches: list[float], silent: int) -> None:
    """Whoever is silent may be as full as the fullest."""
    loads: list[replica.EngineLoad | None] = [load(0, each) for each in caches]
    together = engine_load.together(NAMED, [*loads, *[None] * silent])
    desired = len(caches) + silent
    kept = engine_load.hold([together], [together], [together], desired).replicas

    used = sum(caches) + silent * max(caches)
    assert kept == desired or used <= engine_load.FULL * kept + 1e-6
    assert kept <= desired
    assert kept == 0 or used > engine_load.FULL * (kept - 1) - 1e-6
