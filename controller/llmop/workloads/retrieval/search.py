"""What is asked of vector stores: the question is embedded, and the index finds."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from llmop.domain.attributes import Filter
from llmop.workloads.answers import Answer
from llmop.workloads.calls import Caller
from llmop.workloads.judgement import Outcome, refused_us
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval import embedding
from llmop.workloads.retrieval.index import Index, Question
from llmop.workloads.retrieval.values import Found, Store

_PASSED_ON = (404, 429, 503)  # what they mean, they mean for the client too
_KEY_TRIES, _KEY_AGAIN_S = 3, 1.0  # the gateway reads its keys once a second, and ours may be new
_TOO_LONG = (400, 413, 422, 500)  # what engines say to a text of more tokens than they take; llama.cpp 500
_SHORTEST = (
    200  # characters; a question that is too long for its model is looked for by its end, but not by less
)


class Results(NamedTuple):
    """`tokens` is what the questions took."""

    found: list[Found]
    tokens: int


class Search:
    def __init__(self, caller: Caller, index: Index) -> None:
        self._caller = caller
        self._index = index

    async def find(
        self,
        stores: Sequence[Store],
        texts: Sequence[str],
        most: int,
        min_score: float,
        key: str | None = None,
        owner: str | None = None,
        wanted: Filter | None = None,
    ) -> Results:
        """`texts` are several ways to ask the same; of one that is too long for the model its end is looked for. `key` None = that of this
        process, which may ask for the key with the hash `owner`. `wanted` None = of all documents. Raises Refused.
        """
        models = {store.model for store in stores}
        if len(models) > 1:
            message = f"the vector stores have different embedding models: {', '.join(sorted(models))}"
            raise Refused(409, "different_models", message)
        (model,) = models
        outcome = await self._ask(model, list(texts), key, owner)
        while _is_too_long(outcome) and (longest := max(map(len, texts))) > _SHORTEST:
            texts = [text[-max(_SHORTEST, longest * 3 // 4) :] for text in texts]
            outcome = await self._ask(model, list(texts), key, owner)
        if not isinstance(outcome, Answer) or outcome.status != 200:
            status = outcome.status if isinstance(outcome, Answer) and outcome.status in _PASSED_ON else 502
            after = outcome.retry_after if isinstance(outcome, Answer) else None
            message = f"the embedding model '{model}' did not take the question: {embedding.why_not(outcome)}"
            raise Refused(status, "embedding_failed", message, retry_after=after)
        read = embedding.read(outcome, len(texts))
        if isinstance(read, str):
            raise Refused(502, "embedding_failed", f"{read} (model '{model}')")
        if any(store.dimension not in (0, read.vectors.shape[1]) for store in stores):
            message = (
                f"the model '{model}' gives vectors of {read.vectors.shape[1]} numbers now, and the store has others:"
                " it serves another model than when the documents came; make a new store"
            )
            raise Refused(409, "different_models", message)
        questions = [Question(*each) for each in zip(texts, read.vectors, strict=True)]
        found = await self._index.search(stores, questions, most, min_score, wanted)
        return Results(found, read.tokens)

    async def _ask(self, model: str, texts: list[str], key: str | None, owner: str | None) -> Outcome:
        for _ in range(_KEY_TRIES):
            outcome = await self._caller.ask(embedding.URL, embedding.body(model, texts), key, owner)
            if key is not None or not refused_us(outcome):
                break
            await asyncio.sleep(_KEY_AGAIN_S)
        return outcome


def _is_too_long(outcome: Outcome) -> bool:
    """As far as can be seen: engines have no word for it in common."""
    return isinstance(outcome, Answer) and outcome.status in _TOO_LONG
