"""What requests for a model wait for, as the gateway tells it in /v1/models."""

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping

import orjson

from llmop.domain import awaited
from llmop.domain.endpoint import Stage

_FRESH_S = 1.0
_STAGES = {"pending": Stage.PENDING, "loading": Stage.LOADING}


class Outlook:
    """`read` gives the gateway's answer to a GET of a path, None while there is none; `now` is a monotonic clock."""

    def __init__(self, read: Callable[[str], Awaitable[bytes | None]], now: Callable[[], float]) -> None:
        self._read = read
        self._now = now
        self._lock = asyncio.Lock()
        self._known: dict[str, tuple[float, str]] = {}

    async def of(self, model: str) -> str:
        """In words like "pending, starts in ~40 s"; "" where a replica is ready, or nothing is known. The gateway is asked once a second at
        most for each model, whoever waits for it.
        """
        async with self._lock:
            if model not in self._fresh():
                text = await self._read(f"/v1/models/{urllib.parse.quote(model, safe='')}")
                self._known = {**self._fresh(), model: (self._now(), "" if text is None else in_words(text))}
            return self._known[model][1]

    def _fresh(self) -> Mapping[str, tuple[float, str]]:
        oldest = self._now() - _FRESH_S
        return {model: known for model, known in self._known.items() if known[0] > oldest}


def in_words(text: bytes) -> str:
    """Of the gateway's answer about a model; "" for one that says nothing of replicas."""
    try:
        facts = orjson.loads(text)["llmop"]
        state, starts_in, ready_in = facts["state"], facts["starts_in_seconds"], facts["ready_in_seconds"]
    except (ValueError, KeyError, TypeError):
        return ""
    if state == "ready":
        return ""
    stage = _STAGES.get(state, Stage.NONE)
    return awaited.words(stage, starts_in if stage is Stage.PENDING else ready_in)
