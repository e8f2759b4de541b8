"""The asyncio driver of the physics: it takes requests in, sleeps as long as the physics says, hands tokens out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import GENERATION, INCOMPLETE, SHUTDOWN, InferError, overloaded
from .faults import Faults
from .observer import Load, Observer
from .options import Options
from .physics import Batch, Outcome, Physics, Sequence, Work, WorkKind, begin, cancel, enqueue, finish
from .process import crash
from .request import Generation, ValidRequest
from .script import scripted
from .text import answer

# Work that takes no time runs in one go, but lets the connections have their turn after so many rounds.
_ROUNDS = 64
# How far the engine may lag behind its own virtual time before it gives up catching up (a paused machine).
_LAG_SECONDS = 0.05


class Engine:
    """The model server behind the HTTP surface."""

    def __init__(self, options: Options, observer: Observer, faults: Faults) -> None:
        self._options = options
        self._observer = observer
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._physics = Physics(
            prefill_tokens_per_second=options.prefill_tokens_per_second,
            decode_base_seconds=options.decode_base_ms / 1000,
            decode_per_sequence_seconds=options.decode_per_sequence_ms / 1000,
            kv_tokens=options.kv_tokens,
            most_sequences=options.max_batch_size,
        )
        self._batch = Batch()
        self._live: dict[int, Generation] = {}
        self._next_id = 0
        self._held = 0
        self._busy = False
        self._due: float | None = None
        self._frozen = False
        self._closing = False
        self._empty = asyncio.Event()
        self.healthy = True

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Be one of `max_concurrent_requests` while inside. Raises InferError (429, or a fault's 424)."""
        self.check_room(1)
        self._meet_faults()
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._empty.set()

    def check_room(self, requests: int) -> None:
        """Raises InferError if so many more are too many, or if the engine takes no more at all."""
        if self._closing:
            raise InferError(SHUTDOWN, "cannot schedule new futures after shutdown")
        most = self._options.max_concurrent_requests
        if most and self._held + requests > most:
            self._observer.refused("overloaded")
            raise overloaded()

    async def close(self) -> None:
        """Take nothing new, and return when everything under way has ended."""
        self._closing = True
        while self._held:
            self._empty.clear()
            await self._empty.wait()

    def submit(self, request: ValidRequest, progress: asyncio.Event, *, streaming: bool) -> Generation:
        """Queue a request.

        `progress` is set when all its tokens are there and, with `streaming`, whenever there are more. Several
        generations may share one event.
        """
        text = scripted(
            self._options.answers, request.prompt, most=request.most, stop=request.stop
        ) or answer(
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
        self._observer.queued(request)
        self._wake()
        return generation

    def release(self, generation: Generation) -> None:
        """The client is done with it. What has not ended is cancelled, frees its memory and counts as dropped."""
        if self._live.pop(generation.sequence.id, None) is not None:
            self._batch = cancel(self._batch, generation.sequence.id)
            self._observer.refused("dropped")

    def load(self) -> Load:
        """How busy it is at this moment."""
        return Load(
            waiting=len(self._batch.waiting),
            running=self._batch.size,
            reserved_tokens=self._batch.reserved_tokens,
            kv_tokens=self._options.kv_tokens,
        )

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
            self._observer.broke(WorkKind.PREFILL)
            self._observer.refused("generation")
            raise _failed()
        if "incomplete" in due:
            self._observer.refused("incomplete")
            raise InferError(INCOMPLETE, "Incomplete generation")

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
            prefilling, running = len(self._batch.prefilling), len(self._batch.running)
            read = sum(each.prompt_tokens for each in self._batch.prefilling)
            self._observer.began(work, prefilling or running, read, joining=bool(prefilling and running))
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
        self._observer.finished(work, len(outcome.produced))
        self._deliver(outcome)

    def _deliver(self, outcome: Outcome) -> None:
        now = self._loop.time()
        fails_at = int(self._faults.number_at("fail", "token"))
        for sequence_id in outcome.produced:
            generation = self._live[sequence_id]
            tokens = outcome.tokens
            if 0 < fails_at < len(generation.answer.tokens) and generation.produced + tokens >= fails_at:
                tokens = max(0, fails_at - generation.produced)
                generation.error = _failed()
            self._observer.produced(generation, tokens, now)
            if not generation.produced:
                generation.first_at = now
            generation.produced += tokens
            generation.last_at = now
            if generation.error is not None:
                self._drop(generation)
            elif generation.streaming:
                generation.progress.set()
        for sequence_id in outcome.ended:
            ended = self._live.pop(sequence_id, None)
            if ended is not None:
                ended.ended_at = now
                ended.progress.set()

    def _drop(self, failed: Generation) -> None:
        del self._live[failed.sequence.id]
        self._batch = cancel(self._batch, failed.sequence.id)
        self._observer.broke(WorkKind.DECODE)
        self._observer.refused("generation")
        failed.progress.set()


def _failed() -> InferError:
    return InferError(GENERATION, "Request failed during generation: simulated fault")
