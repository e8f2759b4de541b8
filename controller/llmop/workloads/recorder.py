"""Results of rows on their way to the disk: those that come while one transaction is under way share the next."""

import asyncio
import logging
import sqlite3

from llmop.workloads.database import Database, Result

LOG = logging.getLogger(__name__)

_AGAIN_S = 2.0


class Recorder:
    """`waiting` says why nothing can be recorded at the moment, "" when it can."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._results: list[tuple[Result, asyncio.Future[None]]] = []
        self._news = asyncio.Event()
        self.waiting = ""

    async def record(self, result: Result) -> None:
        """Returns once it is durable. A full disk is waited for: what a model has said is not asked for twice."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._results.append((result, done))
        self._news.set()
        await done

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            taken, self._results = self._results, []
            while taken:
                try:
                    await self._database.record([result for result, _ in taken])
                except sqlite3.Error as error:
                    if not self.waiting:
                        LOG.error("results cannot be recorded: %s", error)
                    self.waiting = f"results cannot be recorded: {error}"
                    await asyncio.sleep(_AGAIN_S)
                    continue
                self.waiting = ""
                for _, done in taken:
                    if not done.done():
                        done.set_result(None)
                taken = []
