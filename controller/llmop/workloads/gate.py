"""The way to a model: whoever has a request for it goes through here, in turn, as many at once as the window lets."""

import asyncio
from collections import deque

from llmop.workloads import window
from llmop.workloads.window import Window


class Turn:
    """One passage, at `sent_at` (monotonic). It is over once, however often that is said."""

    __slots__ = ("is_over", "sent_at")

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.is_over = False


class Gate:
    """`waiting` says why nobody gets through at the moment, "" when somebody does."""

    def __init__(self, most: int) -> None:
        self._window = Window(most=most)
        self._under_way = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = ""

    async def enter(self, *, first: bool = False) -> Turn:
        """Returns when it is our turn. `first`: before those who have not been through yet."""
        if self._waiters or not self._has_room():
            waiter = self._loop.create_future()
            if first:
                self._waiters.appendleft(waiter)
            else:
                self._waiters.append(waiter)
            self._wake()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():  # it was our turn just then
                    self._under_way -= 1
                self._wake()
                raise
        else:
            self._under_way += 1
        return Turn(self._loop.time())

    def leave(self, turn: Turn) -> None:
        """Back, and it says nothing about the way."""
        if not turn.is_over:
            turn.is_over = True
            self._under_way -= 1
            self._wake()

    def leave_well(self, turn: Turn) -> None:
        self._window = window.went_well(self._window)
        # One that went before somebody was refused says nothing about what that one waits for.
        if turn.sent_at > self._window.slowed_at:
            self.waiting = ""
        self.leave(turn)

    def leave_refused(self, turn: Turn, after_s: float, why: str) -> None:
        self.waiting = why
        now = self._loop.time()
        self._window = window.slowed(self._window, sent_at=turn.sent_at, now=now, after_s=after_s)
        self.leave(turn)

    def _has_room(self) -> bool:
        return self._window.has_room(self._under_way, self._loop.time())

    def _wake(self) -> None:
        while self._waiters and (self._waiters[0].done() or self._has_room()):
            waiter = self._waiters.popleft()
            if not waiter.done():  # else who waited was cancelled
                self._under_way += 1
                waiter.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters and self._window.paused_until > self._loop.time():
            self._timer = self._loop.call_at(self._window.paused_until + 0.001, self._wake)
