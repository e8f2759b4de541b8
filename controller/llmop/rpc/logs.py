"""LogService: the log files of a replica, read from the shared directory of its cluster.

The path is made of the stored object's name and a closed set of file names, never of what the caller sent. Symbolic links and
anything but regular files are refused, because the engine writes in the same directory.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from llmop.api.v1 import logs_pb2, logs_pb2_grpc
from llmop.domain import resources
from llmop.domain.errors import NeedsUser, NotFound
from llmop.rpc.errors import BadRequest
from llmop.store.interface import Store

CHUNK = 64 * 1024
_Result = TypeVar("_Result")
_FILES = {
    logs_pb2.TailRequest.SOURCE_UNSPECIFIED: "engine.log",
    logs_pb2.TailRequest.SOURCE_ENGINE: "engine.log",
    logs_pb2.TailRequest.SOURCE_JOB: "job.log",
}


class LogServicer(logs_pb2_grpc.LogServiceServicer):
    def __init__(self, store: Store, poll_s: float) -> None:
        self._store = store
        self._poll_s = poll_s

    async def Tail(  # noqa: N802  # named by the proto
        self, request: logs_pb2.TailRequest, context: Any
    ) -> AsyncIterator[logs_pb2.TailResponse]:
        if request.HasField("lines") and request.lines < 0:
            raise BadRequest(f"lines: must be greater than or equal to 0, got {request.lines}")
        if request.source not in _FILES:
            raise BadRequest(f"source: {request.source} is not known to this server")
        replica = await self._store.get(resources.REPLICA, request.namespace, request.replica)
        name = _FILES[request.source]
        cluster = await self._store.get(resources.CLUSTER, "", str(replica.spec.get("cluster", "")))
        log = _Log(path=Path(str(cluster.spec["sharedDir"])) / "replicas" / replica.name / name)
        # A thread of its own: a file system that hangs holds up nobody else, and closing comes after what still runs.
        thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="tail")
        try:
            lines = request.lines if request.HasField("lines") else None
            found = await _in(thread, log.open, lines)
            if not found and not request.follow:
                raise NotFound(f"{name} of Replica", replica.name)
            async for data in self._read(thread, log, replica, request.follow):
                yield logs_pb2.TailResponse(data=data)
        finally:
            thread.submit(log.close)
            thread.shutdown(wait=False)

    async def _read(
        self,
        thread: concurrent.futures.Executor,
        log: "_Log",
        replica: resources.Resource,
        follow: bool,
    ) -> AsyncIterator[bytes]:
        """Everything there is; with `follow` also what comes, until the replica is over and its file is read to the end."""
        over = False
        while True:
            while data := await _in(thread, log.read):
                yield data
            if not follow:
                return
            if await _in(thread, log.reopen_if_rotated):
                continue
            if over:
                return
            over = await self._is_over(replica)
            if not over:
                await asyncio.sleep(self._poll_s)

    async def _is_over(self, replica: resources.Resource) -> bool:
        try:
            now = await self._store.get(replica.kind, replica.namespace, replica.name)
        except NotFound:
            return True
        return now.uid != replica.uid or bool(now.status.get("end"))


async def _in(
    thread: concurrent.futures.Executor, call: Callable[..., _Result], *arguments: object
) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Log:
    """One log file over its rotations. All methods block; the shared file system may be slow."""

    path: Path
    fd: int | None = None

    def open(self, lines: int | None) -> bool:
        """Opens the file at its last `lines` lines (None = at its start). False when there is no file yet."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise NeedsUser("UnreadableLog", f"{self.path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NeedsUser("UnreadableLog", f"{self.path}: not a regular file")
        if lines is not None:
            os.lseek(fd, _start_of_last_lines(fd, lines), os.SEEK_SET)
        self.fd = fd
        return True

    def read(self) -> bytes:
        """The next bytes, b"" at the end as it is now."""
        return b"" if self.fd is None else os.read(self.fd, CHUNK)

    def reopen_if_rotated(self) -> bool:
        """Whether there is more to read: in a new file of the same name, or from the start of a truncated one."""
        if self.fd is None:
            return self.open(None)
        try:
            named = os.lstat(self.path)
        except OSError:
            named = None
        here = os.fstat(self.fd)  # after the look at the name: what was written before a rotation is seen
        position = os.lseek(self.fd, 0, os.SEEK_CUR)
        if here.st_size > position:
            return True
        if here.st_size < position:
            os.lseek(self.fd, 0, os.SEEK_SET)
            return here.st_size > 0
        if named is None or (named.st_dev, named.st_ino) == (here.st_dev, here.st_ino):
            return False
        self.close()
        return self.open(None)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _start_of_last_lines(fd: int, lines: int) -> int:
    """The offset of the last `lines` lines; a last line without its newline counts."""
    end = os.fstat(fd).st_size
    if lines == 0 or end == 0:
        return end
    wanted = lines + (1 if os.pread(fd, 1, end - 1) == b"\n" else 0)
    position = end
    while position > 0:
        start = max(0, position - CHUNK)
        block = os.pread(fd, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start + at + 1
        position = start
    return 0
