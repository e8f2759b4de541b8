"""Vector stores in Postgres with pgvector: the server compares and ranks, nothing of it is kept in memory here."""

import functools
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

# Words are cut up here as SQLite's full-text index does it and become stems there, with no word left out as too common; so both know the
# same words. Vectors lie in their rows as long as a page takes them (MAIN): by itself pgvector puts those over 2 KB elsewhere.
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
  headings BYTEA NOT NULL, text TEXT NOT NULL, words TSVECTOR NOT NULL, UNIQUE (document, position));
CREATE INDEX passages_words ON passages USING gin (words);
CREATE TABLE vectors (passage BIGINT PRIMARY KEY, document BIGINT NOT NULL, store BIGINT NOT NULL, vector vector NOT NULL);
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE MAIN;
CREATE INDEX vectors_document ON vectors (document);
CREATE INDEX vectors_store ON vectors (store);
"""
_K1, _B = 1.2, 0.75  # of BM25, as SQLite has them
_RANKED = 500  # passages that are ranked by BM25 in full; before, they are chosen by which words they have

_ADD = """
WITH added AS (
  INSERT INTO passages (document, position, page, headings, text, words) VALUES (?, ?, ?, ?, ?, to_tsvector('stems', ?))
  ON CONFLICT DO NOTHING RETURNING number)
INSERT INTO vectors (passage, document, store, vector) SELECT number, ?, ?, CAST(? AS vector) FROM added
"""
# How often each word is there, up to a bound, with its stems.
_WORDS = """
SELECT tsvector_to_array(to_tsvector('stems', word)),
  (SELECT count(*) FROM (SELECT 1 FROM passages WHERE words @@ plainto_tsquery('stems', word) LIMIT ?) AS those)
FROM unnest(CAST(? AS text[])) AS word
"""
_ALL = "SELECT count(*) FROM passages"
_BEST = """
WITH chosen AS (
  SELECT p.number, p.words FROM passages p JOIN documents d ON d.number = p.document
  WHERE p.words @@ CAST(? AS tsquery) AND d.store = ANY(?) AND d.status = ? ORDER BY {rough} DESC, p.number LIMIT ?),
stems AS (SELECT * FROM unnest(CAST(? AS text[]), CAST(? AS double precision[])) AS stem (word, weight)),
counted AS (SELECT number, words, length(words) / avg(length(words)) OVER () AS length FROM chosen)
SELECT number FROM counted, LATERAL (
  SELECT sum(weight * cardinality(positions) * (? + 1) / (cardinality(positions) + ? * (1 - ? + ? * length))) AS score
  FROM unnest(words) JOIN stems ON lexeme = word) AS ranked
ORDER BY score DESC, number LIMIT ?
"""
_NEAREST = """
SELECT v.passage FROM vectors v JOIN documents d ON d.number = v.document
WHERE v.store = ANY(?) AND d.status = ? ORDER BY v.vector <#> CAST(? AS vector), v.passage LIMIT ?
"""


class PgvectorStores(Stores):
    most_numbers = 16_000  # of pgvector's type `vector`
    most_bytes: int | None = None

    def __init__(self, url: str, installation: str) -> None:
        """Touches nothing. Raises NeedsUser for an address that is none."""
        self._postgres = Postgres(url, _TABLES, installation)

    async def prepare(self) -> None:
        """Raises NeedsUser for what a person has to change, Unavailable."""
        await self._postgres.prepare()

    async def close(self) -> None:
        await self._postgres.close()

    async def _run(self, work: Callable[[Connection], T]) -> T:
        return await self._postgres.read(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._postgres.write(work)

    async def tidy(self) -> bool:
        """The server does it by itself (autovacuum)."""
        return False

    async def compare(
        self, stores: Sequence[Store], questions: Vectors, depth: int, also: Collection[int]
    ) -> Compared:
        within = [store.number for store in stores]
        asked = [_literal(question) for question in questions]
        fits = ", ".join("v.vector <#> CAST(? AS vector)" for _ in asked)
        scores = (
            f"SELECT v.passage, -LEAST({fits}) FROM vectors v JOIN documents d ON d.number = v.document"
            " WHERE v.passage = ANY(?) AND v.store = ANY(?) AND d.status = ?"
        )

        def work(connection: Connection) -> Compared:
            orders = [
                [
                    number
                    for (number,) in connection.execute(
                        _NEAREST, (within, Status.COMPLETED.value, question, depth)
                    )
                ]
                for question in asked
            ]
            wanted = sorted({*also, *(number for order in orders for number in order)})
            found = connection.execute(scores, (*asked, wanted, within, Status.COMPLETED.value))
            return Compared(orders, dict(found.fetchall()))

        return await self._run(work)

    async def with_words(self, stores: Sequence[Store], words: Sequence[str], limit: int) -> list[int]:
        asked = list(dict.fromkeys(each for word in words for each in ranking.plain_words(word)))
        return await self._run(
            functools.partial(_with_words, [store.number for store in stores], asked, limit)
        )

    def _add(self, connection: Connection, document: Document, position: int, row: Row) -> bool:
        passage = row.passage
        values = (
            *(document.number, position, passage.page, orjson.dumps(passage.headings), passage.text),
            " ".join(ranking.plain_words(row.embedded)),
            *(document.number, document.store, _literal(np.frombuffer(row.vector, dtype=np.float32))),
        )
        return connection.execute(_ADD, values).rowcount > 0

    def _forget_passages(self, connection: Connection, where: str, values: Sequence[Any]) -> None:
        chosen = f"document IN (SELECT number FROM documents WHERE {where})"
        connection.execute(f"DELETE FROM vectors WHERE {chosen}", values)
        connection.execute(f"DELETE FROM passages WHERE {chosen}", values)


def _with_words(stores: Sequence[int], words: Sequence[str], limit: int, connection: Connection) -> list[int]:
    (number,) = connection.execute(_ALL).fetchone()
    weights: dict[str, float] = {}
    for stems, count in connection.execute(_WORDS, (MOST_WITH_A_WORD + 1, words)):
        if 0 < count <= MOST_WITH_A_WORD:
            weights |= dict.fromkeys(stems, ranking.rarity(count, number))
    if not weights:
        return []
    rough = " + ".join("CASE WHEN p.words @@ CAST(? AS tsquery) THEN ? ELSE 0 END" for _ in weights)
    values = (
        " | ".join(_quoted(stem) for stem in weights),
        stores,
        Status.COMPLETED.value,
        *(value for stem, weight in weights.items() for value in (_quoted(stem), weight)),
        max(limit, _RANKED),
        list(weights),
        list(weights.values()),
        _K1,
        _K1,
        _B,
        _B,
        limit,
    )
    return [found for (found,) in connection.execute(_BEST.format(rough=rough), values)]


def _quoted(stem: str) -> str:
    """Letters and digits: `plain_words` has left nothing else in."""
    return f"'{stem}'"


def _literal(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """As pgvector reads it: every 32-bit number is the same afterwards."""
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()
