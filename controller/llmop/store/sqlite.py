"""SQLite: one file, one process, nothing to install."""

import asyncio
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa

from llmop.domain import errors, os_errors
from llmop.store import database, filesystem, lease, migrate

_PATIENCE = 10.0
_READERS = 4
_LOCAL = {"journal_mode": "WAL"}
_SHARED = {"locking_mode": "EXCLUSIVE", "journal_mode": "DELETE"}  # in this order: WAL is never tried

Identity = tuple[int, int]  # device and inode

_log = logging.getLogger(__name__)


class Sqlite:
    """Implements `database.Database`.

    A transaction is one job of a thread with the plain driver: handing every statement to a thread and back, as asynchronous
    drivers for SQLite do, costs several times what SQLite itself needs (docs/explanation/store.md has figures).

    On a local disk in WAL mode: readers and the one writer don't wait for each other. Plain transactions leave the flush to the
    operating system (`synchronous=NORMAL`), durable ones go through a connection of their own that flushes the log at
    every commit (`FULL`), because that setting can't change inside a transaction.

    On a shared file system WAL can't work (its index is memory shared through a file; https://sqlite.org/wal.html): there is one
    connection with `locking_mode=EXCLUSIVE`, `journal_mode=DELETE`, `synchronous=FULL`, and everybody waits for it. `right` is the
    lease that keeps other machines out; without one the file system is local.

    Without `threads` a transaction runs where it is asked for and the event loop stands still meanwhile: for simulations, whose
    order of events must follow from their seed.

    The file is the one that was opened. Taken away or replaced under our feet, it would go on taking what nobody ever reads again, and
    connections that are made later would find another one: so nothing is done until it is back.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None,
        installation: str,
        lock: "ProcessLock",
        *,
        right: lease.Lease | None,
        patience: float,
        threads: bool,
    ) -> None:
        self.installation = installation
        self._path = path
        self._identity = identity
        self._lock = lock
        self._right = right
        waiting = {"busy_timeout": str(int(patience * 1000))}
        self._threads = threads
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        if right is not None:
            self._reader = self._writer
            only = _engine(path, "BEGIN IMMEDIATE", 1, waiting | _SHARED | {"synchronous": "FULL"})
            self._durable = self._write = self._read = only
        else:
            self._reader = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
            self._read = _engine(path, "BEGIN", _READERS, waiting | _LOCAL)
            self._write = _engine(path, "BEGIN IMMEDIATE", 1, waiting | _LOCAL | {"synchronous": "NORMAL"})
            self._durable = _engine(path, "BEGIN IMMEDIATE", 1, waiting | _LOCAL | {"synchronous": "FULL"})

    def is_alone(self) -> bool:
        """On a local disk the lock says so. A shared file system is not asked here, where a file that does not answer would stop everything."""
        if self._right is not None:
            return False
        self._require_file()
        return True

    async def read(self, ask: Callable[[sa.Connection], database.Result]) -> database.Result:
        return await self._run(self._reader, self._read, ask)

    async def write(
        self, change: Callable[[sa.Connection], database.Result], *, durable: bool
    ) -> database.Result:
        return await self._run(self._writer, self._durable if durable else self._write, change)

    async def close(self) -> None:
        for executor in (self._reader, self._writer):
            await asyncio.to_thread(executor.shutdown)
        for engine in (self._read, self._write, self._durable):
            engine.dispose()
        if self._right is not None:
            await asyncio.to_thread(self._right.release)
        self._lock.release()

    async def _run(
        self,
        executor: ThreadPoolExecutor,
        engine: sa.Engine,
        work: Callable[[sa.Connection], database.Result],
    ) -> database.Result:
        def run() -> database.Result:
            if self._right is not None:
                self._right.check()
            self._require_file()
            with database.in_words(self._explain), engine.connect() as connection:
                result = work(connection)
            self._require_file()
            return result

        if not self._threads:
            return run()
        try:
            job = asyncio.get_running_loop().run_in_executor(executor, run)
        except RuntimeError as error:  # the executor was shut down
            raise errors.Unavailable(f"the store {self._path} is closed") from error
        return await job

    def _require_file(self) -> None:
        found = identity_of(self._path)
        if found != self._identity:
            what = "is gone" if found is None else "is another file than the one that was opened"
            raise errors.Unavailable(
                f"the store {self._path} {what}: put the file back that lay there while the controller runs, or stop the"
                " controller before you restore a copy"
            )

    def _explain(self, error: Exception) -> str:
        return explain(self._path, error)


async def open_sqlite(
    path: Path, *, shared: bool | None = None, patience: float = _PATIENCE, threads: bool = True
) -> Sqlite:
    """Opens or makes the database at `path`, a file that only its owner may read; a folder made for it is 0700.

    `shared` says whether it lies on a shared file system; None = look. A lock that others hold (a backup) is waited for
    `patience` seconds. Without `threads` transactions block the event loop. Raises Unavailable, and NeedsUser when another process
    has it open, on a shared file system also one of another machine.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = filesystem.kind_of(path.parent)
        lock = ProcessLock.take(path)
    except OSError as error:
        raise errors.Unavailable(
            f"the store at {path} can't be opened: {os_errors.sentence(error, path)}"
        ) from error
    right: lease.Lease | None = None
    try:
        if shared is None:
            shared = filesystem.is_shared(kind)
        if shared:
            _log.warning(
                "the store %s lies on a shared file system (%s): it is slower there, and one controller at a"
                " time may use it; a local disk or Postgres is better",
                path,
                kind or "unknown",
            )
            right = await _lease(path)
        with database.in_words(lambda error: explain(path, error)):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)  # files that SQLite lays beside it get the same mode
            address = sa.URL.create("sqlite", database=str(path))
            pragmas = _SHARED if shared else _LOCAL
            installation = await asyncio.to_thread(migrate.upgrade, address, pragmas)
        opened = Sqlite(
            path, identity_of(path), installation, lock, right=right, patience=patience, threads=threads
        )
    except BaseException:
        if right is not None:
            await asyncio.to_thread(right.release)
        lock.release()
        raise
    return opened


