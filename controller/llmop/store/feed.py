"""Hands the change log out to many watchers: each change is read from the database about once, and nobody misses one."""

import asyncio
import bisect
from collections.abc import AsyncIterator, Awaitable, Callable

from llmop.domain import errors
from llmop.store import interface

PAGE = 256
POLL_EVERY = 1.0
"""Seconds after which watchers look by themselves: other controllers on the same Postgres wake nobody here."""

Revision = Callable[[], Awaitable[int]]
Read = Callable[[int, int], Awaitable[tuple[tuple[interface.Change, ...], int]]]
"""(after, limit) -> (changes, the revision up to which they are everything there is, if fewer than `limit`)."""


class Feed:
    """Watchers read at their own pace from what was read last, `PAGE` changes or so; who falls behind that reads the database.

    So a slow watcher costs no memory. It gets Expired when the history it still needs is compacted away.
    """

    def __init__(self, revision: Revision, read: Read) -> None:
        self._revision = revision
        self._read = read
        self._recent: list[interface.Change] = []
        self._start = -1  # `_recent` holds all changes with _start < revision <= _end
        self._end = -1
        self._news = asyncio.Event()
        self._read_for: asyncio.Event | None = None  # the news that the last read answered
        self._reading = asyncio.Lock()

    def wake(self) -> None:
        """There may be new changes."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def take(self, revision: int, changes: tuple[interface.Change, ...]) -> None:
        """A commit made `changes`, which are all of `revision`: where that comes right after what is known, nobody has to read it.

        Without changes `revision` is one that was there before.
        """
        is_next = self._read_for is self._news and 0 <= self._end == revision - 1
        self.wake()
        if is_next:
            self._extend(changes, revision)
            self._read_for = self._news

    def known(self, after: int) -> tuple[interface.Change, ...] | None:
        """All changes after `after` as far as anything was announced; None where they have to be read."""
        if self._read_for is self._news and 0 <= self._start <= after <= self._end:
            return tuple(self._recent[self._index(after) :])
        return None

    def doubt(self) -> None:
        """Nobody knows what was committed, or whether whoever answers next is the server that was read from."""
        self._begin_anew()
        self.wake()

    def forget(self, compacted: int) -> None:
        """History up to and with revision `compacted` is gone."""
        if compacted > self._start:
            del self._recent[: self._index(compacted)]
            self._start = compacted
            self._end = max(self._end, compacted)

    async def watch(self, after: int) -> AsyncIterator[interface.Change]:
        while True:
            news = self._news
            await self._refresh(news)
            if 0 <= self._start <= after <= self._end:
                page = tuple(self._recent[self._index(after) :])
            else:
                page, _ = await self._read(after, PAGE)
            for change in page:
                yield change
            if page:
                after = page[-1].revision
            else:
                await self._wait(news)

    async def _refresh(self, news: asyncio.Event) -> None:
        async with self._reading:
            if self._read_for is news:
                return
            try:
                await self._read_on(news)
            except errors.Expired:
                # The store has lost what was read from it, or another controller has compacted it. Watchers who need that are told when
                # they read for themselves.
                self._begin_anew()
            except errors.Unavailable:
                # Whoever answers next may be another server, which has never seen some of what was read.
                self._begin_anew()
                raise

    async def _read_on(self, news: asyncio.Event) -> None:
        if self._end < 0:
            self._start = self._end = await self._revision()
        start = self._end
        changes, reached = await self._read(start, PAGE)
        if self._end < start:
            return  # begun anew meanwhile
        known = self._end
        self._extend(
            tuple(change for change in changes if change.revision > known),
            reached if len(changes) < PAGE else changes[-1].revision,
        )
        if len(changes) < PAGE:
            self._read_for = news

    def _extend(self, changes: tuple[interface.Change, ...], reached: int) -> None:
        """`changes` are all that come after what is known, up to and with `reached`."""
        self._recent.extend(changes)
        self._end = max(self._end, reached)
        if len(self._recent) > PAGE:
            self._drop(len(self._recent) - PAGE)

    def _begin_anew(self) -> None:
        self._recent.clear()
        self._start = self._end = -1

    def _drop(self, count: int) -> None:
        """Forgets the oldest `count` changes and the rest of the revision they end in."""
        self._start = self._recent[count - 1].revision
        del self._recent[: self._index(self._start)]

    def _index(self, after: int) -> int:
        return bisect.bisect_right(self._recent, after, key=lambda change: change.revision)

    async def _wait(self, news: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(POLL_EVERY):
                await news.wait()
        except TimeoutError:
            if self._news is news:
                self.wake()
