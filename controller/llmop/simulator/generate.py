"""One request from its validation to its last token, unary or as a stream; all dialects stand on this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from .engine import Engine
from .errors import InferError
from .observer import Observer
from .options import Options
from .request import Generation, Timing, ValidRequest
from .text import Token

# Checks a request and says what the engine needs to know of it. Raises InferError.
Prepare = Callable[[], ValidRequest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """An answered request; `others` are the further sequences where several were to be made."""

    generation: Generation
    timing: Timing
    others: tuple[Generation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One token of a stream. `stream` counts the prompts of the request from 0, `index` its tokens from 1.

    `last` says that this is the last token of `generation`.
    """

    stream: int
    index: int
    token: Token
    generation: Generation
    last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A stream that ends with an error."""

    stream: int
    error: InferError


class Inference:
    """What handlers need in order to generate."""

    def __init__(self, options: Options, engine: Engine, observer: Observer) -> None:
        self.options = options
        self.engine = engine
        self.observer = observer
        self._loop = asyncio.get_running_loop()

    async def unary(self, *prepare: Prepare) -> Finished:
        """Generate and wait for all of it; of several sequences the likeliest comes first. Raises InferError."""
        arrived = self._loop.time()
        self.observer.arrived()
        with ExitStack() as stack:
            generations = [self._submit(stack, each, asyncio.Event(), streaming=False) for each in prepare]
            for generation in generations:
                await generation.progress.wait()
                if generation.error is not None:
                    raise generation.error
        best = max(generations, key=_mean_logprob) if len(generations) > 1 else generations[0]
        return Finished(
            generation=best,
            timing=self._succeeded(best, arrived),
            others=tuple(each for each in generations if each is not best),
        )

    async def unary_each(self, requests: Sequence[Prepare]) -> list[Finished]:
        """Generate for several prompts at once. Raises the first InferError, and cancels the others then."""
        tasks = [asyncio.ensure_future(self.unary(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def stream(self, requests: Sequence[Prepare]) -> AsyncGenerator[list[Piece | Failure], None]:
        """Generate for one or several prompts; yields what has come since the last time, never an empty list.

        Must be closed (`contextlib.aclosing`): closing it early cancels what still runs.
        """
        arrived = self._loop.time()
        progress = asyncio.Event()
        with ExitStack() as stack:
            running: dict[int, Generation] = {}
            failures: list[Piece | Failure] = []
            for number, request in enumerate(requests):
                self.observer.arrived()
                try:
                    running[number] = self._submit(stack, request, progress, streaming=True)
                except InferError as error:
                    failures.append(Failure(stream=number, error=error))
            if failures:
                yield failures
            sent = dict.fromkeys(running, 0)
            while running:
                await progress.wait()
                progress.clear()
                pieces: list[Piece | Failure] = []
                for number, generation in list(running.items()):
                    pieces += _pieces(number, generation, sent[number])
                    sent[number] = generation.produced
                    if generation.error is not None:
                        del running[number]
                        pieces.append(Failure(stream=number, error=generation.error))
                    elif generation.ended:
                        del running[number]
                        self._succeeded(generation, arrived)
                if pieces:
                    yield pieces

    def _submit(
        self, stack: ExitStack, prepare: Prepare, progress: asyncio.Event, *, streaming: bool
    ) -> Generation:
        """As in TGI the permit comes first and validation second: an overloaded server does not validate."""
        with ExitStack() as attempt:
            attempt.enter_context(self.engine.permit())
            try:
                valid = prepare()
            except InferError as error:
                self.observer.refused(error.kind.metric)
                raise
            generation = self.engine.submit(valid, progress, streaming=streaming)
            attempt.callback(self.engine.release, generation)
            stack.push(attempt.pop_all())
        return generation

    def _succeeded(self, generation: Generation, arrived: float) -> Timing:
        inference = generation.ended_at - generation.started_at
        timing = Timing(
            total=self._loop.time() - arrived,
            validation=max(0.0, generation.queued_at - arrived),
            queue=generation.started_at - generation.queued_at,
            inference=inference,
            per_token=inference / len(generation.answer.tokens),
        )
        self.observer.answered(generation, timing)
        return timing


def _pieces(number: int, generation: Generation, sent: int) -> list[Piece | Failure]:
    tokens = generation.answer.tokens
    return [
        Piece(
            stream=number,
            index=index + 1,
            token=tokens[index],
            generation=generation,
            last=index + 1 == len(tokens),
        )
        for index in range(sent, generation.produced)
    ]


def _mean_logprob(generation: Generation) -> float:
    tokens = generation.answer.tokens
    return sum(token.logprob for token in tokens) / len(tokens)
