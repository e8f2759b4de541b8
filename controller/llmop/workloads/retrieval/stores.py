"""Passages of documents: how they come into vector stores, and how they are found there."""

import abc
import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from llmop.domain.attributes import Filter
from llmop.workloads.retrieval.chunks import Passage
from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.records import DOCUMENT, FROM, Records, document_of
from llmop.workloads.retrieval.statements import Connection
from llmop.workloads.retrieval.values import Document, Found, Problem, Status, Store

MOST_WITH_A_WORD = 5_000
NUMBER = 8  # bytes of a passage's number, which lies beside its vector in memory
_FLOAT = np.dtype(np.float32)


class Row(NamedTuple):
    """A passage to be kept: what was embedded of it, and its vector, 32-bit numbers of length 1 as bytes."""

    passage: Passage
    embedded: str
    vector: bytes


class Compared(NamedTuple):
    """`orders` has the passages most similar to each question, the best first; `scores` the similarity of each of these, and of those
    that were asked for besides, to the question that it fits best.
    """

    orders: Sequence[Sequence[int]]
    scores: Mapping[int, float]


class Stores(Records):
    """`most_numbers` is how many a vector may have; `most_bytes` what the vectors of one store may take, None = whatever there is room for."""

    most_numbers: int
    most_bytes: int | None

    @abc.abstractmethod
    async def compare(
        self,
        stores: Sequence[Store],
        questions: Vectors,
        depth: int,
        also: Collection[int],
        within: Collection[int] | None = None,
    ) -> Compared:
        """Every passage of completed documents with every question, a row each; `within` = of the documents with these numbers only. Raises
        Refused.
        """

    @abc.abstractmethod
    async def with_words(
        self,
        stores: Sequence[Store],
        words: Sequence[str],
        limit: int,
        within: Collection[int] | None = None,
    ) -> list[int]:
        """Numbers of the passages that share most with `words`, the best first, by BM25; `within` as of `compare`. Words that very many
        passages have say little and would cost much: they are passed over.
        """

    @abc.abstractmethod
    async def tidy(self) -> bool:
        """Gives back a little of the room that deleted passages took; whether there may be more."""

    @abc.abstractmethod
    def _add(self, connection: Connection, document: Document, position: int, row: Row) -> bool:
        """Whether it was not there."""

    # What is being read

    async def due(self, most_of_one: int) -> list[tuple[int, str, str]]:
        """Numbers, owners and models of documents that are in progress, up to so many of an owner for a model; they take turns."""
        query = (
            "SELECT number, owner, model FROM (SELECT d.number, s.owner, s.model,"
            " ROW_NUMBER() OVER (PARTITION BY s.owner, s.model ORDER BY d.number) AS turn"
            f" FROM {FROM} WHERE d.status = ?) AS turns WHERE turn <= ? ORDER BY turn, number"
        )
        values = (Status.IN_PROGRESS.value, most_of_one)
        return await self._run(lambda connection: connection.execute(query, values).fetchall())

    async def begin(self, number: int, *, counts: bool) -> tuple[Document, int] | None:
        """The document and how often it was begun since something of it was kept, this time included if it `counts`; None where nothing is
        to be done.
        """

        def work(connection: Connection) -> tuple[Document, int] | None:
            connection.execute(
                "UPDATE documents SET tries = tries + ? WHERE number = ?", (int(counts), number)
            )
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

        def work(connection: Connection) -> None:
            self._forget_passages(connection, "number = ?", (document.number,))
            connection.execute("UPDATE documents SET size = 0 WHERE number = ?", (document.number,))

        await self._write(work)

    async def keep(self, document: Document, position: int, rows: Sequence[Row]) -> bool:
        """Passages from `position` on; those that are there stay. False where nothing is to be done for it any more."""

        def work(connection: Connection) -> bool:
            if not _is_in_progress(connection, document):
                return False
            size = 0
            for place, row in enumerate(rows, position):
                if self._add(connection, document, place, row):
                    size += len(row.passage.text.encode()) + len(row.vector)
            connection.execute(
                "UPDATE documents SET size = size + ?, tries = 0 WHERE number = ?", (size, document.number)
            )
            return True

        return await self._write(work)

    async def settle(self, store: int, dimension: int) -> int:
        """How many numbers the vectors of a store have; said once, by the first."""

        def work(connection: Connection) -> int:
            connection.execute(
                "UPDATE stores SET dimension = ? WHERE number = ? AND dimension = 0", (dimension, store)
            )
            row = connection.execute("SELECT dimension FROM stores WHERE number = ?", (store,)).fetchone()
            return int(row[0]) if row is not None else dimension

        return await self._write(work)

    async def is_wanted(self, document: Document) -> bool:
        """Whether it is there still, and in progress."""
        return await self._run(lambda connection: _is_in_progress(connection, document))

    async def dimension(self, store: int) -> int:
        """How many numbers its vectors have; 0 before the first."""
        query = "SELECT dimension FROM stores WHERE number = ?"

        def work(connection: Connection) -> int:
            row = connection.execute(query, (store,)).fetchone()
            return 0 if row is None else int(row[0])

        return await self._run(work)

    async def vector_bytes(self, store: int) -> int:
        """What all vectors of a store take together in memory, with the numbers of their passages."""
        query = (
            "SELECT dimension, (SELECT count(*) FROM passages p JOIN documents d ON d.number = p.document WHERE d.store = stores.number)"
            " FROM stores WHERE number = ?"
        )

        def work(connection: Connection) -> int:
            row = connection.execute(query, (store,)).fetchone()
            return 0 if row is None else int(row[1] * (row[0] * _FLOAT.itemsize + NUMBER))

        return await self._run(work)

    async def owned_bytes(self, owner: str) -> int:
        """What the passages of all stores of an owner take, in bytes."""
        query = f"SELECT CAST(sum(d.size) AS BIGINT) FROM {FROM} WHERE s.owner = ?"
        return await self._run(lambda connection: connection.execute(query, (owner,)).fetchone()[0] or 0)

    async def end(self, document: Document, problem: Problem | None = None) -> None:
        """It is completed, or has failed and keeps nothing."""

        def work(connection: Connection) -> None:
            if not _is_in_progress(connection, document):
                return
            if problem is None:
                connection.execute(
                    "UPDATE documents SET status = ? WHERE number = ?",
                    (Status.COMPLETED.value, document.number),
                )
                return
            self._forget_passages(connection, "number = ?", (document.number,))
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

    async def fitting(self, stores: Sequence[Store], wanted: Filter) -> list[int]:
        """Numbers of the completed documents whose attributes are such."""
        query = "SELECT number, attributes FROM documents WHERE store = ? AND status = ?"
        chosen = [(store.number, Status.COMPLETED.value) for store in stores]

        def work(connection: Connection) -> list[tuple[int, bytes]]:
            return [row for values in chosen for row in connection.execute(query, values)]

        rows = await self._run(work)
        # Not in there: with many documents it takes a moment, and others use the same rows.
        return await asyncio.to_thread(
            lambda: [number for number, told in rows if wanted.fits(orjson.loads(told))]
        )

    async def passages(self, scores: Mapping[int, float]) -> list[Found]:
        """Those that are still there, in the order given."""
        query = (
            "SELECT d.file, d.filename, d.attributes, p.page, p.headings, p.text FROM passages p JOIN documents d"
            " ON d.number = p.document WHERE p.number = ?"
        )

        def work(connection: Connection) -> list[Found]:
            found = []
            for number, score in scores.items():
                row = connection.execute(query, (number,)).fetchone()
                if row is not None:
                    file, filename, attributes, page, headings, text = row
                    above = tuple(orjson.loads(headings))
                    found.append(Found(file, filename, orjson.loads(attributes), page, above, text, score))
            return found

        return await self._run(work)


def _is_in_progress(connection: Connection, document: Document) -> bool:
    query = "SELECT 1 FROM documents WHERE number = ? AND status = ?"
    return connection.execute(query, (document.number, Status.IN_PROGRESS.value)).fetchone() is not None
