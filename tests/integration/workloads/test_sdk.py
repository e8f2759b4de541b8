"""The `openai` SDK, unmodified: files and batches through the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from tests.integration.gateway.upstreams import Call
from tests.integration.workloads.conftest import Workloads
from tests.waiting import eventually

from llmop.gateway import keys

CHAT = "/v1/chat/completions"


def row(number: int, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"p{number}"}]
    return {
        "custom_id": f"c{number}",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": messages} | body,
    }


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


async def echo(call: Call) -> None:
    body = json.loads(call.body)
    prompt = body["messages"][0]["content"]
    if prompt == "p3":
        await call.answer(b'{"error":{"message":"no"}}', "400 Bad Request")
        return
    choice = {"index": 0, "message": {"role": "assistant", "content": prompt}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    await call.answer(json.dumps(answer).encode())


@pytest.fixture
async def client(workloads: Workloads) -> AsyncIterator[openai.AsyncOpenAI]:
    await workloads.rig.serve(echo, echo)
    async with sdk(workloads, workloads.rig.key) as made:
        yield made


def sdk(workloads: Workloads, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{workloads.url}/v1", api_key=key, max_retries=0)


async def ended(client: openai.AsyncOpenAI, name: str) -> Any:
    return await eventually(
        lambda: client.batches.retrieve(name),
        lambda batch: batch.status in ("completed", "failed", "expired", "cancelled"),
        patience_s=60,
    )


async def test_a_batch_from_its_file_to_its_results(workloads: Workloads, client: openai.AsyncOpenAI) -> None:
    content = jsonl(*map(row, range(50)))
    file = await client.files.create(file=("rows.jsonl", content), purpose="batch")
    assert ("rows.jsonl", len(content), "batch") == (file.filename, file.bytes, file.purpose)
    assert content == (await client.files.content(file.id)).content
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"for": "a test"}
    )
    assert "validating" == batch.status
    assert batch.expires_at is not None
    assert 86_400 == batch.expires_at - batch.created_at
    done = await ended(client, batch.id)
    assert ("completed", {"for": "a test"}) == (done.status, done.metadata)
    assert (50, 49, 1) == (
        done.request_counts.total,
        done.request_counts.completed,
        done.request_counts.failed,
    )
    output = [
        json.loads(line) for line in (await client.files.content(done.output_file_id)).text.splitlines()
    ]
    assert [f"c{n}" for n in range(50) if n != 3] == [line["custom_id"] for line in output]
    assert "p7" == output[6]["response"]["body"]["choices"][0]["message"]["content"]
    (failed,) = (await client.files.content(done.error_file_id)).text.splitlines()
    assert ("c3", 400) == (json.loads(failed)["custom_id"], json.loads(failed)["response"]["status_code"])
    calls = [call for engine in workloads.rig.engines for call in engine.calls]
    assert 50 == len(calls)
    assert done.id in [each.id async for each in client.batches.list(limit=1)]
    with pytest.raises(openai.ConflictError, match="completed"):
        await client.batches.cancel(done.id)


async def test_files_are_listed_in_pages_shown_and_deleted(client: openai.AsyncOpenAI) -> None:
    made = [
        (await client.files.create(file=(f"{n}.jsonl", b"{}\n"), purpose="user_data")).id for n in range(5)
    ]
    assert made == [file.id async for file in client.files.list(limit=2, order="asc")]
    assert made[::-1] == [file.id async for file in client.files.list(limit=3, purpose="user_data")]
    assert [] == [file.id async for file in client.files.list(purpose="batch")]
    assert (await client.files.delete(made[0])).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made[0])
    with pytest.raises(openai.NotFoundError):
        await client.files.delete(made[0])
    kept = await client.files.create(
        file=("k", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert kept.expires_at == kept.created_at + 3600


async def test_a_bad_file_fails_the_batch_with_its_lines(client: openai.AsyncOpenAI) -> None:
    content = jsonl(row(1)) + b"{not json\n" + jsonl(row(1), row(2, stream=True))
    file = await client.files.create(file=("bad.jsonl", content), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    done = await ended(client, batch.id)
    assert "failed" == done.status
    assert [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "unsupported_parameter"),
    ] == [(each.line, each.code) for each in done.errors.data]


async def test_what_belongs_to_another_key_is_not_there(
    workloads: Workloads, client: openai.AsyncOpenAI
) -> None:
    file = await client.files.create(file=("mine.jsonl", jsonl(row(1))), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    other_key = keys.create(workloads.folder / "keys", "other")
    await workloads.rig.until_known(other_key)
    async with sdk(workloads, other_key) as other:
        assert [] == [each.id async for each in other.files.list()]
        for ask in (
            other.files.retrieve(file.id),
            other.files.content(file.id),
            other.files.delete(file.id),
            other.batches.retrieve(batch.id),
            other.batches.cancel(batch.id),
            other.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask
        assert [] == [each.id async for each in other.batches.list()]
    assert "completed" == (await ended(client, batch.id)).status


async def test_a_batch_is_cancelled_in_the_middle(workloads: Workloads) -> None:
    async def slow(call: Call) -> None:
        if b"p0" in call.body:
            await echo(call)
        else:
            await call.gone()

    (engine,) = await workloads.rig.serve(slow)
    async with sdk(workloads, workloads.rig.key) as client:
        file = await client.files.create(file=("f", jsonl(*map(row, range(20)))), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        await engine.until(lambda each: len(each.calls) > 1)
        await eventually(
            lambda: client.batches.retrieve(batch.id),
            lambda shown: shown.request_counts is not None and shown.request_counts.completed == 1,
        )
        assert "cancelling" == (await client.batches.cancel(batch.id)).status
        done = await ended(client, batch.id)
        assert ("cancelled", 1, 19) == (
            done.status,
            done.request_counts.completed,
            done.request_counts.failed,
        )
        assert "cancelled" == (await client.batches.cancel(done.id)).status
    await engine.until(lambda each: each.connections == 0)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"completion_window": "soon"}, "completion_window"),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"priority": "high"}, "priority"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
async def test_bad_wishes_name_field_and_fix(
    workloads: Workloads, wanted: dict[str, Any], field: str
) -> None:
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"} | wanted
    answer = await workloads.call("POST", "/v1/batches", json=body)
    error = answer.json()["error"]
    assert (400, field) == (answer.status_code, error["param"])
    assert field in error["message"]
