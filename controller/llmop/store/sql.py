"""The store on a SQL database; `open_store` is the way in."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from llmop.domain import errors, resources
from llmop.store import codec, database, feed, interface, rows, tables, transaction

_counter = tables.counter.c
_NEXT = tables.counter.update().values(revision=_counter.revision + 1)
_NEXT_IN_EPOCH = _NEXT.where(_counter.epoch == sa.bindparam("mine"))
_TAKE_OVER = tables.counter.update().values(epoch=_counter.epoch + 1, holder=sa.bindparam("new_holder"))
_CHANGES = (
    tables.changes.select()
    .where(tables.changes.c.revision > sa.bindparam("after"))
    .order_by(tables.changes.c.revision, tables.changes.c.position)
    .limit(sa.bindparam("count"))
)
_REST_OF_REVISION = (
    tables.changes.select()
    .where(
        tables.changes.c.revision == sa.bindparam("of_revision"),
        tables.changes.c.position > sa.bindparam("after"),
    )
    .order_by(tables.changes.c.position)
)
_OLD_EVENTS = (
    tables.objects.select()
    .join(tables.events)
    .where(tables.events.c.last_seen_at < sa.bindparam("before"))
    .order_by(tables.events.c.last_seen_at)
    .limit(500)
)
_UIDS_PER_QUERY = 500


async def open_store(url: str) -> "SqlStore":
    """The store at `url`, `sqlite+aiosqlite:///path` or `postgresql+psycopg://...`, with its schema brought up to date.

    Raises NeedsUser for an address that is none, a database that another controller uses (SQLite) or that a newer version
    made; Unavailable when it doesn't answer.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise _not_an_address("the address of the store can't be read") from error
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername == "sqlite+aiosqlite":
        from llmop.store import sqlite

        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise _not_an_address(f"{shown} names no file")
        return SqlStore(await sqlite.open_sqlite(Path(parsed.database)))
    if parsed.drivername == "postgresql+psycopg":
        from llmop.store import postgres

        return SqlStore(await postgres.open_postgres(parsed))
    raise _not_an_address(f"{shown}: there is no store of kind {parsed.drivername}")


def _not_an_address(problem: str) -> errors.NeedsUser:
    return errors.NeedsUser(
        "BadStoreAddress",
        f"{problem}; say sqlite+aiosqlite:////absolute/path or postgresql+psycopg://user@host/database",
    )


