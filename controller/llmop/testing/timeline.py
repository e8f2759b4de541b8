"""Virtual time of a simulation: what is to happen when, in an order that follows from the moments and from who came first."""

import asyncio
import collections
import heapq
from collections.abc import Awaitable, Callable

from llmop.testing.clock import FakeClock

Action = Callable[[], Awaitable[None] | None]


class Timeline:
    """`due` is what happens at this very moment, in its order."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.due: collections.deque[Action] = collections.deque()
        self._events: list[tuple[float, int, Action]] = []
        self._event_number = 0

    def at(self, when: float, action: Action) -> None:
        self._event_number += 1
        heapq.heappush(self._events, (when, self._event_number, action))

    def after(self, seconds: float, action: Action) -> None:
        self.at(self.clock.now() + seconds, action)

    async def sleep(self, seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        self.after(seconds, lambda: None if over.done() else over.set_result(None))
        await over

    def next_event_at(self) -> float | None:
        return self._events[0][0] if self._events else None

    def fall_due(self) -> None:
        """What was to happen by now is due."""
        while self._events and self._events[0][0] <= self.clock.now():
            self.due.append(heapq.heappop(self._events)[2])
