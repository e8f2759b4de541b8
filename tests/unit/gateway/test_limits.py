"""Token buckets, and what a request will probably take."""

import random

import pytest

from llmop.gateway import limits
from llmop.gateway.limits import Lengths


def test_a_minutes_worth_may_come_at_once_and_then_at_the_rate() -> None:
    bucket = limits.full(60, 0, now=0.0)
    admitted = []
    spent = 0
    for tenth in range(600):
        now = tenth / 10
        bucket = limits.look(bucket, 60, spent, now)
        while limits.wait(bucket, 60, 1) == 0:
            spent += 1
            admitted.append(now)
            bucket = limits.look(bucket, 60, spent, now)
    assert 60 == sum(now == 0 for now in admitted)
    assert 59 == sum(now > 0 for now in admitted)


def test_the_wait_is_exactly_as_long_as_it_takes() -> None:
    bucket = limits.look(limits.full(120, 0, 0.0), 120, 120, 0.0)
    assert 0.5 == limits.wait(bucket, 120, 1)
    assert 0 == limits.wait(limits.look(bucket, 120, 120, 0.5), 120, 1)
    assert 5.0 == limits.wait(bucket, 120, 10)


def test_who_wants_more_than_a_whole_bucket_gets_a_full_one_and_pays_it_back() -> None:
    bucket = limits.full(100, 0, 0.0)
    assert 0 == limits.wait(bucket, 100, 1_000)
    after = limits.look(bucket, 100, 1_000, 0.0)
    assert -900 == after.level
    assert 10 * 60.0 == limits.wait(after, 100, 1_000)


def test_what_was_reserved_and_not_used_comes_back() -> None:
    bucket = limits.look(limits.full(100, 0, 0.0), 100, 90, 0.0)
    assert limits.wait(bucket, 100, 50) > 0
    assert 0 == limits.wait(limits.look(bucket, 100, 90 - 60, 0.0), 100, 50)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = limits.look(limits.full(60, 0, 5.0), 60, 60, 5.0)
    assert 0 == limits.look(bucket, 60, 60, 4.0).level


@pytest.mark.parametrize("seed", range(20))
def test_over_any_time_no_more_is_admitted_than_a_bucket_and_the_rate(seed: int) -> None:
    numbers = random.Random(seed)
    limit = numbers.randrange(1, 500)
    bucket = limits.full(limit, 0, 0.0)
    now, spent, times = 0.0, 0, []
    for _ in range(2000):
        now += numbers.expovariate(limit / 20)
        bucket = limits.look(bucket, limit, spent, now)
        if limits.wait(bucket, limit, 1) == 0:
            spent += 1
            times.append(now)
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 11):
            assert last - first + 1 <= limit + limit / 60 * (times[last] - times[first]) + 1e-6


def test_the_length_that_nine_of_ten_answers_do_not_exceed_is_learned() -> None:
    lengths = Lengths()
    for _ in range(Lengths.LEAST - 1):
        lengths.learn(10)
    assert lengths.p90() is None
    lengths.learn(10)
    assert 8 <= (lengths.p90() or 0) <= 15
    for number in range(3000):
        lengths.learn(1000 if number % 5 else 10)
    assert 512 <= (lengths.p90() or 0) <= 1023
    for _ in range(6000):
        lengths.learn(0)
    assert 0 == lengths.p90()


@pytest.mark.parametrize(
    ("body", "usual", "answer"),
    [
        (b'{"max_tokens":7}', None, 7),
        (b'{"max_tokens": 700}', 20, 20),
        (b'{"max_completion_tokens":7}', 20, 7),
        (b'{"parameters":{"max_new_tokens":7}}', 20, 7),
        (b'{"inputs":"x"}', 20, 20),
        (b'{"inputs":"x"}', None, 256),
        (b'{"inputs":"\\"max_tokens\\":7"}', None, 256),
        (b'{"max_tokens":"7"}', None, 256),
        (b'{"max_tokens":99999999999999}', None, 256),
    ],
)
def test_what_a_request_needs(body: bytes, usual: int | None, answer: int) -> None:
    assert -(-len(body) // 4) + answer == limits.need(body, usual)
