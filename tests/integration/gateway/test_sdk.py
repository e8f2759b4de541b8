"""The `openai` SDK and the `text-generation` client, unmodified: what they get through the gateway is what they get of the engine.

Every call is made four times: to the engine and through the gateway, each by the synchronous and by the asynchronous client.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
import text_generation
import text_generation.errors
import text_generation.types
from tests.engines.simulator_process import SimulatorProcess, simulator_process
from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import Call, endpoint, model

KEY = "replica-key"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
# Of every answer its own: a number, a time, and what the engine calls the model where it has only one name for all. vLLM names itself
# in the last event, which is the usage that the gateway has asked for and takes out.
OWN = frozenset({"id", "created", "model", "system_fingerprint"})

CHAT, TEXT, VECTORS = "org/chat", "tgi", "org/e"
ENGINES = {
    CHAT: ("--personality", "vllm", "--served-model-name", CHAT),
    TEXT: ("--max-total-tokens", "500"),
    VECTORS: (
        "--personality",
        "tei",
        "--model-id",
        VECTORS,
        "--embedding-size",
        "16",
        "--max-input-tokens",
        "50",
    ),
}
PROTOCOLS = {CHAT: ("openai",), TEXT: ("openai", "tgi"), VECTORS: ("embeddings",)}

OPENAI_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat.completions.create", {"model": CHAT, "messages": HELLO, "max_tokens": 5}),
    "chat-of-tgi": ("chat.completions.create", {"model": TEXT, "messages": HELLO, "max_tokens": 5}),
    "chat-max-completion-tokens": (
        "chat.completions.create",
        {"model": CHAT, "messages": HELLO, "max_completion_tokens": 4},
    ),
    "chat-in-parts": (
        "chat.completions.create",
        {
            "model": CHAT,
            "max_tokens": 3,
            "messages": [
                {"role": "system", "content": "Be brief. ü 模型"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d"},
            ],
        },
    ),
    "chat-n": ("chat.completions.create", {"model": CHAT, "messages": HELLO, "max_tokens": 4, "n": 3}),
    "chat-stop": ("chat.completions.create", {"model": CHAT, "messages": HELLO, "stop": ["e", "a"]}),
    "chat-logprobs": (
        "chat.completions.create",
        {"model": CHAT, "messages": HELLO, "max_tokens": 3, "logprobs": True, "top_logprobs": 2},
    ),
    "chat-fields-nobody-knows": (
        "chat.completions.create",
        {
            "model": CHAT,
            "messages": HELLO,
            "max_tokens": 2,
            "seed": 7,
            "user": "me",
            "extra_body": {"top_k": 3, "x_nobody": {"knows": None}},
        },
    ),
    "chat-stream": (
        "chat.completions.create",
        {"model": CHAT, "messages": HELLO, "max_tokens": 5, "stream": True},
    ),
    "chat-stream-usage": (
        "chat.completions.create",
        {
            "model": CHAT,
            "messages": HELLO,
            "max_tokens": 5,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "chat-stream-n": (
        "chat.completions.create",
        {"model": CHAT, "messages": HELLO, "max_tokens": 3, "n": 2, "stream": True},
    ),
    "chat-stream-of-tgi": (
        "chat.completions.create",
        {"model": TEXT, "messages": HELLO, "max_tokens": 5, "stream": True},
    ),
    "text": ("completions.create", {"model": CHAT, "prompt": "Hello", "max_tokens": 5}),
    "text-of-tgi": ("completions.create", {"model": TEXT, "prompt": "Hello", "max_tokens": 5}),
    "texts": ("completions.create", {"model": CHAT, "prompt": ["one", "two"], "max_tokens": 3, "n": 2}),
    "text-stop": ("completions.create", {"model": CHAT, "prompt": "Hello", "stop": "e"}),
    "text-logprobs": ("completions.create", {"model": CHAT, "prompt": "x", "max_tokens": 2, "logprobs": 2}),
    "text-stream": (
        "completions.create",
        {"model": CHAT, "prompt": ["one", "two"], "max_tokens": 3, "stream": True},
    ),
    "text-stream-usage": (
        "completions.create",
        {
            "model": CHAT,
            "prompt": "one",
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "embeddings": ("embeddings.create", {"model": VECTORS, "input": ["a b", "c"]}),  # asks for base64
    "embeddings-float": ("embeddings.create", {"model": VECTORS, "input": "a b", "encoding_format": "float"}),
    "embeddings-base64": ("embeddings.create", {"model": VECTORS, "input": "a", "encoding_format": "base64"}),
    "embeddings-dimensions": ("embeddings.create", {"model": VECTORS, "input": "a", "dimensions": 8}),
}
OPENAI_ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "wrong-value": ("chat.completions.create", {"model": CHAT, "messages": HELLO, "top_p": 2}),
    "wrong-value-in-stream": (
        "chat.completions.create",
        {"model": CHAT, "messages": HELLO, "top_p": 2, "stream": True},
    ),
    "wrong-value-of-tgi": ("completions.create", {"model": TEXT, "prompt": "x", "max_tokens": 5000}),
    "tools": ("chat.completions.create", {"model": TEXT, "messages": HELLO, "tools": [TOOL]}),
    "empty-input": ("embeddings.create", {"model": VECTORS, "input": ""}),
}
TGI_CALLS: dict[str, dict[str, Any]] = {
    "plain": {"max_new_tokens": 5},
    "with-its-prompt": {"max_new_tokens": 3, "return_full_text": True, "decoder_input_details": True},
    "best-of": {"max_new_tokens": 3, "best_of": 2, "do_sample": True},
    "sampled": {
        "max_new_tokens": 4,
        "do_sample": True,
        "seed": 5,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "watermark": True,
    },
    "several-tokens": {"max_new_tokens": 3, "top_n_tokens": 2},
    "stopped": {"max_new_tokens": 20, "stop_sequences": ["e", "a"]},
    "cut": {"max_new_tokens": 2, "truncate": 1},
}
ONLY_WHOLE = {"best-of", "with-its-prompt"}  # a stream gives no second answer and no prompt


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SimulatorProcess]]:
    key_file: Path = tmp_path_factory.mktemp("key") / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(simulator_process(*flags, "--api-key-file", str(key_file)))
            for name, flags in ENGINES.items()
        }


@pytest.fixture
async def served(rig: Rig, engines: dict[str, SimulatorProcess]) -> AsyncIterator[Rig]:
    endpoints = [
        endpoint(f"sim-{number}", each.port, key=KEY, deployment=f"default/d{number}")
        for number, each in enumerate(engines.values())
    ]
    models = [
        model(name, *PROTOCOLS[name], deployment=f"default/d{number}", usage_in_stream=name == CHAT)
        for number, name in enumerate(engines)
    ]
    await rig.control.acknowledged(rig.control.publish(endpoints, models))
    yield rig


class Sides:
    """The four ways of one call: (whose, a client that waits) and (whose, one that does not)."""

    def __init__(self, direct: str, direct_key: str, gateway: str, key: str) -> None:
        self._addresses = {"engine": (direct, direct_key), "gateway": (gateway, key)}

    async def of_openai(
        self, path: str, options: dict[str, Any], shown: Callable[[Any], Any]
    ) -> dict[str, Any]:
        found = {}
        for whose, (address, key) in self._addresses.items():
            with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as waits:
                found[f"{whose}, sync"] = await asyncio.to_thread(_now, waits, path, options, shown)
            async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
                found[f"{whose}, async"] = await _soon(client, path, options, shown)
        return found


def _now(client: openai.OpenAI, path: str, options: dict[str, Any], shown: Callable[[Any], Any]) -> Any:
    try:
        answer = operator.attrgetter(path)(client)(**options)
        return [shown(each) for each in answer] if isinstance(answer, openai.Stream) else shown(answer)
    except openai.APIError as error:
        return _said(error)


async def _soon(
    client: openai.AsyncOpenAI, path: str, options: dict[str, Any], shown: Callable[[Any], Any]
) -> Any:
    try:
        answer = await operator.attrgetter(path)(client)(**options)
        if isinstance(answer, openai.AsyncStream):
            return [shown(each) async for each in answer]
        return shown(answer)
    except openai.APIError as error:
        return _said(error)


def _said(error: openai.APIError) -> tuple[Any, ...]:
    return (
        type(error),
        getattr(error, "status_code", None),
        error.message,
        error.code,
        error.param,
        error.type,
    )


def without_own(answer: Any) -> Any:
    """An answer as data, without what is its own."""
    return {name: value for name, value in answer.model_dump(warnings=False).items() if name not in OWN}


def sides(rig: Rig, engines: dict[str, SimulatorProcess], name: str) -> Sides:
    return Sides(engines[name].url, KEY, rig.address, rig.key)


def one_of(found: dict[str, Any]) -> Any:
    """What all sides have got."""
    first = found["engine, sync"]
    assert dict.fromkeys(found, first) == found
    return first


@pytest.mark.parametrize("name", OPENAI_CALLS)
async def test_an_answer_to_openai_is_the_engines(
    name: str, served: Rig, engines: dict[str, SimulatorProcess]
) -> None:
    path, options = OPENAI_CALLS[name]
    answer = one_of(await sides(served, engines, options["model"]).of_openai(path, options, without_own))
    assert isinstance(answer, list) == options.get("stream", False)
    assert answer


@pytest.mark.parametrize("name", OPENAI_ERRORS)
async def test_an_error_to_openai_is_the_engines(
    name: str, served: Rig, engines: dict[str, SimulatorProcess]
) -> None:
    path, options = OPENAI_ERRORS[name]
    kind, *_ = one_of(await sides(served, engines, options["model"]).of_openai(path, options, without_own))
    assert issubclass(kind, openai.APIError)


async def test_raw_and_streamed_responses_carry_the_gateways_headers(served: Rig) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key=served.key) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=CHAT,
            messages=HELLO,  # type: ignore[arg-type]
            max_tokens=3,
            extra_headers={"x-request-id": "mine"},
        )
        assert ("mine", "sim-0") == (raw.headers["x-request-id"], raw.headers["x-llmop-replica"])
        assert raw.parse().choices[0].message.content
        async with client.chat.completions.with_streaming_response.create(
            model=CHAT,
            messages=HELLO,  # type: ignore[arg-type]
            max_tokens=3,
            stream=True,
        ) as streamed:
            assert "sim-0" == streamed.headers["x-llmop-replica"]
            lines = [line async for line in streamed.iter_lines() if line]
        assert "data: [DONE]" == lines[-1]
        assert all(line.startswith("data: {") for line in lines[:-1])
        async with client.embeddings.with_streaming_response.create(model=VECTORS, input="a") as whole:
            assert 16 == len((await whole.parse()).data[0].embedding)


async def test_the_helper_for_streams_puts_the_answer_together(served: Rig) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key=served.key) as client,
        client.chat.completions.stream(model=CHAT, messages=HELLO) as stream,  # type: ignore[arg-type]
    ):
        text = "".join([event.delta async for event in stream if event.type == "content.delta"])
        final = await stream.get_final_completion()
    assert text == final.choices[0].message.content
    assert final.usage is None  # asked for by the gateway, and taken out again


async def test_models_are_listed_and_found(served: Rig) -> None:
    def look() -> tuple[list[str], list[str]]:
        with openai.OpenAI(base_url=f"{served.address}/v1", api_key=served.key, max_retries=0) as client:
            return [each.id for each in client.models.list()], [client.models.retrieve(n).id for n in ENGINES]

    listed, found = await asyncio.to_thread(look)
    assert (sorted(ENGINES), list(ENGINES)) == (sorted(listed), found)
    async with openai.AsyncOpenAI(
        base_url=f"{served.address}/models/{CHAT}/v1", api_key=served.key, max_retries=0
    ) as client:
        assert [CHAT] == [each.id async for each in client.models.list()]
        answer = await client.chat.completions.create(model="whatever", messages=HELLO, max_tokens=2)  # type: ignore[arg-type]
        assert answer.choices[0].message.content
        with pytest.raises(openai.NotFoundError, match="nobody"):
            await client.with_options(base_url=f"{served.address}/v1").models.retrieve("nobody")


@pytest.mark.parametrize(
    ("call", "expected", "words"),
    [
        (
            lambda client: client.completions.create(model="nobody", prompt="x"),
            openai.NotFoundError,
            "nobody",
        ),
        (lambda client: client.embeddings.create(model=CHAT, input="x"), openai.NotFoundError, ""),
        (
            lambda client: client.chat.completions.create(model=VECTORS, messages=HELLO),
            openai.UnprocessableEntityError,
            "/v1/embeddings",
        ),
        (lambda client: client.completions.create(model="", prompt="x"), openai.APIStatusError, "model"),
        (lambda client: client.files.list(), openai.InternalServerError, "llmop workloads"),
        (
            lambda client: client.responses.create(model=CHAT, input="x"),
            openai.NotFoundError,
            "/v1/responses",
        ),
        (
            lambda client: client.with_options(api_key="no").models.list(),
            openai.AuthenticationError,
            "key",
        ),
    ],
    ids=["no-model", "no-embeddings", "only-embeddings", "no-name", "files", "responses", "key"],
)
async def test_the_gateways_own_errors_are_the_sdks(
    served: Rig, call: Callable[[openai.AsyncOpenAI], Any], expected: type[openai.APIStatusError], words: str
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{served.address}/v1", api_key=served.key, max_retries=0
    ) as client:
        with pytest.raises(expected) as raised:
            await call(client)
    assert words in raised.value.message
    assert raised.value.body
    assert raised.value.request_id == raised.value.response.headers["x-request-id"]


async def _full(call: Call) -> None:
    await call.answer(
        b'{"error":{"message":"full","type":"rate_limit","param":null,"code":"full"}}',
        "429 Too Many Requests",
        b"retry-after: 0\r\n",
    )


async def _silent(call: Call) -> None:
    await call.gone()


async def _breaks(call: Call) -> None:
    await call.begin_stream()
    await call.chunk(
        b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m",'
        b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    )
    call.close()


async def test_a_full_engine_is_a_rate_limit(rig: Rig) -> None:
    await rig.serve(_full)
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="full"):
            await client.completions.create(model="m", prompt="x")


async def test_nobody_there_is_an_internal_error_with_a_time_to_come_again(rig: Rig) -> None:
    await rig.serve()
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.completions.create(model="m", prompt="x")
    assert (503, "no_endpoint") == (raised.value.status_code, raised.value.code)
    assert int(raised.value.response.headers["retry-after"]) > 0


async def test_the_sdk_tries_again_what_the_gateway_could_not_do(rig: Rig) -> None:
    answers = iter((b"", b'{"id":"a","object":"text_completion","created":1,"model":"m","choices":[]}'))

    async def second_time(call: Call) -> None:
        body = next(answers)
        await (call.answer(body) if body else _full(call))

    await rig.serve(second_time)
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=1) as client:
        assert "a" == (await client.completions.create(model="m", prompt="x")).id


async def test_a_client_that_does_not_wait_frees_the_engine(rig: Rig) -> None:
    (engine,) = await rig.serve(_silent)
    async with openai.AsyncOpenAI(
        base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0, timeout=0.3
    ) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(model="m", prompt="x")
    await engine.until(lambda each: each.connections == 0)


async def test_a_stream_that_breaks_off_is_an_error_after_what_came(rig: Rig) -> None:
    await rig.serve(_breaks)
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        assert "a" == (await anext(stream)).choices[0].delta.content
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
    assert "stream_broken" == raised.value.code


async def test_a_stream_that_is_closed_frees_the_engine(rig: Rig) -> None:
    async def endless(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(
            b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m",'
            b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
        )
        await call.gone()

    (engine,) = await rig.serve(endless)
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        async for _ in stream:
            break
        await stream.close()
    await engine.until(lambda each: each.connections == 0)


async def test_a_body_that_is_too_large_is_a_status_error(rig: Rig) -> None:
    await rig.serve(_full)
    async with openai.AsyncOpenAI(base_url=f"{rig.address}/v1", api_key=rig.key, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.completions.create(model="m", prompt="x" * rig.settings.body_limit)
    assert (413, "body_too_large") == (raised.value.status_code, raised.value.code)


# The text-generation client


async def _tgi(address: str, key: str, ask: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What the synchronous and the asynchronous client get."""
    headers = {"Authorization": f"Bearer {key}"}

    def now() -> Any:
        try:
            answer = ask(text_generation.Client(address, headers=headers, timeout=30))
            return [each.dict() for each in answer] if hasattr(answer, "__next__") else _plain(answer)
        except Exception as error:  # whatever it is, it has to be the same
            return (type(error), str(error))

    async def soon() -> Any:
        try:
            answer = ask(text_generation.AsyncClient(address, headers=headers, timeout=30))
            if hasattr(answer, "__anext__"):
                return [each.dict() async for each in answer]
            return _plain(await answer)
        except Exception as error:
            return (type(error), str(error))

    return await asyncio.to_thread(now), await soon()


