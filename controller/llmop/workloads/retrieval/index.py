"""Finds passages: by their vectors, all of which are compared, and by their words; the orders are made one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmop.domain.attributes import Filter
from llmop.workloads.retrieval import ranking
from llmop.workloads.retrieval.stores import Stores
from llmop.workloads.retrieval.values import Found, Store

_DEPTH = 60  # passages that each order has
_MOST_WORDS = 64


class Question(NamedTuple):
    """One way to say what is looked for."""

    text: str
    vector: np.ndarray[tuple[int], np.dtype[np.float32]]


class Index:
    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def search(
        self,
        stores: Sequence[Store],
        questions: Sequence[Question],
        most: int,
        min_score: float,
        wanted: Filter | None = None,
    ) -> list[Found]:
        """The best first, of stores with one model; each with the similarity to the question that it fits best, `min_score` or more; of
        the documents that are `wanted`, None = of all. Raises Refused.
        """
        stores = [store for store in stores if store.dimension]
        if not stores:
            return []
        within: Sequence[int] | None = None
        if wanted is not None:
            # First, and not of what was found: of a hundred best passages none might be wanted.
            within = await self._stores.fitting(stores, wanted)
            if not within:
                return []
        by_words = [await self._with_words(stores, each.text, within) for each in questions]
        also = {number for order in by_words for number in order}
        vectors = np.stack([each.vector for each in questions])
        by_vectors, scores = await self._stores.compare(stores, vectors, _DEPTH, also, within)
        orders: list[tuple[float, Sequence[int]]] = []
        for near, order in zip(by_vectors, by_words, strict=False):  # no vectors: nothing is completed
            orders += [(ranking.BY_VECTOR, near), (ranking.BY_WORDS, order)]
        # A passage of a document that is not completed has words already, and no score.
        chosen = [each for each in ranking.fuse(orders) if scores.get(each, -1.0) >= min_score][:most]
        return await self._stores.passages({each: min(1.0, max(0.0, scores[each])) for each in chosen})

    async def _with_words(
        self, stores: Sequence[Store], text: str, within: Sequence[int] | None
    ) -> list[int]:
        words = ranking.words(text, _MOST_WORDS)
        return await self._stores.with_words(stores, words, _DEPTH, within) if words else []
