"""Whose turn it is, who has to go, and how many may wait."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmop.domain.endpoint import QueueBounds
from llmop.gateway.queue import Priority, Queue, Ticket, cost, deadline_of

BOUNDS = QueueBounds(max_requests=1000, max_bytes=1_000_000, request_ttl_s=60, no_endpoint_request_ttl_s=600)


def ticket(
    number: int,
    owner: str = "a",
    at: float = 0.0,
    *,
    priority: Priority = Priority.DEFAULT,
    size: int = 100,
    patience: float = math.inf,
) -> Ticket:
    return Ticket(number, owner=owner, priority=priority, size=size, arrived_at=at, patience=patience)


def filled(*tickets: Ticket) -> Queue:
    queue = Queue()
    for each in tickets:
        queue.push(each, BOUNDS)
    return queue


def order(queue: Queue) -> list[object]:
    numbers: list[object] = []
    while (each := queue.pop()) is not None:
        numbers.append(each.number)
    return numbers


def test_requests_of_one_key_go_in_the_order_they_came() -> None:
    assert order(filled(*(ticket(number, at=number) for number in range(5)))) == [0, 1, 2, 3, 4]


def test_who_has_less_time_goes_first_among_the_requests_of_one_key() -> None:
    assert order(filled(ticket(1, at=0), ticket(2, at=1, patience=5), ticket(3, at=2))) == [2, 1, 3]


def test_no_patience_longer_than_the_time_to_live_lets_others_pass() -> None:
    assert order(filled(ticket(1, at=0, patience=500), ticket(2, at=1))) == [1, 2]


def test_a_higher_priority_goes_first_whenever_it_came() -> None:
    bulk = [ticket(number, at=0, priority=Priority.BULK) for number in range(3)]
    late = ticket(10, "b", at=50)
    assert order(filled(*bulk, late)) == [10, 0, 1, 2]


def test_keys_take_turns() -> None:
    flood = [ticket(number, "flood") for number in range(100)]
    queue = filled(*flood, ticket(100, "small", at=5), ticket(101, "small", at=6))
    assert order(queue)[:5] == [0, 100, 1, 101, 2]


def test_long_prompts_take_more_of_a_turn() -> None:
    big = [ticket(number, "big", size=3 * 4096) for number in range(4)]
    small = [ticket(10 + number, "small", size=0) for number in range(9)]
    assert order(filled(*big, *small))[:10] == [0, 10, 11, 12, 13, 1, 14, 15, 16, 17]


def test_a_key_that_was_away_has_saved_nothing_up() -> None:
    queue = filled(*(ticket(number, "steady") for number in range(10)))
    assert [queue.pop() and 1 for _ in range(5)] == [1] * 5
    for number in range(20, 24):
        queue.push(ticket(number, "new"), BOUNDS)
    assert order(queue)[:4] == [20, 5, 21, 6]


def test_bounds_hold_for_requests_and_bytes_of_each_priority() -> None:
    bounds = QueueBounds(max_requests=2, max_bytes=250, request_ttl_s=1, no_endpoint_request_ttl_s=1)
    queue = Queue()
    queue.push(ticket(1), bounds)
    assert not queue.takes(ticket(2, size=151), bounds)
    assert queue.takes(ticket(2, size=150), bounds)
    queue.push(ticket(2), bounds)
    assert not queue.takes(ticket(3, size=0), bounds)
    assert queue.takes(ticket(3, priority=Priority.BULK), bounds)
    queue.remove(1)
    assert queue.takes(ticket(3), bounds)
    assert not Queue().takes(ticket(1), QueueBounds())


def test_time_is_over_later_where_there_is_no_endpoint() -> None:
    queue = filled(ticket(1, at=0), ticket(2, at=10, patience=20), ticket(3, at=40))
    assert [each.number for each in queue.expire(BOUNDS, None, 30)] == [2]
    assert queue.expire(BOUNDS, None, 599) == []
    assert [each.number for each in queue.expire(BOUNDS, None, 600)] == [1]
    assert len(queue) == 1


def test_who_has_waited_for_the_first_endpoint_has_the_whole_time_again() -> None:
    queue = filled(ticket(1, at=0), ticket(2, at=510))
    assert queue.expire(BOUNDS, None, 500) == []
    queue.look_again()
    assert queue.expire(BOUNDS, 500, 559) == []
    assert [each.number for each in queue.expire(BOUNDS, 500, 560)] == [1]
    assert [each.number for each in queue.expire(BOUNDS, 500, 570)] == [2]


def test_the_endpoints_may_go_again() -> None:
    queue = filled(ticket(1, at=0))
    assert queue.expire(BOUNDS, 0, 59) == []
    queue.look_again()
    assert queue.expire(BOUNDS, None, 61) == []
    assert deadline_of(ticket(1), BOUNDS, None) == 600


class Waiting(RuleBasedStateMachine):
    """Against a list: nobody is lost, given twice or passed over, and the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.model: dict[int, Ticket] = {}
        self.number = 0
        self.bounds = QueueBounds(
            max_requests=12, max_bytes=40_000, request_ttl_s=10, no_endpoint_request_ttl_s=30
        )
        self.now = 0.0

    @rule(
        owner=st.sampled_from("abc"),
        priority=st.sampled_from([Priority.DEFAULT, Priority.BULK]),
        size=st.integers(0, 9000),
        patience=st.sampled_from([1.0, 7.0, math.inf]),
    )
    def arrive(self, owner: str, priority: Priority, size: int, patience: float) -> None:
        self.number += 1
        one = ticket(self.number, owner, self.now, priority=priority, size=size, patience=patience)
        band = [each for each in self.model.values() if each.priority == priority]
        fits = len(band) < 12 and sum(each.size for each in band) + size <= 40_000
        assert self.queue.takes(one, self.bounds) == fits
        if fits:
            self.queue.push(one, self.bounds)
            self.model[self.number] = one

    @rule()
    def give(self) -> None:
        given = self.queue.pop()
        if given is None:
            assert not self.model
            return
        assert self.model.pop(given.number) is given  # type: ignore[call-overload]
        for other in self.model.values():
            assert other.priority >= given.priority
            if (other.priority, other.owner) == (given.priority, given.owner):
                assert other.rank >= given.rank

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model)))
        assert self.queue.remove(number) is self.model.pop(number)
        assert self.queue.remove(number) is None

    @rule(seconds=st.floats(0, 12), endpoints=st.sampled_from([None, 0.0]))
    def wait(self, seconds: float, endpoints: float | None) -> None:
        self.now += seconds
        self.queue.look_again()
        over = {each.number for each in self.queue.expire(self.bounds, endpoints, self.now)}
        expected = {
            number
            for number, each in self.model.items()
            if deadline_of(each, self.bounds, endpoints) <= self.now
        }
        assert over == expected
        for number in expected:
            del self.model[number]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.bytes == sum(each.size for each in self.model.values())
        assert {each.number for each in self.queue} == set(self.model)


TestWaiting = Waiting.TestCase


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20_000)), min_size=8, max_size=60),
)
def test_between_keys_that_always_wait_shares_differ_by_one_request_each(
    requests: list[tuple[str, int]],
) -> None:
    queue = filled(*(ticket(number, owner, size=size) for number, (owner, size) in enumerate(requests)))
    left = {owner: sum(1 for each, _ in requests if each == owner) for owner, _ in requests}
    served = dict.fromkeys(left, 0.0)
    largest = max(cost(ticket(0, size=size)) for _, size in requests)
    while all(left.values()):
        given_one = queue.pop()
        assert given_one is not None
        served[given_one.owner] += cost(given_one)
        left[given_one.owner] -= 1
        assert max(served.values()) - min(served.values()) <= largest + 1e-6


def test_who_comes_and_goes_leaves_nothing_behind() -> None:
    queue = filled(ticket(0, "patient"))
    for number in range(1, 5000):
        queue.push(ticket(number, f"key-{number % 3}"), BOUNDS)
        queue.remove(number)
    band = queue._bands[Priority.DEFAULT]
    assert len(band._turns) < 10
    assert sum(len(owner.heap) for owner in band._owners.values()) < 500
    assert order(queue) == [0]
