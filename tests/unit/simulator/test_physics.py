"""Continuous batching in virtual time: who runs when, how long it takes, and who gets which tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.simulator.physics import Batch, Physics, Sequence, WorkKind, begin, cancel, enqueue, finish

PHYSICS = Physics(
    prefill_tokens_per_second=1000, decode_base_seconds=0.02, decode_per_sequence_seconds=0.005, kv_tokens=100
)
INSTANT = Physics(
    prefill_tokens_per_second=0, decode_base_seconds=0, decode_per_sequence_seconds=0, kv_tokens=100
)


def sequence(number: int, *, prompt: int = 10, new: int = 3) -> Sequence:
    return Sequence(id=number, prompt_tokens=prompt, new_tokens=new, reserved_tokens=prompt + new)


def queued(*sequences: Sequence) -> Batch:
    batch = Batch()
    for each in sequences:
        batch = enqueue(batch, each)
    return batch


def run(batch: Batch, physics: Physics) -> tuple[float, dict[int, int], dict[int, float]]:
    """Run until nothing is left: (seconds taken, tokens by id, time of the end by id)."""
    now = 0.0
    tokens: dict[int, int] = {}
    ends: dict[int, float] = {}
    while True:
        batch, work = begin(batch, physics)
        if work is None:
            return now, tokens, ends
        now += work.seconds
        batch, outcome = finish(batch, work)
        for each in outcome.produced:
            tokens[each] = tokens.get(each, 0) + outcome.tokens
        for each in outcome.ended:
            ends[each] = now


def test_an_empty_engine_has_nothing_to_do() -> None:
    assert (Batch(), None) == begin(Batch(), PHYSICS)


def test_prefill_takes_its_prompt_tokens_at_the_prefill_rate() -> None:
    _, work = begin(queued(sequence(1, prompt=30), sequence(2, prompt=20)), PHYSICS)
    assert work is not None
    assert WorkKind.PREFILL is work.kind
    assert pytest.approx(0.05) == work.seconds


def test_prefill_gives_the_first_token() -> None:
    batch, work = begin(queued(sequence(1)), PHYSICS)
    assert work is not None
    _, outcome = finish(batch, work)
    assert ((1,), 1, ()) == (outcome.produced, outcome.tokens, outcome.ended)


def test_an_answer_of_one_token_ends_with_prefill() -> None:
    batch, work = begin(queued(sequence(1, new=1)), PHYSICS)
    assert work is not None
    batch, outcome = finish(batch, work)
    assert ((1,), 0) == (outcome.ended, batch.size)


def test_a_decode_step_takes_the_base_and_a_share_for_every_sequence() -> None:
    batch, work = begin(queued(sequence(1), sequence(2), sequence(3)), PHYSICS)
    assert work is not None
    batch, _ = finish(batch, work)
    batch, work = begin(batch, PHYSICS)
    assert work is not None
    assert WorkKind.DECODE is work.kind
    assert pytest.approx(0.02 + 3 * 0.005) == work.seconds
    _, outcome = finish(batch, work)
    assert ((1, 2, 3), 1) == (outcome.produced, outcome.tokens)


def test_the_time_of_a_whole_request_adds_up() -> None:
    seconds, tokens, ends = run(queued(sequence(1, prompt=10, new=5)), PHYSICS)
    expected = 10 / 1000 + 4 * (0.02 + 0.005)
    assert ({1: 5}, {1: seconds}) == (tokens, ends)
    assert pytest.approx(expected) == seconds


def test_a_newcomer_is_prefilled_between_two_decode_steps() -> None:
    batch, work = begin(queued(sequence(1)), PHYSICS)
    assert work is not None
    batch, _ = finish(batch, work)
    batch, work = begin(batch, PHYSICS)
    assert work is not None and work.kind is WorkKind.DECODE
    batch = enqueue(batch, sequence(2))
    batch, outcome = finish(batch, work)
    assert (1,) == outcome.produced
    batch, work = begin(batch, PHYSICS)
    assert work is not None
    assert (WorkKind.PREFILL, (2,)) == (work.kind, tuple(each.id for each in batch.prefilling))


def test_a_sequence_waits_until_its_tokens_fit() -> None:
    batch, work = begin(queued(sequence(1, prompt=57, new=3), sequence(2, prompt=57, new=3)), PHYSICS)
    assert work is not None
    assert ((1,), (2,)) == (
        tuple(each.id for each in batch.prefilling),
        tuple(each.id for each in batch.waiting),
    )
    _, _, ends = run(queued(sequence(1, prompt=57, new=3), sequence(2, prompt=57, new=3)), PHYSICS)
    assert ends[2] == pytest.approx(2 * ends[1])


def test_a_small_sequence_does_not_overtake_a_large_one() -> None:
    batch = queued(sequence(1, prompt=80), sequence(2, prompt=80), sequence(3, prompt=1, new=1))
    batch, _ = begin(batch, PHYSICS)
    assert (2, 3) == tuple(each.id for each in batch.waiting)


@pytest.mark.parametrize("steps_before", [0, 1, 2], ids=["waiting", "in prefill", "running"])
def test_a_cancelled_sequence_frees_its_tokens_wherever_it_is(steps_before: int) -> None:
    batch = queued(sequence(1, prompt=57), sequence(2, prompt=57))
    if steps_before >= 1:
        batch, work = begin(batch, PHYSICS)
        assert work is not None
        if steps_before == 2:
            batch, _ = finish(batch, work)
    batch = cancel(batch, 1)
    assert 0 == batch.reserved_tokens
    batch, _ = begin(batch, PHYSICS)
    assert (2,) == tuple(each.id for each in batch.prefilling)


def test_a_sequence_cancelled_during_a_step_gets_nothing_from_it() -> None:
    batch, work = begin(queued(sequence(1), sequence(2)), PHYSICS)
    assert work is not None
    _, outcome = finish(cancel(batch, 1), work)
    assert (2,) == outcome.produced


def test_cancelling_an_unknown_sequence_changes_nothing() -> None:
    batch = queued(sequence(1))
    assert batch == cancel(batch, 7)


def test_steps_that_take_no_time_are_taken_together_up_to_the_next_end() -> None:
    batch, work = begin(queued(sequence(1, new=4), sequence(2, new=9)), INSTANT)
    assert work is not None
    batch, _ = finish(batch, work)
    batch, work = begin(batch, INSTANT)
    assert work is not None
    _, outcome = finish(batch, work)
    assert ((1, 2), 3, (1,)) == (outcome.produced, outcome.tokens, outcome.ended)


SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=12)


@given(sizes=SIZES, instant=st.booleans())
def test_everybody_gets_exactly_the_tokens_asked_for(sizes: list[tuple[int, int]], instant: bool) -> None:
    sequences = [sequence(number, prompt=prompt, new=new) for number, (prompt, new) in enumerate(sizes)]
    _, tokens, ends = run(queued(*sequences), INSTANT if instant else PHYSICS)
    assert ({each.id: each.new_tokens for each in sequences}, {each.id for each in sequences}) == (
        tokens,
        set(ends),
    )


@given(sizes=SIZES)
def test_memory_is_never_overbooked(sizes: list[tuple[int, int]]) -> None:
    batch = queued(*[sequence(number, prompt=prompt, new=new) for number, (prompt, new) in enumerate(sizes)])
    while True:
        batch, work = begin(batch, PHYSICS)
        assert batch.reserved_tokens <= PHYSICS.kv_tokens
        if work is None:
            break
        batch, _ = finish(batch, work)
    assert Batch(decodes=batch.decodes) == batch


def test_no_more_sequences_run_at_once_than_allowed() -> None:
    physics = Physics(
        prefill_tokens_per_second=0,
        decode_base_seconds=1,
        decode_per_sequence_seconds=0,
        kv_tokens=1000,
        most_sequences=2,
    )
    batch = Batch()
    for number in range(1, 4):
        batch = enqueue(batch, Sequence(id=number, prompt_tokens=1, new_tokens=2, reserved_tokens=3))

    batch, work = begin(batch, physics)
    assert work is not None
    assert [1, 2] == [each.id for each in batch.prefilling]
    batch, _ = finish(batch, work)
    batch, work = begin(batch, physics)
    assert work is not None
    assert (WorkKind.DECODE, [3]) == (work.kind, [each.id for each in batch.waiting])
    batch, outcome = finish(batch, work)
    assert (1, 2) == outcome.ended
    batch, work = begin(batch, physics)
    assert [3] == [each.id for each in batch.prefilling]
