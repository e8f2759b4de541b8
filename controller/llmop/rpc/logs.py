"""LogService: the log files of a replica, read from the shared directory of its cluster.

The path is made of a name that a stored replica has or had and a closed set of file names, never of what the caller sent. Symbolic links and
anything but regular files are refused, because the engine writes in the same directory.
"""

import asyncio
import dataclasses
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from llmop.api.v1 import logs_pb2, logs_pb2_grpc
from llmop.cluster import file_threads
from llmop.domain import resources
from llmop.domain.errors import NeedsUser, NotFound
from llmop.rpc import log_times
from llmop.rpc.errors import BadRequest
from llmop.store.interface import Store

CHUNK = 64 * 1024
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
        _check(request)
        name = _FILES[request.source]
        replica, directory = await self._find(request.namespace, request.replica)
        log = _Log(path=directory / name)
        # A thread of its own: a file system that hangs holds up nobody else, and closing comes after what still runs.
        thread = file_threads.FileThreads("tail")
        try:
            found = await thread.run_long(log.open)
            if not found and not request.follow:
                raise NotFound(f"{name} of Replica", request.replica)
            if found:
                await thread.run_long(_seek, log, request)
            async for data in self._read(thread, log, replica, request.follow):
                yield logs_pb2.TailResponse(data=data, offset=log.position)
        finally:
            thread.submit(log.close)

    async def _find(self, namespace: str, name: str) -> tuple[resources.Resource | None, Path]:
        """The replica, None when it is gone, and its directory. Raises NotFound for a name that no replica had."""
        try:
            replica = await self._store.get(resources.REPLICA, namespace, name)
        except NotFound as error:
            return None, await self._left_behind(namespace, name, error)
        return replica, await self._directory(str(replica.spec.get("cluster", "")), replica.name)

    async def _left_behind(self, namespace: str, name: str, missing: NotFound) -> Path:
        """The directory of a replica that is gone: it is kept for as long as its ledger is."""
        for ledger in await self._store.ledgers():
            if (ledger.namespace, ledger.replica_name) == (
                namespace,
                name,
            ) and ledger.tombstoned_at is not None:
                return await self._directory(ledger.cluster, ledger.replica_name)
        raise missing

    async def _directory(self, cluster: str, replica: str) -> Path:
        found = await self._store.get(resources.CLUSTER, "", cluster)
        return Path(str(found.spec["sharedDir"])) / "replicas" / replica

    async def _read(
        self,
        thread: file_threads.FileThreads,
        log: "_Log",
        replica: resources.Resource | None,
        follow: bool,
    ) -> AsyncIterator[bytes]:
        """Everything there is; with `follow` also what comes, until the replica is over and its file is read to the end."""
        over = False
        while True:
            while data := await thread.run_long(log.read):
                yield data
            if not follow:
                return
            if await thread.run_long(log.reopen_if_rotated):
                continue
            if over:
                return
            over = await self._is_over(replica)
            if not over:
                await asyncio.sleep(self._poll_s)

    async def _is_over(self, replica: resources.Resource | None) -> bool:
        if replica is None:
            return True
        try:
            now = await self._store.get(replica.kind, replica.namespace, replica.name)
        except NotFound:
            return True
        return now.uid != replica.uid or bool(now.status.get("end"))


def _check(request: logs_pb2.TailRequest) -> None:
    """Raises BadRequest."""
    if request.HasField("lines") and request.lines < 0:
        raise BadRequest(f"lines: must be greater than or equal to 0, got {request.lines}")
    if request.HasField("offset") and request.offset < 0:
        raise BadRequest(f"offset: must be greater than or equal to 0, got {request.offset}")
    if request.source not in _FILES:
        raise BadRequest(f"source: {request.source} is not known to this server")
    if request.source == logs_pb2.TailRequest.SOURCE_JOB and (request.since or request.previous):
        word = "since" if request.since else "previous"
        raise BadRequest(
            f"{word}: nobody writes down when the job's log was written; only the engine's log has times"
        )
    if request.previous and request.follow:
        raise BadRequest("previous: what was written before a restart is complete; it cannot be followed")


def _seek(log: "_Log", request: logs_pb2.TailRequest) -> None:
    """Puts an open log where its reader wants to begin. Raises NeedsUser when nobody knows where that is."""
    if request.HasField("offset"):
        log.begin_at(request.offset)
        return
    marks = log_times.read(log.path) if request.since or request.previous else []
    if request.previous:
        run = log_times.previous_run(marks)
        if run is None:
            raise NotFound("an earlier run of the engine in Replica", request.replica)
        log.keep_to(*run)
    if request.since:
        log.begin_at_line(log_times.offset_since(marks, request.since))
    if request.HasField("lines"):
        log.begin_at_last(request.lines)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Log:
    """One log file over its rotations. All methods block; the shared file system may be slow."""

    path: Path
    fd: int | None = None
    first: int = 0  # what stands before is not shown
    last: int | None = None  # and what stands behind neither; None = there is no such limit

    def open(self) -> bool:
        """Opens the file at its start. False when there is no file yet."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise NeedsUser("UnreadableLog", f"{self.path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NeedsUser("UnreadableLog", f"{self.path}: not a regular file")
        self.fd = fd
        return True

    @property
    def position(self) -> int:
        return 0 if self.fd is None else os.lseek(self.fd, 0, os.SEEK_CUR)

    def begin_at(self, offset: int) -> None:
        """At `offset`; at the start of a file that is not so long any more."""
        assert self.fd is not None
        self.first = offset if offset <= os.fstat(self.fd).st_size else 0
        os.lseek(self.fd, self.first, os.SEEK_SET)

    def keep_to(self, first: int, last: int) -> None:
        """Shows only what stands between these offsets."""
        self.begin_at(first)
        self.last = last

    def begin_at_line(self, offset: int) -> None:
        """At the first line that begins at `offset` or behind it."""
        assert self.fd is not None
        self.begin_at(max(offset, self.first))
        if self.first > 0 and os.pread(self.fd, 1, self.first - 1) != b"\n":
            while (data := os.pread(self.fd, CHUNK, self.first)) and b"\n" not in data:
                self.first += len(data)
            self.begin_at(self.first + data.find(b"\n") + 1)

    def begin_at_last(self, lines: int) -> None:
        """At the last `lines` lines of what is shown."""
        assert self.fd is not None
        end = os.fstat(self.fd).st_size if self.last is None else self.last
        self.begin_at(max(self.first, _start_of_last_lines(self.fd, lines, end)))

    def read(self) -> bytes:
        """The next bytes, b"" at the end as it is now."""
        if self.fd is None:
            return b""
        left = CHUNK if self.last is None else min(CHUNK, self.last - self.position)
        return os.read(self.fd, left) if left > 0 else b""

    def reopen_if_rotated(self) -> bool:
        """Whether there is more to read: in a new file of the same name, or from the start of a truncated one."""
        if self.fd is None:
            return self.open()
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
        return self.open()

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _start_of_last_lines(fd: int, lines: int, end: int) -> int:
    """The offset of the last `lines` lines before `end`; a last line without its newline counts."""
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
