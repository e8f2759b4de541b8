"""Passages of documents: how they come into vector stores, and how they are found there."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

from llmop.workloads.retrieval.chunks import Passage
from llmop.workloads.retrieval.records import DOCUMENT, FROM, Records, document_of, forget_passages
from llmop.workloads.retrieval.values import Document, Found, Problem, Status, Store

_MOST_WITH_A_WORD = 5_000


class Row(NamedTuple):
    """A passage to be kept: what was embedded of it, and its vector, 32-bit numbers of length 1 as bytes."""

    passage: Passage
    embedded: str
    vector: bytes


class Stores(Records):
    # What is being read

    async def due(self, most_of_one: int) -> list[tuple[int, str, str]]:
        """Numbers, owners and models of documents that are in progress, up to so many of an owner for a model; they take turns."""
        query = (
            "SELECT number, owner, model FROM (SELECT d.number, s.owner, s.model,"
            " ROW_NUMBER() OVER (PARTITION BY s.owner, s.model ORDER BY d.number) AS turn"
            f" FROM {FROM} WHERE d.status = ?) WHERE turn <= ? ORDER BY turn, number"
        )
        values = (Status.IN_PROGRESS.value, most_of_one)
        return await self._run(lambda connection: connection.execute(query, values).fetchall())

    async def begin(self, number: int, *, counts: bool) -> tuple[Document, int] | None:
        """The document and how often it was begun since something of it was kept, this time included if it `counts`; None where nothing is
        to be done.
        """

        def work(connection: sqlite3.Connection) -> tuple[Document, int] | None:
            connection.execute("UPDATE documents SET tries = tries + ? WHERE number = ?", (counts, number))
            query = f"SELECT {DOCUMENT}, d.tries FROM {FROM} WHERE d.number = ? AND d.status = ?"
            row = connection.execute(query, (number, Status.IN_PROGRESS.value)).fetchone()
            return None if row is None else (document_of(row[:-1]), row[-1])

        return await self._write(work)

    async def is_harmless(self, document: Document) -> None:
        """It was read and waits for its model: however often it is begun, it is not what something goes down over."""
        query = "UPDATE documents SET tries = 0 WHERE number = ?"
        await self._write(lambda connection: connection.execute(query, (document.number,)))

    async def kept(self, document: Document) -> list[str]:
        """The texts of the passages that were embedded, in their order."""
        query = "SELECT text FROM passages WHERE document = ? ORDER BY position"
        return await self._run(
            lambda connection: [text for (text,) in connection.execute(query, (document.number,))]
        )

    async def clear(self, document: Document) -> None:
        """What an older llmop has cut in another way."""

        def work(connection: sqlite3.Connection) -> None:
            forget_passages(connection, "number = ?", (document.number,))
            connection.execute("UPDATE documents SET size = 0 WHERE number = ?", (document.number,))

        await self._write(work)

    async def keep(self, document: Document, position: int, rows: Sequence[Row]) -> bool:
        """Passages from `position` on; those that are there stay. False where nothing is to be done for it any more."""

        def work(connection: sqlite3.Connection) -> bool:
            if not _is_in_progress(connection, document):
                return False
            size = 0
            for place, row in enumerate(rows, position):
                passage = row.passage
                values = (
                    document.number,
                    place,
                    passage.page,
                    orjson.dumps(passage.headings),
                    passage.text,
                    row.vector,
                )
                added = connection.execute(
                    "INSERT INTO passages (document, position, page, headings, text, vector) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    values,
                )
                if added.rowcount:
                    size += len(passage.text.encode()) + len(row.vector)
                    connection.execute(
                        "INSERT INTO words (rowid, text, store) VALUES (?, ?, ?)",
                        (added.lastrowid, row.embedded, _mark(document.store)),
                    )
            connection.execute(
                "UPDATE documents SET size = size + ?, tries = 0 WHERE number = ?", (size, document.number)
            )
            return True

        return await self._write(work)

    async def settle(self, store: int, dimension: int) -> int:
        """How many numbers the vectors of a store have; said once, by the first."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute(
                "UPDATE stores SET dimension = ? WHERE number = ? AND dimension = 0", (dimension, store)
            )
            row = connection.execute("SELECT dimension FROM stores WHERE number = ?", (store,)).fetchone()
            return int(row[0]) if row is not None else dimension

        return await self._write(work)

    async def is_wanted(self, document: Document) -> bool:
        """Whether it is there still, and in progress."""
        return await self._run(lambda connection: _is_in_progress(connection, document))

    async def size(self, store: int) -> int:
        """What all vectors of a store take together, in bytes."""
        query = (
            "SELECT count(*) * s.dimension * 4 FROM passages p JOIN documents d ON d.number = p.document"
            " JOIN stores s ON s.number = d.store WHERE d.store = ?"
        )
        return await self._run(lambda connection: connection.execute(query, (store,)).fetchone()[0] or 0)

    async def end(self, document: Document, problem: Problem | None = None) -> None:
        """It is completed, or has failed and keeps nothing."""

        def work(connection: sqlite3.Connection) -> None:
            if not _is_in_progress(connection, document):
                return
            if problem is None:
                connection.execute(
                    "UPDATE documents SET status = ? WHERE number = ?",
                    (Status.COMPLETED.value, document.number),
                )
                return
            forget_passages(connection, "number = ?", (document.number,))
            connection.execute(
                "UPDATE documents SET status = ?, code = ?, message = ?, size = 0 WHERE number = ?",
                (Status.FAILED.value, *problem, document.number),
            )

        await self._write(work)

    # Search

    async def readable(self, store: Store) -> list[int]:
        """Numbers of the documents that are completed."""
        query = "SELECT number FROM documents WHERE store = ? AND status = ?"
        values = (store.number, Status.COMPLETED.value)
        return await self._run(lambda connection: [number for (number,) in connection.execute(query, values)])

    async def vectors(self, document: int) -> tuple[list[int], bytes]:
        """Numbers of its passages, and their vectors one after the other."""
        query = "SELECT number, vector FROM passages WHERE document = ? ORDER BY number"

        def work(connection: sqlite3.Connection) -> tuple[list[int], bytes]:
            rows = connection.execute(query, (document,)).fetchall()
            return [number for number, _ in rows], b"".join(vector for _, vector in rows)

        return await self._run(work)

    async def with_words(self, stores: Sequence[Store], words: Sequence[str], limit: int) -> list[int]:
        """Numbers of the passages that share most with `words`, the best first, by BM25. Words that very many passages have say little
        and would cost much: they are passed over.
        """
        within = " OR ".join(_mark(store.number) for store in stores)
        count = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        query = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 1.0, 0.0) LIMIT ?"

        def is_rare(connection: sqlite3.Connection, word: str) -> bool:
            (number,) = connection.execute(count, (f'text : "{word}"', _MOST_WITH_A_WORD + 1)).fetchone()
            return bool(0 < number <= _MOST_WITH_A_WORD)

        def work(connection: sqlite3.Connection) -> list[int]:
            rare = [f'"{word}"' for word in words if is_rare(connection, word)]
            if not rare:
                return []
            sought = f"store : ({within}) AND text : ({' OR '.join(rare)})"
            return [number for (number,) in connection.execute(query, (sought, limit))]

        return await self._run(work)

    async def passages(self, scores: Mapping[int, float]) -> list[Found]:
        """Those that are still there, in the order given."""
        query = (
            "SELECT d.file, d.filename, d.attributes, p.page, p.headings, p.text FROM passages p JOIN documents d"
            " ON d.number = p.document WHERE p.number = ?"
        )

        def work(connection: sqlite3.Connection) -> list[Found]:
            found = []
            for number, score in scores.items():
                row = connection.execute(query, (number,)).fetchone()
                if row is not None:
                    file, filename, attributes, page, headings, text = row
                    above = tuple(orjson.loads(headings))
                    found.append(Found(file, filename, orjson.loads(attributes), page, above, text, score))
            return found

        return await self._run(work)


def _mark(store: int) -> str:
    """What stands for a store among the words: one word."""
    return f"store{store}"


def _is_in_progress(connection: sqlite3.Connection, document: Document) -> bool:
    query = "SELECT 1 FROM documents WHERE number = ? AND status = ?"
    return connection.execute(query, (document.number, Status.IN_PROGRESS.value)).fetchone() is not None
