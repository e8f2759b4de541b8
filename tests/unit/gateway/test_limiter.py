"""Limits at work: reserved, settled, and shared by the processes of a gateway."""

import os
from collections.abc import Iterator

import pytest

from llmop.domain.client import ClientKey, Limits
from llmop.gateway import cells
from llmop.gateway.limiter import Board, Exceeded, Limiter, Meter

TOKENS = 100  # that a request holds


def key(name: str = "default/a", *, shadow: bool = False, **limits: int) -> ClientKey:
    return ClientKey(name=name, digest="0" * 64, limits=Limits(**limits), shadow=shadow)


class Held:
    def __init__(self, meter: Meter, tokens: int) -> None:
        self._meter = meter
        self._tokens = tokens

    def settle(self, used: int) -> None:
        self._meter.settle(self._tokens, used)


def reserve(limiter: Limiter, of: ClientKey, now: float = 0.0, tokens: int = TOKENS) -> Held | Exceeded:
    meter = limiter.meter(of.name)
    assert meter is not None
    tokens = tokens if meter.most_tokens else 0
    return meter.reserve(tokens, now) or Held(meter, tokens)


def taken(limiter: Limiter, of: ClientKey, now: float = 0.0) -> Held:
    found = reserve(limiter, of, now)
    assert isinstance(found, Held)
    return found


def alone(*keys: ClientKey) -> Limiter:
    limiter = Limiter()
    limiter.grant(keys, 0.0)
    return limiter


def test_a_key_without_limits_is_not_counted() -> None:
    assert alone(key()).meter(key().name) is None


def test_tokens_are_reserved_and_settled() -> None:
    of = key(tokens_per_minute=250)
    limiter = alone(of)
    first, second = taken(limiter, of), taken(limiter, of)
    assert Exceeded("tokens", 50 * 60 / 250, shadow=False) == reserve(limiter, of)
    first.settle(20)
    taken(limiter, of)
    second.settle(300)
    refused = reserve(limiter, of)
    assert isinstance(refused, Exceeded)
    assert (100 + 170) * 60 / 250 == pytest.approx(refused.wait)


def test_what_generates_nothing_takes_no_tokens() -> None:
    of = key(tokens_per_minute=1)
    limiter = alone(of)
    taken(limiter, of).settle(1000)
    assert isinstance(reserve(limiter, of), Exceeded)
    assert isinstance(reserve(limiter, of, tokens=0), Held)


def test_a_request_that_is_over_makes_room_for_another() -> None:
    of = key(parallel_requests=2)
    limiter = alone(of)
    first = taken(limiter, of)
    taken(limiter, of)
    assert Exceeded("parallel", 1.0, shadow=False) == reserve(limiter, of)
    first.settle(0)
    taken(limiter, of)


def test_a_refused_request_takes_nothing_of_the_other_limits() -> None:
    of = key(requests_per_minute=2, parallel_requests=1)
    limiter = alone(of)
    first = taken(limiter, of)
    for _ in range(5):
        assert Exceeded("parallel", 1.0, shadow=False) == reserve(limiter, of)
    first.settle(0)
    taken(limiter, of)


def test_a_new_table_fills_no_bucket_unless_the_limit_is_another() -> None:
    of = key(requests_per_minute=1)
    limiter = alone(of)
    taken(limiter, of)
    limiter.grant((key(requests_per_minute=1, parallel_requests=5),), 0.0)
    assert isinstance(reserve(limiter, key(requests_per_minute=1)), Exceeded)
    limiter.grant((key(requests_per_minute=2),), 0.0)
    taken(limiter, key(requests_per_minute=2))


def test_a_reservation_outlives_its_key() -> None:
    of = key(parallel_requests=1)
    limiter = alone(of)
    held = taken(limiter, of)
    limiter.grant((), 0.0)
    held.settle(0)


@pytest.fixture
def board() -> Iterator[Board]:
    descriptor = cells.make(3)
    memory = cells.Cells(descriptor, 3)
    os.close(descriptor)
    yield Board(memory)
    memory.close()


def pair(board: Board, of: ClientKey) -> tuple[Limiter, Limiter]:
    both = Limiter(board, 0), Limiter(board, 1)
    for each in both:
        each.slots = {of.name: 7}
        each.grant((of,), 0.0)
    return both


def test_two_processes_share_every_limit(board: Board) -> None:
    of = key(requests_per_minute=3, parallel_requests=3, tokens_per_minute=10_000)
    one, other = pair(board, of)
    held = [taken(one, of), taken(other, of), taken(one, of)]
    assert isinstance(reserve(one, of), Exceeded)
    assert isinstance(reserve(other, of), Exceeded)
    for each in held:
        each.settle(0)
    assert Exceeded("requests", 20.0, shadow=False) == reserve(other, of)
    taken(other, of, 20.0)
    assert isinstance(reserve(one, of, 20.0), Exceeded)


def test_a_process_that_had_nothing_to_do_for_an_hour_knows_what_another_has_just_spent(board: Board) -> None:
    of = key(requests_per_minute=60)
    one, other = pair(board, of)
    for second in range(3600):
        other.keep_up(float(second))
    for _ in range(60):
        taken(one, of, 3599.5).settle(0)
    assert isinstance(reserve(other, of, 3599.5), Exceeded)


def test_the_requests_of_a_dead_process_are_gone_and_what_it_spent_stays_spent(board: Board) -> None:
    of = key(requests_per_minute=2, parallel_requests=1)
    one, other = pair(board, of)
    taken(one, of)
    assert Exceeded("parallel", 1.0, shadow=False) == reserve(other, of)
    board.clear(0)
    taken(other, of).settle(0)
    reborn = Limiter(board, 0)
    reborn.slots = {of.name: 7}
    reborn.grant((of,), 0.0)
    assert Exceeded("requests", 30.0, shadow=False) == reserve(other, of)


def test_in_shadow_a_request_beyond_a_limit_is_told_apart_and_uses_nothing() -> None:
    of = key(requests_per_minute=1, shadow=True)
    limiter = alone(of)
    taken(limiter, of)
    for _ in range(5):
        assert Exceeded("requests", 60.0, shadow=True) == reserve(limiter, of)
    taken(limiter, of, 60.0)


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.019, 0.021, 0.5, 3.0])
def test_a_bucket_that_is_full_gets_next_to_nothing_on_top(pause: float) -> None:
    of = key(requests_per_minute=6000)
    limiter = alone(of)
    taken(limiter, of)  # looks at a full bucket
    admitted = 0
    while isinstance(reserve(limiter, of, pause), Held):
        admitted += 1
    assert 5999 <= admitted <= 6000 + 6000 / 60 * 0.02
