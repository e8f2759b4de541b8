"""What a request may ask for: the limits and the texts of TGI's router."""

from __future__ import annotations

from typing import Any

import pytest

from llmop.simulator.body import Fields, read_json
from llmop.simulator.errors import BadBody, InferError
from llmop.simulator.options import Options, parse_options
from llmop.simulator.validation import (
    GenerateRequest,
    best_of,
    read_generate_request,
    refuse_in_stream,
    validate,
)

OPTIONS: Options = parse_options(["--max-total-tokens", "2000", "--max-input-tokens", "50"], {})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"temperature": 0.0}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 0.0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ("a",) * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"truncate": 51}, "`truncate` must be strictly positive and less than 50. Given: 51"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"grammar": True}, "grammar is not supported"),
        (
            {"inputs": "a b c", "max_new_tokens": 1998},
            "`inputs` tokens + `max_new_tokens` must be <= 2000. Given: 3 `inputs` tokens and 1998 `max_new_tokens`",
        ),
        (
            {"inputs": "a " * 51, "max_new_tokens": 1},
            "`inputs` must have less than 50 tokens. Given: 51",
        ),
    ],
)
def test_a_value_out_of_its_limits_is_refused_in_tgis_words(values: dict[str, Any], words: str) -> None:
    request = GenerateRequest(**{"inputs": "hello", **values})
    with pytest.raises(InferError) as error:
        validate(request, OPTIONS)
    assert {"error": f"Input validation error: {words}", "error_type": "validation"} == error.value.body()
    assert 422 == error.value.kind.status


def test_a_limit_is_reserved_in_full() -> None:
    valid = validate(GenerateRequest(inputs="a b", max_new_tokens=1500), OPTIONS)
    assert (2, 1500, None, 1502) == (valid.prompt_tokens, valid.most, valid.natural, valid.reserved_tokens)


def test_without_a_limit_memory_is_reserved_for_1024_tokens() -> None:
    valid = validate(GenerateRequest(inputs="a b"), OPTIONS)
    assert (1998, 1026) == (valid.most, valid.reserved_tokens)
    assert valid.natural is not None


def test_truncate_keeps_the_end_of_the_prompt() -> None:
    valid = validate(GenerateRequest(inputs="a b c d", truncate=2, max_new_tokens=1), OPTIONS)
    assert (" c d", 2) == (valid.prompt, valid.prompt_tokens)


def test_a_seed_is_shown_only_when_the_answer_was_sampled() -> None:
    assert validate(GenerateRequest(inputs="a", seed=7), OPTIONS).shown_seed is None
    assert 7 == validate(GenerateRequest(inputs="a", seed=7, do_sample=True), OPTIONS).shown_seed


def test_best_of_has_its_own_limit() -> None:
    assert 2 == best_of(GenerateRequest(inputs="a", best_of=2), OPTIONS)
    with pytest.raises(InferError, match=r"`best_of` must be > 0 and <= 2\. Given: 3"):
        best_of(GenerateRequest(inputs="a", best_of=3), OPTIONS)


def test_a_stream_refuses_what_only_a_whole_answer_can_have() -> None:
    for request in (
        GenerateRequest(inputs="a", best_of=2),
        GenerateRequest(inputs="a", decoder_input_details=True),
    ):
        refused = refuse_in_stream(request)
        assert refused is not None
        assert "not supported when streaming tokens" in refused.message
    assert refuse_in_stream(GenerateRequest(inputs="a", best_of=1)) is None


@pytest.mark.parametrize(
    ("content_type", "body", "status", "words"),
    [
        ("text/plain", b"{}", 415, "Content-Type: application/json"),
        ("application/json", b"{", 400, "Failed to parse the request body as JSON"),
        ("application/json", b'{"inputs": NaN}', 400, "NaN is not JSON"),
        ("application/json", b"[" * 100_000, 400, "Failed to parse"),
        ("application/json", b"[]", 422, "expected an object"),
        ("application/json", b"\xff", 400, "Failed to parse"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    content_type: str, body: bytes, status: int, words: str
) -> None:
    with pytest.raises(BadBody) as error:
        read_json(content_type, body)
    assert status == error.value.status
    assert words in error.value.message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "missing field `inputs`"),
        ({"inputs": 3}, "inputs: invalid type or value 3, expected a string"),
        ({"inputs": "a", "parameters": []}, "parameters: invalid type or value [], expected an object"),
        (
            {"inputs": "a", "parameters": {"max_new_tokens": -1}},
            "parameters.max_new_tokens: invalid type or value -1",
        ),
        ({"inputs": "a", "parameters": {"max_new_tokens": True}}, "expected u32"),
        ({"inputs": "a", "parameters": {"stop": "x"}}, 'parameters.stop: invalid type or value "x"'),
        ({"inputs": "a", "parameters": {"details": 1}}, "expected a boolean"),
        ({"inputs": "a", "parameters": {"top_p": "1"}}, "expected f32"),
        ({"inputs": "a", "parameters": {"seed": 2**64}}, "expected u64"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadBody) as error:
        read_generate_request(Fields(values))
    assert 422 == error.value.status
    assert words in error.value.message


def test_null_and_absent_mean_the_same() -> None:
    absent = read_generate_request(Fields({"inputs": "a"}))
    names = ("max_new_tokens", "stop", "details", "seed", "grammar", "top_p")
    assert absent == read_generate_request(Fields({"inputs": "a", "parameters": dict.fromkeys(names)}))
    assert absent == read_generate_request(Fields({"inputs": "a", "parameters": None}))
