"""Which object to look at next: each key at most once in the queue, and never by two workers at a time."""

import asyncio
import dataclasses
import heapq


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Key:
    """An object to reconcile; `namespace` is "" for clusters."""

    kind: str
    namespace: str
    name: str


URGENT = 0
NORMAL = 1
RESYNC = 2  # behind everything that somebody waits for

BACKOFF_BASE_S = 0.005
BACKOFF_MAX_S = 300.0


def backoff_s(failures: int, jitter: float) -> float:
    """5 ms doubled for each failure in a row, 5 minutes at most; `jitter` in 0..1 spreads it by up to a fifth."""
    return min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(failures, 30)) * (1.0 + 0.2 * jitter)


class WorkQueue:
    """Keys in order of priority, then of arrival. A key that is added while it is worked on comes again afterwards.

    Times are those of one monotonic clock that the caller reads; nothing here waits but `wait`.
    """

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, Key]] = []
        self._priorities: dict[Key, int] = {}
        self._delayed: dict[Key, float] = {}
        self._working: set[Key] = set()
        self._again: dict[Key, int] = {}
        self._counter = 0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._priorities)

    def add(self, key: Key, priority: int = NORMAL) -> None:
        if key in self._working:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        known = self._priorities.get(key)
        if known is not None and known <= priority:
            return
        self._priorities[key] = priority
        self._counter += 1
        heapq.heappush(self._ready, (priority, self._counter, key))
        self._news.set()

    def add_at(self, key: Key, when: float) -> None:
        """Adds the key at `when`, or earlier if that was asked for already."""
        known = self._delayed.get(key)
        if known is None or when < known:
            self._delayed[key] = when
            self._news.set()

    def forget(self, key: Key) -> None:
        """The object is gone: nothing is to be looked at later."""
        self._delayed.pop(key, None)

    def take(self, now: float) -> Key | None:
        """The next key, which is then worked on until `done`; None when there is nothing to do now."""
        for key in [key for key, when in self._delayed.items() if when <= now]:
            del self._delayed[key]
            self.add(key)
        while self._ready:
            priority, _, key = heapq.heappop(self._ready)
            if self._priorities.get(key) != priority:
                continue
            del self._priorities[key]
            self._working.add(key)
            return key
        return None

    def done(self, key: Key) -> None:
        self._working.discard(key)
        priority = self._again.pop(key, None)
        if priority is not None:
            self.add(key, priority)

    def next_at(self) -> float | None:
        """When the earliest delayed key is due."""
        return min(self._delayed.values(), default=None)

    async def wait(self, timeout_s: float | None) -> None:
        """Returns when something was added, or after `timeout_s`."""
        self._news.clear()
        if self._ready:
            return
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            pass
