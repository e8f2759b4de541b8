"""Limits of keys at a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.gateway.rig import Answer, Rig
from tests.integration.gateway.test_client_keys import SECRET, bearer, key
from tests.integration.gateway.upstreams import Call, model, polite

from llmop.api.v1 import gateway_pb2


async def serve(rig: Rig, behaviour: Any, *keys: gateway_pb2.ClientKey) -> None:
    engine = await rig.engine(behaviour)
    version = rig.control.publish([engine.endpoint()], [model("m")], keys=list(keys))
    await rig.control.acknowledged(version)


def refused(answer: Answer, limit: str) -> bool:
    return (answer.status, answer.headers.get("x-llmop-dropped-reason")) == (429, f"limit_{limit}")


async def test_requests_beyond_a_limit_are_refused_in_the_words_of_each_dialect(rig: Rig) -> None:
    await serve(rig, polite, key(requests_per_minute=2))
    assert [200, 200] == [(await rig.ask(headers=bearer())).status for _ in range(2)]
    openai = await rig.ask(headers=bearer())
    tgi = await rig.ask("/generate", b'{"inputs":"x"}', bearer())
    assert refused(openai, "requests")
    assert refused(tgi, "requests")
    assert 1 <= int(openai.headers["retry-after"]) <= 30
    error = openai.json()["error"]
    assert ("rate_limit_error", "rate_limit_exceeded") == (error["type"], error["code"])
    assert "default/team may use 2 requests per minute" in error["message"]
    assert "rate_limit_exceeded" == tgi.json()["error_type"]
    assert SECRET.encode() not in openai.body + tgi.body
    assert 2 == len(rig.engines[0].calls)
    # Others go on, and what is not generated is not counted.
    assert 200 == (await rig.ask()).status
    assert 200 == (await rig.ask("/v1/models", b"", bearer(), method="GET")).status
    assert 2 == await rig.metric('llmop_gateway_limited_total{limit="requests",outcome="refused"}')


async def test_tokens_that_were_reserved_and_not_used_come_back(rig: Rig) -> None:
    async def frugal(call: Call) -> None:
        await call.answer(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}')

    await serve(rig, frugal, key(tokens_per_minute=1000))
    body = b'{"model":"m","messages":[],"max_tokens":900}'
    for _ in range(10):  # 5 tokens each; 2 reservations of 900 would not fit
        assert 200 == (await rig.ask(body=body, headers=bearer())).status


async def test_an_answer_that_was_longer_than_expected_is_paid_for(rig: Rig) -> None:
    async def verbose(call: Call) -> None:
        await call.answer(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5000}}')

    await serve(rig, verbose, key(tokens_per_minute=1000))
    assert 200 == (await rig.ask(headers=bearer())).status
    answer = await rig.ask(headers=bearer())
    assert refused(answer, "tokens")
    assert 200 <= int(answer.headers["retry-after"]) <= 300


async def test_who_leaves_gives_back_his_place(rig: Rig) -> None:
    async def never(call: Call) -> None:
        await asyncio.Event().wait()

    await serve(rig, never, key(parallel_requests=1))
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()))
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    assert refused(await rig.ask(headers=bearer()), "parallel")
    wire.close()
    await rig.until_metric('llmop_gateway_in_flight{model="m"}', 0)
    second = await rig.wire()
    await second.send(rig.request(headers=bearer()))
    await rig.engines[0].until(lambda engine: len(engine.calls) == 2)


async def test_an_engine_that_fails_costs_no_tokens_and_holds_no_place(rig: Rig) -> None:
    async def broken(call: Call) -> None:
        call.close()

    await serve(rig, broken, key(parallel_requests=1, tokens_per_minute=300))
    assert [502] * 5 == [(await rig.ask(headers=bearer())).status for _ in range(5)]


async def test_shadow_counts_and_refuses_nothing(rig: Rig) -> None:
    await serve(rig, polite, key(requests_per_minute=1, shadow=True))
    assert [200] * 4 == [(await rig.ask(headers=bearer())).status for _ in range(4)]
    assert 3 == await rig.metric('llmop_gateway_limited_total{limit="requests",outcome="shadow"}')
    assert 0 == await rig.metric('llmop_gateway_limited_total{limit="requests",outcome="refused"}')
