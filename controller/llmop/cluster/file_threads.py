"""File access that may hang, as network file systems do rather than fail, and must stop neither the event loop nor anybody else."""

import asyncio
import errno
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

PATIENCE_S = 10.0

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


class FileThreads:
    """A few threads for one place: what hangs there takes no thread from other places. With one thread everything is done in order."""

    def __init__(self, name: str, count: int = 1) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(
        self, work: Callable[_Given, _Answer], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        """Raises OSError (ETIMEDOUT) when there is no answer within `PATIENCE_S`.

        Then `work` was not begun, and will not be; or it hangs, and may go on some time.
        """
        asked = asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(work, *given, **named)
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asked
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"does not answer within {PATIENCE_S:g} s") from error
