"""What happens inside, for whoever counts it: each personality has metrics of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .physics import Work, WorkKind
from .request import Generation, Timing, ValidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The engine at one moment: sequences that wait and run, KV tokens that are reserved and that there are."""

    waiting: int
    running: int
    reserved_tokens: int
    kv_tokens: int


class Observer(Protocol):
    """The metrics of one simulator. Seconds and tokens."""

    def arrived(self) -> None:
        """A request reached a route that generates; a chat of TGI arrives twice."""
        ...

    def refused(self, cause: str) -> None:
        """A request gets no answer: overloaded, validation, template, generation, incomplete, dropped."""
        ...

    def queued(self, request: ValidRequest) -> None:
        """A request was found right and waits."""
        ...

    def began(self, work: Work, sequences: int, prompt_tokens: int, *, joining: bool) -> None:
        """The engine works on so many sequences and reads so many tokens of prompts; `joining`: others already run."""
        ...

    def finished(self, work: Work, sequences: int) -> None:
        """That work is done."""
        ...

    def broke(self, kind: WorkKind) -> None:
        """Work failed, as a fault wanted it."""
        ...

    def produced(self, generation: Generation, tokens: int, now: float) -> None:
        """A sequence got tokens; called before its own numbers are brought up to date."""
        ...

    def answered(self, generation: Generation, timing: Timing) -> None:
        """A request has all its tokens."""
        ...

    def render(self, load: Load) -> str:
        """The text of GET /metrics."""
        ...
