"""Waiting in tests for what has to come: it is asked for again and again, with an end that no busy machine reaches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_S = 30.0
POLL_S = 0.01
T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T]], wanted: Callable[[T], object], *, patience_s: float = PATIENCE_S
) -> T:
    """The first answer that is wanted. Fails with the last one that was not."""
    deadline = time.monotonic() + patience_s
    while not wanted(answer := await ask()):
        assert time.monotonic() < deadline, f"after {patience_s:g} s it is still {answer!r}"
        await asyncio.sleep(POLL_S)
    return answer


async def until(true: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Returns once it holds."""

    async def ask() -> object:
        return true()

    await eventually(ask, bool, patience_s=patience_s)
