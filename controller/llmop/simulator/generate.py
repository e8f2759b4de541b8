"""One request from its validation to its last token, unary or as a stream; both dialects stand on this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from .engine import Engine, Generation
from .errors import InferError
from .metrics import Metrics
from .options import Options
from .text import Token
from .validation import GenerateRequest, best_of, refuse_in_stream, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where the time went, in seconds."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """An answered request; `others` are the further sequences of `best_of`."""

    generation: Generation
    timing: Timing
    others: tuple[Generation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One token of a stream. `stream` counts the prompts of the request from 0, `index` its tokens from 1.

    `last` is the generation when this is its last token, else None.
    """

    stream: int
    index: int
    token: Token
    last: Generation | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A stream that ends with an error."""

    stream: int
    error: InferError


class Inference:
    """What handlers need in order to generate."""

    def __init__(self, options: Options, engine: Engine, metrics: Metrics) -> None:
        self.options = options
        self.engine = engine
        self.metrics = metrics
        self._loop = asyncio.get_running_loop()

    async def unary(self, request: GenerateRequest) -> Finished:
        """Generate and wait for all of it. Raises InferError."""
        arrived = self._loop.time()
        self.metrics.count("tgi_request_count")
        with ExitStack() as stack:
            generations = [
                self._submit(stack, request, copy, asyncio.Event(), streaming=False)
                for copy in range(self._copies(request))
            ]
            for generation in generations:
                await generation.progress.wait()
        best = max(generations, key=_mean_logprob) if len(generations) > 1 else generations[0]
        return Finished(
            generation=best,
            timing=self._succeeded(best, arrived),
            others=tuple(each for each in generations if each is not best),
        )

    async def unary_each(self, requests: Sequence[GenerateRequest]) -> list[Finished]:
        """Generate for several prompts at once. Raises the first InferError, and cancels the others then."""
        tasks = [asyncio.ensure_future(self.unary(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def stream(
        self, requests: Sequence[GenerateRequest]
    ) -> AsyncGenerator[list[Piece | Failure], None]:
        """Generate for one or several prompts; yields what has come since the last time, never an empty list.

        Must be closed (`contextlib.aclosing`): closing it early cancels what still runs.
        """
        arrived = self._loop.time()
        progress = asyncio.Event()
        with ExitStack() as stack:
            running: dict[int, Generation] = {}
            failures: list[Piece | Failure] = []
            for number, request in enumerate(requests):
                self.metrics.count("tgi_request_count")
                try:
                    running[number] = self._submit_stream(stack, request, progress)
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
                    if generation.ended:
                        del running[number]
                        self._succeeded(generation, arrived)
                if pieces:
                    yield pieces

    def _copies(self, request: GenerateRequest) -> int:
        try:
            return best_of(request, self.options)
        except InferError as error:
            self.metrics.failed(error.kind.metric)
            raise

    def _submit_stream(
        self, stack: ExitStack, request: GenerateRequest, progress: asyncio.Event
    ) -> Generation:
        refused = refuse_in_stream(request)
        if refused is not None:
            self.metrics.failed(refused.kind.metric)
            raise refused
        return self._submit(stack, request, 0, progress, streaming=True)

    def _submit(
        self,
        stack: ExitStack,
        request: GenerateRequest,
        copy: int,
        progress: asyncio.Event,
        *,
        streaming: bool,
    ) -> Generation:
        """As in TGI the permit comes first and validation second: an overloaded server does not validate."""
        with ExitStack() as attempt:
            attempt.enter_context(self.engine.permit())
            try:
                valid = validate(request, self.options, copy)
            except InferError as error:
                self.metrics.failed(error.kind.metric)
                raise
            generation = self.engine.submit(valid, progress, streaming=streaming)
            attempt.callback(self.engine.release, generation)
            stack.push(attempt.pop_all())
        return generation

    def _succeeded(self, generation: Generation, arrived: float) -> Timing:
        tokens = len(generation.answer.tokens)
        inference = generation.ended_at - generation.started_at
        timing = Timing(
            total=self._loop.time() - arrived,
            validation=max(0.0, generation.queued_at - arrived),
            queue=generation.started_at - generation.queued_at,
            inference=inference,
            per_token=inference / tokens,
        )
        self.metrics.count("tgi_request_success")
        self.metrics.observe("tgi_request_duration", timing.total)
        self.metrics.observe("tgi_request_validation_duration", timing.validation)
        self.metrics.observe("tgi_request_queue_duration", timing.queue)
        self.metrics.observe("tgi_request_inference_duration", timing.inference)
        self.metrics.observe("tgi_request_mean_time_per_token_duration", timing.per_token)
        self.metrics.observe("tgi_request_generated_tokens", tokens)
        return timing


def _pieces(number: int, generation: Generation, sent: int) -> list[Piece | Failure]:
    tokens = generation.answer.tokens
    return [
        Piece(
            stream=number,
            index=index + 1,
            token=tokens[index],
            last=generation if index + 1 == len(tokens) else None,
        )
        for index in range(sent, generation.produced)
    ]


def _mean_logprob(generation: Generation) -> float:
    tokens = generation.answer.tokens
    return sum(token.logprob for token in tokens) / len(tokens)
