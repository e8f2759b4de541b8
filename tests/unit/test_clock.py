"""What decisions rely on of a clock."""

from llmop.clock import Clock, SystemClock
from llmop.domain import replica, times
from llmop.reconciler import codec
from llmop.testing.clock import FakeClock


def test_times_come_back_from_the_store_as_they_were() -> None:
    """A first and a second look at a job are told apart by their times."""
    fake = FakeClock()
    clocks: tuple[Clock, ...] = (SystemClock(), fake)
    for clock in clocks:
        for _ in range(1000):
            fake.advance(0.1234567891)
            now = clock.now()
            stored = codec.drain_json(_drain(now))["deadline"]
            assert now == times.from_rfc3339(stored)


def _drain(at: float) -> replica.Drain:
    return replica.Drain(reason=replica.DrainReason.DELETED, requested_at=at, deadline_at=at)
