"""Removes what is left of keys that are gone: their vector stores, batches and files, in small steps (decision 40).

Nothing is removed that somebody may have the key to: the controller has to be there and to have said which keys and which assistants there
are, before every step.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Set

from llmop.domain import resources
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.workloads.database import Database
from llmop.workloads.known import Virtual
from llmop.workloads.owners import Owners
from llmop.workloads.retrieval.stores import Stores

LOG = logging.getLogger(__name__)

_PERIOD_S = 60.0
_STORES_AT_ONCE = 20
_NEEDED = frozenset({resources.API_KEY, resources.ASSISTANT})


class Retention:
    """`heard` are the kinds of which the controller has said everything and is still there; `removed` is called where contents have become
    free. `in_file` gives the owners whose keys the gateway's file has, and raises OSError and NeedsUser. `keep_s` is for how long a key has
    to be gone, in seconds; 0 = nothing is ever removed.
    """

    def __init__(
        self,
        owners: Owners,
        database: Database,
        stores: Stores,
        virtual: Virtual,
        heard: Set[str],
        removed: Callable[[], None],
        in_file: Callable[[], Set[str]],
        keep_s: float,
    ) -> None:
        self._owners = owners
        self._database = database
        self._stores = stores
        self._virtual = virtual
        self._heard = heard
        self._removed = removed
        self._in_file = in_file
        self._keep_s = keep_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (OSError, sqlite3.Error, Unavailable, NeedsUser) as error:
                LOG.error("what keys that are gone have left could not be removed: %s", error)
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> None:
        """Once at everybody who is gone for long enough. Raises OSError, sqlite3.Error, Unavailable, NeedsUser."""
        await self._owners.notice_clock()
        await self._owners.found(await asyncio.to_thread(self._in_file))
        for owner in self._due():
            while self._is_due(owner) and await self._step(owner):
                pass

    def _due(self) -> list[str]:
        is_sure = self._keep_s > 0 and self._heard >= _NEEDED
        return self._owners.due(self._keep_s) if is_sure else []

    def _is_due(self, owner: str) -> bool:
        return owner in self._due()

    async def _step(self, owner: str) -> bool:
        """Whether there may be more to do now. What an assistant answers from stays with all its owner has; a batch ends before it goes."""
        stores = await self._stores.owned(owner, "", _STORES_AT_ONCE, oldest_first=True)
        used = self._virtual.vector_stores()
        if used is None or await self._stores.owns(owner, sorted(used)) or not self._is_due(owner):
            return False
        for store in stores:
            await self._stores.remove(store)
        if stores:
            return True
        if await self._database.forget_owner(owner):
            self._removed()
            return True
        if not await self._database.has(owner):
            LOG.info("nothing is left of a key that is gone: %s...", owner[:12])
            await self._owners.forget(owner)
        return False
