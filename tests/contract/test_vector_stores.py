"""What every place for vector stores does: a SQLite file with vectors in memory, and Postgres with pgvector."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmop.domain import attributes
from llmop.workloads.retrieval.chunks import Cut, Passage
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.index import Index, Question
from llmop.workloads.retrieval.pgvector import PgvectorStores
from llmop.workloads.retrieval.stores import Row, Stores
from llmop.workloads.retrieval.values import Batch, Document, Problem, Status, Store


@pytest.fixture(params=["embedded", "pgvector"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    made: Stores
    if request.param == "embedded":
        made = EmbeddedStores(tmp_path / "vectors.db", 2**20)
    else:
        rig = request.getfixturevalue("pgvector_rig")
        made = PgvectorStores(rig.database("contract"), "here")
        await made.prepare()
    yield made
    await made.close()


async def made_store(stores: Stores, name: str = "vs_a", owner: str = "o", dimension: int = 2) -> Store:
    new = Store(number=0, id=name, owner=owner, name="", model="m", created_at=1.0, active_at=1.0)
    made = await stores.add(new)
    await stores.settle(made.number, dimension)
    found = await stores.find(made.id)
    assert found is not None
    return found


async def put(
    stores: Stores,
    store: Store,
    file: str,
    texts: Mapping[str, Sequence[float]],
    *,
    ends: bool = True,
    **more: Any,
) -> Document:
    await stores.put(store, [wanted(store, file, **more)])
    found = await stores.document(store, file)
    assert found is not None
    rows = [
        Row(Passage(text), text, np.array(vector, dtype=np.float32).tobytes())
        for text, vector in texts.items()
    ]
    assert await stores.keep(found, 0, rows)
    if ends:
        await stores.end(found)
    return found


def wanted(store: Store, file: str, **more: Any) -> Document:
    usual = {"number": 0, "store": store.number, "store_id": store.id, "owner": store.owner, "model": "m"}
    return Document(**usual | {"file": file, "filename": file, "created_at": 1.0} | more)


async def test_vectors_and_words_find_together_and_what_goes_is_not_found(stores: Stores) -> None:
    store, other = await made_store(stores), await made_store(stores, "vs_b")
    await put(stores, store, "one", {"the red fox": [1, 0], "a blue whale": [0, 1]})
    await put(stores, other, "two", {"the red fox of others": [1, 0]})
    unfinished = await put(stores, store, "three", {"red red red": [1, 0]}, ends=False)
    index = Index(stores)
    question = [Question("red", np.array([0.8, 0.6], dtype=np.float32))]
    assert [(each.text, round(each.score, 2)) for each in await index.search([store], question, 5, 0.0)] == [
        ("the red fox", 0.8),
        ("a blue whale", 0.6),
    ]
    assert [each.text for each in await index.search([store], question, 5, 0.7)] == ["the red fox"]
    assert len(await index.search([store, other], question, 5, 0.0)) == 3
    await stores.end(unfinished)
    assert len(await index.search([store], question, 5, 0.0)) == 3
    await stores.remove_file("somebody", "one")
    assert len(await index.search([store], question, 5, 0.0)) == 3
    await stores.remove_file("o", "one")
    assert [each.text for each in await index.search([store], question, 5, 0.0)] == ["red red red"]
    await stores.remove(store)
    assert await index.search([store], question, 5, 0.0) == []


async def test_what_is_kept_twice_is_there_once_and_what_was_cancelled_takes_nothing(stores: Stores) -> None:
    store = await made_store(stores)
    kept = await put(stores, store, "one", {"a": [1, 0], "b": [0, 1]}, ends=False)
    rows = [Row(Passage(text), text, b"\0" * 8) for text in ("a", "b", "c")]
    assert await stores.keep(kept, 0, rows)
    assert await stores.kept(kept) == ["a", "b", "c"]
    assert await stores.settle(store.number, 2) == 2
    assert await stores.settle(store.number, 3) == 2
    await stores.end(kept, Problem("invalid_file", "no"))
    found = await stores.document(store, "one")
    assert found is not None
    assert (found.status, found.problem, found.size) == (Status.FAILED, Problem("invalid_file", "no"), 0)
    assert await stores.kept(kept) == []
    assert not await stores.keep(kept, 0, rows)


async def test_what_goes_down_over_it_again_and_again_ends(stores: Stores) -> None:
    store = await made_store(stores)
    begun = await put(stores, store, "one", {}, ends=False)
    counts = [await stores.begin(begun.number, counts=each) for each in (True, True, False, True)]
    assert [each and each[1] for each in counts] == [1, 2, 2, 3]
    assert await stores.keep(begun, 0, [Row(Passage("a"), "a", b"\0" * 8)])
    again = await stores.begin(begun.number, counts=True)
    assert again is not None
    assert again[1] == 1
    assert await stores.due(4) == [(begun.number, "o", "m")]
    await stores.end(begun)
    assert await stores.begin(begun.number, counts=True) is None
    assert await stores.due(4) == []


async def test_the_size_of_a_document_is_that_of_what_is_there(stores: Stores) -> None:
    store = await made_store(stores)
    kept = await put(stores, store, "one", {"a": [1, 0], "b": [0, 1]}, ends=False)
    rows = [Row(Passage(text), text, b"\0" * 8) for text in ("a", "b", "c")]
    assert await stores.keep(kept, 0, rows)  # two of which are there
    assert (await stores.counts(store))[1] == 3 * 9
    await stores.clear(kept)
    assert (await stores.counts(store))[1] == 0
    assert await stores.keep(kept, 0, rows)
    assert (await stores.counts(store))[1] == 3 * 9


def pages(texts: Sequence[str]) -> dict[str, list[float]]:
    """Passages that no vector tells apart."""
    return {text: [1.0, 0.0] for text in texts}


async def by_words(stores: Stores, asked: Sequence[Store], *words: str) -> list[str]:
    numbers = await stores.with_words(asked, words, 60)
    return [each.text for each in await stores.passages(dict.fromkeys(numbers, 1.0))]


async def test_words_find_by_their_stems_the_rarest_first(stores: Stores) -> None:
    store = await made_store(stores)
    texts = [
        "the mill",
        "the milling of flour at the mill",
        "the ferry",
        "the price",
        "Cafés in Łódź, snake_case",
        "the",
    ]
    await put(stores, store, "one", pages(texts))
    for word, found in (
        ("mills", ["the mill", "the milling of flour at the mill"]),
        ("cafe", ["Cafés in Łódź, snake_case"]),
        ("Łódź", ["Cafés in Łódź, snake_case"]),
        ("case", ["Cafés in Łódź, snake_case"]),
        ("nothing", []),
    ):
        assert sorted(await by_words(stores, [store], word)) == sorted(found), word
    assert (await by_words(stores, [store], "flour", "mill"))[0] == "the milling of flour at the mill"
    assert (await by_words(stores, [store], "the", "ferry"))[0] == "the ferry"
    assert sorted(await by_words(stores, [store], "the")) == sorted(set(texts) - {texts[4]})
    assert await by_words(stores, [store], "store1", "text", "words") == []


async def test_a_word_that_very_many_have_is_passed_over(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("embedded", "pgvector"):
        monkeypatch.setattr(f"llmop.workloads.retrieval.{module}.MOST_WITH_A_WORD", 3)
    store = await made_store(stores)
    await put(stores, store, "one", pages(["so common one", "so common two", "so common three", "so"]))
    assert await by_words(stores, [store], "so") == []
    assert len(await by_words(stores, [store], "so", "common")) == 3
    # What has become of it is seen at the next search, also where it was passed over before.
    await put(stores, store, "two", pages(["common again"]))
    assert await by_words(stores, [store], "so", "common") == []
    await stores.remove_file("o", "two")
    assert len(await by_words(stores, [store], "so", "common")) == 3
    await stores.remove_file("o", "one")
    await put(stores, store, "three", pages(["so it is"]))
    assert await by_words(stores, [store], "so") == ["so it is"]


async def test_every_vector_is_compared(stores: Stores) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(300, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = [await made_store(stores, f"vs_{number}", dimension=48) for number in range(2)]
    for number, part in enumerate(np.split(vectors, 6)):
        texts = {f"p{50 * number + place}": vector.tolist() for place, vector in enumerate(part)}
        await put(stores, made[number % 2], f"f{number}", texts)
    questions = vectors[:3] + random.normal(size=(3, 48)).astype(np.float32) / 10
    similar = questions @ vectors.T
    orders, scores = await stores.compare(made, questions, 20, ())
    names = {number: await name_of(stores, number) for number in scores}
    for order, row in zip(orders, similar, strict=True):
        assert [names[number] for number in order] == [f"p{place}" for place in np.argsort(-row)[:20]]
    for number, score in scores.items():
        assert score == pytest.approx(similar[:, int(names[number][1:])].max(), abs=1e-5)
    beside = sorted(set(await stores.with_words(made, ["p299", "p298"], 60)) - set(scores))
    _, more = await stores.compare(made, questions, 20, beside)
    assert more.keys() == {*scores, *beside}
    assert (await stores.compare(made[:1], questions, 300, ())).scores.keys() <= set(range(1, 301))
    assert len((await stores.compare(made[:1], questions, 300, ())).orders[0]) == 150


async def name_of(stores: Stores, number: int) -> str:
    (found,) = await stores.passages({number: 1.0})
    return found.text


async def test_stores_of_several_dimensions_lie_side_by_side(stores: Stores) -> None:
    small, large = await made_store(stores), await made_store(stores, "vs_b", dimension=3000)
    await put(stores, small, "one", {"a": [0, 1]})
    vector = np.zeros(3000, dtype=np.float32)
    vector[7] = 1
    await put(stores, large, "two", {"b": vector.tolist()})
    index = Index(stores)
    for store, asked, text in ((small, np.array([0, 1], dtype=np.float32), "a"), (large, vector, "b")):
        assert [each.text for each in await index.search([store], [Question("?", asked)], 5, 0.9)] == [text]
    assert await stores.vector_bytes(large.number) == 12_008
    assert await stores.dimension(small.number) == 2
    assert await stores.dimension(99) == 0


async def test_whether_an_owner_has_one_of_several_stores(stores: Stores) -> None:
    await made_store(stores, "vs_1")
    await made_store(stores, "vs_other", owner="p")

    assert await stores.owns("o", ["vs_none", "vs_1"])
    assert not await stores.owns("o", ["vs_other", "vs_none"])
    assert not await stores.owns("o", [])


async def test_stores_and_documents_are_listed_page_by_page(stores: Stores) -> None:
    made = [await made_store(stores, f"vs_{number}") for number in range(5)]
    await made_store(stores, "vs_other", owner="p")
    names = [each.id for each in made]

    async def listed(after: str, *, oldest_first: bool) -> list[str]:
        return [each.id for each in await stores.owned("o", after, 2, oldest_first=oldest_first)]

    assert await listed("", oldest_first=True) == names[:2]
    assert await listed("vs_1", oldest_first=True) == names[2:4]
    assert await listed("", oldest_first=False) == names[:2:-1]
    assert await listed("vs_1", oldest_first=False) == names[:1]
    assert await listed("vs_none", oldest_first=True) == []
    between = await stores.owned("o", "vs_3", 9, before="vs_0", oldest_first=False)
    assert [each.id for each in between] == ["vs_2", "vs_1"]
    store = made[0]
    batch = Batch("vsfb_1", 2.0)
    await stores.put(store, [wanted(store, f"f{number}", batch=batch.id) for number in range(3)], batch)
    await put(stores, store, "single", {"a": [1, 0]})
    assert await stores.batch(store, "vsfb_1") == batch
    assert await stores.batch(made[1], "vsfb_1") is None

    async def files(
        batch: str = "", status: str = "", after: str = "", *, oldest_first: bool = True
    ) -> list[str]:
        found = await stores.documents(
            store, batch=batch, status=status, after=after, limit=9, oldest_first=oldest_first
        )
        return [each.file for each in found]

    assert await files() == ["f0", "f1", "f2", "single"]
    assert await files(batch="vsfb_1", after="f2", oldest_first=False) == ["f1", "f0"]
    assert await files(status="completed") == ["single"]
    between = await stores.documents(
        store, batch="", status="", after="f0", before="single", limit=9, oldest_first=True
    )
    assert [each.file for each in between] == ["f1", "f2"]
    assert await stores.counts(store, "vsfb_1") == ({Status.IN_PROGRESS: 3}, 0)
    await stores.cancel(batch)
    assert (await stores.counts(store))[0] == {Status.CANCELLED: 3, Status.COMPLETED: 1}
    assert await stores.files() == {"f0", "f1", "f2", "single"}
    await stores.forget_files(["f1", "f2"])
    assert await files() == ["f0", "single"]
    await stores.remove(store)
    assert await stores.find(store.id) is None
    assert await stores.files() == set()


async def test_what_is_told_of_stores_and_documents_is_kept_as_it_is(stores: Stores) -> None:
    store = await made_store(stores)
    changed = dataclasses.replace(store, name="it's \u00fc ? %s :x", metadata={"a": "b?"})
    await stores.change(changed)
    await stores.used(store, 7.25)
    assert await stores.find(store.id, "o") == dataclasses.replace(changed, active_at=7.25)
    assert await stores.find(store.id, "p") is None
    told = wanted(store, "one", attributes={"year": 1890, "x": 0.5, "y": True, "z": "?"}, cut=Cut(64, 8))
    await stores.put(store, [told])
    found = await stores.document(store, "one")
    assert found == dataclasses.replace(told, number=found.number if found else 0)
    await stores.set_attributes(found, {"a": 1})
    passage = Passage("text ? %s \\ 'x'", ("A", "B"), 3)
    assert await stores.keep(found, 0, [Row(passage, passage.text, np.ones(2, dtype=np.float32).tobytes())])
    await stores.end(found)
    (one,) = await Index(stores).search([store], [Question("x", np.array([1, 0], dtype=np.float32))], 5, 0.0)
    assert (one.attributes, one.text, one.headings, one.page) == ({"a": 1}, *passage)
    assert await stores.find("vs_\0") is None
    await stores.change(dataclasses.replace(store, name="nul \0"))
    assert ((await stores.find(store.id)) or store).name in ("nul \0", "nul \ufffd")


async def test_filters_choose_before_anything_is_ranked(stores: Stores) -> None:
    """What is wanted is the worst of all by vectors and by words, behind more than either order holds."""
    store, other = await made_store(stores), await made_store(stores, "vs_b")
    near = {f"fox fox fox {number}": [1.0, 0.0] for number in range(100)}
    await put(stores, store, "near", near, attributes={"year": 1890, "town": "Ulm"})
    far = {f"a fox among {number} other animals of all kinds": [0.1, 0.995] for number in range(12)}
    await put(stores, store, "far", far, attributes={"year": 2026, "open": True})
    await put(stores, store, "none", {"fox without": [0.9, 0.43]})
    await put(stores, other, "theirs", {"fox of others": [0.8, 0.6]}, attributes={"year": 2026})
    unfinished = {"fox unfinished": [1.0, 0.0]}
    await put(stores, store, "unfinished", unfinished, ends=False, attributes={"year": 2026})
    question = [Question("fox", np.array([1, 0], dtype=np.float32))]

    async def found(
        asked: Sequence[Store], most: int, kind: str, key: str, value: Any, least: float = 0.0
    ) -> list[str]:
        chosen = attributes.read({"type": kind, "key": key, "value": value})
        return [each.file for each in await Index(stores).search(asked, question, most, least, chosen)]

    assert {each.file for each in await Index(stores).search([store], question, 50, 0.0)} == {"near"}
    assert await found([store], 10, "eq", "year", 2026) == ["far"] * 10
    assert await found([store], 50, "gt", "year", 1890) == ["far"] * 12
    assert await found([store], 50, "gt", "year", 1890, 0.2) == []
    assert sorted(await found([store], 50, "ne", "town", "Ulm")) == ["far"] * 12 + ["none"]
    assert await found([store, other], 1, "eq", "year", 2026) == ["theirs"]
    assert sorted(await found([other, store], 50, "in", "year", [2026])) == ["far"] * 12 + ["theirs"]
    assert await found([store], 50, "eq", "open", 1) == []
    assert await found([store], 50, "eq", "year", "2026") == []
    # What is found by words alone is chosen too.
    documents = await stores.fitting([store], attributes.read({"type": "eq", "key": "open", "value": True}))
    numbers = await stores.with_words([store], ["fox"], 60, documents)
    assert {each.file for each in await stores.passages(dict.fromkeys(numbers, 1.0))} == {"far"}
    assert len(numbers) == 12
    assert await stores.with_words([store], ["fox"], 60, []) == []

    document = await stores.document(store, "near")
    assert document is not None
    await stores.set_attributes(document, {"year": 2027})
    assert await found([store], 50, "eq", "town", "Ulm") == []
    assert set(await found([store], 5, "gte", "year", 2027)) == {"near"}


async def test_a_document_that_is_put_again_begins_anew(stores: Stores) -> None:
    store = await made_store(stores)
    await put(stores, store, "one", {"old words": [1, 0]})
    await put(stores, store, "one", {"new": [1, 0]}, ends=False)
    assert (await stores.counts(store))[0] == {Status.IN_PROGRESS: 1}
    assert await by_words(stores, [store], "old") == []
    assert await Index(stores).search([store], [Question("new", np.array([1, 0], np.float32))], 5, 0.0) == []


async def test_nothing_comes_into_a_store_that_was_removed_meanwhile(stores: Stores) -> None:
    store = await made_store(stores)
    await stores.remove(store)
    await stores.put(store, [wanted(store, "one")])
    await stores.put(store, [wanted(store, "two", batch="vsfb_1")], Batch("vsfb_1", 2.0))
    assert await stores.files() == set()
    assert await stores.batch(store, "vsfb_1") is None


async def test_owners_take_turns_and_have_what_is_theirs(stores: Stores) -> None:
    for owner, count in (("o", 3), ("p", 2)):
        store = await made_store(stores, f"vs_{owner}", owner)
        await stores.put(store, [wanted(store, f"{owner}{number}") for number in range(count)])
    assert [owner for _, owner, _ in await stores.due(2)] == ["o", "p", "o", "p"]
    assert await stores.owned_bytes("o") == 0
    store = await made_store(stores, "vs_q", "o")
    await put(stores, store, "x", {"abcd": [1, 0], "ef": [0, 1]})
    assert await stores.owned_bytes("o") == 4 + 2 + 2 * 8
    assert await stores.owned_bytes("p") == 0


async def test_nothing_is_left_to_tidy_after_a_while(stores: Stores) -> None:
    store = await made_store(stores)
    for number in range(20):
        await put(
            stores, store, f"f{number}", {f"word{number} " * 50: [1, 0], f"other{number} " * 50: [0, 1]}
        )
    await stores.remove(store)
    for _ in itertools.takewhile(lambda turn: turn < 100, itertools.count()):
        if not await stores.tidy():
            break
    else:
        raise AssertionError("there is always more to tidy")
    again = await made_store(stores)
    await put(stores, again, "f", {"word1": [1, 0]})
    assert await by_words(stores, [again], "word1", "other1") == ["word1"]
