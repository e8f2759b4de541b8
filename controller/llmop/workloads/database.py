"""What is remembered of files and batches: a SQLite file, one connection, one thread that uses it.

A method is one transaction. Each is durable once it returns, and each can be done again after a crash that left open whether it was.
"""

import dataclasses
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from llmop.workloads.batch import ENDED, Batch, Problem, Status
from llmop.workloads.quota import Quota, Usage
from llmop.workloads.sqlite import SqliteFile

_VERSION = 1
_SCHEMA = """
CREATE TABLE files (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, purpose TEXT NOT NULL, filename TEXT NOT NULL,
  bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, deleted INTEGER NOT NULL DEFAULT 0);
CREATE INDEX files_owner ON files (owner, number);
CREATE TABLE batches (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL, input_file TEXT NOT NULL,
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, document BLOB NOT NULL);
CREATE INDEX batches_owner ON batches (owner, number);
CREATE INDEX batches_status ON batches (status);
CREATE TABLE rows (
  batch INTEGER NOT NULL, line INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, custom_id TEXT NOT NULL,
  model TEXT NOT NULL, PRIMARY KEY (batch, line)) WITHOUT ROWID;
CREATE UNIQUE INDEX rows_custom_id ON rows (batch, custom_id);
CREATE TABLE results (
  batch INTEGER NOT NULL, line INTEGER NOT NULL, failed INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (batch, line));
"""
_UNFINISHED = tuple(status.value for status in Status if status not in ENDED)
_MARKS = ",".join("?" * len(_UNFINISHED))
OUTPUT = "batch_output"  # the purpose of what batches write
_SWEPT_AT_ONCE = 2_000
_FORGOTTEN_AT_ONCE = 100
_PAGE = 500


