"""How long generation takes: continuous batching as functions of values, in virtual time, without a clock.

A batch alternates between two kinds of work, as Text-Generation-Inference does:

* *prefill*: waiting sequences whose tokens fit into the KV cache are admitted, first come first served; it
  takes the sum of their prompt tokens divided by the prefill rate and gives each of them its first token;
* *decode*: every running sequence gets one more token; it takes `base + per_sequence * batch size` seconds.

No more than `most_sequences` run at once. A sequence reserves the KV tokens of its prompt and of everything it may generate when it is admitted. The
first in the queue that does not fit holds up all behind it.

The driver calls `begin`, waits `Work.seconds`, then calls `finish`. In between it may `enqueue` and `cancel`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


@dataclass(frozen=True, kw_only=True, slots=True)
class Physics:
    """The constants. Seconds and tokens; `prefill_tokens_per_second` 0 means that prefill takes no time."""

    prefill_tokens_per_second: float
    decode_base_seconds: float
    decode_per_sequence_seconds: float
    kv_tokens: int
    most_sequences: int = 0  # 0 = no limit but memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One request: its size in prompt tokens, the tokens it will generate (>= 1), the KV tokens it reserves."""

    id: int
    prompt_tokens: int
    new_tokens: int
    reserved_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A sequence that is being decoded; it is complete once the batch has done `ends_at` decode steps."""

    sequence: Sequence
    ends_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The state of the engine. `decodes` counts the decode steps done since the start."""

    waiting: tuple[Sequence, ...] = ()
    prefilling: tuple[Sequence, ...] = ()
    running: tuple[Running, ...] = ()
    decodes: int = 0

    @property
    def size(self) -> int:
        """Sequences that hold KV memory."""
        return len(self.prefilling) + len(self.running)

    @property
    def reserved_tokens(self) -> int:
        """KV tokens held by admitted sequences."""
        return sum(each.reserved_tokens for each in self.prefilling) + sum(
            each.sequence.reserved_tokens for each in self.running
        )


class WorkKind(Enum):
    """What the engine is busy with."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What happens next: it takes `seconds` and gives each sequence it works on `tokens` tokens."""

    kind: WorkKind
    seconds: float
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What finished work gave: `tokens` more for each id in `produced`; the ids in `ended` are complete."""

    produced: tuple[int, ...]
    tokens: int
    ended: tuple[int, ...]


def enqueue(batch: Batch, sequence: Sequence) -> Batch:
    """Put a sequence at the end of the queue."""
    return replace(batch, waiting=(*batch.waiting, sequence))


def cancel(batch: Batch, sequence_id: int) -> Batch:
    """Forget a sequence, wherever it is, and free what it holds. Unknown ids change nothing."""
    return replace(
        batch,
        waiting=tuple(each for each in batch.waiting if each.id != sequence_id),
        prefilling=tuple(each for each in batch.prefilling if each.id != sequence_id),
        running=tuple(each for each in batch.running if each.sequence.id != sequence_id),
    )


def begin(batch: Batch, physics: Physics) -> tuple[Batch, Work | None]:
    """Choose the next work: prefill if anything can be admitted, else decode, else None (nothing to do).

    Decode steps that take no time are taken together, up to the next end of a sequence.
    """
    admitted = _admissible(batch, physics)
    if admitted:
        tokens = sum(each.prompt_tokens for each in admitted)
        rate = physics.prefill_tokens_per_second
        work = Work(kind=WorkKind.PREFILL, seconds=tokens / rate if rate > 0 else 0.0, tokens=1)
        return replace(batch, waiting=batch.waiting[len(admitted) :], prefilling=admitted), work
    if not batch.running:
        return batch, None
    seconds = physics.decode_base_seconds + physics.decode_per_sequence_seconds * len(batch.running)
    steps = 1 if seconds > 0 else min(each.ends_at for each in batch.running) - batch.decodes
    return batch, Work(kind=WorkKind.DECODE, seconds=seconds, tokens=steps)


def finish(batch: Batch, work: Work) -> tuple[Batch, Outcome]:
    """Account for work that `begin` chose. Sequences cancelled meanwhile get nothing."""
    if work.kind is WorkKind.PREFILL:
        started = tuple(
            Running(sequence=each, ends_at=batch.decodes + each.new_tokens - 1)
            for each in batch.prefilling
            if each.new_tokens > 1
        )
        outcome = Outcome(
            produced=tuple(each.id for each in batch.prefilling),
            tokens=1,
            ended=tuple(each.id for each in batch.prefilling if each.new_tokens == 1),
        )
        return replace(batch, prefilling=(), running=(*batch.running, *started)), outcome
    decodes = batch.decodes + work.tokens
    ended = tuple(each.sequence.id for each in batch.running if each.ends_at <= decodes)
    outcome = Outcome(
        produced=tuple(each.sequence.id for each in batch.running), tokens=work.tokens, ended=ended
    )
    left = tuple(each for each in batch.running if each.ends_at > decodes) if ended else batch.running
    return replace(batch, running=left, decodes=decodes), outcome


def _admissible(batch: Batch, physics: Physics) -> tuple[Sequence, ...]:
    if not batch.waiting:
        return ()
    free = physics.kv_tokens - batch.reserved_tokens
    count = 0
    waiting = batch.waiting
    if physics.most_sequences:
        waiting = waiting[: max(0, physics.most_sequences - batch.size)]
    for sequence in waiting:
        free -= sequence.reserved_tokens
        if free < 0:
            break
        count += 1
    return batch.waiting[:count]
