"""Documents that wait for a model: whom they hold up, and what they ask when nobody wants them any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmop.workloads.answers import Answer
from llmop.workloads.database import Database, File
from llmop.workloads.judgement import Outcome
from llmop.workloads.quota import Quota
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.ingest import Ingest
from llmop.workloads.retrieval.values import Document, Status, Store
from llmop.workloads.shelf import Shelf


class Models:
    """`good` embeds, `away` does not answer; `asked` counts what came."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        self.asked[body["model"]] += 1
        if body["model"] == "away":
            return Answer(503, b"{}", retry_after=0.05)
        data = [{"index": index, "embedding": [1.0, 0.0]} for index in range(len(body["input"]))]
        return Answer(200, orjson.dumps({"data": data}))


class House:
    def __init__(self, folder: Path) -> None:
        self.models = Models()
        self.stores = EmbeddedStores(folder / "vectors.db", 2**30)
        self.database = Database(folder / "workloads.db")
        self.shelf = Shelf(folder / "files")
        self.quota = Quota(files=100, bytes=2**30)
        self.ingest = self.new_ingest()

    def new_ingest(self) -> Ingest:
        return Ingest(self.stores, self.database, self.shelf, self.models, self.quota)

    async def put(self, owner: str, model: str, number: int, text: str = "words") -> Store:
        """A store with so many documents."""
        store = await self.stores.add(
            Store(
                number=0,
                id=f"vs_{owner}{model}",
                owner=owner,
                name="",
                model=model,
                created_at=1.0,
                active_at=1.0,
            )
        )
        names = [f"file-{owner}{model}{each}" for each in range(number)]
        for name in names:
            self.shelf.path(name).write_text(text)
        await self.database.add_files([File(name, owner, "assistants", "a.txt", 5, 1.0) for name in names])
        documents = [
            Document(
                number=0,
                store=store.number,
                store_id=store.id,
                owner=owner,
                model=model,
                file=name,
                filename="a.txt",
                created_at=1.0,
            )
            for name in names
        ]
        await self.stores.put(store, documents)
        self.ingest.wake()
        return store

    async def until_completed(self, store: Store, number: int) -> None:
        async with asyncio.timeout(30):
            while (await self.stores.counts(store))[0].get(Status.COMPLETED, 0) != number:  # noqa: ASYNC110  # polled: nobody tells of it
                await asyncio.sleep(0.02)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await made.stores.close()
    await made.database.close()


async def test_what_is_not_wanted_any_more_asks_nothing_more(house: House) -> None:
    store = await house.put("o", "away", 1, "many words. " * 400)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        async with asyncio.timeout(30):
            while not house.models.asked["away"]:  # noqa: ASYNC110  # polled: nobody tells of it
                await asyncio.sleep(0.01)
        await house.stores.remove(store)
        before = house.models.asked["away"]
        async with asyncio.timeout(30):
            while house.ingest._under_way:  # noqa: ASYNC110  # polled: nobody tells of it
                await asyncio.sleep(0.01)
        work.cancel()
    assert house.models.asked["away"] - before <= 1  # one that was on its way


async def test_owners_that_wait_for_one_model_hold_up_no_other_model(house: House) -> None:
    waiting = [await house.put(f"o{each}", "away", 4) for each in range(17)]
    other = await house.put("other", "good", 3)
    same = await house.put("o1", "good", 2)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        await house.until_completed(other, 3)
        await house.until_completed(same, 2)
        work.cancel()
    assert not (await house.stores.counts(waiting[0]))[0].get(Status.COMPLETED)


async def test_a_document_that_waits_for_its_model_outlives_any_number_of_starts(house: House) -> None:
    store = await house.put("o", "away", 1)
    for _ in range(8):
        house.ingest = house.new_ingest()
        before = house.models.asked["away"]
        async with asyncio.TaskGroup() as group:
            work = group.create_task(house.ingest.run())
            async with asyncio.timeout(30):
                while house.models.asked["away"] < before + 2:
                    assert (await house.stores.counts(store))[0] == {Status.IN_PROGRESS: 1}
                    await asyncio.sleep(0.01)
            work.cancel()
