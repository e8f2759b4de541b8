"""What clients hear when the disk does not take it, or their quota."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest
from tests.unit.workloads.workloads_rig import CHAT, FakeGateway, Life, jsonl, row

from llmop.domain.assistant import Assistant
from llmop.workloads.answers import Answer
from llmop.workloads.app import make_app
from llmop.workloads.known import Virtual
from llmop.workloads.outlook import Outlook
from llmop.workloads.quota import Quota
from llmop.workloads.retrieval.chunks import Passage
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.index import Index
from llmop.workloads.retrieval.ingest import Ingest
from llmop.workloads.retrieval.search import Search
from llmop.workloads.retrieval.stores import Row
from llmop.workloads.service import Service


class Door:
    def __init__(self, life: Life, client: httpx.AsyncClient, stores: EmbeddedStores) -> None:
        self.stores = stores
        self.life = life
        self.client = client

    async def upload(self) -> httpx.Response:
        return await self.client.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("rows", jsonl([row(1)]))}
        )


async def nothing(path: str) -> None:
    return None


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    life = Life(tmp_path, FakeGateway())
    await life.begin()
    stores = EmbeddedStores(tmp_path / "vectors.db", 2**30)
    quota = Quota(files=3, bytes=2000)
    app = make_app(
        Service(
            database=life.database,
            shelf=life.shelf,
            engine=life.engine,
            caller=life.gateway,
            people=life.gateway,
            outlook=Outlook(nothing, life.clock.monotonic),
            virtual=Virtual(tmp_path),
            stores=stores,
            ingest=Ingest(stores, life.database, life.shelf, life.gateway, quota),
            search=Search(life.gateway, Index(stores)),
            quota=quota,
            clock=life.clock,
        )
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://workloads") as client:
        yield Door(life, client, stores)
    await stores.close()
    await life.finish()


@pytest.mark.parametrize("step", ["write", "keep"])
async def test_a_full_disk_refuses_an_upload_and_nothing_of_it_stays(
    door: Door, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"llmop.workloads.shelf.Draft.{step}", full)
    answer = await door.upload()
    assert (507, "insufficient_storage") == (answer.status_code, answer.json()["error"]["code"])
    assert "No space left on device" in answer.json()["error"]["message"]
    assert [] == door.life.shelf.names()


async def test_a_store_that_takes_nothing_refuses_and_nothing_stays(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    file = (await door.upload()).json()["id"]
    monkeypatch.setattr(door.life.database, "add_upload", full)
    assert 507 == (await door.upload()).status_code
    assert [file] == door.life.shelf.names()
    monkeypatch.setattr(door.life.database, "add_batch", full)
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    answer = await door.client.post("/v1/batches", json=wanted)
    assert (507, "store_failed") == (answer.status_code, answer.json()["error"]["code"])


async def test_a_content_that_was_taken_away_is_gone(door: Door) -> None:
    file = (await door.upload()).json()["id"]
    door.life.shelf.path(file).unlink()
    answer = await door.client.get(f"/v1/files/{file}/content")
    assert (410, "content_gone") == (answer.status_code, answer.json()["error"]["code"])


async def test_what_is_not_served_says_so(door: Door) -> None:
    for method, path in (("PUT", "/v1/files"), ("GET", "/v1/bulk"), ("GET", "/v1/files/a/b")):
        answer = await door.client.request(method, path)
        assert 404 == answer.status_code
        assert f"{method} {path} is not served" in answer.json()["error"]["message"]
    for path in (
        "/v1/files?limit=0",
        "/v1/batches?limit=x",
        "/v1/files?order=up",
        f"/v1/files?limit={'9' * 5000}",
    ):
        assert 400 == (await door.client.get(path)).status_code
    answer = await door.client.post(f"/v1/bulk?concurrency={'9' * 5000}", content=b"")
    assert (400, "concurrency") == (answer.status_code, answer.json()["error"]["param"])


async def test_a_file_that_has_expired_is_not_there_any_more(door: Door) -> None:
    expiry = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = await door.client.post("/v1/files", data=expiry, files={"file": ("rows", jsonl([row(1)]))})
    file = made.json()["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    assert 200 == (await door.client.post("/v1/batches", json=wanted)).status_code
    door.life.clock.time += 3601
    assert 404 == (await door.client.get(f"/v1/files/{file}")).status_code
    answer = await door.client.post("/v1/batches", json=wanted)
    assert (404, True) == (answer.status_code, file in answer.json()["error"]["message"])


STORE = {"embedding_model": "m"}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"ranking_options": {"hybrid_search": {"embedding_weight": 1}}}, "ranking_options.hybrid_search"),
        ({"ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"ranking_options": {"score_threshold": 1.5}}, "ranking_options.score_threshold"),
        ({"max_num_results": 51}, "max_num_results"),
        ({"max_num_results": 0}, "max_num_results"),
        ({"rewrite_query": True}, "rewrite_query"),
        ({"filters": {"type": "eq", "key": "a", "value": 1, "boost": 2}}, "filters.boost"),
        ({"filters": {"type": "or", "filters": [{"type": "eq", "key": "a"}]}}, "filters.filters[0].value"),
        ({"filters": [1]}, "filters"),
    ],
)
async def test_a_search_does_not_pass_over_what_it_does_not_know(
    door: Door, wanted: dict[str, object], field: str
) -> None:
    store = (await door.client.post("/v1/vector_stores", json=STORE)).json()["id"]
    answer = await door.client.post(f"/v1/vector_stores/{store}/search", json={"query": "x"} | wanted)
    assert (400, field) == (answer.status_code, answer.json()["error"]["param"])


async def test_a_passage_has_a_size_and_an_overlap_and_nothing_else(door: Door) -> None:
    file = (
        await door.client.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"x")})
    ).json()
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10, "by": "sentence"}
    wanted = STORE | {"file_ids": [file["id"]], "chunking_strategy": {"type": "static", "static": static}}
    answer = await door.client.post("/v1/vector_stores", json=wanted)
    field = "chunking_strategy.static.by"
    assert (400, field) == (answer.status_code, answer.json()["error"]["param"])


async def test_what_files_are_put_in_with_is_taken_or_refused_by_its_place(door: Door) -> None:
    form = {"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"x")}}
    file = (await door.client.post("/v1/files", **form)).json()["id"]
    store = (await door.client.post("/v1/vector_stores", json=STORE)).json()["id"]
    path = f"/v1/vector_stores/{store}"

    def static(size: object, overlap: object) -> dict[str, object]:
        return {
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap},
            }
        }

    one, strategy = {"file_id": file}, "chunking_strategy"
    sixteen = {f"k{number}": number for number in range(16)}
    for below, wanted, field, words in (
        ("/files", {**one, "attributes": {"a": [1]}}, "attributes", "a number or a truth value under 'a'"),
        ("/files", {**one, "attributes": {"a": None}}, "attributes", "under 'a'"),
        ("/files", {**one, "attributes": {"a": "x" * 513}}, "attributes", "up to 512 characters"),
        ("/files", {**one, "attributes": {"k" * 65: 1}}, "attributes", "a name of 65 characters"),
        ("/files", {**one, "attributes": {**sixteen, "one": 1}}, "attributes", "has 17 entries; at most 16"),
        ("/files", {**one, "attributes": [1]}, "attributes", "must be an object"),
        ("/files", {**one, **static(4097, 0)}, f"{strategy}.static.max_chunk_size_tokens", "32 to 4096"),
        ("/files", {**one, **static(100, 51)}, f"{strategy}.static.chunk_overlap_tokens", "from 0 to 50"),
        ("/files", {**one, strategy: {**static(100, 50)[strategy], "by": 1}}, f"{strategy}.by", "not known"),
        ("/files", {**one, strategy: {"type": "auto", "static": {}}}, strategy, "must be"),
        (
            "/file_batches",
            {"files": [one, {**one, "attributes": {"a": {}}}]},
            "files[1].attributes",
            "under 'a'",
        ),
        ("/file_batches", {"files": [{**one, "tags": 1}]}, "files[0].tags", "is not known"),
        ("/file_batches", {"files": [file]}, "files[0]", "must be an object with a file_id"),
        ("/file_batches", {"files": [{}]}, "files[0].file_id", "must name a file"),
        ("/file_batches", {"files": [one], "file_ids": [file]}, "file_ids", "only one of the two"),
        ("/file_batches", {"files": [one], "attributes": {"a": 1}}, "attributes", "give it to each of files"),
        ("/file_batches", {"files": [one], **static(100, 50)}, strategy, "give it to each of files"),
        ("/file_batches", {"file_ids": ["f"] * 2001}, "file_ids", "at most 2000"),
        ("/file_batches", {}, "file_ids", "at least one"),
        (f"/files/{file}", {}, "attributes", "must be given"),
    ):
        if below.startswith("/files/"):
            assert (await door.client.post(f"{path}/files", json=one)).status_code == 200
        answer = await door.client.post(path + below, json=wanted)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, field), wanted
        assert words in error["message"], error
    most = {"a": "x" * 512, "k" * 64: 0.5, "t": True, **dict(list(sixteen.items())[:13])}
    answer = await door.client.post(f"{path}/files", json={**one, "attributes": most, **static(4096, 2048)})
    assert (answer.status_code, answer.json()["attributes"]) == (200, most)
    batch = {"file_ids": [file], "attributes": {"a": 1}, "chunking_strategy": {"type": "auto"}}
    assert (await door.client.post(f"{path}/file_batches", json=batch)).status_code == 200
    answer = await door.client.get(f"{path}/files/{file}")
    assert answer.json()["attributes"] == {"a": 1}
    answer = await door.client.post(f"{path}/files/{file}", json={"attributes": None})
    assert (answer.status_code, answer.json()["attributes"]) == (200, {})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"expires_after": {"anchor": "last_active_at", "days": 1}}, "stays until it is deleted"),
        ({"description": "x"}, "put it into metadata"),
        ({"chunking_strategy": {"type": "static"}}, "give it with the files that come later"),
        ({"metadata": {"a": 1}}, "under 'a'"),
    ],
)
async def test_what_a_store_is_not_made_with_is_refused_with_what_to_do(
    door: Door, wanted: dict[str, object], words: str
) -> None:
    answer = await door.client.post("/v1/vector_stores", json=STORE | wanted)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, *wanted)
    assert words in error["message"]


async def test_lists_go_forwards_and_back_from_any_place(door: Door) -> None:
    stores = [(await door.client.post("/v1/vector_stores", json=STORE)).json()["id"] for _ in range(5)]
    for _ in range(3):
        form = {"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"x")}}
        file = (await door.client.post("/v1/files", **form)).json()["id"]
        await door.client.post(f"/v1/vector_stores/{stores[0]}/files", json={"file_id": file})

    async def listed(query: str, path: str = "") -> tuple[list[str], bool]:
        page = (await door.client.get(f"/v1/vector_stores{path}?{query}")).json()
        names = [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((names[0], names[-1]) if names else (None, None))
        return names, page["has_more"]

    assert await listed("limit=2") == (stores[:2:-1], True)
    assert await listed(f"limit=2&order=asc&after={stores[1]}") == (stores[2:4], True)
    assert await listed(f"limit=2&order=asc&before={stores[3]}") == (stores[1:3], True)
    assert await listed(f"limit=2&order=asc&before={stores[2]}") == (stores[:2], False)
    assert await listed(f"order=asc&before={stores[0]}") == ([], False)
    assert await listed(f"limit=3&before={stores[0]}") == (stores[3:0:-1], True)
    below = f"/{stores[0]}/files"
    files, _ = await listed("order=asc", below)
    assert len(files) == 3
    assert await listed(f"limit=1&order=asc&before={files[2]}", below) == (files[1:2], True)
    assert await listed(f"filter=in_progress&before={files[0]}", below) == (files[:0:-1], False)
    assert await listed("filter=failed", below) == ([], False)
    # The SDK turns pages with `after`, also where it began with `before`.
    assert await listed(f"limit=1&order=asc&before={stores[4]}&after={stores[1]}") == (stores[2:3], True)
    assert await listed(f"before={stores[1]}&after={stores[4]}") == (stores[3:1:-1], False)
    assert await listed(f"before={files[2]}&after={files[1]}&order=asc", below) == ([], False)
    assert await listed(f"before={files[2]}&after={files[0]}&order=asc", below) == (files[1:2], False)
    for query, field in (
        ("filter=done", "filter"),
        ("status=failed", "status"),
        ("order=up", "order"),
    ):
        answer = await door.client.get(f"/v1/vector_stores{below}?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert (await door.client.get("/v1/vector_stores?filter=failed")).status_code == 400


async def test_a_field_that_is_null_was_left_out(door: Door) -> None:
    answer = await door.client.post(
        "/v1/vector_stores", json=STORE | {"expires_after": None, "description": None}
    )
    assert 200 == answer.status_code, answer.text


async def test_a_key_has_so_many_files_and_so_many_bytes_and_no_more(door: Door) -> None:
    async def upload(size: int, owner: str = "a") -> httpx.Response:
        return await door.client.post(
            "/v1/files",
            data={"purpose": "assistants"},
            files={"file": ("a.txt", b"x" * size)},
            headers={"authorization": f"Bearer {owner}"},
        )

    def refused(answer: httpx.Response, words: str) -> None:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (
            403,
            "quota_exceeded",
            "invalid_request_error",
        )
        assert words in error["message"]

    refused(await upload(2001), "more than 2000 bytes: delete some")
    assert (await upload(1990)).status_code == 200
    refused(await upload(11), "more than 2000 bytes")
    assert (await upload(10)).status_code == 200
    assert (await upload(0)).status_code == 200
    refused(await upload(0), "this key has 3 files, and may have 3: delete some")
    assert (await upload(1, "b")).status_code == 200
    names = {
        each.id
        for each in await door.life.database.files(
            _hash("a"), purpose=None, after="", limit=9, oldest_first=True
        )
    }
    assert len(names) == 3
    assert len(door.life.shelf.names()) == 4
    for name in names:
        await door.client.delete(f"/v1/files/{name}", headers={"authorization": "Bearer a"})
    assert (await upload(2000)).status_code == 200


async def test_uploads_at_once_do_not_get_past_the_bound(door: Door) -> None:
    answers = await asyncio.gather(*(door.upload() for _ in range(8)))
    assert sorted(each.status_code for each in answers) == [200] * 3 + [403] * 5
    assert len(door.life.shelf.names()) == 3


async def test_what_passages_take_counts_too(door: Door) -> None:
    headers = {"authorization": "Bearer a"}
    answer = await door.client.post(
        "/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"x")}, headers=headers
    )
    file = answer.json()["id"]
    made = await door.client.post("/v1/vector_stores", json={"embedding_model": "m"}, headers=headers)
    store = await door.stores.find(made.json()["id"])
    assert store is not None
    path = f"/v1/vector_stores/{store.id}/files"
    assert (await door.client.post(path, json={"file_id": file}, headers=headers)).status_code == 200
    document = await door.stores.document(store, file)
    assert document is not None
    assert await door.stores.keep(document, 0, [Row(Passage("a"), "a", b"\0" * 2000)])
    again = await door.client.post(path, json={"file_id": file}, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (403, "quota_exceeded")
    answer = await door.client.post(
        "/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"x")}, headers=headers
    )
    assert answer.status_code == 403


async def test_a_disk_that_takes_nothing_more_is_searched_still(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embed(_url: str, body: dict[str, list[str]], *_: object) -> Answer:
        data = [{"index": index, "embedding": [1.0, 0.0]} for index, _ in enumerate(body["input"])]
        return Answer(200, orjson.dumps({"data": data}))

    async def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = (await door.client.post("/v1/vector_stores", json=STORE)).json()["id"]
    monkeypatch.setattr(door.life.gateway, "ask", embed)
    monkeypatch.setattr(door.stores, "used", full)
    answer = await door.client.post(f"/v1/vector_stores/{store}/search", json={"query": "x"})
    assert (200, []) == (answer.status_code, answer.json()["data"])


async def never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_database_of_vector_stores_that_says_nothing_keeps_no_file_waiting(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmop.workloads.files._VECTORS_S", 0.05)
    for name in ("owned_bytes", "remove_file"):
        monkeypatch.setattr(door.stores, name, never)
    async with asyncio.timeout(30):
        answer = await door.upload()
        assert answer.status_code == 200
        answer = await door.client.delete(f"/v1/files/{answer.json()['id']}")
    assert answer.json()["deleted"] is True


async def test_what_models_ask_is_told_without_vector_stores_that_say_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the gateway takes all of us for away, tribunals too."""
    monkeypatch.setattr("llmop.workloads.needs._PATIENCE_S", 0.05)
    monkeypatch.setattr(door.stores, "find", never)
    asked = Assistant(name="a", namespace="d", model="m", vector_stores=("vs_1", "vs_2"))
    monkeypatch.setattr(Virtual, "all", lambda _: (asked,))
    async with asyncio.timeout(30):
        answer = await door.client.get("/virtual-models")
    assert answer.json() == {"a": {"models": ["m"], "missing_stores": []}}


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
