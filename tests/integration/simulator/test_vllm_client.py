"""The `openai` SDK is the judge of the simulator as vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from tests.engines.simulator_process import SimulatorProcess, simulator_process

KEY = "Sesame-0123"
HELLO = ChatCompletionUserMessageParam(role="user", content="Hello")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    key_file: Path = tmp_path_factory.mktemp("key") / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    flags = ("--personality", "vllm", "--served-model-name", "tiny", "--admin")
    with simulator_process(*flags, "--api-key-file", str(key_file)) as engine:
        yield engine


@pytest.fixture
def client(engine: SimulatorProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def set_fault(engine: SimulatorProcess, fault: str) -> None:
    answer = engine.post(
        "/simulator/fault", json={"fault": fault}, headers={"authorization": f"Bearer {KEY}"}
    )
    assert 200 == answer.status_code


@pytest.fixture
def faulty(engine: SimulatorProcess) -> Iterator[SimulatorProcess]:
    """Faults may be set; they are gone afterwards."""
    yield engine
    engine.delete("/simulator/fault", headers={"authorization": f"Bearer {KEY}"})


def test_the_one_model_is_listed_under_its_served_name(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert ("tiny", "vllm") == (model.id, model.owned_by)


def test_a_chat_gives_as_many_words_as_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=9)
    (choice,) = answer.choices
    assert ("tiny", "assistant", "length") == (answer.model, choice.message.role, choice.finish_reason)
    assert answer.usage is not None
    assert (9, 3 + 9) == (answer.usage.completion_tokens, answer.usage.total_tokens)
    assert answer.id.startswith("chatcmpl-")


def test_a_stream_has_no_usage_unless_it_is_asked_for(client: openai.OpenAI) -> None:
    plain = list(client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=3, stream=True))
    assert [None] * 4 == [chunk.usage for chunk in plain]
    assert ["assistant", None, None, None] == [chunk.choices[0].delta.role for chunk in plain]
    *_, last = client.chat.completions.create(
        model="tiny", messages=[HELLO], max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    assert last.usage is not None
    assert ([], 3, 3) == (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens)


def test_a_stream_gives_the_same_text_as_a_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=[HELLO])
    chunks = list(client.chat.completions.create(model="tiny", messages=[HELLO], stream=True))
    assert whole.choices[0].message.content == "".join(
        chunk.choices[0].delta.content or "" for chunk in chunks
    )
    assert ["stop"] == [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
    assert "</s>" not in str(whole.choices[0].message.content)


def test_a_stop_sequence_ends_the_answer_and_is_no_part_of_it(client: openai.OpenAI) -> None:
    words = client.completions.create(model="tiny", prompt="stop here", max_tokens=6).choices[0].text
    first, second, third = words.split()[:3]
    stop = f"{second} {third}"

    whole = client.completions.create(model="tiny", prompt="stop here", max_tokens=6, stop=[stop])
    chunks = list(
        client.completions.create(model="tiny", prompt="stop here", max_tokens=6, stop=stop, stream=True)
    )

    (choice,) = whole.choices
    assert (f" {first} ", "stop") == (choice.text, choice.finish_reason)
    assert stop == choice.model_extra["stop_reason"]  # type: ignore[index]
    assert whole.usage is not None
    assert 3 == whole.usage.completion_tokens
    assert choice.text == "".join(chunk.choices[0].text for chunk in chunks)


def test_several_choices_and_prompts_are_kept_apart(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt=["one", "two"], n=2, max_tokens=4)
    assert [0, 1, 2, 3] == [choice.index for choice in whole.choices]
    assert whole.usage is not None
    assert (2, 16) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    texts = [""] * 4
    for chunk in client.completions.create(
        model="tiny", prompt=["one", "two"], n=2, max_tokens=4, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [choice.text for choice in whole.choices] == texts
    assert 4 == len(set(texts))


def test_log_probabilities_come_when_asked_for(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        model="tiny", messages=[HELLO], max_tokens=2, logprobs=True, top_logprobs=3
    ).choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.message.content == "".join(each.token for each in choice.logprobs.content)
    assert [3, 3] == [len(each.top_logprobs) for each in choice.logprobs.content]
    completion = client.completions.create(model="tiny", prompt="x", max_tokens=2, logprobs=1)
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].text == "".join(completion.choices[0].logprobs.tokens or [])


def test_errors_are_those_of_the_sdk(engine: SimulatorProcess, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `nobody` does not exist"):
        client.chat.completions.create(model="nobody", messages=[HELLO])
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=[HELLO], top_p=2)
    assert ("top_p", "BadRequestError") == (error.value.param, error.value.type)
    with (
        openai.OpenAI(base_url=f"{engine.url}/v1", api_key="wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError),
    ):
        wrong.models.list()


def test_what_the_key_guards_is_what_vllm_guards(engine: SimulatorProcess) -> None:
    with httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as anybody:
        assert [200] * 4 == [
            anybody.get("/health").status_code,
            anybody.get("/metrics").status_code,
            anybody.get("/version").status_code,
            anybody.post("/tokenize", json={"prompt": "x"}).status_code,
        ]
        assert (401, {"error": "Unauthorized"}) == (
            anybody.get("/v1/nowhere").status_code,
            anybody.get("/v1/nowhere").json(),
        )


def test_a_failed_request_is_an_internal_error(faulty: SimulatorProcess, client: openai.OpenAI) -> None:
    set_fault(faulty, "fail@request:1")
    with pytest.raises(openai.InternalServerError, match="simulated fault"):
        client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=3)
    client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=3)


def test_a_failure_in_a_stream_is_an_event_before_the_end(
    faulty: SimulatorProcess, client: openai.OpenAI
) -> None:
    set_fault(faulty, "fail@token:2")
    with pytest.raises(openai.APIError, match="simulated fault"):
        list(client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=5, stream=True))
    body = {"messages": [HELLO], "max_tokens": 5, "stream": True}
    text = faulty.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}).text
    *words, failure, end = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert (3, 500, "[DONE]") == (len(words), json.loads(failure)["error"]["code"], end)


def test_a_request_id_is_part_of_the_answers_id(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="x", max_tokens=1, extra_headers={"x-request-id": "mine"}
    )
    assert "cmpl-mine" == answer.id


def test_a_model_without_a_template_takes_no_chat() -> None:
    with (
        simulator_process("--personality", "vllm", "--no-chat-template") as engine,
        openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="chat template"):
            client.chat.completions.create(model="simulated", messages=[HELLO])
        client.completions.create(model="simulated", prompt="x")


def test_requests_under_way_are_aborted_at_once_as_by_default() -> None:
    flags = ("--personality", "vllm", "--decode-base-ms", "20")
    with simulator_process(*flags) as engine, httpx.Client(trust_env=False, timeout=60) as client:
        body = {"prompt": "x", "max_tokens": 4000, "stream": True}
        with client.stream("POST", f"{engine.url}/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: ")
            engine.terminate()
            with pytest.raises(httpx.TransportError):
                list(lines)
        assert 1 == engine.wait()


def test_metrics_count_what_happened() -> None:
    flags = ("--personality", "vllm", "--served-model-name", "m")
    with (
        simulator_process(*flags) as engine,
        httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as client,
    ):
        client.post("/v1/completions", json={"prompt": "a b c", "max_tokens": 5})
        client.post("/v1/completions", json={"prompt": "a", "max_tokens": 0})
        labels = 'engine="0",model_name="m"'
        assert (3, 5, 1, 0, 1, 1, 1, 4) == tuple(
            engine.metric(f"vllm:{series}")
            for series in (
                f"prompt_tokens_total{{{labels}}}",
                f"generation_tokens_total{{{labels}}}",
                f'request_success_total{{{labels},finished_reason="length"}}',
                f'request_success_total{{{labels},finished_reason="stop"}}',
                f"time_to_first_token_seconds_count{{{labels}}}",
                f"e2e_request_latency_seconds_count{{{labels}}}",
                f'request_generation_tokens_bucket{{{labels},le="5.0"}}',
                f"inter_token_latency_seconds_count{{{labels}}}",
            )
        )
