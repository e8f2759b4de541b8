"""A SQLite file: one connection, one thread that uses it, and a format with a number."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from llmop.domain.errors import NeedsUser
from llmop.store import filesystem
from llmop.workloads import unusable

T = TypeVar("T")

_PAGES_AT_ONCE = 200  # given back: others wait so long, and each of them passes through the write-ahead log, on a disk that may be nearly full


class SqliteFile:
    def __init__(self, path: Path, schema: str, version: int) -> None:
        """Opens or makes it. Raises NeedsUser for a file that cannot be used, also for one of a newer llmop."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-store")
        try:
            self._connection = self._thread.submit(_open, path, schema, version).result()
        except sqlite3.Error as error:
            self._thread.shutdown()
            raise unusable.sentence(path, error) from error

    async def close(self) -> None:
        await self._run(lambda connection: connection.close())
        self._thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In one transaction, which is durable once this returns."""

        def transact(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._run(transact)

    async def _give_back(self) -> bool:
        """Some free pages to the disk; whether there are more."""

        def work(connection: sqlite3.Connection) -> bool:
            if (before := _free_pages(connection)) == 0:
                return False
            # A script is run to its end; `execute` stops after the first page, of which this statement makes a row without columns.
            connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
            # A file that was written anew by other programs may be one that gives nothing back.
            if 0 < _free_pages(connection) < before:
                return True
            # The file becomes shorter when the log has been written into it, and the log when it is told.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return False

        return await self._run(work)


def _free_pages(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(number)


def _open(path: Path, schema: str, newest: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, cached_statements=64)
    # It takes effect where there is no table yet, and writes to the file wherever it is said: on a full disk that would be the end.
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute(
        "PRAGMA secure_delete=ON"
    )  # what people have deleted is not to be read from the file's free pages
    # As in the controller's store: a write-ahead log is memory shared through a file, which a shared file system cannot do.
    if filesystem.is_shared(filesystem.kind_of(path.parent)):
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=DELETE")
    else:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > newest:
        connection.close()
        raise NeedsUser("NewerDatabase", f"{path} was made by a newer llmop: run that one")
    if version < newest:
        connection.executescript(f"BEGIN;{schema}PRAGMA user_version={newest};COMMIT;")
    return connection
