"""Which endpoint takes a request."""

from hypothesis import given
from hypothesis import strategies as st

from llmop.gateway import routing
from llmop.gateway.routing import CLOSED, Breaker


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_the_least_loaded_endpoint_is_chosen(loads: list[int], random: float) -> None:
    assert min(loads) == loads[routing.least_outstanding(loads, random)]


def test_chance_reaches_every_one_of_equals() -> None:
    assert [0, 2, 3] == [routing.least_outstanding([1, 4, 1, 1], random) for random in (0.0, 0.5, 0.99)]


def test_three_connect_failures_in_a_row_eject() -> None:
    breaker = CLOSED
    for _ in range(2):
        breaker = routing.after_connect_failure(breaker, 100.0, 0.5)
        assert not routing.is_ejected(breaker, 100.0)
    breaker = routing.after_connect_failure(breaker, 100.0, 1.0)
    assert (True, False) == (routing.is_ejected(breaker, 104.9), routing.is_ejected(breaker, 105.1))


def test_a_failed_probe_doubles_the_pause_up_to_a_minute() -> None:
    breaker = Breaker(failures=3, ejections=1, ejected_until=100.0)
    pauses = []
    for _ in range(5):
        breaker = routing.after_connect_failure(routing.probe_started(breaker), 100.0, 1.0)
        pauses.append(breaker.ejected_until - 100.0)
    assert [10.0, 20.0, 40.0, 60.0, 60.0] == pauses


def test_after_the_pause_one_probe_goes_and_the_others_wait() -> None:
    breaker = Breaker(failures=3, ejections=1, ejected_until=100.0)
    assert [0, 1] == routing.eligible([breaker, CLOSED], 101.0)
    assert [1] == routing.eligible([routing.probe_started(breaker), CLOSED], 101.0)
    assert [0, 1] == routing.eligible(
        [routing.probe_abandoned(routing.probe_started(breaker)), CLOSED], 101.0
    )


@given(st.lists(st.floats(0, 200), max_size=9), st.floats(0, 200))
def test_never_more_than_half_are_left_out(ends: list[float], now: float) -> None:
    breakers = [Breaker(ejected_until=end) for end in ends]
    left_out = set(range(len(ends))) - set(routing.eligible(breakers, now))
    assert len(left_out) <= len(ends) // 2
    assert all(ends[index] > now for index in left_out)


def test_the_one_whose_pause_ends_first_comes_back_early() -> None:
    breakers = [Breaker(ejected_until=end) for end in (50.0, 30.0, 40.0)]
    assert [1, 2] == routing.eligible(breakers, 10.0)
