"""How a question comes to its vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from llmop.workloads.answers import Answer
from llmop.workloads.judgement import Outcome
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.index import Index
from llmop.workloads.retrieval.search import Search
from llmop.workloads.retrieval.values import Store

STORE = Store(number=1, id="vs_a", owner="o", name="", model="m", created_at=1.0, active_at=1.0)


class Model:
    """Takes texts of up to `most` characters, and says `status` to longer ones; `asked` is what came."""

    def __init__(self, most: int, status: int) -> None:
        self.most = most
        self.status = status
        self.asked: list[list[str]] = []

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        self.asked.append(body["input"])
        if any(len(text) > self.most for text in body["input"]):
            return Answer(self.status, b'{"error":{"message":"input (581 tokens) is too large to process"}}')
        data = [{"index": index, "embedding": [1.0, 0.0]} for index in range(len(body["input"]))]
        return Answer(200, orjson.dumps({"data": data, "usage": {"prompt_tokens": 7}}))


async def find(folder: Path, model: Model, texts: list[str]) -> int:
    stores = EmbeddedStores(folder / "vectors.db", 2**20)
    try:
        return (await Search(model, Index(stores)).find([STORE], texts, 5, 0.0)).tokens
    finally:
        await stores.close()


@pytest.mark.parametrize("status", [400, 413, 422, 500])
async def test_of_a_question_that_is_too_long_for_the_model_its_end_is_looked_for(
    tmp_path: Path, status: int
) -> None:
    question = "a long story. " * 140 + "Why is that?"
    model = Model(900, status)
    assert await find(tmp_path, model, [question, "Why?"]) == 7
    taken, short = model.asked[-1]
    assert question.endswith(taken)
    assert 900 * 3 // 4 <= len(taken) <= 900
    assert short == "Why?"


async def test_a_model_that_takes_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    model = Model(0, 500)
    with pytest.raises(Refused, match="581 tokens"):
        await find(tmp_path, model, ["x" * 4096])
    assert {len(text) for text in model.asked[-1]} == {200}
    assert len(model.asked) < 15


@pytest.mark.parametrize("status", [404, 429, 503])
async def test_what_is_not_about_the_text_is_not_asked_again(tmp_path: Path, status: int) -> None:
    model = Model(0, status)
    with pytest.raises(Refused):
        await find(tmp_path, model, ["x" * 4096])
    assert len(model.asked) == 1
