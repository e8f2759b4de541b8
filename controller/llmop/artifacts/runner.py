"""Starts stagers for the controller: one process per order, which ends when its controller does."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from llmop.artifacts import container, order
from llmop.domain import staging
from llmop.domain.errors import Unavailable

_END_S = 10.0  # between asking a stager to end and killing it
_WORDS = 300


class ProcessRunner:
    """`environ` is where PATH, proxies and certificates come from; nothing else of it reaches a stager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environment = container.environment(environ)

    async def run(self, wanted: order.Order, report: Callable[[staging.Progress], None]) -> str:
        """The digest, once `wanted` is done; `report` gets what is heard meanwhile. Raises NeedsUser or Unavailable.

        Cancelled, it takes the stager down and leaves what was fetched for the next one.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "llmop.artifacts.worker", wanted.dump()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"a stager cannot be started: {error.strerror}") from error
        try:
            return await _heard(process, report)
        finally:
            await _end(process)

    def is_there(self, shared_dir: str, entry: str) -> bool:
        """Whether the finished artifact is there. May take as long as the file system does. Raises OSError."""
        try:
            (Path(shared_dir) / entry).stat()
        except FileNotFoundError:
            return False
        return True


async def _heard(process: asyncio.subprocess.Process, report: Callable[[staging.Progress], None]) -> str:
    assert process.stdout is not None
    last = ""
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            answer = order.read_line(line)
            if isinstance(answer, str):
                return answer
            if answer is not None:
                report(answer)
            elif line:
                last = line
    except ValueError:
        last = "it wrote a line that is too long"
    code = await process.wait()
    raise Unavailable(f"the stager ended with code {code}" + (f": {last[:_WORDS]}" if last else ""))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
