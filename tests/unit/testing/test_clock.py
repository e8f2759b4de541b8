"""The fake clock: one that people set, and one that nobody can."""

import math

import pytest

from llmop.testing.clock import FakeClock


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_step_moves_the_wall_time_only(step_s: float) -> None:
    clock = FakeClock(start=10_000.0)
    clock.advance(5)
    clock.step_wall(step_s)
    assert (10_005.0 + step_s, 5.0) == (clock.now(), clock.monotonic())
    clock.advance(1)
    assert (10_006.0 + step_s, 6.0) == (clock.now(), clock.monotonic())


def test_who_waits_until_the_wall_time_of_a_moment_has_reached_it() -> None:
    """Wall times are coarser: rounded down, they would never come."""
    clock = FakeClock()
    for moment in (0.1, 1 / 3, math.pi, 1234.5678):
        clock.move_to(clock.wall(moment))
        assert clock.monotonic() >= moment
