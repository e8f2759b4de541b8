"""Numbers that several processes see, and the slots they stand in."""

import os
from collections.abc import Iterator

import pytest

from llmop.gateway import cells
from llmop.gateway.cells import NO_SLOT, SLOTS, Cells, Row, Slots


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = cells.make(3)
    yield descriptor
    os.close(descriptor)


def test_every_process_sees_the_sum(memory: int) -> None:
    one, other = Row(Cells(memory, 3), 0), Row(Cells(memory, 3), 2)
    one.put(7, 4)
    other.put(7, 5)
    other.put(8, 1)
    assert [9, 9, 1, 0] == [one.total(7), other.total(7), one.total(8), one.total(SLOTS - 1)]


def test_the_dead_hold_nothing(memory: int) -> None:
    shared = Cells(memory, 3)
    for worker in range(3):
        Row(shared, worker).put(0, 1)
        Row(shared, worker).put(SLOTS - 1, 10)
    shared.clear(1)
    assert [2, 20] == [shared.total(0), shared.total(SLOTS - 1)]


def idle(slot: int) -> bool:
    return False


def test_an_endpoint_keeps_its_slot_and_no_two_share_one() -> None:
    slots = Slots()
    assert [0, 1] == slots.assign(["a", "b"], 1, 0, idle)
    assert [1, 2, 0] == slots.assign(["b", "c", "a"], 2, 1, idle)


def test_a_slot_is_given_away_when_all_act_on_the_table_and_nothing_is_under_way() -> None:
    slots = Slots()
    slots.assign(["a", "b"], 1, 0, idle)
    assert [1] == slots.assign(["b"], 2, 1, idle)
    assert [1, 2] == slots.assign(["b", "c"], 3, 1, idle)  # somebody may still choose a
    assert [1, 2, 3] == slots.assign(["b", "c", "d"], 4, 2, lambda slot: slot == 0)  # an answer of a goes on
    assert [1, 2, 3, 0] == slots.assign(["b", "c", "d", "e"], 5, 2, idle)


def test_beyond_the_last_slot_there_is_none() -> None:
    slots = Slots()
    names = [str(number) for number in range(SLOTS + 2)]
    assert [*range(SLOTS), NO_SLOT, NO_SLOT] == slots.assign(names, 1, 0, idle)
    assert [NO_SLOT] == slots.assign([names[-1]], 2, 0, idle)
