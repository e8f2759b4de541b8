"""How many requests are at each endpoint, over all worker processes of a gateway: one number per worker and endpoint in shared memory. The parent
has a row too, for the requests that wait for each deployment. Behind those numbers lie the accounts of clients' keys (`limiter`).

Each number has a single writer, so nothing has to be locked. When a worker dies its numbers are set to zero by the parent.
"""

import mmap
import os
import struct
from collections.abc import Callable, Sequence
from typing import Final

SLOTS = 4096  # endpoints; those beyond are chosen by what the worker itself has sent them
NO_SLOT = -1
_NUMBER: Final = "i"
ACCOUNT_NUMBERS: Final = 3  # of each key and worker
_ACCOUNT_NUMBER: Final = "q"
_ROW: Final = SLOTS * struct.calcsize(_NUMBER)  # bytes


class Cells:
    """The memory, as each process of a gateway sees it: `view` has a row of `SLOTS` numbers per process."""

    def __init__(self, descriptor: int, rows: int) -> None:
        """`descriptor` stays the caller's."""
        self._map = mmap.mmap(descriptor, size_of(rows))
        memory = memoryview(self._map)
        self.view = memory[: rows * _ROW].cast(_NUMBER)
        self.accounts = memory[rows * _ROW :].cast(_ACCOUNT_NUMBER)

    def total(self, slot: int) -> int:
        return sum(self.view[slot::SLOTS])

    def clear(self, worker: int) -> None:
        """The worker is dead: what it had in flight is gone with it."""
        self.view[worker * SLOTS : (worker + 1) * SLOTS] = memoryview(bytes(_ROW)).cast(_NUMBER)

    def close(self) -> None:
        self.view.release()
        self.accounts.release()
        self._map.close()


class Row:
    """One process's cells, and everybody's sums."""

    __slots__ = ("_start", "_view")

    def __init__(self, cells: Cells, index: int) -> None:
        self._view = cells.view
        self._start = index * SLOTS

    def put(self, slot: int, number: int) -> None:
        self._view[self._start + slot] = number

    def total(self, slot: int) -> int:
        return sum(self._view[slot::SLOTS])

    def parents(self, slot: int) -> int:
        """What the parent has written; its row is the last one."""
        return self._view[slot - SLOTS]


def size_of(rows: int) -> int:
    """In bytes."""
    return rows * (_ROW + SLOTS * ACCOUNT_NUMBERS * struct.calcsize(_ACCOUNT_NUMBER))


def make(rows: int) -> int:
    """A descriptor of new memory, all zero. Raises OSError."""
    descriptor = os.memfd_create("llmop-gateway", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size_of(rows))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Slots:
    """Which endpoint, or deployment, has which slot. A slot is given away again once no worker chooses its endpoint any more and none has a
    request there: answers outlive the table.
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._retired: dict[int, int] = {}  # slot -> the table since which it is nobody's
        self._unused = iter(range(SLOTS))

    def assign(
        self, endpoints: Sequence[str], table: int, acted_on: int, busy: Callable[[int], bool]
    ) -> list[int]:
        """A slot per endpoint. `table` is the number of the table that holds them, `acted_on` the last one that all workers act on."""
        there = frozenset(endpoints)
        gone = {name: slot for name, slot in self._taken.items() if name not in there}
        free = [slot for slot, since in self._retired.items() if since <= acted_on and not busy(slot)]
        for name, slot in gone.items():
            del self._taken[name]
            if slot != NO_SLOT:
                self._retired[slot] = table
        for name in endpoints:
            if name not in self._taken:
                slot = free.pop() if free else next(self._unused, NO_SLOT)
                self._retired.pop(slot, None)
                self._taken[name] = slot
        return [self._taken[name] for name in endpoints]