class File(NamedTuple):
    """`owner` is the hash of the key that it belongs to; `expires_at` in epoch seconds, None = never."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float | None = None


class Place(NamedTuple):
    """A row of an input file: its line from 1, and where its bytes lie."""

    line: int
    start: int
    length: int
    custom_id: str
    model: str


class Result(NamedTuple):
    """`content` is the line for the output file, or for the error file if it `failed`; without a newline."""

    batch: int
    line: int
    failed: bool
    content: bytes


class Database(SqliteFile):
    def __init__(self, path: Path) -> None:
        """Opens or makes it. Raises NeedsUser for a file that cannot be used, also for one of a newer llmop."""
        super().__init__(path, _SCHEMA, _VERSION)

    # Files

    async def add_files(self, files: Sequence[File]) -> None:
        """Those that are there already stay as they are."""
        await self._write(lambda connection: _add_files(connection, files))

    async def add_upload(self, file: File, quota: Quota, more: int) -> None:
        """Where its owner may have it, with the `more` bytes that he has elsewhere. Raises Refused."""

        def work(connection: sqlite3.Connection) -> None:
            used = _usage(connection, file.owner)
            quota.check(used._replace(bytes=used.bytes + more), file.bytes, 1)
            _add_files(connection, [file])

        await self._write(work)

    async def usage(self, owner: str) -> Usage:
        return await self._run(lambda connection: _usage(connection, owner))

    async def file(self, owner: str, name: str) -> File | None:
        query = f"SELECT {_FILE} FROM files WHERE id = ? AND owner = ? AND deleted = 0"
        return await self._run(lambda connection: _file(connection.execute(query, (name, owner)).fetchone()))

    async def files(
        self, owner: str, *, purpose: str | None, after: str, limit: int, oldest_first: bool
    ) -> list[File]:
        sign, order = (">", "ASC") if oldest_first else ("<", "DESC")
        query = (
            f"SELECT {_FILE} FROM files WHERE owner = ? AND deleted = 0 AND (? IS NULL OR purpose = ?)"
            f" AND (? = '' OR number {sign} (SELECT number FROM files WHERE id = ?)) ORDER BY number {order} LIMIT ?"
        )
        values = (owner, purpose, purpose, after, after, limit)
        return await self._run(
            lambda connection: [File(*row) for row in connection.execute(query, values).fetchall()]
        )

    async def delete_file(self, owner: str, name: str) -> bool:
        """Whether there was one. It is gone for its owner; its content stays for the batches that still read it."""
        query = "UPDATE files SET deleted = 1 WHERE id = ? AND owner = ? AND deleted = 0"
        return await self._write(lambda connection: connection.execute(query, (name, owner)).rowcount > 0)

    async def forget_files(self, now: float, before: float) -> list[str]:
        """Some of those that were deleted or have expired, and that no batch reads any more: their contents can be removed. Requests that
        were uploaded before `before` and that no batch names are among them.
        """

        def work(connection: sqlite3.Connection) -> list[str]:
            connection.execute(
                "UPDATE files SET deleted = 1 WHERE deleted = 0 AND (expires_at <= ? OR (purpose = 'batch' AND created_at <= ?"
                " AND id NOT IN (SELECT input_file FROM batches)))",
                (now, before),
            )
            query = (
                "SELECT id FROM files WHERE deleted = 1 AND id NOT IN"
                f" (SELECT input_file FROM batches WHERE status IN ({_MARKS})) LIMIT {_FORGOTTEN_AT_ONCE}"
            )
            gone = [name for (name,) in connection.execute(query, _UNFINISHED)]
            connection.executemany("DELETE FROM files WHERE id = ?", [(name,) for name in gone])
            return gone

        return await self._write(work)

    async def forget_batches(self, before: float) -> bool:
        """Removes some batches that ended before, and takes their output files away from their owners; whether there may be more."""

        def work(connection: sqlite3.Connection) -> bool:
            # One that still has rows is being swept.
            query = (
                f"SELECT number, document FROM batches WHERE status NOT IN ({_MARKS}) AND"
                " json_extract(CAST(document AS TEXT), '$.moments.' || status) <= ? AND NOT EXISTS"
                " (SELECT 1 FROM rows WHERE rows.batch = batches.number) AND NOT EXISTS"
                f" (SELECT 1 FROM results WHERE results.batch = batches.number) LIMIT {_FORGOTTEN_AT_ONCE}"
            )
            gone = connection.execute(query, (*_UNFINISHED, before)).fetchall()
            for number, document in gone:
                told = orjson.loads(document)
                names = (told["output_file"], told["error_file"])
                connection.execute("UPDATE files SET deleted = 1 WHERE id IN (?, ?)", names)
                connection.execute("DELETE FROM batches WHERE number = ?", (number,))
            return bool(gone)

        return await self._write(work)

    async def forget_owner(self, owner: str) -> bool:
        """Removes some of an owner's batches that have ended and are swept, and takes some files from him; whether there may be more."""

        def work(connection: sqlite3.Connection) -> bool:
            swept = (
                f"SELECT number FROM batches WHERE owner = ? AND status NOT IN ({_MARKS}) AND NOT EXISTS"
                " (SELECT 1 FROM rows WHERE rows.batch = batches.number) AND NOT EXISTS"
                f" (SELECT 1 FROM results WHERE results.batch = batches.number) LIMIT {_FORGOTTEN_AT_ONCE}"
            )
            batches = connection.execute(
                f"DELETE FROM batches WHERE number IN ({swept})", (owner, *_UNFINISHED)
            ).rowcount
            files = connection.execute(
                "UPDATE files SET deleted = 1 WHERE id IN"
                f" (SELECT id FROM files WHERE owner = ? AND deleted = 0 LIMIT {_FORGOTTEN_AT_ONCE})",
                (owner,),
            ).rowcount
            return batches + files > 0

        return await self._write(work)

    async def has(self, owner: str) -> bool:
        """Whether anything is his, deleted or not."""
        query = "SELECT EXISTS (SELECT 1 FROM files WHERE owner = ?) OR EXISTS (SELECT 1 FROM batches WHERE owner = ?)"
        return await self._run(
            lambda connection: bool(connection.execute(query, (owner, owner)).fetchone()[0])
        )

    async def contents(self) -> set[str]:
        """Names of all that has to lie on the shelf, or may."""

        def work(connection: sqlite3.Connection) -> set[str]:
            names = {name for (name,) in connection.execute("SELECT id FROM files")}
            query = f"SELECT document FROM batches WHERE status IN ({_MARKS})"
            for (document,) in connection.execute(query, _UNFINISHED):
                told = orjson.loads(document)
                names |= {told["output_file"], told["error_file"]}
            return names

        return await self._run(work)

    # Batches

    async def add_batch(self, batch: Batch) -> Batch:
        """With the number that it got."""

        def work(connection: sqlite3.Connection) -> Batch:
            cursor = connection.execute(
                "INSERT INTO batches (id, owner, status, input_file, document) VALUES (?, ?, ?, ?, ?)",
                (batch.id, batch.owner, batch.status.value, batch.input_file, _document(batch)),
            )
            assert cursor.lastrowid is not None
            return dataclasses.replace(batch, number=cursor.lastrowid)

        return await self._write(work)

    async def batch(self, owner: str, name: str) -> Batch | None:
        query = f"SELECT {_BATCH} FROM batches WHERE id = ? AND owner = ?"
        return await self._run(lambda connection: _batch(connection.execute(query, (name, owner)).fetchone()))

    async def batch_numbered(self, number: int) -> Batch:
        query = f"SELECT {_BATCH} FROM batches WHERE number = ?"
        found = await self._run(lambda connection: _batch(connection.execute(query, (number,)).fetchone()))
        assert found is not None  # one that is under way is not removed
        return found

    async def batches(self, owner: str, after: str, limit: int) -> list[Batch]:
        """The newest first."""
        query = (
            f"SELECT {_BATCH} FROM batches WHERE owner = ? AND (? = '' OR number < (SELECT number FROM batches WHERE id = ?))"
            " ORDER BY number DESC LIMIT ?"
        )

        def work(connection: sqlite3.Connection) -> list[Batch]:
            rows = connection.execute(query, (owner, after, after, limit)).fetchall()
            return [batch for row in rows if (batch := _batch(row)) is not None]

        return await self._run(work)

    async def unfinished(self) -> list[tuple[int, bool]]:
        """Numbers, with whether they are only being ended. Those first; of the others the keys take turns."""
        query = (
            "SELECT number, status IN (?, ?) AS ending, ROW_NUMBER() OVER (PARTITION BY owner ORDER BY number) AS turn"
            f" FROM batches WHERE status IN ({_MARKS}) ORDER BY ending DESC, turn, number"
        )
        values = (Status.CANCELLING.value, Status.FINALIZING.value, *_UNFINISHED)
        return await self._run(
            lambda connection: [
                (number, bool(ending)) for number, ending, _ in connection.execute(query, values)
            ]
        )

    async def move(self, number: int, change: Callable[[Batch], Batch | None]) -> Batch:
        """Changes a batch as it is now, unless `change` gives None; and gives it as it is then."""

        def work(connection: sqlite3.Connection) -> Batch:
            found = _batch(
                connection.execute(f"SELECT {_BATCH} FROM batches WHERE number = ?", (number,)).fetchone()
            )
            assert found is not None
            changed = change(found)
            if changed is None:
                return found
            _save(connection, changed)
            return changed

        return await self._write(work)

    async def end(self, batch: Batch, files: Sequence[File]) -> None:
        """The batch has ended, with these files."""

        def work(connection: sqlite3.Connection) -> None:
            _add_files(connection, files)
            _save(connection, batch)

        await self._write(work)

    # Rows

    async def forget_rows(self, number: int) -> None:
        """What an earlier try to read its file has left."""
        await self._write(
            lambda connection: connection.execute("DELETE FROM rows WHERE batch = ?", (number,))
        )

    async def add_rows(self, number: int, places: Sequence[Place]) -> list[tuple[Place, int]]:
        """Gives those whose `custom_id` stood on an earlier line, with that line; they are not added."""

        def work(connection: sqlite3.Connection) -> list[tuple[Place, int]]:
            twice = []
            for place in places:
                added = connection.execute(
                    "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (number, *place)
                )
                if not added.rowcount:
                    (earlier,) = connection.execute(
                        "SELECT line FROM rows WHERE batch = ? AND custom_id = ?", (number, place.custom_id)
                    ).fetchone()
                    twice.append((place, earlier))
            return twice

        return await self._write(work)

    async def models(self, number: int) -> list[str]:
        query = "SELECT DISTINCT model FROM rows WHERE batch = ? ORDER BY model"
        return await self._run(
            lambda connection: [model for (model,) in connection.execute(query, (number,))]
        )

    async def open_rows(self, number: int, model: str, after: int, limit: int) -> list[Place]:
        """Rows for `model` without a result, behind line `after`."""
        query = (
            "SELECT line, start, length, custom_id, model FROM rows WHERE batch = ? AND line > ? AND model = ? AND NOT EXISTS"
            " (SELECT 1 FROM results WHERE results.batch = rows.batch AND results.line = rows.line) ORDER BY line LIMIT ?"
        )
        values = (number, after, model, limit)
        return await self._run(
            lambda connection: [Place(*row) for row in connection.execute(query, values).fetchall()]
        )

    async def record(self, results: Sequence[Result]) -> None:
        """A row that has a result keeps it, and a batch that is being ended takes none."""

        def work(connection: sqlite3.Connection) -> None:
            takes: dict[int, bool] = {}
            for result in results:
                if result.batch not in takes:
                    found = connection.execute(
                        "SELECT 1 FROM batches WHERE number = ? AND status = ?",
                        (result.batch, Status.IN_PROGRESS.value),
                    ).fetchone()
                    takes[result.batch] = found is not None
                if not takes[result.batch]:
                    continue
                added = connection.execute(
                    "INSERT INTO results VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", result
                )
                column = "failed" if result.failed else "completed"
                connection.execute(
                    f"UPDATE batches SET {column} = {column} + ? WHERE number = ?",
                    (added.rowcount, result.batch),
                )

        await self._write(work)

    async def results(self, number: int, *, failed: bool, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Line and content, in the order of the input, behind line `after`."""
        query = "SELECT line, content FROM results WHERE batch = ? AND line > ? AND failed = ? ORDER BY line LIMIT ?"
        values = (number, after, failed, limit)
        return await self._run(lambda connection: connection.execute(query, values).fetchall())

    async def unanswered(self, number: int, after: int, limit: int = _PAGE) -> list[tuple[int, str]]:
        """Line and `custom_id` of rows without a result."""
        query = (
            "SELECT line, custom_id FROM rows WHERE batch = ? AND line > ? AND NOT EXISTS"
            " (SELECT 1 FROM results WHERE results.batch = rows.batch AND results.line = rows.line) ORDER BY line LIMIT ?"
        )
        return await self._run(
            lambda connection: connection.execute(query, (number, after, limit)).fetchall()
        )

    async def sweep(self, number: int) -> bool:
        """Removes some rows and results of a batch that has ended, and gives back some of the disk; whether there may be more."""

        def work(connection: sqlite3.Connection) -> int:
            swept = 0
            for table in ("rows", "results"):
                swept += connection.execute(
                    f"DELETE FROM {table} WHERE batch = ? AND line IN (SELECT line FROM {table} WHERE batch = ? LIMIT ?)",
                    (number, number, _SWEPT_AT_ONCE),
                ).rowcount
            return swept

        swept = await self._write(work)
        return await self._give_back() or swept > 0

    async def unswept(self) -> list[int]:
        """Batches that have ended and have rows or results still."""
        query = (
            f"SELECT batch FROM (SELECT batch FROM rows UNION SELECT batch FROM results) WHERE batch NOT IN"
            f" (SELECT number FROM batches WHERE status IN ({_MARKS}))"
        )
        return await self._run(
            lambda connection: [number for (number,) in connection.execute(query, _UNFINISHED)]
        )


_FILE = "id, owner, purpose, filename, bytes, created_at, expires_at"
_BATCH = "number, status, completed, failed, document"
_COLUMNS = frozenset({"number", "status", "completed", "failed"})


def _add_files(connection: sqlite3.Connection, files: Iterable[File]) -> None:
    connection.executemany(
        f"INSERT INTO files ({_FILE}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", files
    )


def _usage(connection: sqlite3.Connection, owner: str) -> Usage:
    """A file that was deleted and that a batch still reads takes its room as before."""
    query = (
        f"SELECT ifnull(sum(purpose != '{OUTPUT}'), 0), ifnull(sum(bytes), 0) FROM files WHERE owner = ?"
        f" AND (deleted = 0 OR id IN (SELECT input_file FROM batches WHERE status IN ({_MARKS})))"
    )
    return Usage(*connection.execute(query, (owner, *_UNFINISHED)).fetchone())


def _file(row: Sequence[Any] | None) -> File | None:
    return None if row is None else File(*row)


def _document(batch: Batch) -> bytes:
    values = dataclasses.asdict(batch)
    return orjson.dumps({name: value for name, value in values.items() if name not in _COLUMNS})


def _save(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute(
        "UPDATE batches SET status = ?, completed = ?, failed = ?, document = ? WHERE number = ?",
        (batch.status.value, batch.completed, batch.failed, _document(batch), batch.number),
    )


def _batch(row: Sequence[Any] | None) -> Batch | None:
    if row is None:
        return None
    number, status, completed, failed, document = row
    values = orjson.loads(document)
    values["problems"] = tuple(Problem(**problem) for problem in values["problems"])
    values["ending"] = Status(values["ending"]) if values["ending"] else None
    return Batch(number=number, status=Status(status), completed=completed, failed=failed, **values)
