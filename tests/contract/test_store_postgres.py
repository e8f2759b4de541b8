"""What only a store on Postgres does: several controllers on one database, and a server that goes away."""

import asyncio
import contextlib
import dataclasses
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator

import alembic.autogenerate
import alembic.migration
import pytest
import sqlalchemy as sa
from tests.rigs.postgres import PostgresRig

from llmop.domain import errors, resources
from llmop.store import interface, postgres, tables
from llmop.store.sql import SqlStore, open_store


def thing(name: str) -> interface.Create:
    return interface.Create(resource=resources.Resource(kind="Cluster", name=name, uid=f"uid-{name}"))


@contextlib.asynccontextmanager
async def controllers(url: str, count: int) -> AsyncIterator[list[SqlStore]]:
    stores = await asyncio.gather(*(open_store(url) for _ in range(count)))
    try:
        yield list(stores)
    finally:
        for store in stores:
            await store.close()


async def take(watch: AsyncIterator[interface.Change], count: int) -> list[interface.Change]:
    async with asyncio.timeout(60):
        return [await anext(watch) for _ in range(count)]


async def test_controllers_that_start_at_once_make_one_installation(postgres_rig: PostgresRig) -> None:
    async with controllers(postgres_rig.database("starts"), 6) as stores:
        names = {await store.installation() for store in stores}
        assert 1 == len(names)
        assert {0} == {await store.revision() for store in stores}


async def test_a_watch_misses_nothing_that_eight_controllers_write_at_once(postgres_rig: PostgresRig) -> None:
    each = 40
    async with controllers(postgres_rig.database("writers"), 9) as (reader, *writers):
        watches = [asyncio.ensure_future(take(reader.watch(0), len(writers) * each * 2)) for _ in range(3)]

        async def write(number: int, store: SqlStore) -> None:
            for turn in range(each):
                await store.commit([thing(f"w{number}-{turn}-{twin}") for twin in "ab"])

        await asyncio.gather(*(write(number, store) for number, store in enumerate(writers)))
        names = [item.name for item in (await reader.list("Cluster")).items]
        for seen in await asyncio.gather(*watches):
            assert sorted(list(range(1, len(writers) * each + 1)) * 2) == [change.revision for change in seen]
            assert names == sorted(change.resource.name for change in seen)


