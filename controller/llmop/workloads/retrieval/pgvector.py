"""Vector stores in Postgres with pgvector: the server compares and ranks, nothing of it is kept in memory here."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson

from llmop.workloads.retrieval import ranking
from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.postgres import Postgres
from llmop.workloads.retrieval.statements import Connection
from llmop.workloads.retrieval.stores import MOST_WITH_A_WORD, Compared, Row, Stores
from llmop.workloads.retrieval.values import Document, Status, Store

T = TypeVar("T")

_K1, _B = 1.2, 0.75  # of BM25, as SQLite has them
_LEAST = 1e-6  # what a word counts that most have, also as there
_RANKED = 500  # passages that are ranked by BM25 in full; before, they are chosen by which words they have

# Words are cut up here as SQLite's full-text index does it and become stems there, with no word left out as too common; so both know the
# same words. They lie beside their rows (the least target, EXTERNAL), so that counting who has a word reads few pages. Vectors lie in their
# rows as long as a page takes them (MAIN): by itself pgvector puts those over 2 KB elsewhere.
_TABLES = """
CREATE TABLE about (format INTEGER NOT NULL, installation TEXT NOT NULL);
CREATE TABLE stores (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, name TEXT NOT NULL,
  model TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL, active_at DOUBLE PRECISION NOT NULL, metadata BYTEA NOT NULL,
  dimension INTEGER NOT NULL DEFAULT 0);
CREATE INDEX stores_owner ON stores (owner, number);
CREATE TABLE batches (
  id TEXT PRIMARY KEY, store BIGINT NOT NULL REFERENCES stores ON DELETE CASCADE, created_at DOUBLE PRECISION NOT NULL);
CREATE TABLE documents (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, store BIGINT NOT NULL, file TEXT NOT NULL, filename TEXT NOT NULL,
  created_at DOUBLE PRECISION NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
  attributes BYTEA NOT NULL, cut BYTEA NOT NULL, size BIGINT NOT NULL DEFAULT 0, batch TEXT NOT NULL DEFAULT '',
  tries INTEGER NOT NULL DEFAULT 0, UNIQUE (store, file));
