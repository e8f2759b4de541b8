"""What is asked, and what answers say. Events are those that the engines' own documentation shows."""

from typing import Any

import pytest

from llmop.cli.bench.dialects import DIALECTS, NOTHING, PIECE, Heard
from llmop.cli.bench.loads import Lengths
from llmop.cli.bench.prompts import Prompts

LENGTHS = Lengths(prompt=5, output=7)


def test_requests_ask_for_a_stream_its_length_and_the_servers_count() -> None:
    assert {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    } == DIALECTS["chat"].body("m", "Hello", LENGTHS, False)
    completion = DIALECTS["completions"].body("m", "Hello", LENGTHS, True)
    assert ("Hello", 7, True) == (completion["prompt"], completion["max_tokens"], completion["ignore_eos"])
    tgi = DIALECTS["tgi"].body("m", "Hello", LENGTHS, True)
    assert ("Hello", 7, True) == (
        tgi["inputs"],
        tgi["parameters"]["max_new_tokens"],
        tgi["parameters"]["details"],
    )


@pytest.mark.parametrize(
    ("api", "event", "wanted"),
    [
        pytest.param(
            "chat", {"choices": [{"delta": {"role": "assistant", "content": ""}}]}, NOTHING, id="role"
        ),
        pytest.param("chat", {"choices": [{"delta": {"content": " a"}}]}, PIECE, id="text"),
        pytest.param("chat", {"choices": [{"delta": {"reasoning_content": "h"}}]}, PIECE, id="thought"),
        pytest.param("chat", {"choices": [{"delta": {}, "finish_reason": "stop"}]}, NOTHING, id="end"),
        pytest.param(
            "chat",
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}},
            Heard(prompt_tokens=9, output_tokens=4),
            id="usage",
        ),
        pytest.param("chat", {"choices": [], "usage": None}, NOTHING, id="no usage"),
        pytest.param(
            "chat",
            {"choices": [], "usage": {"prompt_tokens": -3, "completion_tokens": -5}},
            NOTHING,
            id="a count that is none",
        ),
        pytest.param("completions", {"choices": [{"text": " a"}]}, PIECE, id="completion"),
        pytest.param("completions", {"choices": [{"text": ""}]}, NOTHING, id="no text"),
        pytest.param(
            "chat", {"error": {"message": "no memory", "code": 500}}, Heard(error="no memory"), id="error"
        ),
        pytest.param("tgi", {"index": 1, "token": {"id": 3, "text": " a"}, "details": None}, PIECE, id="tgi"),
        pytest.param(
            "tgi",
            {
                "token": {"id": 3},
                "generated_text": "a",
                "details": {"generated_tokens": 4, "input_length": 9},
            },
            Heard(is_piece=True, prompt_tokens=9, output_tokens=4),
            id="the last one of tgi",
        ),
        pytest.param(
            "tgi",
            {"error": "overloaded", "error_type": "overloaded"},
            Heard(error="overloaded"),
            id="tgi error",
        ),
    ],
)
def test_events_are_understood(api: str, event: dict[str, Any], wanted: Heard) -> None:
    assert wanted == DIALECTS[api].hear(event)


def test_prompts_have_the_length_and_begin_differently() -> None:
    prompts = Prompts("7", 1000)
    made = [prompts.make(tokens) for tokens in (1, 5, 8, 9, 1000, 1000)]
    assert [1, 5, 8, 9, 1000, 1000] == [len(text.split()) for text in made]
    assert made[-1].split()[:8] != made[-2].split()[:8]
    again = Prompts("7", 1000)
    assert made == [again.make(tokens) for tokens in (1, 5, 8, 9, 1000, 1000)]
