"""What virtual models ask: `llmop workloads` knows it and is asked, once a second at most, and after every new endpoint table."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping

import orjson

from llmop.gateway.listing import Needs

LOG = logging.getLogger(__name__)

PATH = "/virtual-models"
_FRESH_S = 1.0


class KnownNeeds:
    """`read` gives the answer of `llmop workloads` to a GET of a path, None while it is away; `now` is a monotonic clock."""

    def __init__(self, read: Callable[[str], Awaitable[bytes | None]], now: Callable[[], float]) -> None:
        self._read = read
        self._now = now
        self._lock = asyncio.Lock()
        self._asked_at = -math.inf
        self._version = -1
        self._known: Mapping[str, Needs] | None = None

    async def get(self, version: int) -> Mapping[str, Needs] | None:
        """By the names of virtual models; None while `llmop workloads` is away. `version` is that of the endpoint table. Who comes together
        waits for one answer.
        """
        async with self._lock:
            if self._version != version or self._now() - self._asked_at >= _FRESH_S:
                text = await self._read(PATH)
                self._known = None if text is None else from_json(text)
                self._asked_at, self._version = self._now(), version
        return self._known


def from_json(text: bytes) -> Mapping[str, Needs] | None:
    """None for what no `llmop workloads` says."""
    try:
        return {
            name: Needs(models=tuple(each["models"]), missing_stores=tuple(each["missing_stores"]))
            for name, each in orjson.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        LOG.error("what llmop workloads says of virtual models cannot be read: %r", error)
        return None
