"""What requests under way may take of the memory, all together."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

_MOST = 64 * 1024 * 1024
_AT_LEAST = (
    256 * 1024
)  # what a request and its answer are taken for: so many small ones are under way at most


class Budget:
    """In bytes. What alone is more than everything goes alone."""

    def __init__(self, most: int = _MOST, at_least: int = _AT_LEAST) -> None:
        self._most = most
        self._at_least = at_least
        self._used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Inside, so many bytes are taken."""
        cost = min(max(size, self._at_least), self._most)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((cost, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._used -= cost
            self._let_in()

    def _let_in(self) -> None:
        while self._waiters and (
            self._waiters[0][1].done() or self._used + self._waiters[0][0] <= self._most
        ):
            cost, turn = self._waiters.popleft()
            if not turn.done():  # else who waited was cancelled
                self._used += cost
                turn.set_result(None)
