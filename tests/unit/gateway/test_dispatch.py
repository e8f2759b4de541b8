"""Room at the endpoints, and who gets it."""

from __future__ import annotations

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmop.domain.endpoint import QueueBounds
from llmop.gateway.dispatch import FIRST_WINDOW, Dispatcher, Dropped, Place
from llmop.gateway.queue import Priority, Ticket

BOUNDS = QueueBounds(max_requests=20, max_bytes=10_000, request_ttl_s=60, no_endpoint_request_ttl_s=600)
NAME = "default/d"


class Rig:
    """A gateway whose endpoints are numbers. A released request stays at its endpoint until `end`."""

    def __init__(self, bounds: QueueBounds = BOUNDS, most: int = 2) -> None:
        self.bounds, self.most = bounds, most
        self.now = 1000.0
        self.loads: dict[str, int] = {}
        self.released: list[tuple[object, str]] = []
        self.refused: list[tuple[object, Dropped]] = []
        self.retry_after = 0
        self.waiting = 0
        self.wakes = 0
        self.dispatcher = Dispatcher(
            release=self._release, refuse=self._refuse, publish=self._publish, wake=self._wake
        )
        self.serve()

    def _release(self, ticket: Ticket, uid: str) -> None:
        self.released.append((ticket.number, uid))
        self.loads[uid] += 1
        self.dispatcher.begun(ticket.number)

    def _refuse(self, ticket: Ticket, why: Dropped, retry_after: int) -> None:
        self.refused.append((ticket.number, why))
        self.retry_after = retry_after

    def _publish(self, name: str, number: int) -> None:
        assert name == NAME
        self.waiting = number

    def _wake(self) -> None:
        self.wakes += 1

    def serve(self, *uids: str) -> None:
        self.loads = {uid: self.loads.get(uid, 0) for uid in uids}
        loads = {uid: lambda uid=uid: self.loads.get(uid, 0) for uid in uids}
        self.dispatcher.apply(
            {NAME: Place(bounds=self.bounds, max_in_flight=self.most, loads=loads)}, self.now
        )

    def enter(
        self, *numbers: int, owner: str = "a", size: int = 10, patience: float = math.inf, again: bool = False
    ) -> None:
        for number in numbers:
            ticket = Ticket(
                number,
                owner=owner,
                priority=Priority.DEFAULT,
                size=size,
                arrived_at=self.now,
                patience=patience,
            )
            self.dispatcher.enter(NAME, ticket, self.now, again=again)

    def end(self, uid: str, times: int = 1) -> None:
        for _ in range(times):
            self.loads[uid] -= 1
            self.dispatcher.freed(NAME, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.dispatcher.tick(self.now)


def test_who_finds_room_does_not_wait() -> None:
    rig = Rig()
    rig.serve("u1", "u2")
    rig.enter(1, 2, 3, 4)
    assert rig.loads == {"u1": 2, "u2": 2}
    assert (rig.waiting, rig.wakes, rig.refused) == (0, 0, [])


def test_the_next_one_waits_until_a_place_is_free() -> None:
    rig = Rig()
    rig.serve("u1")
    rig.enter(1, 2, 3, 4)
    assert rig.waiting == 2
    rig.end("u1")
    assert rig.released[-1] == (3, "u1")
    assert rig.waiting == 1


def test_the_first_who_waits_for_nobody_wakes_the_controller() -> None:
    rig = Rig()
    rig.enter(1, 2, 3)
    assert (rig.waiting, rig.wakes) == (3, 1)
    assert rig.dispatcher.queued() == {NAME: 3}


def test_who_is_not_held_wakes_it_too() -> None:
    rig = Rig(QueueBounds())
    rig.enter(1, 2)
    assert rig.refused == [(1, Dropped.NO_ENDPOINT), (2, Dropped.NO_ENDPOINT)]
    assert rig.wakes == 2
    assert rig.dispatcher.unserved() == {NAME: 2}
    rig.enter(3)
    rig.dispatcher.reported({NAME: 2})
    assert rig.dispatcher.unserved() == {NAME: 1}


def test_without_a_queue_who_finds_all_full_is_sent_away() -> None:
    rig = Rig(QueueBounds(), most=1)
    rig.serve("u1")
    rig.enter(1, 2)
    assert rig.refused == [(2, Dropped.SATURATED)]
    assert rig.wakes == 0


def test_a_full_queue_says_how_long_it_will_take() -> None:
    rig = Rig()
    rig.serve("u1")
    for number in range(10):
        rig.enter(number)
        rig.now += 2
        rig.end("u1")
    rig.enter(*range(20, 60))
    assert {why for _, why in rig.refused} == {Dropped.QUEUE_FULL}
    assert len(rig.refused) == 40 - 2 - 20
    assert 10 <= rig.retry_after <= 40


def test_nobody_fills_a_queue_for_all_others() -> None:
    rig = Rig()
    rig.serve("u1")
    rig.enter(*range(2 + 20), owner="flood")
    rig.enter(100, 101, owner="small")
    assert rig.refused == [(21, Dropped.QUEUE_FULL), (20, Dropped.QUEUE_FULL)]
    rig.enter(30, owner="flood")
    assert rig.refused[2:] == [(30, Dropped.QUEUE_FULL)]
    assert rig.waiting == 20


def test_places_of_a_full_queue_do_not_go_to_and_fro() -> None:
    rig = Rig()
    rig.serve("u1")
    rig.enter(*range(2), owner="a")
    rig.enter(*range(10, 20), owner="a")
    rig.enter(*range(20, 30), owner="b")
    rig.enter(40, owner="a")
    rig.enter(41, owner="b")
    assert rig.refused == [(40, Dropped.QUEUE_FULL), (41, Dropped.QUEUE_FULL)]
    rig.enter(42, owner="b", size=9_990)
    rig.enter(43, owner="c", size=9_990)
    assert [number for number, _ in rig.refused[2:]] == [
        42,
        43,
    ]  # one for one would not make room for so many bytes


def test_bytes_are_bounded_too() -> None:
    rig = Rig()
    rig.enter(1, size=9_000)
    rig.enter(2, size=2_000)
    rig.enter(3, size=1_000)
    assert rig.refused == [(2, Dropped.QUEUE_FULL)]


def test_time_is_over_with_and_without_endpoints() -> None:
    rig = Rig(most=1)
    rig.enter(1, patience=30)
    rig.enter(2)
    rig.wait(31)
    assert rig.refused == [(1, Dropped.TTL_EXPIRED)]
    rig.wait(500)
    rig.loads = {"u1": 1}
    rig.serve("u1")
    rig.wait(59)
    assert rig.waiting == 1
    rig.wait(2)
    assert rig.refused[-1] == (2, Dropped.TTL_EXPIRED)


def test_a_new_endpoint_gets_those_that_wait_little_by_little() -> None:
    rig = Rig(
        most=0,
        bounds=QueueBounds(
            max_requests=500, max_bytes=10_000, request_ttl_s=60, no_endpoint_request_ttl_s=60
        ),
    )
    rig.enter(*range(100))
    rig.serve("u1")
    assert len(rig.released) == FIRST_WINDOW
    rig.wait(1)
    assert len(rig.released) == 2 * FIRST_WINDOW
    rig.wait(1)
    rig.wait(1)
    rig.wait(1)
    assert len(rig.released) == 100


def test_an_endpoint_that_came_while_nobody_waited_is_not_spared() -> None:
    rig = Rig(most=0)
    rig.serve("u1")
    rig.enter(*range(100))
    assert len(rig.released) == 100


def test_one_that_cannot_be_reached_gets_one_request_a_second_until_it_is() -> None:
    rig = Rig(most=4)
    rig.serve("u1")
    rig.enter(*range(10))
    for number in range(4):
        rig.dispatcher.failed(NAME, "u1", rig.now)
        rig.loads["u1"] -= 1
        rig.enter(number, again=True)
    assert (len(rig.released), rig.waiting) == (4, 10)
    rig.wait(0.5)
    assert len(rig.released) == 4
    rig.wait(0.6)
    rig.wait(5)
    assert len(rig.released) == 5
    rig.dispatcher.reached(NAME, "u1", rig.now)
    assert len(rig.released) == 8


def test_what_waits_goes_to_the_replica_that_can_be_reached() -> None:
    rig = Rig(most=2)
    rig.serve("u1", "u2")
    rig.dispatcher.failed(NAME, "u1", rig.now)
    rig.enter(*range(6))
    assert rig.loads == {"u1": 0, "u2": 2}
    rig.wait(1.1)
    assert rig.loads == {"u1": 1, "u2": 2}


def test_who_was_released_in_vain_waits_beyond_the_bounds() -> None:
    rig = Rig(most=1)
    rig.serve("u1")
    rig.enter(*range(21))
    assert rig.waiting == 20
    rig.dispatcher.failed(NAME, "u1", rig.now)
    rig.loads["u1"] -= 1
    rig.enter(0, again=True)
    assert (rig.waiting, rig.refused) == (21, [])


def test_who_leaves_makes_room() -> None:
    rig = Rig()
    rig.enter(*range(20))
    rig.dispatcher.leave(7, rig.now)
    rig.enter(30)
    assert (rig.waiting, rig.refused) == (20, [])


def test_who_leaves_between_release_and_start_gives_the_place_back() -> None:
    rig = Rig(most=1)
    given: list[object] = []
    rig.dispatcher = Dispatcher(
        release=lambda ticket, _: given.append(ticket.number),
        refuse=rig._refuse,
        publish=rig._publish,
        wake=rig._wake,
    )
    rig.serve("u1")
    rig.enter(1, 2)
    assert given == [1]
    rig.dispatcher.leave(1, rig.now)
    assert given == [1, 2]
    assert rig.dispatcher.is_empty


def test_a_deployment_that_is_gone_keeps_nobody() -> None:
    rig = Rig()
    rig.enter(1, 2)
    rig.dispatcher.apply({}, rig.now)
    assert rig.refused == [(1, Dropped.NO_ENDPOINT), (2, Dropped.NO_ENDPOINT)]
    assert rig.dispatcher.is_empty
    rig.enter(3)
    assert rig.refused[-1] == (3, Dropped.NO_ENDPOINT)


class Dispatching(RuleBasedStateMachine):
    """Nobody is lost, no endpoint gets more than it takes, and nobody waits where there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.number = 0
        self.left: set[int] = set()

    @rule(owner=st.sampled_from("ab"), size=st.integers(0, 2000), patience=st.sampled_from([3.0, math.inf]))
    def enter(self, owner: str, size: int, patience: float) -> None:
        self.number += 1
        self.rig.enter(self.number, owner=owner, size=size, patience=patience)

    @rule(uids=st.sets(st.sampled_from(["u1", "u2", "u3"])))
    def change_table(self, uids: set[str]) -> None:
        self.rig.serve(*sorted(uids))

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        busy = sorted(uid for uid, load in self.rig.loads.items() if load)
        if busy:
            self.rig.end(data.draw(st.sampled_from(busy)))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiting = self.waiting()
        if waiting:
            number = data.draw(st.sampled_from(sorted(waiting)))
            self.left.add(number)
            self.rig.dispatcher.leave(number, self.rig.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 25.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.rig.wait(seconds)

    def waiting(self) -> set[int]:
        done = {number for number, _ in self.rig.released} | {number for number, _ in self.rig.refused}
        return set(range(1, self.number + 1)) - done - self.left

    @invariant()
    def everybody_has_one_fate(self) -> None:
        fates = [number for number, _ in self.rig.released] + [number for number, _ in self.rig.refused]
        assert len(fates) == len(set(fates))
        assert len(self.waiting()) == self.rig.waiting == self.rig.dispatcher.queued()[NAME]
        assert self.rig.dispatcher.is_empty == (not self.rig.waiting)

    @invariant()
    def endpoints_get_what_they_take(self) -> None:
        assert all(load <= 2 for load in self.rig.loads.values())

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        # The window of a new endpoint is wider than what it takes, so room alone decides here.
        assert not self.rig.waiting or all(load == 2 for load in self.rig.loads.values())


TestDispatching = Dispatching.TestCase
