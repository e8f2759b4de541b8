"""Vectors in memory: what is read, what is let go, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.memory import Memory
from llmop.workloads.retrieval.values import Store

ROWS, NUMBERS = 100, 16
PART = ROWS * (NUMBERS * 4 + 8)  # bytes of a document
QUESTION = np.ones((1, NUMBERS), dtype=np.float32)


class Disk:
    """Store n has the documents 10n, 10n + 1, ... . `reads` is what was read; `go_on` holds up the reading of the documents it has."""

    def __init__(self, documents: int = 1) -> None:
        self.documents = documents
        self.reads: list[int] = []
        self.go_on: dict[int, asyncio.Event] = {}

    async def readable(self, store: Store) -> list[int]:
        return [10 * store.number + place for place in range(self.documents)]

    async def vectors_of(self, documents: Sequence[int]) -> int:
        return len(documents) * ROWS

    async def vectors(self, document: int) -> tuple[list[int], bytes]:
        self.reads.append(document)
        if document in self.go_on:
            await self.go_on[document].wait()
        vectors = np.full((ROWS, NUMBERS), document, dtype=np.float32)
        return [document * ROWS + place for place in range(ROWS)], vectors.tobytes()


def store(number: int) -> Store:
    return Store(
        number=number,
        id=f"vs_{number}",
        owner="o",
        name="",
        model="m",
        created_at=1.0,
        active_at=1.0,
        dimension=NUMBERS,
    )


async def ask(memory: Memory, *numbers: int) -> list[int]:
    """Documents that were found, of the most similar passages."""
    found = await memory.compare([store(number) for number in numbers], QUESTION, 1000, ())
    return list(dict.fromkeys(number // ROWS for number in found.orders[0]))


async def test_the_store_that_nobody_asked_longest_is_let_go() -> None:
    disk = Disk()
    memory = Memory(disk, 2 * PART)
    for number in (1, 2, 1, 3, 1):
        assert await ask(memory, number) == [10 * number]
    assert disk.reads == [10, 20, 30]
    assert memory.taken == 2 * PART
    await ask(memory, 2)
    assert disk.reads == [10, 20, 30, 20]


async def test_many_stores_are_asked_at_once_and_never_take_more_than_they_may() -> None:
    disk = Disk(documents=2)
    memory = Memory(disk, 3 * 2 * PART)
    most = 0
    read = disk.vectors

    async def vectors(document: int) -> tuple[list[int], bytes]:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, memory.taken)
        return await read(document)

    disk.vectors = vectors  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        found = await asyncio.gather(*(ask(memory, number % 8) for number in range(64)))
    assert [sorted(each) for each in found] == [
        [10 * (number % 8), 10 * (number % 8) + 1] for number in range(64)
    ]
    assert 0 < most <= 3 * 2 * PART


async def test_stores_that_fit_only_one_after_the_other_are_asked_together() -> None:
    memory = Memory(Disk(), PART)
    assert await ask(memory, 1, 2, 3) == [30, 20, 10]
    assert memory.taken == PART


async def test_who_comes_while_all_is_in_use_waits_and_one_that_cannot_fit_is_refused() -> None:
    disk = Disk()
    disk.go_on[10] = asyncio.Event()
    memory = Memory(disk, PART)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first = group.create_task(ask(memory, 1))
        while not disk.reads:  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
        second = group.create_task(ask(memory, 2))
        for _ in range(20):
            await asyncio.sleep(0)
        assert disk.reads == [10]
        disk.go_on[10].set()
    assert (first.result(), second.result()) == ([10], [20])
    with pytest.raises(Refused, match="--vector-memory"):
        await ask(Memory(disk, PART - 1), 1)


async def test_one_that_is_given_up_while_it_is_read_takes_nothing() -> None:
    disk = Disk()
    disk.go_on[10] = asyncio.Event()
    memory = Memory(disk, PART)
    reading = asyncio.ensure_future(ask(memory, 1))
    async with asyncio.timeout(30):
        while not disk.reads:  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert memory.taken == 0
        assert await ask(memory, 2) == [20]


async def test_a_store_that_is_being_read_keeps_no_other_one_waiting_and_is_read_once() -> None:
    disk = Disk()
    disk.go_on[10] = asyncio.Event()
    memory = Memory(disk, 2 * PART)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first, second = (group.create_task(ask(memory, 1)) for _ in range(2))
        while not disk.reads:  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
        assert await ask(memory, 2) == [20]
        disk.go_on[10].set()
    assert (first.result(), second.result()) == ([10], [10])
    assert disk.reads == [10, 20]


async def test_documents_that_came_are_read_and_those_that_went_are_not_found() -> None:
    disk = Disk()
    memory = Memory(disk, 3 * PART)
    await ask(memory, 1)
    disk.documents = 3
    assert await ask(memory, 1) == [12, 11, 10]
    assert disk.reads == [10, 11, 12]
    disk.documents = 1
    assert await ask(memory, 1) == [10]
    assert memory.taken == PART


async def test_a_large_store_has_its_turn_while_small_ones_are_asked_again_and_again() -> None:
    class Sizes(Disk):
        async def readable(self, store: Store) -> list[int]:
            return (await super().readable(store))[: 2 if store.number == 9 else 1]

        async def vectors(self, document: int) -> tuple[list[int], bytes]:
            await asyncio.sleep(0.002)
            return await super().vectors(document)

    memory = Memory(Sizes(documents=2), 2 * PART)
    is_over = asyncio.Event()

    async def again_and_again(number: int) -> None:
        while not is_over.is_set():
            assert await ask(memory, number) == [10 * number]

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for number in (1, 2, 1, 2):
            group.create_task(again_and_again(number))
        while len(memory._users) < 2:  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
        assert sorted(await ask(memory, 9)) == [90, 91]
        is_over.set()
