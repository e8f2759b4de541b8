"""The simulator's language: deterministic, one word per token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmop.simulator.text import answer, count_tokens, natural_length, split_tokens


def test_the_same_seed_and_prompt_give_the_same_answer() -> None:
    assert answer("a prompt", seed="1", most=20) == answer("a prompt", seed="1", most=20)


def test_another_seed_or_prompt_gives_another_answer() -> None:
    texts = {answer(prompt, seed=seed, most=20).text for prompt in ("a", "b") for seed in ("1", "2")}
    assert 4 == len(texts)


def test_the_answer_is_stable_over_releases() -> None:
    assert " echo area cliff" == answer("Hello there", seed="0", most=3).text


@given(prompt=st.text(min_size=1), most=st.integers(1, 50))
def test_a_limit_is_used_up_and_a_longer_answer_only_goes_on(prompt: str, most: int) -> None:
    short, long = answer(prompt, seed="0", most=most), answer(prompt, seed="0", most=most + 5)
    assert ("length", short.tokens) == (short.finish_reason, long.tokens[:most])


@given(prompt=st.text(), most=st.integers(1, 20))
def test_the_text_is_the_texts_of_its_tokens(prompt: str, most: int) -> None:
    result = answer(prompt, seed="0", most=most)
    assert result.text == "".join(token.text for token in result.tokens)
    assert all(token.text.startswith(" ") and token.text.strip().isalpha() for token in result.tokens)


def test_without_a_limit_it_ends_by_itself_with_the_end_token() -> None:
    result = answer("x", seed="0", most=500, natural=7)
    assert ("eos_token", 8, "</s>", True) == (
        result.finish_reason,
        len(result.tokens),
        result.tokens[-1].text,
        result.tokens[-1].special,
    )
    assert "</s>" not in result.text


def test_a_natural_end_at_the_limit_is_a_limit() -> None:
    assert "length" == answer("x", seed="0", most=7, natural=7).finish_reason


def test_a_stop_sequence_ends_the_answer_and_stays_in_it() -> None:
    whole = answer("x", seed="0", most=20)
    stopped = answer("x", seed="0", most=20, stop=("never", whole.tokens[4].text[-2:]))
    assert "stop_sequence" == stopped.finish_reason
    assert stopped.text.endswith(whole.tokens[4].text[-2:])
    assert len(stopped.tokens) <= 5


def test_the_natural_length_lies_around_the_typical_one() -> None:
    lengths = {natural_length(f"prompt {number}", "0", 64) for number in range(50)}
    assert lengths <= set(range(32, 97))
    assert len(lengths) > 10


@given(st.text(max_size=80))
def test_the_tokens_of_a_prompt_joined_are_the_prompt(prompt: str) -> None:
    tokens = split_tokens(prompt)
    assert prompt == "".join(tokens)
    if prompt:
        assert count_tokens(prompt) == len(tokens)