CREATE INDEX documents_status ON documents (status);
CREATE INDEX documents_file ON documents (file);
CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = pg_catalog.snowball, Language = 'english');
CREATE TEXT SEARCH CONFIGURATION stems (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION stems ALTER MAPPING REPLACE pg_catalog.english_stem WITH stems;
CREATE TABLE passages (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, document BIGINT NOT NULL, position INTEGER NOT NULL, page INTEGER,
  headings BYTEA NOT NULL, text TEXT NOT NULL, UNIQUE (document, position));
CREATE TABLE words (passage BIGINT PRIMARY KEY, document BIGINT NOT NULL, words TSVECTOR NOT NULL) WITH (toast_tuple_target = 128);
ALTER TABLE words ALTER COLUMN words SET STORAGE EXTERNAL;
CREATE INDEX words_words ON words USING gin (words);
CREATE INDEX words_document ON words (document);
CREATE TABLE vectors (passage BIGINT PRIMARY KEY, document BIGINT NOT NULL, store BIGINT NOT NULL, vector EXTENSION.vector NOT NULL);
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE MAIN;
CREATE INDEX vectors_document ON vectors (document);
CREATE INDEX vectors_store ON vectors (store);
"""
_ADD = """
WITH added AS (
  INSERT INTO passages (document, position, page, headings, text) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING number, document),
compared AS (INSERT INTO vectors (passage, document, store, vector) SELECT number, document, ?, CAST(? AS EXTENSION.vector) FROM added)
INSERT INTO words (passage, document, words) SELECT number, document, to_tsvector('stems', ?) FROM added
"""
# Who has which word, up to a bound; what words that few have weigh; passages by the sum of that; the first of them by BM25. Then the words
# that more have. {within} limits documents.
_WITH_WORDS = f"""
WITH asked AS (SELECT word, plainto_tsquery('stems', word) AS query FROM unnest(CAST(? AS text[])) AS word),
hits AS MATERIALIZED (
  SELECT word, passage, document FROM asked, LATERAL (
    SELECT passage, document FROM words WHERE words @@ query LIMIT ?) AS those),
weights AS MATERIALIZED (
  SELECT word, greatest(ln((total - count(*) + 0.5) / (count(*) + 0.5)), {_LEAST}) AS weight
  FROM hits, (SELECT count(*) AS total FROM words) AS every GROUP BY word, total HAVING count(*) <= ?),
chosen AS (
  SELECT passage FROM hits JOIN weights USING (word) JOIN documents d ON d.number = document
  WHERE d.store = ANY(?) AND d.status = ? {{within}} GROUP BY passage ORDER BY sum(weight) DESC, passage LIMIT ?),
stems AS MATERIALIZED (
  SELECT stem, max(weight) AS weight FROM weights, LATERAL unnest(tsvector_to_array(to_tsvector('stems', word))) AS stem GROUP BY stem),
counted AS (SELECT passage, words, length(words) / avg(length(words)) OVER () AS length FROM chosen JOIN words USING (passage))
(SELECT passage, NULL FROM counted, LATERAL (
  SELECT sum(weight * cardinality(positions) * ({_K1} + 1) / (cardinality(positions) + {_K1} * (1 - {_B} + {_B} * length))) AS score
  FROM unnest(words) JOIN stems ON lexeme = stem) AS ranked
ORDER BY score DESC, passage LIMIT ?)
UNION ALL SELECT NULL, word FROM hits GROUP BY word HAVING count(*) > ?
"""
# Not = ANY: that looks through all of them for every row, where the server is older than 14.
_WITHIN = "AND d.number IN (SELECT unnest(CAST(? AS bigint[])))"
_NEAREST = """
SELECT v.passage FROM vectors v JOIN documents d ON d.number = v.document
WHERE v.store = ANY(?) AND d.status = ? {within} ORDER BY v.vector OPERATOR(EXTENSION.<#>) CAST(? AS EXTENSION.vector), v.passage LIMIT ?
"""


class PgvectorStores(Stores):
    most_numbers = 16_000  # of pgvector's type `vector`
    most_bytes: int | None = None

    def __init__(self, url: str, installation: str) -> None:
        """Touches nothing. Raises NeedsUser for an address that is none."""
        self._postgres = Postgres(url, _TABLES, installation)
        # Words that too many passages have, as searches found: reading who has them is most of what a search costs. They only become more
        # common as long as no passage is deleted.
        self._common: set[str] = set()
        self._deletions = 0

    async def prepare(self) -> None:
        """Raises NeedsUser for what a person has to change, Unavailable."""
        await self._postgres.prepare()

    async def close(self) -> None:
        await self._postgres.close()

    async def _run(self, work: Callable[[Connection], T]) -> T:
        return await self._postgres.read(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        before = self._deletions
        try:
            return await self._postgres.write(work)
        finally:
            if (
                self._deletions != before
            ):  # a search that has not ended may know of words what was true before
                self._common = set()

    async def tidy(self) -> bool:
        """The server does it by itself (autovacuum)."""
        return False

    async def compare(
        self,
        stores: Sequence[Store],
        questions: Vectors,
        depth: int,
        also: Collection[int],
        within: Collection[int] | None = None,
    ) -> Compared:
        limit, documents = _limit(within)
        rows = ([store.number for store in stores], Status.COMPLETED.value, *documents)
        nearest = _NEAREST.format(within=limit)
        asked = [_literal(question) for question in questions]
        fits = ", ".join("v.vector OPERATOR(EXTENSION.<#>) CAST(? AS EXTENSION.vector)" for _ in asked)
        scores = (
            f"SELECT v.passage, -LEAST({fits}) FROM vectors v JOIN documents d ON d.number = v.document"
            f" WHERE v.passage = ANY(?) AND v.store = ANY(?) AND d.status = ? {limit}"
        )

        def work(connection: Connection) -> Compared:
            orders = [
                [number for (number,) in connection.execute(nearest, (*rows, question, depth))]
                for question in asked
            ]
            wanted = sorted({*also, *(number for order in orders for number in order)})
            found = connection.execute(scores, (*asked, wanted, *rows))
            return Compared(orders, dict(found.fetchall()))

        return await self._run(work)

    async def with_words(
        self,
        stores: Sequence[Store],
        words: Sequence[str],
        limit: int,
        within: Collection[int] | None = None,
    ) -> list[int]:
        chosen, documents = _limit(within)
        query = _WITH_WORDS.format(within=chosen)
        common = self._common
        asked = dict.fromkeys(each for word in words for each in ranking.plain_words(word))
        values = (
            [word for word in asked if word not in common],
            MOST_WITH_A_WORD + 1,
            MOST_WITH_A_WORD,
            [store.number for store in stores],
            Status.COMPLETED.value,
            *documents,
            max(limit, _RANKED),
            limit,
            MOST_WITH_A_WORD,
        )
        if not values[0]:
            return []
        rows = await self._run(lambda connection: connection.execute(query, values).fetchall())
        common.update(word for _, word in rows if word is not None)
        return [number for number, word in rows if word is None]

    def _add(self, connection: Connection, document: Document, position: int, row: Row) -> bool:
        passage = row.passage
        values = (
            *(document.number, position, passage.page, orjson.dumps(passage.headings), passage.text),
            *(document.store, _literal(np.frombuffer(row.vector, dtype=np.float32))),
            " ".join(ranking.plain_words(row.embedded)),
        )
        return connection.execute(_ADD, values).rowcount > 0

    def _forget_passages(self, connection: Connection, where: str, values: Sequence[Any]) -> None:
        chosen = f"document IN (SELECT number FROM documents WHERE {where})"
        for table in ("words", "vectors", "passages"):
            if connection.execute(f"DELETE FROM {table} WHERE {chosen}", values).rowcount:
                self._deletions += 1


def _limit(within: Collection[int] | None) -> tuple[str, Sequence[list[int]]]:
    """A condition on documents `d`, and its values."""
    return ("", ()) if within is None else (_WITHIN, (list(within),))


def _literal(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """As pgvector reads it: every 32-bit number is the same afterwards."""
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()
