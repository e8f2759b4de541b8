"""Vectors in memory, read from the disk when somebody first asks a store. They never change, so a new document costs its own vectors only.

Together they take no more than was said: the stores that nobody has asked longest are let go, and where others are being asked just now,
who comes waits for them.
"""

import asyncio
import contextlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.stores import NUMBER, Compared
from llmop.workloads.retrieval.values import Store

_Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
_FLOAT = 4  # bytes


class Disk(Protocol):
    async def readable(self, store: Store) -> list[int]:
        """Numbers of the documents that are completed."""
        ...

    async def vectors_of(self, documents: Sequence[int]) -> int:
        """How many they have together."""
        ...

    async def vectors(self, document: int) -> tuple[list[int], bytes]:
        """Numbers of its passages, rising, and their vectors one after the other."""
        ...


class _Part(NamedTuple):
    """The passages of a document: their numbers, and a vector for each."""

    numbers: _Numbers
    vectors: Vectors

    @property
    def size(self) -> int:
        return self.numbers.nbytes + self.vectors.nbytes


class Memory:
    def __init__(self, disk: Disk, limit: int) -> None:
        """`limit` in bytes."""
        self._disk = disk
        self._limit = limit
        self._parts: OrderedDict[int, dict[int, _Part]] = OrderedDict()  # by store, by document
        self._taken: dict[int, int] = {}  # bytes by store, with what is being read
        self._users: Counter[int] = Counter()  # of stores that are being asked
        self._freed = asyncio.Event()  # replaced by a new one when it is set
        self._turn = asyncio.Lock()  # of who looks for room: whoever came later does not take it away
        self._locks: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def taken(self) -> int:
        """Bytes."""
        return sum(self._taken.values())

    async def compare(
        self,
        stores: Sequence[Store],
        questions: Vectors,
        depth: int,
        also: Collection[int],
        within: Collection[int] | None = None,
    ) -> Compared:
        """As of `Stores`; one store after the other, so that each of them fits into memory alone. Raises Refused."""
        chosen = None if within is None else frozenset(within)
        found = []
        for store in stores:
            async with self._loaded(store, chosen) as parts:
                if parts:
                    found.append(await asyncio.to_thread(_compare, parts, questions, depth, also))
        return _merged(found, depth)

    @contextlib.asynccontextmanager
    async def _loaded(self, store: Store, chosen: frozenset[int] | None) -> AsyncIterator[list[_Part]]:
        """Its vectors, which stay as long as somebody uses them; of the `chosen` documents only, None = of all."""
        number = store.number
        # Two who ask a store at once read it once; who asks another one does not wait for that.
        async with self._locks.setdefault(number, asyncio.Lock()):
            async with self._turn:
                missing = await self._reserve(store)
            try:
                for document in missing:
                    self._parts[number][document] = await self._read(document)
            except BaseException:
                self._release(number)
                raise
        try:
            yield [
                part
                for document, part in self._parts[number].items()
                if len(part.numbers) and (chosen is None or document in chosen)
            ]
        finally:
            self._release(number)

    async def _reserve(self, store: Store) -> list[int]:
        """Documents that have to be read, when there is room for them; from then on the store is in use. Raises Refused."""
        number = store.number
        while True:
            freed = self._freed
            documents = await self._disk.readable(store)
            parts = self._parts.get(number, {})
            missing = [each for each in documents if each not in parts]
            more = await self._disk.vectors_of(missing) * (store.dimension * _FLOAT + NUMBER)
            # From here on nothing is awaited: what is let go is what is there now.
            parts = self._parts.get(number, {})
            kept = {each: parts[each] for each in documents if each in parts}
            if len(kept) + len(missing) < len(documents):
                continue  # some were let go meanwhile
            size = sum(part.size for part in kept.values()) + more
            if size > self._limit:
                message = (
                    f"the vectors of the vector store {store.id} take {size} bytes, and llmop workloads may use {self._limit}:"
                    " split it, or give llmop workloads more by --vector-memory"
                )
                raise Refused(507, "store_too_large", message)
            if self._make_room(number, size):
                self._parts[number] = kept
                self._parts.move_to_end(number)
                self._taken[number] = size
                self._users[number] += 1
                return missing
            await freed.wait()

    def _make_room(self, store: int, size: int) -> bool:
        """Lets go of what nobody has asked for longest; never of what is in use. Whether `size` bytes are free for `store` then."""
        others = self.taken - self._taken.get(store, 0)
        idle = [each for each in self._parts if each != store and each not in self._users]
        for each in idle:
            if others + size <= self._limit:
                break
            others -= self._taken.pop(each)
            del self._parts[each]
        return others + size <= self._limit

    def _release(self, store: int) -> None:
        self._users[store] -= 1
        if not self._users[store]:
            del self._users[store]
            # What was to be read and was not takes nothing.
            self._taken[store] = sum(part.size for part in self._parts[store].values())
        self._freed.set()
        self._freed = asyncio.Event()

    async def _read(self, document: int) -> _Part:
        numbers, content = await self._disk.vectors(document)
        vectors = np.frombuffer(content, dtype=np.float32).reshape(len(numbers), -1 if numbers else 0)
        return _Part(np.array(numbers, dtype=np.int64), vectors)


class _Found(NamedTuple):
    """Of one store; the orders with the similarity to their question."""

    orders: Sequence[Sequence[tuple[float, int]]]
    scores: Mapping[int, float]


def _compare(parts: Sequence[_Part], questions: Vectors, depth: int, also: Collection[int]) -> _Found:
    similar = np.concatenate([questions @ part.vectors.T for part in parts], axis=1)
    numbers = np.concatenate([part.numbers for part in parts])
    places = [_best(row, depth) for row in similar]
    asked = np.flatnonzero(np.isin(numbers, np.fromiter(also, dtype=np.int64, count=len(also))))
    chosen = np.unique(np.concatenate([*places, asked]))
    scores = dict(zip(numbers[chosen].tolist(), similar[:, chosen].max(axis=0).tolist(), strict=True))
    orders = [
        list(zip(row[place].tolist(), numbers[place].tolist(), strict=True))
        for row, place in zip(similar, places, strict=True)
    ]
    return _Found(orders, scores)


def _best(similar: np.ndarray[tuple[int], np.dtype[np.float32]], depth: int) -> _Numbers:
    """Places of the largest, the largest first."""
    depth = min(depth, len(similar))
    chosen = np.argpartition(-similar, depth - 1)[:depth]
    ordered: _Numbers = chosen[np.argsort(-similar[chosen], kind="stable")]
    return ordered


def _merged(found: Sequence[_Found], depth: int) -> Compared:
    scores = {number: score for each in found for number, score in each.scores.items()}
    orders = []
    for question in zip(*(each.orders for each in found), strict=True):
        ranked = sorted((pair for order in question for pair in order), key=lambda pair: -pair[0])
        orders.append([number for _, number in ranked[:depth]])
    return Compared(orders, scores)
