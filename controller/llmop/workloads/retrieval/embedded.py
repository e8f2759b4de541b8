"""Vector stores in a SQLite file of their own, so that a long search keeps no batch waiting; their vectors are compared in memory."""

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import orjson

from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.memory import Memory
from llmop.workloads.retrieval.statements import Connection
from llmop.workloads.retrieval.stores import MOST_WITH_A_WORD, Compared, Row, Stores
from llmop.workloads.retrieval.values import Document, Status, Store
from llmop.workloads.sqlite import SqliteFile

_VERSION = 1
_SCHEMA = """
CREATE TABLE stores (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL,
  created_at REAL NOT NULL, active_at REAL NOT NULL, metadata BLOB NOT NULL, dimension INTEGER NOT NULL DEFAULT 0);
CREATE INDEX stores_owner ON stores (owner, number);
CREATE TABLE batches (
  id TEXT PRIMARY KEY, store INTEGER NOT NULL REFERENCES stores ON DELETE CASCADE, created_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
  number INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL, file TEXT NOT NULL, filename TEXT NOT NULL,
  created_at REAL NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
  attributes BLOB NOT NULL, cut BLOB NOT NULL, size INTEGER NOT NULL DEFAULT 0, batch TEXT NOT NULL DEFAULT '',
  tries INTEGER NOT NULL DEFAULT 0, UNIQUE (store, file));
CREATE INDEX documents_status ON documents (status);
CREATE INDEX documents_file ON documents (file);
CREATE TABLE passages (
  number INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, position INTEGER NOT NULL, page INTEGER, headings BLOB NOT NULL,
  text TEXT NOT NULL, vector BLOB NOT NULL, UNIQUE (document, position));
CREATE VIRTUAL TABLE words USING fts5 (text, store, tokenize='porter unicode61');
"""
_OF_DOCUMENTS = "SELECT number FROM passages WHERE document IN (SELECT value FROM json_each(?))"
_PAGES_AT_ONCE = 500  # merged: others who use the file wait for it
_IS_MERGED = 2  # rows changed: fewer say that nothing was left to merge (https://www.sqlite.org/fts5.html#the_merge_command)


class EmbeddedStores(SqliteFile, Stores):
    most_numbers = 1_000_000  # what SQLite takes for a blob is more

    def __init__(self, path: Path, memory_limit: int) -> None:
        """Opens or makes it. `memory_limit` is for the vectors of all stores together, in bytes. Raises NeedsUser for a file that cannot be
        used, also for one of a newer llmop.
        """
        super().__init__(path, _SCHEMA, _VERSION)
        self.most_bytes: int | None = memory_limit
        self._memory = Memory(self, memory_limit)
        # The words: whether that has begun; None = nothing was deleted. A process before may have ended between the one and the other.
        self._merges: bool | None = False

    async def compare(
        self,
        stores: Sequence[Store],
        questions: Vectors,
        depth: int,
        also: Collection[int],
        within: Collection[int] | None = None,
    ) -> Compared:
        return await self._memory.compare(stores, questions, depth, also, within)

    async def readable(self, store: Store) -> list[int]:
        query = "SELECT number FROM documents WHERE store = ? AND status = ?"
        values = (store.number, Status.COMPLETED.value)
        return await self._run(lambda connection: [number for (number,) in connection.execute(query, values)])

    async def vectors_of(self, documents: Sequence[int]) -> int:
        query = "SELECT count(*) FROM passages WHERE document = ?"
        return await self._run(
            lambda connection: sum(connection.execute(query, (each,)).fetchone()[0] for each in documents)
        )

    async def vectors(self, document: int) -> tuple[list[int], bytes]:
        query = "SELECT number, vector FROM passages WHERE document = ? ORDER BY number"

        def work(connection: sqlite3.Connection) -> tuple[list[int], bytes]:
            rows = connection.execute(query, (document,)).fetchall()
            return [number for number, _ in rows], b"".join(vector for _, vector in rows)

        return await self._run(work)

    async def with_words(
        self,
        stores: Sequence[Store],
        words: Sequence[str],
        limit: int,
        within: Collection[int] | None = None,
    ) -> list[int]:
        marks = " OR ".join(_mark(store.number) for store in stores)
        count = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        # The plus: whoever has a word is looked up among the documents, not each of their passages among the words.
        chosen = "" if within is None else f"AND +rowid IN ({_OF_DOCUMENTS})"
        query = f"SELECT rowid FROM words WHERE words MATCH ? {chosen} ORDER BY bm25(words, 1.0, 0.0) LIMIT ?"
        documents = () if within is None else (orjson.dumps(list(within)).decode(),)

        def is_rare(connection: sqlite3.Connection, word: str) -> bool:
            (number,) = connection.execute(count, (f'text : "{word}"', MOST_WITH_A_WORD + 1)).fetchone()
            return bool(0 < number <= MOST_WITH_A_WORD)

        def work(connection: sqlite3.Connection) -> list[int]:
            rare = [f'"{word}"' for word in words if is_rare(connection, word)]
            if not rare:
                return []
            sought = f"store : ({marks}) AND text : ({' OR '.join(rare)})"
            return [number for (number,) in connection.execute(query, (sought, *documents, limit))]

        return await self._run(work)

    async def tidy(self) -> bool:
        """Words of deleted passages leave the full-text index only when its parts are merged, and pages the file only when it is told."""

        def merge(connection: sqlite3.Connection) -> None:
            before = connection.total_changes
            # Negative once: all parts are to become one; then on, a few pages at a time.
            pages = _PAGES_AT_ONCE if self._merges else -_PAGES_AT_ONCE
            connection.execute("INSERT INTO words (words, rank) VALUES ('merge', ?)", (pages,))
            self._merges = True if connection.total_changes - before >= _IS_MERGED else None

        if merges := self._merges is not None:
            await self._write(merge)
        return await self._give_back() or merges

    def _add(self, connection: Connection, document: Document, position: int, row: Row) -> bool:
        passage = row.passage
        headings = orjson.dumps(passage.headings)
        added = connection.execute(
            "INSERT INTO passages (document, position, page, headings, text, vector) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (document.number, position, passage.page, headings, passage.text, row.vector),
        )
        if not added.rowcount:
            return False
        connection.execute(
            "INSERT INTO words (rowid, text, store) VALUES (last_insert_rowid(), ?, ?)",
            (row.embedded, _mark(document.store)),
        )
        return True

    def _forget_passages(self, connection: Connection, where: str, values: Sequence[Any]) -> None:
        chosen = f"document IN (SELECT number FROM documents WHERE {where})"
        connection.execute(
            f"DELETE FROM words WHERE rowid IN (SELECT number FROM passages WHERE {chosen})", values
        )
        if connection.execute(f"DELETE FROM passages WHERE {chosen}", values).rowcount:
            self._merges = False


def _mark(store: int) -> str:
    """What stands for a store among the words: one word."""
    return f"store{store}"
