"""The `openai` SDK is the judge of the OpenAI dialect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    with simulator_process("--api-key-file", str(key_file), "--served-model-name", "tiny") as engine:
        yield engine


@pytest.fixture
def client(engine: SimulatorProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_one_model_is_listed_under_its_served_name(client: openai.OpenAI) -> None:
    assert ["tiny"] == [model.id for model in client.models.list()]


def test_chat_counts_its_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tgi", messages=[HELLO], max_tokens=9)
    (choice,) = answer.choices
    assert ("tiny", "assistant", "length") == (answer.model, choice.message.role, choice.finish_reason)
    assert answer.usage is not None
    # The template puts a role before the message and one before the answer.
    assert (3, 9, 12) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.total_tokens,
    )


def test_chat_without_a_limit_ends_by_itself(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(model="tgi", messages=[HELLO]).choices
    assert "stop" == choice.finish_reason
    assert choice.message.content
    assert "</s>" not in choice.message.content


def test_a_chat_stream_gives_the_same_text_and_the_usage_at_its_end(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tgi", messages=[HELLO])
    chunks = list(
        client.chat.completions.create(
            model="tgi", messages=[HELLO], stream=True, stream_options={"include_usage": True}
        )
    )
    *content, last = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in content)
    assert whole.choices[0].message.content == text
    assert ["stop"] == [c.choices[0].finish_reason for c in content if c.choices[0].finish_reason]
    assert ([], whole.usage) == (last.choices, last.usage)


def test_a_chat_stream_has_no_usage_unless_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="tgi", messages=[HELLO], max_tokens=3, stream=True))
    assert [(1, None)] * 3 == [(len(chunk.choices), chunk.usage) for chunk in chunks]


def test_log_probabilities_come_when_asked_for(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        model="tgi", messages=[HELLO], max_tokens=2, logprobs=True, top_logprobs=3
    ).choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.message.content == "".join(each.token for each in choice.logprobs.content)
    assert [3, 3] == [len(each.top_logprobs) for each in choice.logprobs.content]


def test_a_message_may_come_in_parts(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    in_parts = ChatCompletionUserMessageParam(role="user", content=parts)  # type: ignore[typeddict-item]
    answers = [
        client.chat.completions.create(model="tgi", messages=[message], max_tokens=5)
        for message in (HELLO, in_parts)
    ]
    assert answers[0].choices == answers[1].choices


def test_a_completion_continues_every_prompt_of_a_list(client: openai.OpenAI) -> None:
    alone = [
        client.completions.create(model="tgi", prompt=prompt, max_tokens=4).choices[0].text
        for prompt in ("one", "two")
    ]
    together = client.completions.create(model="tgi", prompt=["one", "two"], max_tokens=4)
    assert list(enumerate(alone)) == [(choice.index, choice.text) for choice in together.choices]
    assert together.usage is not None
    assert (2, 8) == (together.usage.prompt_tokens, together.usage.completion_tokens)


def test_a_completion_stream_keeps_its_prompts_apart(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tgi", prompt=["one", "two"], max_tokens=4)
    texts = ["", ""]
    reasons = []
    for chunk in client.completions.create(model="tgi", prompt=["one", "two"], max_tokens=4, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        if choice.finish_reason:
            reasons.append(
                (choice.index, choice.finish_reason, chunk.usage and chunk.usage.completion_tokens)
            )
    assert [choice.text for choice in whole.choices] == texts
    assert [(0, "length", 4), (1, "length", 4)] == sorted(reasons)


def test_a_wrong_value_is_an_error_with_tgis_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as error:
        client.chat.completions.create(model="tgi", messages=[HELLO], top_p=1.0)
    assert {
        "error": "Input validation error: `top_p` must be > 0.0 and < 1.0",
        "error_type": "validation",
    } == error.value.response.json()


def test_a_wrong_value_in_a_stream_is_an_event(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match=r"`top_p` must be > 0\.0 and < 1\.0"):
        list(client.chat.completions.create(model="tgi", messages=[HELLO], top_p=1.0, stream=True))


def test_tools_are_refused_because_words_are_no_calls(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as error:
        client.chat.completions.create(
            model="tgi", messages=[HELLO], tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert "grammar is not supported" in error.value.response.json()["error"]


def test_a_wrong_key_is_refused_and_the_case_of_the_right_one_does_not_matter(
    engine: SimulatorProcess,
) -> None:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="wrong", max_retries=0) as client:
        assert client.models.list().data, "information is not guarded"
        with pytest.raises(openai.AuthenticationError) as error:
            client.chat.completions.create(model="tgi", messages=[HELLO])
        assert b"" == error.value.response.content
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY.lower(), max_retries=0) as client:
        client.chat.completions.create(model="tgi", messages=[HELLO], max_tokens=1)


async def test_the_asynchronous_client_streams_too(engine: SimulatorProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        whole = await client.chat.completions.create(model="tgi", messages=[HELLO], max_tokens=5)
        stream = await client.chat.completions.create(
            model="tgi", messages=[HELLO], max_tokens=5, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert whole.choices[0].message.content == text


def test_the_key_appears_nowhere_in_the_output(engine: SimulatorProcess) -> None:
    assert KEY not in engine.output
