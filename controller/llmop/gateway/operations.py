"""What operators look at: fetched from the controller while somebody looks who may, and kept for a moment only."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llmop.domain.client import ClientKey
from llmop.gateway.errors import Refusal

FRESH_S = 1.0

NOT_ALLOWED = Refusal(
    status=403,
    code="operations_not_allowed",
    message="this key may not see the operations of this installation: that takes an APIKey with spec.operations, "
    "which its administrator makes with llmctl key create NAME --operations",
)


class Overview(NamedTuple):
    """`text` is the controller's JSON, None where the controller did not answer. `heard_at` is when it last did (epoch seconds)."""

    text: str | None = None
    heard_at: float | None = None


Source = Callable[[], Awaitable[Overview]]


def is_shown_to(key: ClientKey) -> bool:
    """Keys of the gateway's file are handed out to people too, so the right is an APIKey's alone."""
    return key.operations


def controller_away(heard_at: float | None, now: float) -> Refusal:
    last = (
        "and has not since this gateway began" if heard_at is None else f"and did {now - heard_at:.0f} s ago"
    )
    return Refusal(
        status=503,
        code="controller_away",
        message=f"the controller gives no overview, {last}; requests for models are served as before",
        retry_after=5,
    )


class Overviews:
    """One call of `source` for all who ask within FRESH_S of its answer, also of one that failed."""

    def __init__(self, source: Source, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._last: tuple[float, Overview] | None = None

    async def get(self) -> Overview:
        async with self._lock:
            if self._last is None or self._monotonic() - self._last[0] >= FRESH_S:
                found = await self._source()
                self._last = (self._monotonic(), found)
            return self._last[1]