def identity_of(path: Path) -> Identity | None:
    """What tells a file from another one of its name; None = there is none, or it cannot be asked for."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


async def _lease(path: Path) -> lease.Lease:
    try:
        return await lease.Lease.take(path)
    except OSError as error:
        raise errors.Unavailable(
            f"the store at {path} can't be opened: {os_errors.sentence(error, path)}"
        ) from error


class ProcessLock:
    """The right to use one database: a lock on a file beside it, gone with the process that holds it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, database_path: Path) -> "ProcessLock":
        """Raises NeedsUser, naming the holder, when another process (or this one) has the database open."""
        path = database_path.with_name(database_path.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 300).decode(errors="replace").strip() or "not known yet"
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise errors.NeedsUser(
                    "StoreNeedsLocks",
                    f"the file system of {database_path} has no file locks: use a local disk or Postgres",
                ) from error
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise errors.NeedsUser(
                "StoreInUse",
                f"the store {database_path} is in use by another controller ({holder}): stop that one, or use Postgres"
                " to run several",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """May be called twice. The file stays: removing it could take the lock from the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _engine(path: Path, begin: str, connections: int, pragmas: dict[str, str]) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.QueuePool,
        pool_size=connections,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )
    settings = {"foreign_keys": "ON", "journal_size_limit": "67108864"} | pragmas

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # Python's driver begins no transactions by itself; `begin` does
        cursor = connection.cursor()
        for name, value in settings.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin_transaction(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


_CAUSES = (
    ("SQLITE_FULL", "the disk is full: make room, nothing was written"),
    ("SQLITE_IOERR", "reading or writing failed: is a quota used up, or the disk failing?"),
    ("SQLITE_READONLY", "it is read-only: check its mode, its owner and the mount"),
    ("SQLITE_PERM", "access is denied: check its mode and owner"),
    ("SQLITE_CANTOPEN", "it can't be opened: check the modes of the file and its folder, and free space"),
    ("SQLITE_NOTADB", "the file is not an SQLite database: restore it from a backup, or move it away"),
    ("SQLITE_CORRUPT", "it is damaged: restore it from a backup"),
    ("SQLITE_BUSY", "another process has it locked: is a backup or the sqlite3 shell open on it?"),
    ("SQLITE_LOCKED", "another process has it locked: is a backup or the sqlite3 shell open on it?"),
    ("SQLITE_PROTOCOL", "its file system can't lock: use a local disk or Postgres"),
)


def explain(path: Path, error: Exception) -> str:
    """Why the database at `path` doesn't answer, and what a person can do."""
    if isinstance(error, OSError):
        return f"the store {path}: {os_errors.sentence(error, path)}"
    code = getattr(error, "sqlite_errorname", "")
    cause = next((text for prefix, text in _CAUSES if code.startswith(prefix)), "it doesn't answer")
    return f"the store {path}: {cause} ({code or type(error).__name__}: {error})"