_WRITER = """
    import asyncio, sys
    from llmop.domain import resources
    from llmop.store import interface
    from llmop.store.sql import open_store

    async def main(url, prefix, count):
        store = await open_store(url)
        for number in range(count):
            both = [interface.Create(resource=resources.Resource(
                kind="Cluster", name=f"{prefix}{number}-{twin}", uid=f"{prefix}{number}-{twin}")) for twin in "ab"]
            committed = await store.commit(both)
            print(committed.revision, flush=True)
        await store.close()

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], stdout=subprocess.PIPE, text=True
    )


async def test_two_processes_write_and_one_of_them_is_killed(postgres_rig: PostgresRig) -> None:
    url = postgres_rig.database("processes")
    async with controllers(url, 1) as (store,):
        with start(_WRITER, url, "killed-", "100000") as killed, start(_WRITER, url, "ends-", "60") as ends:
            assert killed.stdout is not None
            assert ends.stdout is not None
            acknowledged = [int(line) for line in ends.stdout]
            acknowledged += [int(killed.stdout.readline()) for _ in range(20)]
            killed.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in killed.stdout if line.endswith("\n")]
        revision = (await store.commit([thing("after")])).revision
        missing = set(range(1, revision)) - set(acknowledged)
        assert len(missing) <= 1, "at most the transaction whose answer the killed one didn't get"
        changes = await store.changes(0, limit=1_000_000)
        assert sorted([*range(1, revision), *range(1, revision), revision]) == [c.revision for c in changes]
        assert sorted(c.resource.name for c in changes) == [
            i.name for i in (await store.list("Cluster")).items
        ]


async def test_a_controller_that_is_paused_in_a_transaction_loses_it_and_does_not_stop_the_others(
    postgres_rig: PostgresRig,
) -> None:
    url = postgres_rig.database("paused")
    inside, go_on = threading.Event(), threading.Event()

    def pause(connection: sa.Connection) -> None:
        connection.execute(tables.counter.update().values(holder="the paused one"))
        inside.set()
        go_on.wait(60)
        connection.commit()

    async with controllers(url, 1) as (store,):
        paused = await postgres.open_postgres(sa.make_url(url), patience=0.3)
        work = asyncio.ensure_future(paused.write(pause, durable=False))
        assert await asyncio.to_thread(inside.wait, 60)
        assert 1 == (await store.commit([thing("after")])).revision
        go_on.set()
        with pytest.raises(errors.Unavailable, match="idle-in-transaction timeout"):
            await work
        await paused.close()


async def test_a_write_that_races_a_take_over_is_refused_or_comes_before_it(
    postgres_rig: PostgresRig,
) -> None:
    async with controllers(postgres_rig.database("race"), 2) as (old, new):
        for turn in range(15):
            epoch = await old.take_over("old", 0.0)
            writes = [
                asyncio.ensure_future(old.commit([thing(f"t{turn}-{number}")], epoch=epoch))
                for number in range(6)
            ]
            await asyncio.sleep(0)
            await new.take_over("new", 0.0)
            after_take_over = await new.revision()
            done = await asyncio.gather(*writes, return_exceptions=True)
            revisions = [each.revision for each in done if isinstance(each, interface.Committed)]
            refused = [each for each in done if isinstance(each, errors.Deposed)]
            assert 6 == len(revisions) + len(refused)
            assert all(revision <= after_take_over for revision in revisions)
            assert after_take_over == await new.revision()


async def test_of_eight_controllers_that_update_one_object_exactly_one_wins(
    postgres_rig: PostgresRig,
) -> None:
    async with controllers(postgres_rig.database("update"), 8) as stores:
        await stores[0].commit([thing("a")])
        read = await stores[0].get("Cluster", "", "a")
        attempts = [
            store.commit(
                [
                    interface.Update(
                        resource=dataclasses.replace(read, spec={"by": number}),
                        expected_version=read.resource_version,
                    )
                ]
            )
            for number, store in enumerate(stores)
        ]
        done = await asyncio.gather(*attempts, return_exceptions=True)
        (winner,) = [number for number, each in enumerate(done) if isinstance(each, interface.Committed)]
        assert 7 == sum(isinstance(each, errors.Conflict) for each in done)
        assert {"by": winner} == (await stores[0].get("Cluster", "", "a")).spec


async def test_another_controllers_compaction_reaches_readers_and_watchers_here(
    postgres_rig: PostgresRig,
) -> None:
    async with controllers(postgres_rig.database("compaction"), 2) as (here, there):
        for name in "abc":
            await there.commit([thing(name)])
        watch = here.watch(2)
        assert ["c"] == [change.resource.name for change in await take(watch, 1)]
        await there.compact(changes_before=4, tombstones_before=0.0, events_before=0.0)
        with pytest.raises(errors.Expired):
            await here.changes(1)
        with pytest.raises(errors.Expired):
            await take(here.watch(1), 1)
        await there.commit([thing("d")])
        assert ["d"] == [change.resource.name for change in await take(watch, 1)]


async def test_durable_commits_are_flushed_even_where_the_server_does_not_flush(
    postgres_rig: PostgresRig,
) -> None:
    url = postgres_rig.database("durable")
    postgres_rig.query("ALTER DATABASE durable SET synchronous_commit = off")
    async with controllers(url, 1) as (store,):
        await store.commit([thing("plain")])
        committed = await store.commit([thing("durable")], durable=True)
        postgres_rig.kill_server()
        with pytest.raises(errors.Unavailable, match="the Postgres store doesn't answer"):
            await store.revision()
        postgres_rig.start_server()
        assert committed.revision == await answer(store)
        assert "durable" == (await store.get("Cluster", "", "durable")).name


async def test_a_server_that_was_away_is_used_again_and_watches_can_go_on(postgres_rig: PostgresRig) -> None:
    async with controllers(postgres_rig.database("away"), 1) as (store,):
        await store.commit([thing("a")])
        watch = store.watch(0)
        await take(watch, 1)
        postgres_rig.kill_server()
        for _ in range(3):
            with pytest.raises(errors.Unavailable):
                await store.commit([thing("b")])
        with pytest.raises(errors.Unavailable):
            await take(watch, 1)
        with pytest.raises(errors.Unavailable, match="the Postgres store doesn't answer"):
            await open_store(postgres_rig.url)
        postgres_rig.start_server()
        await answer(store)
        await store.commit([thing("c")])
        assert ["c"] == [change.resource.name for change in await take(store.watch(1), 1)]


async def answer(store: SqlStore) -> int:
    """The store's revision, as soon as it has thrown its broken connections away."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(errors.Unavailable):
                return await store.revision()


async def test_names_sort_by_code_point_whatever_the_locale_of_the_database(
    postgres_rig: PostgresRig,
) -> None:
    collations = postgres_rig.query(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_name = 'objects'"
        " AND column_name IN ('kind', 'namespace', 'name')",
        await ready(postgres_rig, "locale"),
    )
    assert "C" == collations.strip()


async def test_the_migrated_schema_is_the_one_of_the_tables(postgres_rig: PostgresRig) -> None:
    url = postgres_rig.database("tables")
    async with controllers(url, 1):
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
            assert [] == alembic.autogenerate.compare_metadata(context, tables.metadata)


async def ready(rig: PostgresRig, name: str) -> str:
    async with controllers(rig.database(name), 1):
        return name


async def test_a_password_does_not_show_in_an_error() -> None:
    address = "postgresql://user:hunter2@127.0.0.1:1/none"
    with pytest.raises(errors.Unavailable) as raised:
        await open_store(address)
    assert "hunter2" not in str(raised.value)
