"""The asyncio driver of the physics: it takes requests in, sleeps as long as the physics says, hands tokens out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import GENERATION, InferError, overloaded
from .faults import Faults
from .metrics import Metrics
from .options import Options
from .physics import Batch, Outcome, Physics, Sequence, Work, begin, cancel, enqueue, finish
from .process import crash
from .text import Answer, answer
from .validation import ValidRequest

# Work that takes no time runs in one go, but lets the connections have their turn after so many rounds.
_ROUNDS = 64
# How far the engine may lag behind its own virtual time before it gives up catching up (a paused machine).
_LAG_SECONDS = 0.05


@dataclass(kw_only=True, slots=True)
class Generation:
    """One request on its way. Times are those of the event loop, in seconds; 0 means not yet."""

    request: ValidRequest
    answer: Answer
    sequence: Sequence
    progress: asyncio.Event
    streaming: bool
    queued_at: float
    started_at: float = 0.0
    ended_at: float = 0.0
    produced: int = 0

    @property
    def ended(self) -> bool:
        """Whether all tokens are there."""
        return self.produced >= len(self.answer.tokens)


class Engine:
    """The model server behind the HTTP surface."""

    def __init__(self, options: Options, metrics: Metrics, faults: Faults) -> None:
        self._options = options
        self._metrics = metrics
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._physics = Physics(
            prefill_tokens_per_second=options.prefill_tokens_per_second,
            decode_base_seconds=options.decode_base_ms / 1000,
            decode_per_sequence_seconds=options.decode_per_sequence_ms / 1000,
            kv_tokens=options.kv_tokens,
        )
        self._batch = Batch()
        self._live: dict[int, Generation] = {}
        self._next_id = 0
        self._permits = options.max_concurrent_requests
        self._busy = False
        self._due: float | None = None
        self._frozen = False
        self.healthy = True

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Be one of `max_concurrent_requests` while inside. Raises InferError (429, or a fault's 424)."""
        self._meet_faults()
        if self._permits == 0:
            self._metrics.failed("overloaded")
            raise overloaded()
        self._permits -= 1
        try:
            yield
        finally:
            self._permits += 1

    def submit(self, request: ValidRequest, progress: asyncio.Event, *, streaming: bool) -> Generation:
        """Queue a request.

        `progress` is set when all its tokens are there and, with `streaming`, whenever there are more. Several
        generations may share one event.
        """
        text = answer(
            request.prompt,
            seed=request.text_seed,
            most=request.most,
            natural=request.natural,
            stop=request.stop,
        )
        self._next_id += 1
        sequence = Sequence(
            id=self._next_id,
            prompt_tokens=request.prompt_tokens,
            new_tokens=len(text.tokens),
            reserved_tokens=request.reserved_tokens,
        )
        generation = Generation(
            request=request,
            answer=text,
            sequence=sequence,
            progress=progress,
            streaming=streaming,
            queued_at=self._loop.time(),
        )
        self._live[sequence.id] = generation
        self._batch = enqueue(self._batch, sequence)
        self._metrics.observe("tgi_request_input_length", request.prompt_tokens)
        self._metrics.observe("tgi_request_max_new_tokens", request.most)
        self._wake()
        return generation

    def release(self, generation: Generation) -> None:
        """The client is done with it. What has not ended is cancelled, frees its memory and counts as dropped."""
        if self._live.pop(generation.sequence.id, None) is not None:
            self._batch = cancel(self._batch, generation.sequence.id)
            self._metrics.failed("dropped")

    def gauges(self) -> dict[str, float]:
        """The state of the queue and of the batch, under TGI's names."""
        return {
            "tgi_queue_size": len(self._batch.waiting),
            "tgi_batch_current_size": self._batch.size,
            "tgi_batch_current_max_tokens": self._batch.reserved_tokens,
            "tgi_batch_max_total_tokens": self._options.kv_tokens,
        }

    def thaw(self) -> None:
        """Go on after a `hang`, and be healthy again."""
        self._frozen = False
        self.healthy = True
        self._wake()

    def _meet_faults(self) -> None:
        due = self._faults.count_request()
        if "crash" in due:
            crash(self._faults, "request")
        if "hang" in due:
            self._frozen = True
        if "unhealthy" in due:
            self.healthy = False
        if "fail" in due:
            self._metrics.failed("generation")
            raise InferError(GENERATION, "Request failed during generation: simulated fault")

    def _wake(self) -> None:
        if not self._busy and not self._frozen:
            self._busy = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        for _ in range(_ROUNDS):
            work = None
            if not self._frozen:
                self._batch, work = begin(self._batch, self._physics)
            if work is None:
                self._busy = False
                self._due = None
                return
            self._metrics.count("tgi_batch_inference_count", f'method="{work.kind.value}"')
            now = self._loop.time()
            for sequence in self._batch.prefilling:
                generation = self._live[sequence.id]
                generation.started_at = generation.started_at or now
            if work.seconds > 0:
                previous = now if self._due is None else max(self._due, now - _LAG_SECONDS)
                self._due = previous + work.seconds
                self._loop.call_at(self._due, self._complete, work)
                return
            self._account(work)
        self._loop.call_soon(self._run)

    def _complete(self, work: Work) -> None:
        self._account(work)
        self._run()

    def _account(self, work: Work) -> None:
        self._batch, outcome = finish(self._batch, work)
        self._metrics.count("tgi_batch_inference_success", f'method="{work.kind.value}"')
        self._deliver(outcome)

    def _deliver(self, outcome: Outcome) -> None:
        for sequence_id in outcome.produced:
            generation = self._live[sequence_id]
            generation.produced += outcome.tokens
            if generation.streaming:
                generation.progress.set()
        now = self._loop.time()
        for sequence_id in outcome.ended:
            generation = self._live.pop(sequence_id)
            generation.ended_at = now
            generation.progress.set()
