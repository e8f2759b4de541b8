"""The store on a SQL database; `open_store` is the way in."""

import functools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from llmop.domain import errors, resources
from llmop.domain.usage import UsageBy, UsageRow
from llmop.store import codec, database, feed, interface, rows, tables, transaction, usage

_counter = tables.counter.c
_NEXT = tables.counter.update().values(revision=_counter.revision + 1)
_NEXT_IN_EPOCH = _NEXT.where(_counter.epoch == sa.bindparam("mine"))
_REVISION = sa.select(_counter.revision)
_EPOCH = sa.select(_counter.epoch)
_REACHED = sa.select(_counter.revision, _counter.compacted)
_TAKE_OVER = tables.counter.update().values(
    epoch=sa.case(
        (_counter.epoch < sa.bindparam("second"), sa.bindparam("second")), else_=_counter.epoch + 1
    ),
    holder=sa.bindparam("new_holder"),
)
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
_EVERY_LEDGER = tables.ledgers.select().order_by(tables.ledgers.c.replica_uid)
_SOME_LEDGERS = _EVERY_LEDGER.where(
    tables.ledgers.c.replica_uid.in_(sa.bindparam("replica_uids", expanding=True))
)
_UIDS_PER_QUERY = 500


async def open_store(url: str) -> "SqlStore":
    """The store at `url`, `sqlite:///path` or `postgresql://...`, with its schema brought up to date.

    A driver named in `url` (`sqlite+aiosqlite`) is not looked at: the choice is made here. Raises NeedsUser for an address that is
    none, a database that another controller uses (SQLite) or that a newer version made; Unavailable when it doesn't answer.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise _not_an_address("the address of the store can't be read") from error
    shown = parsed.render_as_string(hide_password=True)
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        from llmop.store import sqlite

        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise _not_an_address(f"{shown} names no file")
        return SqlStore(await sqlite.open_sqlite(Path(parsed.database)))
    if kind == "postgresql":
        from llmop.store import postgres

        return SqlStore(await postgres.open_postgres(parsed.set(drivername="postgresql+psycopg")))
    raise _not_an_address(f"{shown}: there is no store of kind {kind}")


def _not_an_address(problem: str) -> errors.NeedsUser:
    return errors.NeedsUser(
        "BadStoreAddress",
        f"{problem}; say sqlite:////absolute/path or postgresql://user@host/database",
    )


class SqlStore:
    """Implements `interface.Store`."""

    def __init__(self, opened: database.Database) -> None:
        self._database = opened
        self._feed = feed.Feed(self.revision, self._page)

    async def installation(self) -> str:
        return self._database.installation

    async def get(self, kind: str, namespace: str, name: str) -> resources.Resource:
        key = {"kind": kind, "namespace": namespace, "name": name}
        row = await self._database.read(lambda connection: connection.execute(rows.FIND, key).first())
        if row is None:
            raise errors.NotFound(kind, name)
        return rows.resource(row)

    async def list(self, kind: str, namespace: str | None = None) -> interface.Listing:
        return await self._database.read(functools.partial(_list, kind=kind, namespace=namespace))

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        return await self._database.read(functools.partial(_ledgers, replica_uids=replica_uids))

    async def commit(
        self, writes: Sequence[interface.Write], *, epoch: int | None = None, durable: bool = False
    ) -> interface.Committed:
        work = functools.partial(_apply, writes=tuple(writes), epoch=epoch)
        try:
            committed = await self._database.write(work, durable=durable)
        except errors.Unavailable:
            self._feed.doubt()
            raise
        except BaseException:
            self._feed.wake()  # it may be committed all the same
            raise
        self._feed.take(committed.revision, committed.changes)
        return committed

    async def take_over(self, holder: str, now: float) -> int:
        work = functools.partial(_take_over, holder=holder, second=int(now))
        return await self._database.write(work, durable=True)

    async def epoch(self) -> int:
        return await self._database.read(_epoch)

    async def revision(self) -> int:
        return await self._database.read(_revision)

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        known = self._feed.known(after) if self._database.is_alone() else None
        if known is not None and len(known) <= limit:
            return known
        changes, _ = await self._page(after, limit)
        return changes

    def watch(self, after: int) -> AsyncIterator[interface.Change]:
        return self._feed.watch(after)

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        while old := await self._database.read(functools.partial(_old_events, before=events_before)):
            await self.commit(old)
        work = functools.partial(
            _drop_history, changes_before=changes_before, tombstones_before=tombstones_before
        )
        self._feed.forget(await self._database.write(work, durable=False))

    async def add_usage(self, spool: str, number: int, rows: Sequence[UsageRow]) -> bool:
        work = functools.partial(usage.add, spool=spool, number=number, rows=tuple(rows))
        return await self._database.write(work, durable=True)

    async def usage(
        self, by: Sequence[UsageBy], *, since: float, until: float, key: str = "", model: str = ""
    ) -> tuple[UsageRow, ...]:
        ask = functools.partial(usage.sums, by=by, since=since, until=until, key=key, model=model)
        return await self._database.read(ask)

    async def drop_usage(self, before: float) -> None:
        await self._database.write(functools.partial(usage.drop, before=before), durable=False)

    async def close(self) -> None:
        await self._database.close()

    async def _page(self, after: int, limit: int) -> tuple[tuple[interface.Change, ...], int]:
        """Changes after `after`, and the newest revision at the moment of reading."""
        return await self._database.read(functools.partial(_changes, after=after, limit=limit))


def _revision(connection: sa.Connection) -> int:
    return int(connection.execute(_REVISION).scalar_one())


def _epoch(connection: sa.Connection) -> int:
    return int(connection.execute(_EPOCH).scalar_one())


def _list(connection: sa.Connection, kind: str, namespace: str | None) -> interface.Listing:
    if namespace is None:
        found = connection.execute(rows.LIST, {"kind": kind})
    else:
        found = connection.execute(rows.LIST_NAMESPACE, {"kind": kind, "namespace": namespace})
    items = tuple(rows.resource(row) for row in found)
    return interface.Listing(items=items, revision=_revision(connection))


def _ledgers(connection: sa.Connection, replica_uids: Sequence[str] | None) -> tuple[interface.Ledger, ...]:
    if replica_uids is None:
        return tuple(rows.ledger(row) for row in connection.execute(_EVERY_LEDGER))
    wanted = sorted(set(replica_uids))
    parts = [wanted[start : start + _UIDS_PER_QUERY] for start in range(0, len(wanted), _UIDS_PER_QUERY)]
    return tuple(
        rows.ledger(row)
        for part in parts
        for row in connection.execute(_SOME_LEDGERS, {"replica_uids": part})
    )


def _changes(connection: sa.Connection, after: int, limit: int) -> tuple[tuple[interface.Change, ...], int]:
    state = connection.execute(_REACHED).one()
    if not state.compacted <= after <= state.revision:
        raise errors.Expired(after, state.compacted + 1)
    found = list(connection.execute(_CHANGES, {"after": after, "count": limit}))
    if not found:
        return (), int(state.revision)
    if len(found) == limit:
        last = found[-1]
        rest = {"of_revision": last.revision, "after": last.position}
        found.extend(connection.execute(_REST_OF_REVISION, rest))
    following = [*(row.revision for row in found[1:]), None]
    changes = tuple(
        interface.Change(
            revision=row.revision,
            type=interface.ChangeType(row.type),
            resource=codec.resource_from_text(row.object),
            complete=row.revision != then,
        )
        for row, then in zip(found, following, strict=True)
    )
    return changes, int(state.revision)


def _old_events(connection: sa.Connection, before: float) -> Sequence[interface.Remove]:
    return [
        interface.Remove(kind=row.kind, namespace=row.namespace, name=row.name, uid=row.uid)
        for row in connection.execute(_OLD_EVENTS, {"before": before})
    ]


def _take_over(connection: sa.Connection, holder: str, second: int) -> int:
    connection.execute(_TAKE_OVER, {"new_holder": holder, "second": second})
    epoch = _epoch(connection)
    connection.commit()
    return epoch


def _apply(
    connection: sa.Connection, writes: Sequence[interface.Write], epoch: int | None
) -> interface.Committed:
    revision = _next_revision(connection, epoch)
    work = transaction.Transaction(rows.SqlRows(connection), revision)
    applied = tuple(work.apply(write) for write in writes)
    if not work.changed:
        return interface.Committed(revision=revision - 1, applied=applied)
    changes = work.finish()
    connection.commit()
    return interface.Committed(revision=revision, applied=applied, changes=changes)


def _next_revision(connection: sa.Connection, epoch: int | None) -> int:
    """Takes the counter row, which orders this transaction after all earlier ones. Raises Deposed."""
    statement = _NEXT if epoch is None else _NEXT_IN_EPOCH
    values = {} if epoch is None else {"mine": epoch}
    if connection.dialect.update_returning:
        revision = connection.execute(statement.returning(_counter.revision), values).scalar()
    elif connection.execute(statement, values).rowcount:
        revision = connection.execute(_REVISION).scalar()  # SQLite before 3.35
    else:
        revision = None
    if revision is None:
        assert epoch is not None, "the counter row is gone"
        raise errors.Deposed(epoch)
    return int(revision)


def _drop_history(connection: sa.Connection, changes_before: int, tombstones_before: float) -> int:
    """Returns the revision up to which changes are gone."""
    connection.execute(tables.counter.update().values(epoch=_counter.epoch))  # wait for our turn
    state = connection.execute(_REACHED).one()
    compacted = max(state.compacted, min(changes_before - 1, state.revision))
    connection.execute(tables.counter.update().values(compacted=compacted))
    connection.execute(tables.changes.delete().where(tables.changes.c.revision <= compacted))
    connection.execute(tables.ledgers.delete().where(tables.ledgers.c.tombstoned_at < tombstones_before))
    connection.commit()
    return int(compacted)
