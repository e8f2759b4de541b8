"""The errors of Text-Generation-Inference (router/src/infer/mod.rs), in both its dialects, and where the official client raises them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.engines.simulator_process import SimulatorProcess, simulator_process
from text_generation import Client
from text_generation.errors import GenerationError, IncompleteGenerationError

HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
GENERATE = {"inputs": "a", "parameters": {"max_new_tokens": 5}}
CHAT = {"messages": [HELLO], "max_tokens": 5}


@pytest.fixture
def engine() -> Iterator[SimulatorProcess]:
    with simulator_process("--admin") as engine:
        yield engine


def set_fault(engine: SimulatorProcess, spec: str) -> None:
    assert 200 == engine.post("/simulator/fault", json={"fault": spec}).status_code


def events(engine: SimulatorProcess, path: str, body: dict[str, Any]) -> list[Any]:
    answer = engine.post(path, json=body)
    assert (200, "text/event-stream") == (answer.status_code, answer.headers["content-type"])
    texts = [line.removeprefix("data:") for line in answer.text.split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def test_an_answer_that_fails_halfway_is_a_generation_error(engine: SimulatorProcess) -> None:
    set_fault(engine, "fail@token:2")
    message = "Request failed during generation: simulated fault"

    whole = engine.post("/generate", json=GENERATE)
    assert (424, {"error": message, "error_type": "generation"}) == (whole.status_code, whole.json())
    first, second, last = events(engine, "/generate_stream", GENERATE)
    assert (1, 2) == (first["index"], second["index"])
    assert {"error": message, "error_type": "generation"} == last
    *words, failure, end = events(engine, "/v1/chat/completions", {**CHAT, "stream": True})
    assert (2, {"error": {"message": message, "http_status_code": 422}}, "[DONE]") == (
        len(words),
        failure,
        end,
    )
    with pytest.raises(GenerationError):
        Client(engine.url, timeout=60).generate("a", max_new_tokens=5)
    stream = Client(engine.url, timeout=60).generate_stream("a", max_new_tokens=5)
    assert [next(stream).token.text, next(stream).token.text] == [
        word["token"]["text"] for word in (first, second)
    ]
    with pytest.raises(GenerationError):
        next(stream)
    assert (5, 5) == (
        engine.metric('tgi_request_failure{err="generation"}'),
        engine.metric('tgi_batch_inference_failure{method="decode"}'),
    )
    assert 0 == engine.metric("tgi_batch_current_size"), "a failed request holds no memory"


def test_an_answer_no_longer_than_that_is_not_hurt(engine: SimulatorProcess) -> None:
    set_fault(engine, "fail@token:2")
    body = {"inputs": "a", "parameters": {"max_new_tokens": 2}}
    assert 200 == engine.post("/generate", json=body).status_code


def test_an_answer_without_an_end_is_incomplete(engine: SimulatorProcess) -> None:
    for number in range(1, 5):
        set_fault(engine, f"incomplete@request:{number}")

    whole = engine.post("/generate", json=GENERATE)
    assert (500, {"error": "Incomplete generation", "error_type": "incomplete_generation"}) == (
        whole.status_code,
        whole.json(),
    )
    assert [
        {"error": "Incomplete generation stream", "error_type": "incomplete_generation_stream"}
    ] == events(engine, "/generate_stream", GENERATE)
    assert [
        {"error": {"message": "Incomplete generation stream", "http_status_code": 422}},
        "[DONE]",
    ] == events(engine, "/v1/chat/completions", {**CHAT, "stream": True})
    with pytest.raises(IncompleteGenerationError):
        Client(engine.url, timeout=60).generate("a")
    assert 4 == engine.metric('tgi_request_failure{err="incomplete"}')


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat_tokenize"])
def test_a_model_without_a_chat_template_says_so(path: str) -> None:
    with simulator_process("--no-chat-template") as engine:
        answer = engine.post(path, json=CHAT)
        assert (422, {"error": "Template error: template not found", "error_type": "template_error"}) == (
            answer.status_code,
            answer.json(),
        )
        assert 200 == engine.post("/generate", json=GENERATE).status_code


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"tools": [TOOL], "response_format": {"type": "json", "value": {}}},
            "Tool error: Grammar and tools are mutually exclusive",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "time"}}},
            "Tool error: Tool with name time not found",
        ),
    ],
)
def test_tools_that_cannot_be_used_are_told(
    engine: SimulatorProcess, more: dict[str, Any], message: str
) -> None:
    for stream in (False, True):
        answer = engine.post("/v1/chat/completions", json={**CHAT, **more, "stream": stream})
        assert (422, {"error": message, "error_type": "tool_error"}) == (
            answer.status_code,
            answer.json(),
        )


def test_a_negative_top_k_is_a_wrong_value_not_a_wrong_type(engine: SimulatorProcess) -> None:
    answer = engine.post("/generate", json={"inputs": "a", "parameters": {"top_k": -1}})
    assert (422, "Input validation error: `top_k` must be strictly positive") == (
        answer.status_code,
        answer.json()["error"],
    )


def test_what_a_stream_cannot_have_takes_no_place(engine: SimulatorProcess) -> None:
    body = {"inputs": "a", "parameters": {"best_of": 2, "do_sample": True}}
    message = "Input validation error: `best_of` != 1 is not supported when streaming tokens"
    assert [{"error": message, "error_type": "validation"}] == events(engine, "/generate_stream", body)
    assert (1, 1) == (
        engine.metric("tgi_request_count"),
        engine.metric('tgi_request_failure{err="validation"}'),
    )


def test_sagemakers_route_is_whatever_its_fields_say(engine: SimulatorProcess) -> None:
    def ask(body: dict[str, Any]) -> httpx.Response:
        return engine.post("/invocations", json=body)

    assert engine.post("", json=GENERATE).json() == ask(GENERATE).json()
    assert "chat.completion" == ask(CHAT).json()["object"]
    assert "text_completion" == ask({"prompt": "a", "max_tokens": 2}).json()["object"]
    refused = ask({"question": "a"})
    assert (422, True) == (refused.status_code, "SagemakerRequest" in refused.text)


def test_a_chat_repeats_the_name_of_an_adapter(engine: SimulatorProcess) -> None:
    names = [
        engine.post("/v1/chat/completions", json={**CHAT, **more}).json()["model"]
        for more in ({}, {"model": "tgi"}, {"model": "mine"})
    ]
    assert ["simulated", "simulated", "mine"] == names


def test_information_has_the_fields_of_the_router(engine: SimulatorProcess) -> None:
    assert [
        "model_id", "model_sha", "model_pipeline_tag", "max_concurrent_requests", "max_best_of", "max_stop_sequences",
        "max_input_tokens", "max_total_tokens", "validation_workers", "max_client_batch_size", "router", "version",
        "sha", "docker_label",
    ] == list(engine.get("/info").json())  # fmt: skip
