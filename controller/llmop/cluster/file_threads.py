"""File access that may hang, as network file systems do rather than fail, and must stop neither the event loop nor anybody else."""

import asyncio
import concurrent.futures
import errno
import functools
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

PATIENCE_S = 10.0

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")
_Asked = tuple[concurrent.futures.Future[Any], Callable[[], Any]]
_Work = queue.SimpleQueue[_Asked | None]  # None: go


class FileThreads:
    """A few threads for one place: what hangs there takes no thread from other places. With one thread everything is done in order.

    The interpreter does not wait for them when it ends, as it would for those of a ThreadPoolExecutor: a thread that hangs in a
    file system would keep the process for ever.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._name = name
        self._count = count
        self._work: _Work = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        weakref.finalize(self, self._work.put, None).atexit = False  # nobody can ask any more: they may go

    async def run(
        self, work: Callable[_Given, _Answer], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        """Raises OSError (ETIMEDOUT) when there is no answer within `PATIENCE_S`.

        Then `work` was not begun, and will not be; or it hangs, and may go on some time.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.run_long(work, *given, **named)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"does not answer within {PATIENCE_S:g} s") from error

    async def run_long(
        self, work: Callable[_Given, _Answer], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        """Waits for the answer however long it takes."""
        return await asyncio.wrap_future(self.submit(work, *given, **named))

    def submit(
        self, work: Callable[_Given, _Answer], *given: _Given.args, **named: _Given.kwargs
    ) -> concurrent.futures.Future[_Answer]:
        """Has it done, also when nobody waits for it."""
        asked: concurrent.futures.Future[_Answer] = concurrent.futures.Future()
        self._work.put((asked, functools.partial(work, *given, **named)))
        if self._started < self._count and not self._idle.acquire(blocking=False):
            self._started += 1
            name = f"{self._name}-{self._started}"
            threading.Thread(target=_serve, args=(self._work, self._idle), name=name, daemon=True).start()
        return asked


def _serve(work: _Work, idle: threading.Semaphore) -> None:
    while (item := work.get()) is not None:
        asked, call = item
        if asked.set_running_or_notify_cancel():
            try:
                answer = call()
            except BaseException as error:  # noqa: BLE001  (whoever has asked gets it)
                asked.set_exception(error)
            else:
                asked.set_result(answer)
        del item, asked, call
        idle.release()
    work.put(None)  # the next one
