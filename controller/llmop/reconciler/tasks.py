"""Effects that run beside the passes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from llmop.domain import errors

_log = structlog.get_logger()


class Tasks:
    """An error of an effect that is not the store's or a deposal is a fault of ours: it stops the controller, by `fatal`."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if isinstance(error, errors.Unavailable):
            _log.warning("effect not recorded", error=str(error))
            return
        if not self.fatal.done():
            self.fatal.set_exception(error)

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """Effects under way."""
        return frozenset(self._running)
