"""What vLLM's routes read of a body, and what they find wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from llmop.simulator.options import Options, parse_options
from llmop.simulator.vllm_errors import VllmError
from llmop.simulator.vllm_request import Body, chat, completion, read_body

OPTIONS: Options = parse_options(["--personality", "vllm", "--max-total-tokens", "20"], {})
HELLO = [{"role": "user", "content": "Hello"}]


def test_a_prompt_may_be_text_tokens_or_several_of_either() -> None:
    def sizes(prompt: Any) -> list[int]:
        return [each.prompt_tokens for each in completion(Body({"prompt": prompt}), OPTIONS).requests]

    assert ([2], [2, 1], [3], [1, 2]) == (
        sizes("a b"),
        sizes(["a b", "c"]),
        sizes([7, 8, 9]),
        sizes([[7], [8, 9]]),
    )


def test_an_answer_is_cut_to_what_the_context_leaves_and_memory_is_what_it_will_take() -> None:
    (request,) = completion(Body({"prompt": "a " * 10, "max_tokens": 20}), OPTIONS).requests
    assert (10, 10, None, 20) == (
        request.prompt_tokens,
        request.most,
        request.natural,
        request.reserved_tokens,
    )
    (free,) = chat(Body({"messages": HELLO}), OPTIONS).requests
    assert free.natural is not None
    assert free.prompt_tokens + min(free.most, free.natural + 1) == free.reserved_tokens
    (endless,) = chat(Body({"messages": HELLO, "ignore_eos": True}), OPTIONS).requests
    assert (None, 17) == (endless.natural, endless.most)


def test_the_newer_name_of_the_limit_comes_first() -> None:
    values = {"messages": HELLO, "max_tokens": 5, "max_completion_tokens": 7}
    assert 7 == chat(Body(values), OPTIONS).requests[0].most


def test_usage_all_along_is_part_of_usage() -> None:
    def wishes(**options: bool) -> tuple[bool, bool]:
        found = completion(Body({"prompt": "a", "stream": True, "stream_options": options}), OPTIONS)
        return found.usage, found.usage_all_along

    assert [(True, False), (True, True), (False, False)] == [
        wishes(include_usage=True),
        wishes(include_usage=True, continuous_usage_stats=True),
        wishes(continuous_usage_stats=True),
    ]


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({"prompt": 3}, "body.prompt", "Input should be a valid string"),
        ({"prompt": [[]]}, "body.prompt", "Input should be a valid string"),
        ({"prompt": ["a", 3]}, "body.prompt", "Input should be a valid string"),
        ({"prompt": "a", "n": True}, "body.n", "Input should be a valid integer"),
        ({"prompt": "a", "stream": "yes"}, "body.stream", "Input should be a valid boolean"),
        ({"prompt": "a", "temperature": []}, "body.temperature", "Input should be a valid number"),
        ({"prompt": "a", "stop": [1]}, "body.stop", "Input should be a valid string"),
        ({"prompt": "a", "model": 1}, "body.model", "Input should be a valid string"),
        (
            {"prompt": "a", "stream": True, "stream_options": 1},
            "body.stream_options",
            "Input should be a valid dictionary",
        ),
    ],
)
def test_a_wrong_type_is_told_as_pydantic_tells_it(values: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(VllmError) as error:
        completion(Body(values), OPTIONS)
    assert (400, param, "Bad Request") == (error.value.status, error.value.param, error.value.kind)
    assert words in error.value.message


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("Hello", "Input should be a valid list"),
        (["Hello"], "Input should be a valid list"),
        ([{"content": "Hello"}], "body.messages.0.role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "is not a multimodal model"),
        ([{"role": "user", "content": ["Hello"]}], "is not a multimodal model"),
    ],
)
def test_messages_of_another_shape_are_refused(messages: Any, words: str) -> None:
    with pytest.raises(VllmError) as error:
        chat(Body({"messages": messages}), OPTIONS)
    assert words in error.value.message


@pytest.mark.parametrize("data", [b"[]", b"3", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(VllmError) as error:
        read_body("application/json; charset=utf-8", data)
    assert 400 == error.value.status


def test_null_and_absent_mean_the_same() -> None:
    names = (
        "max_tokens",
        "n",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "seed",
        "logprobs",
    )
    absent = completion(Body({"prompt": "a"}), OPTIONS)
    assert absent == completion(Body({"prompt": "a", **dict.fromkeys(names)}), OPTIONS)
