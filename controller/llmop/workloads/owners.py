"""Whose keys are gone, and since when: what nobody has the key to any more is not kept for ever (decision 40).

An owner is the hash of a key. Only those are followed that were seen as an APIKey once: keys of the gateway's file, and keys that went
before this was watched, say nothing about themselves.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import orjson

from llmop.clock import Clock
from llmop.domain import resources
from llmop.files import whole

LOG = logging.getLogger(__name__)

# A clock that differs by more was set. By less it may be a machine that was suspended, and what is counted too soon is little.
_SET_S = 7 * 86_400.0

_HASH = re.compile(r"sha256:([0-9a-f]{64})")

Known = Mapping[
    str, float | None
]  # owners, with when their key was first missing (epoch seconds); None = it is there


def digests(stored: Sequence[resources.Resource]) -> frozenset[str] | None:
    """The owners that these APIKeys make; None where one of them does not say whose it is: then nobody is known to be gone."""
    found = [_HASH.fullmatch(str(each.spec.get("keyHash"))) for each in stored]
    return frozenset(each[1] for each in found if each is not None) if all(found) else None


def settled(before: Known, there: Set[str], now: float) -> dict[str, float | None]:
    """`before` after a look at all keys that there are. A time that lies ahead was a wrong clock's."""
    after: dict[str, float | None] = {
        owner: min(now, now if at is None else at) for owner, at in before.items()
    }
    return after | dict.fromkeys(there)


def due(known: Known, before: float) -> list[str]:
    """Those whose keys have been missing since `before` or longer."""
    return sorted(owner for owner, at in known.items() if at is not None and at <= before)


class Owners:
    """`path` keeps what is known over a new start. What cannot be read or written is known anew from then on: that only takes longer."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._known: Known = {}
        self._is_written = True
        self._offset = clock.now() - clock.monotonic()

    def load(self) -> None:
        try:
            found = orjson.loads(self._path.read_bytes())
            self._known = {str(owner): None if at is None else float(at) for owner, at in found.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            LOG.error("%s cannot be read, keys are watched from now on: %s", self._path, error)

    async def put(self, stored: Sequence[resources.Resource]) -> None:
        """All APIKeys that there are now. Raises OSError."""
        there = digests(stored)
        if there is None:
            LOG.error("an APIKey cannot be read: until it can be, nobody's key counts as gone")
            there = frozenset(self._known)
        await self.notice_clock()
        await self._keep(settled(self._known, there, self._clock.now()))

    async def notice_clock(self) -> None:
        """Where the clock was set, nobody knows any more since when keys are gone: all that are count from now. Raises OSError."""
        now = self._clock.now()
        offset = now - self._clock.monotonic()
        if abs(offset - self._offset) > _SET_S:
            LOG.warning("the clock was set: keys that are gone count from now on")
            await self._keep({owner: None if at is None else now for owner, at in self._known.items()})
        self._offset = offset

    async def found(self, there: Set[str]) -> None:
        """These have a key that is no APIKey. Raises OSError."""
        await self._keep({owner: None if owner in there else at for owner, at in self._known.items()})

    def due(self, keep_s: float) -> list[str]:
        return due(self._known, self._clock.now() - keep_s)

    async def forget(self, owner: str) -> None:
        """Nothing is left of him. Raises OSError."""
        await self._keep({each: at for each, at in self._known.items() if each != owner})

    async def _keep(self, known: Known) -> None:
        if known != self._known or not self._is_written:
            self._known, self._is_written = known, False
            await asyncio.to_thread(whole.write, self._path, orjson.dumps(known), 0o600)
            self._is_written = True
