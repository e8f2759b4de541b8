"""What the engine needs to know of a request, whichever dialect it came in, and of the answer that it makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from .errors import InferError
from .physics import Sequence
from .text import Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidRequest:
    """A request that may be queued. Sizes in tokens; `natural` is None where the client set a limit."""

    prompt: str
    prompt_tokens: int
    most: int
    natural: int | None
    reserved_tokens: int
    stop: tuple[str, ...]
    text_seed: str
    shown_seed: int | None = None
    top_n_tokens: int = 0


@dataclass(kw_only=True, slots=True)
class Generation:
    """One request on its way. Times are those of the event loop, in seconds; 0 means not yet.

    `error` is why it will never be complete.
    """

    request: ValidRequest
    answer: Answer
    sequence: Sequence
    progress: asyncio.Event
    streaming: bool
    queued_at: float
    started_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    ended_at: float = 0.0
    produced: int = 0
    error: InferError | None = None

    @property
    def ended(self) -> bool:
        """Whether all tokens are there."""
        return self.produced >= len(self.answer.tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where the time went, in seconds."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float
