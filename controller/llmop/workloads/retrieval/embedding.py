"""Texts as vectors: /v1/embeddings of a model behind the gateway."""

from typing import Any, NamedTuple

import numpy as np
import orjson

from llmop.workloads.answers import Answer, says
from llmop.workloads.judgement import Outcome, Overdue

URL = "/v1/embeddings"

Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Embedded(NamedTuple):
    """A vector of length 1 for each text, and the tokens that were read for them."""

    vectors: Vectors
    tokens: int


def body(model: str, texts: list[str]) -> dict[str, Any]:
    return {"model": model, "input": texts}


def read(answer: Answer, number: int) -> Embedded | str:
    """Of an answer with status 200 to `number` texts; else a sentence that says what is wrong with it."""
    try:
        value = orjson.loads(answer.body)
        rows = sorted(value["data"], key=lambda each: each["index"])
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
            vectors = np.array([each["embedding"] for each in rows], dtype=np.float32)
        usage = value.get("usage") or {}
        tokens = usage.get("prompt_tokens", 0)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return "the model answered something that is no list of embeddings"
    if vectors.ndim != 2 or vectors.shape[0] != number or not vectors.shape[1]:
        return f"the model answered {vectors.shape} numbers for {number} texts"
    if not np.isfinite(vectors).all():
        return "the model answered vectors that are not finite"
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return Embedded(unit, tokens if isinstance(tokens, int) else 0)


def why_not(outcome: Outcome) -> str:
    """What a model that gave no vectors has said, in words."""
    if isinstance(outcome, Answer):
        return says(outcome.body) or f"the gateway answered {outcome.status}"
    if isinstance(outcome, Overdue):
        return f"no answer came in {outcome.seconds:g} s"
    return outcome.message
