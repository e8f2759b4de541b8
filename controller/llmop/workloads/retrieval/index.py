"""Finds passages: by their vectors, all of which are compared, and by their words; the two orders are made one.

Vectors of completed documents lie in memory, read from the store when somebody first asks. They never change, so nothing of this has to
be kept on the disk, and a new document costs its own vectors.
"""

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmop.workloads.retrieval import ranking
from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.stores import Stores
from llmop.workloads.retrieval.values import Found, Store

MEMORY_LIMIT = 1024 * 1024 * 1024  # bytes of vectors, of all stores together
_DEPTH = 60  # passages that each order has
_MOST_WORDS = 64


class Question(NamedTuple):
    """One way to say what is looked for."""

    text: str
    vector: np.ndarray[tuple[int], np.dtype[np.float32]]


class _Part(NamedTuple):
    """The passages of a document: their numbers, rising, and a vector for each."""

    numbers: np.ndarray[tuple[int], np.dtype[np.int64]]
    vectors: Vectors


class Index:
    def __init__(self, stores: Stores, memory_limit: int = MEMORY_LIMIT) -> None:
        self._stores = stores
        self._memory_limit = memory_limit
        self._parts: OrderedDict[int, dict[int, _Part]] = (
            OrderedDict()
        )  # by store, by document; the last is the newest used
        self._locks: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    async def search(
        self, stores: Sequence[Store], questions: Sequence[Question], most: int, min_score: float
    ) -> list[Found]:
        """The best first, of stores with one model; each with the similarity to the question that it fits best, `min_score` or more."""
        parts = [part for store in stores for part in await self._load(store)]
        if not parts:
            return []
        numbers, similar = await asyncio.to_thread(_compare, parts, [each.vector for each in questions])
        orders: list[tuple[float, Sequence[int]]] = []
        for place, question in enumerate(questions):
            orders.append((ranking.BY_VECTOR, _best(numbers, similar[place])))
            if words := ranking.words(question.text, _MOST_WORDS):
                found = await self._stores.with_words(stores, words, _DEPTH)
                orders.append((ranking.BY_WORDS, found))
        scores = dict(zip(numbers.tolist(), similar.max(axis=0).tolist(), strict=True))
        # A passage of a document that is not completed has words already, and no score.
        chosen = [each for each in ranking.fuse(orders) if scores.get(each, -1.0) >= min_score][:most]
        return await self._stores.passages({each: min(1.0, max(0.0, scores[each])) for each in chosen})

    async def _load(self, store: Store) -> list[_Part]:
        # Two who ask a store at once read it once; who asks another one does not wait for that.
        async with self._locks.setdefault(store.number, asyncio.Lock()):
            documents = await self._stores.readable(store)
            before = self._parts.pop(store.number, {})
            now = {}
            for number in documents:
                now[number] = before.get(number) or await self._read(store, number)
            self._parts[store.number] = now
            self._make_room()
        return [part for part in now.values() if len(part.numbers)]

    async def _read(self, store: Store, document: int) -> _Part:
        numbers, content = await self._stores.vectors(document)
        vectors = np.frombuffer(content, dtype=np.float32).reshape(len(numbers), -1 if numbers else 0)
        return _Part(np.array(numbers, dtype=np.int64), vectors)

    def _make_room(self) -> None:
        """Lets go of what nobody has asked for longest; never of what was just asked for."""
        sizes = {
            store: sum(part.vectors.nbytes for part in parts.values()) for store, parts in self._parts.items()
        }
        while len(self._parts) > 1 and sum(sizes.values()) > self._memory_limit:
            gone, _ = self._parts.popitem(last=False)
            del sizes[gone]


def _compare(
    parts: Sequence[_Part], questions: Sequence[np.ndarray[tuple[int], np.dtype[np.float32]]]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Vectors]:
    """Numbers of all passages, and a row of similarities for each question."""
    asked = np.stack(questions)
    similar = np.concatenate([asked @ part.vectors.T for part in parts], axis=1)
    return np.concatenate([part.numbers for part in parts]), similar


def _best(
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]], similar: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> list[int]:
    depth = min(_DEPTH, len(numbers))
    chosen = np.argpartition(-similar, depth - 1)[:depth]
    ordered = chosen[np.argsort(-similar[chosen], kind="stable")]
    return [int(number) for number in numbers[ordered]]
