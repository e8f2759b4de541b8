"""What is remembered of vector stores and their documents, in SQL that SQLite and Postgres both take: a question mark is a value.

A method is one transaction, durable once it returns, and can be done again after a crash that left open whether it was.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from llmop.workloads.retrieval.chunks import Cut
from llmop.workloads.retrieval.statements import Connection
from llmop.workloads.retrieval.values import Batch, Counts, Document, Problem, Status, Store

T = TypeVar("T")

_STORE = "number, id, owner, name, model, created_at, active_at, metadata, dimension"
DOCUMENT = (
    "d.number, d.store, s.id, s.owner, s.model, d.file, d.filename, d.created_at, d.status, d.code, d.message, d.attributes, d.cut, d.size,"
    " d.batch"
)
# By whether the oldest come first: what lies after a place, what before it, and the order.
_ORDERS = {True: (">", "<", "ASC"), False: ("<", ">", "DESC")}
FROM = "documents d JOIN stores s ON s.number = d.store"


class Records(abc.ABC):
    """Methods raise sqlite3.Error or Unavailable, by what the rows lie in."""

    @abc.abstractmethod
    async def close(self) -> None: ...

    @abc.abstractmethod
    async def _run(self, work: Callable[[Connection], T]) -> T:
        """Reads; nobody writes in between."""

    @abc.abstractmethod
    async def _write(self, work: Callable[[Connection], T]) -> T:
        """In one transaction, which is durable once this returns; one at a time."""

    @abc.abstractmethod
    def _forget_passages(self, connection: Connection, where: str, values: Sequence[Any]) -> None:
        """Those of the documents that `where` chooses."""

    def _forget(self, connection: Connection, where: str, values: Sequence[Any]) -> None:
        self._forget_passages(connection, where, values)
        connection.execute(f"DELETE FROM documents WHERE {where}", values)

    # Stores

    async def add(self, store: Store) -> Store:
        """With the number that it got."""

        def work(connection: Connection) -> Store:
            values = (store.id, store.owner, store.name, store.model, store.created_at, store.active_at)
            connection.execute(
                "INSERT INTO stores (id, owner, name, model, created_at, active_at, metadata) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*values, orjson.dumps(dict(store.metadata))),
            )
            return store_of(
                connection.execute(f"SELECT {_STORE} FROM stores WHERE id = ?", (store.id,)).fetchone()
            )

        return await self._write(work)

    async def find(self, name: str, owner: str | None = None) -> Store | None:
        """`owner` None = whoever's."""
        query = f"SELECT {_STORE} FROM stores WHERE id = ? AND (? IS NULL OR owner = ?)"

        def work(connection: Connection) -> Store | None:
            row = connection.execute(query, (name, owner, owner)).fetchone()
            return None if row is None else store_of(row)

        return await self._run(work)

    async def owned(
        self, owner: str, after: str, limit: int, *, before: str = "", oldest_first: bool
    ) -> list[Store]:
        sign, other, order = _ORDERS[oldest_first]
        place = "(SELECT number FROM stores WHERE id = ?)"
        query = (
            f"SELECT {_STORE} FROM stores WHERE owner = ? AND (? = '' OR number {sign} {place})"
            f" AND (? = '' OR number {other} {place}) ORDER BY number {order} LIMIT ?"
        )
        values = (owner, after, after, before, before, limit)
        return await self._run(
            lambda connection: [store_of(row) for row in connection.execute(query, values)]
        )

    async def owns(self, owner: str, names: Sequence[str]) -> bool:
        """Whether one of these stores is the owner's."""
        if not names:
            return False
        query = f"SELECT 1 FROM stores WHERE owner = ? AND id IN ({','.join('?' * len(names))}) LIMIT 1"
        return await self._run(
            lambda connection: connection.execute(query, (owner, *names)).fetchone() is not None
        )

    async def change(self, store: Store) -> None:
        """Its name and its metadata."""
        values = (store.name, orjson.dumps(dict(store.metadata)), store.number)
        await self._write(
            lambda connection: connection.execute(
                "UPDATE stores SET name = ?, metadata = ? WHERE number = ?", values
            )
        )

    async def used(self, store: Store, now: float) -> None:
        query = "UPDATE stores SET active_at = ? WHERE number = ?"
        await self._write(lambda connection: connection.execute(query, (now, store.number)))

    async def remove(self, store: Store) -> None:
        """With all that was read of its documents; the files stay."""

        def work(connection: Connection) -> None:
            self._forget(connection, "store = ?", (store.number,))
            connection.execute("DELETE FROM batches WHERE store = ?", (store.number,))
            connection.execute("DELETE FROM stores WHERE number = ?", (store.number,))

        await self._write(work)

    async def counts(self, store: Store, batch: str = "") -> tuple[Counts, int]:
        """Documents by status, and the bytes of their passages; of a batch only where one is named."""
        query = "SELECT status, count(*), CAST(sum(size) AS BIGINT) FROM documents WHERE store = ? AND (? = '' OR batch = ?) GROUP BY status"
        rows = await self._run(
            lambda connection: connection.execute(query, (store.number, batch, batch)).fetchall()
        )
        return {Status(status): number for status, number, _ in rows}, sum(size for _, _, size in rows)

    # Documents

    async def put(self, store: Store, documents: Sequence[Document], batch: Batch | None = None) -> None:
        """Into the store, if it is there still; one whose file is there already begins anew."""

        def work(connection: Connection) -> None:
            if (
                connection.execute("SELECT 1 FROM stores WHERE number = ?", (store.number,)).fetchone()
                is None
            ):
                return
            if batch is not None:
                connection.execute(
                    "INSERT INTO batches VALUES (?, ?, ?)", (batch.id, store.number, batch.created_at)
                )
            for each in documents:
                self._forget(connection, "store = ? AND file = ?", (store.number, each.file))
                connection.execute(
                    "INSERT INTO documents (store, file, filename, created_at, status, attributes, cut, batch)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        store.number,
                        each.file,
                        each.filename,
                        each.created_at,
                        Status.IN_PROGRESS.value,
                        orjson.dumps(dict(each.attributes)),
                        orjson.dumps(None if each.cut is None else tuple(each.cut)),
                        each.batch,
                    ),
                )

        await self._write(work)

    async def document(self, store: Store, file: str) -> Document | None:
        query = f"SELECT {DOCUMENT} FROM {FROM} WHERE d.store = ? AND d.file = ?"

        def work(connection: Connection) -> Document | None:
            row = connection.execute(query, (store.number, file)).fetchone()
            return None if row is None else document_of(row)

        return await self._run(work)

    async def documents(
        self,
        store: Store,
        *,
        batch: str,
        status: str,
        after: str,
        before: str = "",
        limit: int,
        oldest_first: bool,
    ) -> list[Document]:
        """`batch`, `status`, `after` and `before` "" = not asked for."""
        sign, other, order = _ORDERS[oldest_first]
        place = "(SELECT number FROM documents WHERE store = ? AND file = ?)"
        query = (
            f"SELECT {DOCUMENT} FROM {FROM} WHERE d.store = ? AND (? = '' OR d.batch = ?) AND (? = '' OR d.status = ?)"
            f" AND (? = '' OR d.number {sign} {place}) AND (? = '' OR d.number {other} {place})"
            f" ORDER BY d.number {order} LIMIT ?"
        )
        number = store.number
        places = (after, number, after, before, number, before)
        values = (number, batch, batch, status, status, *places, limit)
        return await self._run(
            lambda connection: [document_of(row) for row in connection.execute(query, values)]
        )

    async def set_attributes(self, document: Document, attributes: Mapping[str, Any]) -> None:
        values = (orjson.dumps(dict(attributes)), document.number)
        await self._write(
            lambda connection: connection.execute(
                "UPDATE documents SET attributes = ? WHERE number = ?", values
            )
        )

    async def remove_document(self, document: Document) -> None:
        await self._write(lambda connection: self._forget(connection, "number = ?", (document.number,)))

    async def remove_file(self, owner: str, file: str) -> None:
        """From every store of its owner: what is deleted cannot be found any more."""
        where = "file = ? AND store IN (SELECT number FROM stores WHERE owner = ?)"
        await self._write(lambda connection: self._forget(connection, where, (file, owner)))

    async def files(self) -> set[str]:
        """Of all documents."""
        return await self._run(
            lambda connection: {name for (name,) in connection.execute("SELECT DISTINCT file FROM documents")}
        )

    async def forget_files(self, files: Sequence[str]) -> None:
        """They are not there any more, whoever's they were."""

        def work(connection: Connection) -> None:
            for name in files:
                self._forget(connection, "file = ?", (name,))

        await self._write(work)

    async def batch(self, store: Store, name: str) -> Batch | None:
        query = "SELECT id, created_at FROM batches WHERE store = ? AND id = ?"

        def work(connection: Connection) -> Batch | None:
            row = connection.execute(query, (store.number, name)).fetchone()
            return None if row is None else Batch(*row)

        return await self._run(work)

    async def cancel(self, batch: Batch) -> None:
        """What of it is not done yet is not done any more."""

        def work(connection: Connection) -> None:
            where = "batch = ? AND status = ?"
            values = (batch.id, Status.IN_PROGRESS.value)
            self._forget_passages(connection, where, values)
            connection.execute(
                f"UPDATE documents SET status = ?, size = 0 WHERE {where}", (Status.CANCELLED.value, *values)
            )

        await self._write(work)


def store_of(row: Sequence[Any]) -> Store:
    number, name, owner, title, model, created_at, active_at, metadata, dimension = row
    return Store(
        number=number,
        id=name,
        owner=owner,
        name=title,
        model=model,
        created_at=created_at,
        active_at=active_at,
        metadata=orjson.loads(metadata),
        dimension=dimension,
    )


def document_of(row: Sequence[Any]) -> Document:
    (
        number,
        store,
        store_id,
        owner,
        model,
        file,
        filename,
        created_at,
        status,
        code,
        message,
        attributes,
        cut,
        size,
        batch,
    ) = row
    found = orjson.loads(cut)
    return Document(
        number=number,
        store=store,
        store_id=store_id,
        owner=owner,
        model=model,
        file=file,
        filename=filename,
        created_at=created_at,
        status=Status(status),
        problem=Problem(code, message) if code else None,
        attributes=orjson.loads(attributes),
        cut=None if found is None else Cut(*found),
        size=size,
        batch=batch,
    )