class SqlStore:
    """Implements `interface.Store`."""

    def __init__(self, opened: database.Database) -> None:
        self._database = opened
        self._feed = feed.Feed(self.revision, self._page, opened.poll_every)

    async def installation(self) -> str:
        return self._database.installation

    async def get(self, kind: str, namespace: str, name: str) -> resources.Resource:
        async with self._database.reading() as connection:
            key = {"kind": kind, "namespace": namespace, "name": name}
            row = (await connection.execute(rows.FIND, key)).first()
        if row is None:
            raise errors.NotFound(kind, name)
        return rows.resource(row)

    async def list(self, kind: str, namespace: str | None = None) -> interface.Listing:
        key = {"kind": kind}
        statement = rows.LIST
        if namespace is not None:
            key["namespace"] = namespace
            statement = rows.LIST_NAMESPACE
        async with self._database.reading() as connection:
            revision = (await connection.execute(sa.select(_counter.revision))).scalar_one()
            found = (await connection.execute(statement, key)).all()
        return interface.Listing(items=tuple(rows.resource(row) for row in found), revision=revision)

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        uid = tables.ledgers.c.replica_uid
        found: list[interface.Ledger] = []
        async with self._database.reading() as connection:
            if replica_uids is None:
                result = await connection.execute(tables.ledgers.select().order_by(uid))
                return tuple(rows.ledger(row) for row in result)
            wanted = sorted(set(replica_uids))
            for start in range(0, len(wanted), _UIDS_PER_QUERY):
                some = wanted[start : start + _UIDS_PER_QUERY]
                result = await connection.execute(tables.ledgers.select().where(uid.in_(some)).order_by(uid))
                found.extend(rows.ledger(row) for row in result)
        return tuple(found)

    async def commit(
        self, writes: Sequence[interface.Write], *, epoch: int | None = None, durable: bool = False
    ) -> interface.Committed:
        try:
            async with self._database.writing(durable=durable) as connection:
                committed, changed = await connection.run_sync(_apply, writes, epoch)
                if changed:
                    await connection.commit()
        finally:
            # Also when the caller is cancelled or the connection breaks: it may be committed all the same.
            self._feed.wake()
        return committed

    async def take_over(self, holder: str) -> int:
        async with self._database.writing(durable=True) as connection:
            await connection.execute(_TAKE_OVER, {"new_holder": holder})
            epoch = (await connection.execute(sa.select(_counter.epoch))).scalar_one()
            await connection.commit()
        return int(epoch)

    async def revision(self) -> int:
        async with self._database.reading() as connection:
            return int((await connection.execute(sa.select(_counter.revision))).scalar_one())

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        changes, _ = await self._page(after, limit)
        return changes

    def watch(self, after: int) -> AsyncIterator[interface.Change]:
        return self._feed.watch(after)

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        while await self._drop_events(events_before):
            pass
        async with self._database.writing(durable=False) as connection:
            compacted = await connection.run_sync(_drop_history, changes_before, tombstones_before)
            await connection.commit()
        self._feed.forget(compacted)

    async def close(self) -> None:
        await self._database.close()

    async def _drop_events(self, before: float) -> bool:
        """Whether there may be more of them."""
        async with self._database.reading() as connection:
            old = (await connection.execute(_OLD_EVENTS, {"before": before})).all()
        await self.commit(
            [
                interface.Remove(kind=row.kind, namespace=row.namespace, name=row.name, uid=row.uid)
                for row in old
            ]
        )
        return bool(old)

    async def _page(self, after: int, limit: int) -> tuple[tuple[interface.Change, ...], int]:
        """Changes after `after`, and the newest revision at the moment of reading."""
        async with self._database.reading() as connection:
            state = (await connection.execute(sa.select(_counter.revision, _counter.compacted))).one()
            if not state.compacted <= after <= state.revision:
                raise errors.Expired(after, state.compacted + 1)
            found = list(await connection.execute(_CHANGES, {"after": after, "count": limit}))
            if found and len(found) == limit:
                last = found[-1]
                rest = {"of_revision": last.revision, "after": last.position}
                found.extend(await connection.execute(_REST_OF_REVISION, rest))
        following = [row.revision for row in found[1:]] + [None]
        changes = tuple(
            interface.Change(
                revision=row.revision,
                type=interface.ChangeType(row.type),
                resource=codec.resource_from_text(row.object),
                complete=row.revision != then,
            )
            for row, then in zip(found, following, strict=False)
        )
        return changes, state.revision


def _apply(
    connection: sa.Connection, writes: Sequence[interface.Write], epoch: int | None
) -> tuple[interface.Committed, bool]:
    revision = _next_revision(connection, epoch)
    work = transaction.Transaction(rows.SqlRows(connection), revision)
    applied = tuple(work.apply(write) for write in writes)
    if work.changed:
        work.finish()
    else:
        revision -= 1
    return interface.Committed(revision=revision, applied=applied), work.changed


def _next_revision(connection: sa.Connection, epoch: int | None) -> int:
    """Takes the counter row, which orders this transaction after all earlier ones. Raises Deposed."""
    statement = _NEXT if epoch is None else _NEXT_IN_EPOCH
    values = {} if epoch is None else {"mine": epoch}
    if connection.dialect.update_returning:
        revision = connection.execute(statement.returning(_counter.revision), values).scalar()
    elif connection.execute(statement, values).rowcount:
        revision = connection.execute(sa.select(_counter.revision)).scalar()  # SQLite before 3.35
    else:
        revision = None
    if revision is None:
        assert epoch is not None, "the counter row is gone"
        raise errors.Deposed(epoch)
    return int(revision)


def _drop_history(connection: sa.Connection, changes_before: int, tombstones_before: float) -> int:
    """Returns the revision up to which changes are gone."""
    connection.execute(tables.counter.update().values(epoch=_counter.epoch))  # wait for our turn
    state = connection.execute(sa.select(_counter.revision, _counter.compacted)).one()
    compacted = max(state.compacted, min(changes_before - 1, state.revision))
    connection.execute(tables.counter.update().values(compacted=compacted))
    connection.execute(tables.changes.delete().where(tables.changes.c.revision <= compacted))
    connection.execute(tables.ledgers.delete().where(tables.ledgers.c.tombstoned_at < tombstones_before))
    return int(compacted)