def _plain(answer: Any) -> Any:
    return {name: value for name, value in answer.dict().items() if name not in OWN}


async def same_as_of_the_engine(
    rig: Rig, engines: dict[str, SimulatorProcess], ask: Callable[[Any], Any]
) -> Any:
    direct = await _tgi(engines[TEXT].url, KEY, ask)
    by_path = await _tgi(f"{rig.address}/models/{TEXT}", rig.key, ask)
    alone = await _tgi(rig.address, rig.key, ask)  # the only model that speaks TGI
    assert [direct[0]] * 6 == [*direct, *by_path, *alone]
    return direct[0]


@pytest.mark.parametrize("name", TGI_CALLS)
async def test_an_answer_to_text_generation_is_the_engines(
    name: str, served: Rig, engines: dict[str, SimulatorProcess]
) -> None:
    options = TGI_CALLS[name]
    whole = await same_as_of_the_engine(
        served, engines, lambda client: client.generate("Hello you", **options)
    )
    assert whole["generated_text"]
    if name in ONLY_WHOLE:
        return
    events = await same_as_of_the_engine(
        served, engines, lambda client: client.generate_stream("Hello you", **options)
    )
    assert whole["generated_text"] == events[-1]["generated_text"]


async def test_chat_of_text_generation(served: Rig, engines: dict[str, SimulatorProcess]) -> None:
    messages = [text_generation.types.Message(role="user", content="Hello")]
    answer = await same_as_of_the_engine(
        served, engines, lambda client: client.chat(messages=messages, max_tokens=3)
    )
    assert 3 == answer["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 5000}, {"max_new_tokens": 1, "stop_sequences": ["a"] * 50}]
)
async def test_an_error_to_text_generation_is_the_engines(
    served: Rig, engines: dict[str, SimulatorProcess], options: dict[str, Any]
) -> None:
    for ask in (
        lambda client: client.generate("Hello", **options),
        lambda client: client.generate_stream("Hello", **options),
    ):
        kind, _ = await same_as_of_the_engine(served, engines, ask)
        assert kind is text_generation.errors.ValidationError


