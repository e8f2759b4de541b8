"""/v1/bulk through the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from tests.integration.gateway.upstreams import Call
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import echo, jsonl, row


async def bulk(workloads: Workloads, content: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = await workloads.call("POST", "/v1/bulk", content=content, params=query)
    assert answer.status_code == 200, answer.text
    assert "application/x-ndjson" == answer.headers["content-type"]
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_every_line_gets_one_answer_and_a_bad_one_costs_no_other(workloads: Workloads) -> None:
    await workloads.rig.serve(echo, echo)
    bad = b"{broken\n" + jsonl(row(99, stream=True), row(98) | {"url": "/v1/nothing"})
    found = await bulk(workloads, jsonl(*map(row, range(100))) + bad, concurrency=16)
    answered = {each["custom_id"]: each for each in found if each["custom_id"]}
    assert {f"c{number}" for number in range(100)} == answered.keys()
    assert 400 == answered["c3"]["response"]["status_code"]
    assert "p8" == answered["c8"]["response"]["body"]["choices"][0]["message"]["content"]
    errors = sorted(each["error"]["message"] for each in found if each["error"])
    assert ["line 101:", "line 102:", "line 103:"] == [message[:9] for message in errors]
    assert 103 == len(found)


async def test_a_line_may_be_the_shortest_that_says_what_is_asked(workloads: Workloads) -> None:
    await workloads.rig.serve(echo)
    short = {key: value for key, value in row(1).items() if key in ("custom_id", "body")}
    (found,) = await bulk(workloads, json.dumps(short).encode())
    assert "c1" == found["custom_id"]


async def test_answers_come_as_they_are_ready_or_in_order(workloads: Workloads) -> None:
    release = asyncio.Event()

    async def first_is_last(call: Call) -> None:
        if b'"p0"' in call.body:
            await release.wait()
        await echo(call)

    await workloads.rig.serve(first_is_last)
    headers = {"authorization": f"Bearer {workloads.rig.key}"}
    content = jsonl(*map(row, range(5)))
    async with (
        httpx.AsyncClient(base_url=workloads.url, headers=headers, timeout=30) as client,
        client.stream("POST", "/v1/bulk", content=content) as answer,
    ):
        seen = []
        async for line in answer.aiter_lines():
            seen.append(json.loads(line)["custom_id"])
            if len(seen) == 4:  # it would never come before all others are here
                release.set()
    assert "c0" == seen[-1]
    assert 5 == len(set(seen))
    found = await bulk(workloads, content, ordered="true")
    assert [f"c{number}" for number in range(5)] == [each["custom_id"] for each in found]


async def test_a_full_gateway_is_asked_again(workloads: Workloads) -> None:
    refused = 3

    async def full_at_first(call: Call) -> None:
        nonlocal refused
        if refused:
            refused -= 1
            await call.answer(b"{}", "429 Too Many Requests", b"retry-after: 0\r\n")
        else:
            await echo(call)

    (engine,) = await workloads.rig.serve(full_at_first)
    found = await bulk(workloads, jsonl(*map(row, range(20))))
    assert 20 == len({each["custom_id"] for each in found})
    assert [400] == [status for each in found if (status := each["response"]["status_code"]) != 200]
    assert len(engine.calls) >= 23


async def test_a_client_that_goes_takes_its_requests_back(workloads: Workloads) -> None:
    async def never(call: Call) -> None:
        await call.gone()

    (engine,) = await workloads.rig.serve(never)
    asking = asyncio.create_task(bulk(workloads, jsonl(*map(row, range(20)))))
    await engine.until(lambda each: each.connections == 4)
    asking.cancel()
    await engine.until(lambda each: each.connections == 0)


async def test_it_asks_under_the_key_of_its_client(workloads: Workloads) -> None:
    (engine,) = await workloads.rig.serve(echo)
    await workloads.kill()
    workloads.own_key = "llmop-of-nobody"
    await workloads.start(is_known=False)
    (found,) = await bulk(workloads, jsonl(row(1)))
    assert 200 == found["response"]["status_code"]
    assert 1 == len(engine.calls)


async def test_an_unknown_model_is_the_answer_to_its_line(workloads: Workloads) -> None:
    await workloads.rig.serve(echo)
    unknown = row(2)
    unknown["body"]["model"] = "nobody"
    (found,) = await bulk(workloads, jsonl(unknown))
    assert 404 == found["response"]["status_code"]
    assert "nobody" in found["response"]["body"]["error"]["message"]


async def test_without_workloads_the_gateway_says_so_and_finds_it_again(workloads: Workloads) -> None:
    await workloads.rig.serve(echo)
    await workloads.kill()
    answer = await workloads.call("POST", "/v1/bulk", content=jsonl(row(1)))
    assert (503, "workloads_away") == (answer.status_code, answer.json()["error"]["code"])
    assert "5" == answer.headers["retry-after"]
    assert 401 == (await workloads.call("GET", "/v1/files", key="llmop-wrong")).status_code
    await workloads.start()
    assert 1 == len(await bulk(workloads, jsonl(row(1))))
