"""Token buckets, and what a request will probably take."""

import random
from typing import Any

import pytest

from llmop.gateway import limits
from llmop.gateway.limits import Bucket, Lengths


def bucket(limit: int, spent: int = 0, now: float = 0.0) -> Bucket:
    """One that was full at `now`, and of which `spent` was spent at once."""
    found = Bucket(limit, 0, now)
    found.look(spent, now)
    return found


def test_a_minutes_worth_may_come_at_once_and_then_at_the_rate() -> None:
    of = bucket(60)
    admitted = []
    spent = 0
    for tenth in range(600):
        now = tenth / 10
        of.look(spent, now)
        while of.wait(1) == 0:
            spent += 1
            admitted.append(now)
            of.look(spent, now)
    assert 60 == sum(now == 0 for now in admitted)
    assert 59 == sum(now > 0 for now in admitted)


def test_the_wait_is_exactly_as_long_as_it_takes() -> None:
    of = bucket(120, spent=120)
    assert 0.5 == of.wait(1)
    assert 5.0 == of.wait(10)
    of.look(120, 0.5)
    assert 0 == of.wait(1)


def test_who_wants_more_than_a_whole_bucket_gets_a_full_one_and_pays_it_back() -> None:
    of = bucket(100)
    assert 0 == of.wait(1_000)
    of.look(1_000, 0.0)
    assert -900 == of.level
    assert 10 * 60.0 == of.wait(1_000)


def test_what_was_reserved_and_not_used_comes_back() -> None:
    of = bucket(100, spent=90)
    assert of.wait(50) > 0
    of.look(90 - 60, 0.0)
    assert 0 == of.wait(50)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    of = bucket(60, spent=60, now=5.0)
    of.look(60, 4.0)
    assert 0 == of.level


@pytest.mark.parametrize("seed", range(20))
def test_over_any_time_no_more_is_admitted_than_a_bucket_and_the_rate(seed: int) -> None:
    numbers = random.Random(seed)
    limit = numbers.randrange(1, 500)
    of = bucket(limit)
    now, spent, times = 0.0, 0, []
    for _ in range(2000):
        now += numbers.expovariate(limit / 20)
        of.look(spent, now)
        if of.wait(1) == 0:
            spent += 1
            times.append(now)
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 11):
            assert last - first + 1 <= limit + limit / 60 * (times[last] - times[first]) + 1e-6


def test_the_length_that_nine_of_ten_answers_do_not_exceed_is_learned() -> None:
    lengths = Lengths()
    for _ in range(Lengths.LEAST - 1):
        lengths.learn(10)
    assert lengths.p90(0.0) is None
    lengths.learn(10)
    assert 10 == lengths.p90(Lengths.LOOK_S)
    for number in range(3000):
        lengths.learn(1000 if number % 5 else 10)
    assert 10 == lengths.p90(Lengths.LOOK_S)  # it is not worked out for each request
    assert 1000 == lengths.p90(2 * Lengths.LOOK_S)
    for _ in range(950):
        lengths.learn(0)
    assert 0 == lengths.p90(3 * Lengths.LOOK_S)


@pytest.mark.parametrize(
    ("asked", "usual", "answer"),
    [
        ({"max_tokens": 7}, None, 7),
        ({"max_tokens": 700}, 20, 20),
        ({"max_completion_tokens": 7}, 20, 7),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 20, 7),
        ({"max_tokens": 7, "max_completion_tokens": None}, 20, 7),
        ({"metadata": {"max_tokens": 7}}, 20, 20),
        ({"max_tokens": "7"}, None, 256),
        ({"max_tokens": True}, None, 256),
        ({"max_tokens": -7}, None, 256),
        ({"max_tokens": 7.0}, None, 256),
        ({"max_tokens": 99_999_999_999_999}, None, 256),
        ({}, None, 256),
    ],
)
def test_what_a_request_of_openais_dialect_needs(
    asked: dict[str, Any], usual: int | None, answer: int
) -> None:
    assert 3 + answer == limits.need(b"x" * 9, asked, usual)


@pytest.mark.parametrize(
    ("body", "usual", "answer"),
    [
        (b'{"parameters":{"max_new_tokens":7}}', None, 7),
        (b'{"parameters":{"max_new_tokens": 700}}', 20, 20),
        (b'{"inputs":"x"}', 20, 20),
        (b'{"inputs":"x"}', None, 256),
        (b'{"inputs":"\\"max_new_tokens\\":7"}', None, 256),
        (b'{"max_new_tokens":"7"}', None, 256),
        (b'{"max_new_tokens":99999999999999}', None, 256),
    ],
)
def test_what_a_request_of_tgis_dialect_needs(body: bytes, usual: int | None, answer: int) -> None:
    assert -(-len(body) // 4) + answer == limits.need(body, None, usual)