async def test_the_gateways_own_errors_are_those_of_text_generation(rig: Rig) -> None:
    await rig.serve()

    async def kinds(address: str, key: str) -> set[type[Exception]]:
        found = set()
        for ask in (lambda client: client.generate("x"), lambda client: client.generate_stream("x")):
            found |= {kind for kind, _ in await _tgi(address, key, ask)}
        return found

    assert {text_generation.errors.NotFoundError} == await kinds(f"{rig.address}/models/nobody", rig.key)
    assert {text_generation.errors.UnknownError} == await kinds(rig.address, "no")
    assert {text_generation.errors.UnknownError} == await kinds(rig.address, rig.key)


async def test_text_generation_that_does_not_wait_frees_the_engine(rig: Rig) -> None:
    (engine,) = await rig.serve(_silent)
    headers = {"Authorization": f"Bearer {rig.key}"}
    with pytest.raises(requests.exceptions.ReadTimeout):
        await asyncio.to_thread(
            text_generation.Client(rig.address, headers=headers, timeout=0.3).generate, "x"
        )
    await engine.until(lambda each: each.connections == 0)
    with pytest.raises(asyncio.TimeoutError):
        await text_generation.AsyncClient(rig.address, headers=headers, timeout=0.3).generate("x")
    await engine.until(lambda each: each.connections == 0)
