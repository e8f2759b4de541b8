"""The official clients are the judges: both dialects, through the gateway, from two simulated engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
import text_generation
import text_generation.errors
from openai.types.chat import ChatCompletionUserMessageParam
from tests.engines.simulator_process import SimulatorProcess, simulator_process
from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import endpoint, model, waits

KEY = "replica-key"
MESSAGES = [ChatCompletionUserMessageParam(role="user", content="Hello")]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SimulatorProcess]]:
    key_file: Path = tmp_path_factory.mktemp("key") / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    flags = ("--api-key-file", str(key_file), "--max-concurrent-requests", "2", "--decode-base-ms", "20")
    with simulator_process(*flags) as one, simulator_process(*flags) as two:
        yield [one, two]


@pytest.fixture
async def simulated(rig: Rig, engines: list[SimulatorProcess]) -> AsyncIterator[Rig]:
    endpoints = [endpoint(f"sim-{number}", each.port, key=KEY) for number, each in enumerate(engines)]
    await rig.control.acknowledged(rig.control.publish(endpoints, [model("org/sim", upstream_model="tgi")]))
    yield rig


@pytest.fixture
async def client(simulated: Rig) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{simulated.address}/v1", api_key=simulated.key, max_retries=0
    ) as client:
        yield client


async def test_openai_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="org/sim", messages=MESSAGES, max_tokens=5)
    assert answer.choices[0].message.content
    assert 5 == (answer.usage.completion_tokens if answer.usage else None)


async def test_openai_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="org/sim",
        messages=MESSAGES,
        max_tokens=5,
        stream=True,
    )
    text = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert len([piece for piece in text if piece]) > 1


async def test_the_usage_of_openai_streams_is_counted_whether_it_is_asked_for_or_not(
    rig: Rig, engines: list[SimulatorProcess]
) -> None:
    sim = model("org/sim", upstream_model="tgi", usage_in_stream=True)
    await rig.control.acknowledged(rig.control.publish([endpoint("sim-1", engines[0].port, key=KEY)], [sim]))
    prompt = 0
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        asked = await client.chat.completions.create(
            model="org/sim",
            messages=MESSAGES,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        usages = [chunk.usage async for chunk in asked if chunk.usage is not None]
        assert [5] == [usage.completion_tokens for usage in usages]
        prompt += usages[0].prompt_tokens
        silent = await client.chat.completions.create(
            model="org/sim", messages=MESSAGES, max_tokens=5, stream=True
        )
        chunks = [chunk async for chunk in silent]
        assert not [chunk for chunk in chunks if chunk.usage is not None or not chunk.choices]
        texts = await client.completions.create(model="org/sim", prompt="Hello", max_tokens=3, stream=True)
        assert 3 == len([chunk async for chunk in texts])
        text = await client.completions.create(model="org/sim", prompt="Hello", max_tokens=3)
        assert text.usage is not None
        prompt += usages[0].prompt_tokens + 2 * text.usage.prompt_tokens
    series = 'llmop_gateway_tokens_total{{kind="{}",model="org/sim",source="{}"}}'
    assert 16.0 == await rig.metric(series.format("completion", "reported"))
    assert float(prompt) == await rig.metric(series.format("prompt", "reported"))
    assert 0.0 == await rig.metric(series.format("completion", "estimated"))


async def test_openai_models_and_errors(simulated: Rig, client: openai.AsyncOpenAI) -> None:
    assert ["org/sim"] == [one.id async for one in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="none", prompt="x")
    async with openai.AsyncOpenAI(
        base_url=f"{simulated.address}/v1", api_key="no", max_retries=0
    ) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_text_generation(simulated: Rig) -> None:
    for address in (simulated.address, f"{simulated.address}/models/org/sim"):
        client = text_generation.AsyncClient(
            address, headers={"Authorization": f"Bearer {simulated.key}"}, timeout=60
        )
        answer = await client.generate("Hello", max_new_tokens=4)
        assert answer.generated_text
        events = [event async for event in client.generate_stream("Hello", max_new_tokens=4)]
        assert 4 == len(events)
        assert events[-1].generated_text


async def test_what_text_generation_took_is_counted(simulated: Rig) -> None:
    client = text_generation.AsyncClient(
        simulated.address, headers={"Authorization": f"Bearer {simulated.key}"}, timeout=60
    )
    answer = await client.generate("Hello", max_new_tokens=4)  # both ask for details
    assert 4 == len([event async for event in client.generate_stream("Hello", max_new_tokens=4)])
    assert answer.details is not None
    series = 'llmop_gateway_tokens_total{{kind="{}",model="org/sim",source="{}"}}'
    assert 8.0 == await simulated.metric(series.format("completion", "reported"))
    assert 0.0 == await simulated.metric(series.format("completion", "estimated"))
    info = await simulated.ask("/models/org%2Fsim/info", b"", method="GET")
    assert "model_id" in info.json()
    headers = {"content-type": "application/json"}
    assert [] != (await simulated.ask("/tokenize", b'{"inputs":"Hello you"}', headers)).json()


async def test_text_generation_errors(simulated: Rig) -> None:
    client = text_generation.AsyncClient(
        f"{simulated.address}/models/none", headers={"Authorization": f"Bearer {simulated.key}"}
    )
    with pytest.raises(text_generation.errors.NotFoundError):
        await client.generate("Hello")


async def test_a_full_engine_hands_its_stream_to_the_other_one(
    simulated: Rig, engines: list[SimulatorProcess]
) -> None:
    full, _ = engines
    body = b'{"inputs":"x","parameters":{"max_new_tokens":1500}}'  # half a minute
    wires = [await asyncio.open_connection("127.0.0.1", full.port) for _ in range(2)]
    for reader, writer in wires:  # as many as it takes
        writer.write(
            b"POST /generate_stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (KEY.encode(), len(body), body)
        )
        await reader.readuntil(b"data:")
    small = b'{"inputs":"x","parameters":{"max_new_tokens":3}}'
    headers = {"content-type": "application/json"}
    for _ in range(6):
        answer = await simulated.ask("/generate_stream", small, headers)
        assert (200, "sim-1") == (answer.status, answer.headers["x-llmop-replica"])
        assert b"overloaded" not in answer.body
    assert (
        await simulated.metric('llmop_gateway_upstream_errors_total{class="overloaded",model="org/sim"}') > 0
    )
    for _, writer in wires:
        writer.close()


@pytest.fixture
async def bounded(rig: Rig, engines: list[SimulatorProcess], simulated: Rig) -> Rig:
    """As many at a time as the engines take: more of them would be refused there."""
    await publish_bounded(rig, engines)
    return rig


async def publish_bounded(rig: Rig, engines: list[SimulatorProcess]) -> None:
    endpoints = [endpoint(f"sim-{number}", each.port, key=KEY) for number, each in enumerate(engines)]
    served = model("org/sim", upstream_model="tgi", max_in_flight=2, queue=waits())
    await rig.control.acknowledged(rig.control.publish(endpoints, [served]))


async def test_overload_is_not_refused_but_waits(bounded: Rig, client: openai.AsyncOpenAI) -> None:
    """Forty at once before two engines that take two each: without the queue most would be told 429."""

    async def chat() -> str:
        answer = await client.chat.completions.create(model="org/sim", messages=MESSAGES, max_tokens=3)
        return answer.choices[0].message.content or ""

    async def stream() -> str:
        words = ""
        async for chunk in await client.chat.completions.create(
            model="org/sim", messages=MESSAGES, max_tokens=3, stream=True
        ):
            words += chunk.choices[0].delta.content or ""
        return words

    async def generate() -> str:
        tgi = text_generation.AsyncClient(
            f"{bounded.address}/models/org/sim",
            headers={"Authorization": f"Bearer {bounded.key}"},
            timeout=60,
        )
        return str((await tgi.generate("Hello", max_new_tokens=3)).generated_text)

    said = await asyncio.gather(*(one() for _ in range(10) for one in (chat, stream, generate, chat)))
    assert all(said)
    assert await bounded.metric('llmop_gateway_queue_wait_seconds_count{model="org/sim"}') > 0
    assert (
        await bounded.metric('llmop_gateway_requests_total{code="4xx",dialect="openai",model="org/sim"}') == 0
    )


async def test_a_cold_start_is_only_slow_for_the_clients(
    rig: Rig, client: openai.AsyncOpenAI, engines: list[SimulatorProcess]
) -> None:
    none = rig.control.publish([], [model("org/sim", upstream_model="tgi", queue=waits())])
    await rig.control.acknowledged(none)

    async def stream() -> int:
        number = 0
        async for _ in await client.chat.completions.create(
            model="org/sim",
            messages=MESSAGES,
            max_tokens=3,
            stream=True,
            extra_headers={"x-llmop-progress": "1"},
        ):
            number += 1
        return number

    tgi = text_generation.AsyncClient(
        f"{rig.address}/models/org/sim", headers={"Authorization": f"Bearer {rig.key}"}, timeout=60
    )
    waiting = [
        asyncio.create_task(client.chat.completions.create(model="org/sim", messages=MESSAGES, max_tokens=3)),
        asyncio.create_task(stream()),
        asyncio.create_task(tgi.generate("Hello", max_new_tokens=3)),
    ]
    await rig.until_metric('llmop_gateway_queued{model="org/sim",priority="default"}', 3)
    await publish_bounded(rig, engines)
    assert all(await asyncio.gather(*waiting))


async def test_clients_understand_that_they_waited_in_vain(rig: Rig, client: openai.AsyncOpenAI) -> None:
    short = model("org/sim", upstream_model="tgi", queue=waits(no_endpoint_ttl_s=1))
    await rig.control.acknowledged(rig.control.publish([], [short]))
    with pytest.raises(openai.InternalServerError) as raised:
        await client.chat.completions.create(model="org/sim", messages=MESSAGES)
    assert raised.value.status_code == 503
    with pytest.raises(openai.APIError) as broken:
        async for _ in await client.chat.completions.create(
            model="org/sim", messages=MESSAGES, stream=True, extra_headers={"x-llmop-progress": "1"}
        ):
            pass
    assert "no replica of the model" in str(broken.value)
