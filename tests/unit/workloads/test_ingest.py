"""Documents that wait for a model: whom they hold up, and what they ask when nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from llmop.workloads.answers import Answer
from llmop.workloads.calls import ANSWER_LIMIT
from llmop.workloads.database import Database, File
from llmop.workloads.judgement import Broken, Outcome
from llmop.workloads.quota import Quota
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.ingest import Ingest
from llmop.workloads.retrieval.values import Document, Status, Store
from llmop.workloads.shelf import Shelf


class Models:
    """`good` embeds, `long` gives vectors of 6,000 numbers, `away` does not answer until it is `back`; `asked` counts what came."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.batches: list[int] = []
        self.back = False

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        self.asked[body["model"]] += 1
        if body["model"] == "away" and not self.back:
            return Answer(503, b"{}", retry_after=0.05)
        self.batches.append(len(body["input"]))
        vector = [-1.2345678901234567e-300] * 6000 if body["model"] == "long" else [1.0, 0.0]
        answer = orjson.dumps(
            {"data": [{"index": index, "embedding": vector} for index in range(self.batches[-1])]}
        )
        return Answer(200, answer) if len(answer) <= ANSWER_LIMIT else Broken("the answer is too large")


class House:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = Models()
        self.stores = EmbeddedStores(folder / "vectors.db", 2**30)
        self.database = Database(folder / "workloads.db")
        self.shelf = Shelf(folder / "files")
        self.quota = Quota(files=100, bytes=2**30)
        self.ingest = self.new_ingest()

    def new_ingest(self) -> Ingest:
        return Ingest(self.stores, self.database, self.shelf, self.models, self.quota)

    async def put(
        self, owner: str, model: str, number: int, text: str = "words", filename: str = "a.txt"
    ) -> Store:
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
        await self.database.add_files([File(name, owner, "assistants", filename, 5, 1.0) for name in names])
        documents = [
            Document(
                number=0,
                store=store.number,
                store_id=store.id,
                owner=owner,
                model=model,
                file=name,
                filename=filename,
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


def chapters(number: int) -> str:
    return "".join(f"# Chapter {each}\n\nwords of chapter {each}\n\n" for each in range(number))


async def test_as_many_passages_are_embedded_at_once_as_fit_into_an_answer(house: House) -> None:
    store = await house.put("o", "long", 1, chapters(50), "a.md")
    async with asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        await house.until_completed(store, 1)
        work.cancel()
    assert house.models.batches == [1, 21, 21, 7]  # the first tells how long the vectors are
    more = await house.put("p", "good", 1, chapters(50), "a.md")
    async with asyncio.TaskGroup() as group:
        work = group.create_task(house.new_ingest().run())
        await house.until_completed(more, 1)
        work.cancel()
    assert house.models.batches[4:] == [1, 32, 17]


async def test_documents_that_wait_keep_no_passages_in_memory(house: House) -> None:
    text = "long words of a document that waits. " * 100_000
    store = await house.put("o", "away", 4, text)
    tracemalloc.start()
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(house.ingest.run())
            async with asyncio.timeout(60):
                while len(house.ingest._waiting) < 4:  # noqa: ASYNC110  # polled: nobody tells of it
                    await asyncio.sleep(0.02)
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            assert taken < len(text)  # of four documents
            house.models.back = True
            await house.until_completed(store, 4)
            work.cancel()
    finally:
        tracemalloc.stop()
    first = await house.stores.document(store, "file-oaway0")
    assert first is not None
    assert len("".join(await house.stores.kept(first))) >= len(text)


@pytest.mark.parametrize(("most", "words"), [(100, "files and vector stores of this key"), (2**30, "")])
async def test_a_document_that_its_owner_has_no_room_for_fails_and_says_so(
    house: House, most: int, words: str
) -> None:
    house.quota = Quota(files=10, bytes=most)
    store = await house.put("o", "good", 1, chapters(50), "a.md")
    ingest = house.new_ingest()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        work = group.create_task(ingest.run())
        while not (found := await house.stores.document(store, "file-ogood0")) or not found.problem:
            if found and found.status is Status.COMPLETED:
                break
            await asyncio.sleep(0.02)
        work.cancel()
    assert found is not None
    assert words in (found.problem.message if found.problem else "")
    assert bool(found.problem) == bool(words)


async def test_a_store_that_would_take_more_memory_than_there_is_refuses_what_does_not_fit(
    house: House,
) -> None:
    house.stores.most_bytes = 200
    full = await house.put(
        "o", "good", 2, chapters(10), "a.md"
    )  # 10 vectors of 16 bytes each, numbers included
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        while (counts := (await house.stores.counts(full))[0]).get(Status.IN_PROGRESS):  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0.02)
        work.cancel()
    assert counts == {Status.COMPLETED: 1, Status.FAILED: 1}


async def test_a_store_that_took_all_that_fits_can_be_searched(house: House, tmp_path: Path) -> None:
    """What fits is counted in two places: a store that takes more than can be searched would be lost to its owner."""
    limit = 100  # bytes
    await house.stores.close()
    house.stores = EmbeddedStores(tmp_path / "small.db", limit)
    house.ingest = house.new_ingest()
    store = await house.put("o", "good", 12)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        while (counts := (await house.stores.counts(store))[0]).get(Status.IN_PROGRESS):  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0.02)
        work.cancel()
    found = await house.stores.find(store.id)
    assert found is not None
    question = np.array([[1, 0]], dtype=np.float32)
    compared = await house.stores.compare([found], question, 99, ())
    assert len(compared.scores) == counts[Status.COMPLETED] > 0
    assert counts[Status.FAILED] > 0


