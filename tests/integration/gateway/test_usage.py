"""What was spent is counted per model, also where neither client nor engine speaks of it."""

from __future__ import annotations

import orjson
from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import Call

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = b'{"model":"m","stream":true}'


async def streaming(call: Call) -> None:
    """As vLLM does it: with usage only for those who ask."""
    await call.begin_stream()
    await call.chunk(CHUNK)
    if orjson.loads(call.body).get("stream_options", {}).get("include_usage"):
        await call.chunk(CHUNK + USAGE[:20])
        await call.chunk(USAGE[20:] + DONE)
    else:
        await call.chunk(CHUNK + DONE)
    await call.end_stream()


async def tokens(rig: Rig, source: str = "reported") -> tuple[float, float]:
    """Prompt and completion."""
    series = 'llmop_gateway_tokens_total{{kind="{}",model="m",source="{}"}}'
    return (
        await rig.metric(series.format("prompt", source)),
        await rig.metric(series.format("completion", source)),
    )


async def test_usage_of_a_stream_is_asked_for_and_kept_from_the_client(rig: Rig) -> None:
    (engine,) = await rig.serve(streaming, usage_in_stream=True)
    answer = await rig.ask(body=STREAM)
    assert (CHUNK * 2 + DONE, True) == (answer.body, answer.whole)
    assert {"include_usage": True} == orjson.loads(engine.calls[0].body)["stream_options"]
    assert (7.0, 2.0) == await tokens(rig)
    await rig.control.report()  # it may have been on its way before
    assert 2 == (await rig.control.report()).loads[0].generated_tokens


async def test_a_client_that_asks_gets_it(rig: Rig) -> None:
    await rig.serve(streaming, usage_in_stream=True)
    answer = await rig.ask(body=b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')
    assert CHUNK * 2 + USAGE + DONE == answer.body
    assert (7.0, 2.0) == await tokens(rig)


async def test_an_engine_that_does_not_know_the_question_is_not_asked(rig: Rig) -> None:
    (engine,) = await rig.serve(streaming)
    assert CHUNK * 2 + DONE == (await rig.ask(body=STREAM)).body
    assert STREAM == engine.calls[0].body
    assert (0.0, 0.0) == await tokens(rig)
    assert (len(STREAM) // 4, 3.0) == await tokens(rig, "estimated")


async def test_a_stream_with_a_length_keeps_its_framing_when_it_gets_shorter(rig: Rig) -> None:
    async def at_once(call: Call) -> None:
        body = CHUNK + USAGE + DONE
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    await rig.serve(at_once, usage_in_stream=True)
    answer = await rig.ask(body=STREAM)
    assert (CHUNK + DONE, True) == (answer.body, answer.whole)
    assert (7.0, 2.0) == await tokens(rig)


async def test_a_stream_that_breaks_is_counted_by_its_events(rig: Rig) -> None:
    async def broken(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(CHUNK * 5)
        call.close()

    await rig.serve(broken, usage_in_stream=True)
    assert not (await rig.ask(body=STREAM)).whole
    assert 5.0 == (await tokens(rig, "estimated"))[1]


async def test_a_stream_whose_client_leaves_is_counted_by_its_events(rig: Rig) -> None:
    async def endless(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(CHUNK * 3)
        await call.gone()

    await rig.serve(endless, usage_in_stream=True)
    wire = await rig.wire()
    await wire.send(rig.request(body=STREAM))
    await wire.head()
    await wire.chunk()
    wire.close()
    series = 'llmop_gateway_tokens_total{kind="completion",model="m",source="estimated"}'
    await rig.until_metric(series, 3.0)


async def test_answers_in_one_piece(rig: Rig) -> None:
    async def unary(call: Call) -> None:
        await call.answer(b'{"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}')

    async def embedding(call: Call) -> None:
        await call.answer(b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}')

    async def tgi(call: Call) -> None:
        await call.answer(
            b'{"generated_text":"x"}', extra=b"x-prompt-tokens: 10\r\nx-generated-tokens: 20\r\n"
        )

    async def failed(call: Call) -> None:
        await call.answer(b'{"error":"x"}', "422 Unprocessable Entity")

    (engine,) = await rig.serve(unary)
    for behaviour, path in (
        (unary, "/v1/completions"),
        (embedding, "/v1/embeddings"),
        (tgi, "/generate"),
        (failed, "/generate"),
    ):
        engine.behaviour = behaviour
        await rig.ask(path)
    assert (18.0, 26.0) == await tokens(rig)
    assert (0.0, 0.0) == await tokens(rig, "estimated")
