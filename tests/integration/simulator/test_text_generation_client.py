"""The official `text-generation` client is the judge of the native dialect."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from tests.engines.simulator_process import SimulatorProcess, simulator_process
from text_generation import AsyncClient, Client
from text_generation.errors import OverloadedError, ValidationError
from text_generation.types import FinishReason


@pytest.fixture(scope="module")
def engine() -> Iterator[SimulatorProcess]:
    with simulator_process("--max-total-tokens", "500") as engine:
        yield engine


@pytest.fixture(scope="module")
def busy_engine() -> Iterator[SimulatorProcess]:
    """Its only place is taken for longer than any test takes."""
    with simulator_process("--max-concurrent-requests", "1", "--decode-base-ms", "60000") as engine:
        body = {"inputs": "take the place", "parameters": {"max_new_tokens": 100}}
        thread = threading.Thread(target=_hold, args=(f"{engine.url}/generate", body))
        thread.start()
        engine.wait_for_metric("tgi_batch_current_size", 1)
        yield engine
        engine.process.kill()
        thread.join()


def _hold(url: str, body: object) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.post(url, json=body)


def test_generate_gives_as_many_words_as_asked_for(engine: SimulatorProcess) -> None:
    response = Client(engine.url, timeout=60).generate("Why is the sky blue?", max_new_tokens=7)
    assert (7, FinishReason.Length, None) == (
        response.details.generated_tokens,
        response.details.finish_reason,
        response.details.seed,
    )
    assert response.generated_text == "".join(token.text for token in response.details.tokens)
    assert 7 == len(response.generated_text.split())


def test_a_stream_gives_the_same_words_one_by_one(engine: SimulatorProcess) -> None:
    client = Client(engine.url, timeout=60)
    whole = client.generate("Why is the sky blue?", max_new_tokens=12)
    events = list(client.generate_stream("Why is the sky blue?", max_new_tokens=12))
    assert whole.details.tokens == [event.token for event in events]
    assert [None] * 11 == [event.generated_text for event in events[:-1]]
    assert whole.generated_text == events[-1].generated_text
    assert events[-1].details is not None
    assert (12, FinishReason.Length) == (
        events[-1].details.generated_tokens,
        events[-1].details.finish_reason,
    )


def test_a_stop_sequence_ends_the_answer(engine: SimulatorProcess) -> None:
    client = Client(engine.url, timeout=60)
    third = client.generate("stop here", max_new_tokens=3).details.tokens[2].text
    response = client.generate("stop here", max_new_tokens=50, stop_sequences=[third])
    assert FinishReason.StopSequence == response.details.finish_reason
    assert response.generated_text.endswith(third)


def test_the_prompt_and_its_tokens_come_back_when_asked_for(engine: SimulatorProcess) -> None:
    response = Client(engine.url, timeout=60).generate(
        "two words", max_new_tokens=1, return_full_text=True, decoder_input_details=True
    )
    assert response.generated_text.startswith("two words ")
    assert ["two", " words"] == [token.text for token in response.details.prefill]


def test_several_likely_tokens_come_back_when_asked_for(engine: SimulatorProcess) -> None:
    client = Client(engine.url, timeout=60)
    response = client.generate("top", max_new_tokens=2, top_n_tokens=3)
    assert response.details.top_tokens is not None
    assert [3, 3] == [len(tokens) for tokens in response.details.top_tokens]
    assert response.details.tokens == [tokens[0] for tokens in response.details.top_tokens]
    (event,) = client.generate_stream("top", max_new_tokens=1, top_n_tokens=3)
    assert response.details.top_tokens[0] == event.top_tokens


def test_the_best_of_two_answers_comes_with_the_other(engine: SimulatorProcess) -> None:
    details = (
        Client(engine.url, timeout=60).generate("best", max_new_tokens=5, do_sample=True, best_of=2).details
    )
    assert details.best_of_sequences is not None
    (other,) = details.best_of_sequences
    assert details.tokens != other.tokens
    assert sum(token.logprob or 0 for token in details.tokens) >= sum(
        token.logprob or 0 for token in other.tokens
    )


def test_a_seed_changes_the_answer_and_is_reported_when_sampling(engine: SimulatorProcess) -> None:
    client = Client(engine.url, timeout=60)
    first, again, other = (
        client.generate("seed", max_new_tokens=5, do_sample=True, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert (1, 2) == (first.details.seed, other.details.seed)
    assert first.generated_text != other.generated_text


def test_chat_answers_as_the_assistant(engine: SimulatorProcess) -> None:
    answer = Client(engine.url, timeout=60).chat([{"role": "user", "content": "Hello"}], max_tokens=6)
    (choice,) = answer.choices
    assert ("assistant", "length") == (choice.message.role, choice.finish_reason)
    assert 6 == len(str(choice.message.content).split())


def test_too_long_a_request_is_a_validation_error(engine: SimulatorProcess) -> None:
    client = Client(engine.url, timeout=60)
    with pytest.raises(ValidationError, match="must be <= 500"):
        client.generate("hello", max_new_tokens=500)


def test_an_overloaded_engine_refuses_a_request(busy_engine: SimulatorProcess) -> None:
    with pytest.raises(OverloadedError, match="Model is overloaded"):
        Client(busy_engine.url, timeout=60).generate("me too")


def test_an_overloaded_engine_refuses_a_stream_by_its_first_event(busy_engine: SimulatorProcess) -> None:
    with pytest.raises(OverloadedError, match="Model is overloaded"):
        list(Client(busy_engine.url, timeout=60).generate_stream("me too"))


async def test_the_asynchronous_client_gets_the_same_answers(engine: SimulatorProcess) -> None:
    client, synchronous = AsyncClient(engine.url, timeout=60), Client(engine.url, timeout=60)
    whole = await client.generate("async", max_new_tokens=5)
    assert synchronous.generate("async", max_new_tokens=5) == whole
    events = [event async for event in client.generate_stream("async", max_new_tokens=5)]
    assert whole.details.tokens == [event.token for event in events]
    chat = await client.chat([{"role": "user", "content": "Hello"}], max_tokens=6)
    assert 6 == chat.usage["completion_tokens"]


async def test_the_asynchronous_client_is_refused_both_ways(busy_engine: SimulatorProcess) -> None:
    client = AsyncClient(busy_engine.url, timeout=60)
    with pytest.raises(OverloadedError):
        await client.generate("me too")
    with pytest.raises(OverloadedError):
        async for _ in client.generate_stream("me too"):
            pass