async def test_room_of_what_was_deleted_is_given_back_while_it_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmop.workloads.retrieval.ingest._TIDY_S", 0.05)
    path = house.folder / "vectors.db"
    store = await house.put("o", "long", 3, chapters(60), "a.md")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        await house.until_completed(store, 3)
        full, words = on_disk(path), look(path, _WORDS)
        await house.stores.remove(store)
        while on_disk(path) > full // 20 or look(path, _WORDS):  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0.05)
        work.cancel()
    assert words


async def test_words_of_what_was_deleted_go_also_when_the_process_ends_before(house: House) -> None:
    path = house.folder / "vectors.db"
    store = await house.put("o", "good", 3, "secretword")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        await house.until_completed(store, 3)
        work.cancel()
    await house.stores.remove(store)
    await house.stores.close()
    assert b"secretword" in path.read_bytes()
    house.stores = EmbeddedStores(path, 2**20)
    async with asyncio.timeout(30):
        while await house.stores.tidy():  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
    await house.stores.close()
    assert b"secretword" not in path.read_bytes()
    house.stores = EmbeddedStores(path, 2**20)


async def test_a_file_that_gives_nothing_back_is_tidied_up_to_an_end(house: House) -> None:
    path = house.folder / "vectors.db"
    await house.stores.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=NONE; VACUUM")
    house.stores = EmbeddedStores(path, 2**30)
    house.ingest = house.new_ingest()
    store = await house.put("o", "long", 1, chapters(60), "a.md")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        work = group.create_task(house.ingest.run())
        await house.until_completed(store, 1)
        work.cancel()
    await house.stores.remove(store)
    async with asyncio.timeout(10):
        while await house.stores.tidy():  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0)
    assert look(path, "SELECT freelist_count FROM pragma_freelist_count") > 0


_WORDS = "SELECT count(*) FROM words_data WHERE id > 10"  # parts of the full-text index; below are its sums


def on_disk(path: Path) -> int:
    """Bytes, with the write-ahead log."""
    return sum(each.stat().st_size for each in (path, path.with_name(path.name + "-wal")))


def look(path: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(query).fetchone()[0])
