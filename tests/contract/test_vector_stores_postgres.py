"""What only vector stores in Postgres do: servers that cannot hold them, and servers that go away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import numpy as np
import psycopg
import pytest
from tests.contract.test_vector_stores import made_store, put, wanted
from tests.rigs.postgres import PostgresRig

from llmop.domain.errors import NeedsUser, Unavailable
from llmop.workloads.retrieval import postgres
from llmop.workloads.retrieval.chunks import Passage
from llmop.workloads.retrieval.pgvector import PgvectorStores
from llmop.workloads.retrieval.postgres import TooSlow
from llmop.workloads.retrieval.statements import Connection, Rows
from llmop.workloads.retrieval.stores import Row
from llmop.workloads.retrieval.values import Status

T = TypeVar("T")

VECTOR = np.array([1, 0], dtype=np.float32)


@contextlib.asynccontextmanager
async def opened(url: str, installation: str = "here") -> AsyncIterator[PgvectorStores]:
    made = PgvectorStores(url, installation)
    try:
        await made.prepare()
        yield made
    finally:
        await made.close()


async def refused(url: str, installation: str = "here") -> str:
    with pytest.raises(NeedsUser) as raised:
        async with opened(url, installation):
            pass
    return f"{raised.value.reason} {raised.value}"


@pytest.mark.parametrize(
    "url",
    ["sqlite:///x", "hunter2", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@h:port/d?x=y", "://hunter2"],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(NeedsUser, match="postgresql://user@host/database") as raised:
        PgvectorStores(url, "here")
    assert "hunter2" not in str(raised.value)


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable, match=r"postgresql://127.0.0.1:1/none: .*does not answer") as raised:
        async with opened("postgresql://user:hunter2@127.0.0.1:1/none"):
            pass
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("server", "words"), [(120022, "version 12: .* 13 or newer"), (130000, ""), (180001, "")]
)
def test_servers_by_their_versions(server: int, words: str) -> None:
    found = postgres.too_old_server(server)
    assert bool(found) == bool(words)
    assert re.search(words, found)


@pytest.mark.parametrize(
    ("extension", "fits"), [("0.4.4", False), ("0.5.0", True), ("0.10.1", True), ("1.0", True)]
)
def test_extensions_by_their_versions(extension: str, fits: bool) -> None:
    assert (postgres.too_old_extension(extension) == "") == fits


async def test_who_may_not_make_what_is_needed_is_told_what_to_run(pgvector_rig: PostgresRig) -> None:
    url = pgvector_rig.database("rights")
    pgvector_rig.query("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    plain = url.replace("llmoptest@", "plain@", 1)
    assert plain != url
    assert "NoRight" in (words := await refused(plain))
    assert "role plain may not make the extension `vector`" in words
    assert "CREATE EXTENSION vector; in the database rights" in words
    pgvector_rig.query("CREATE SCHEMA elsewhere; CREATE EXTENSION vector SCHEMA elsewhere", "rights")
    assert "GRANT CREATE ON DATABASE rights TO plain;" in await refused(plain)
    pgvector_rig.query(
        "GRANT CREATE ON DATABASE rights TO plain; GRANT USAGE ON SCHEMA elsewhere TO plain", "rights"
    )
    async with opened(plain) as stores:
        store = await made_store(stores)
        await put(stores, store, "one", {"a": [1, 0]})
        assert (await stores.compare([store], VECTOR[None], 5, ())).scores == {1: 1.0}
    assert (
        pgvector_rig.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "rights").strip()
        == "0"
    )


async def test_functions_that_somebody_makes_beside_the_extension_are_not_called(
    pgvector_rig: PostgresRig,
) -> None:
    url = pgvector_rig.database("beside")
    pgvector_rig.query("CREATE EXTENSION vector SCHEMA public", "beside")
    made = (
        *(("length(tsvector)", "int"), ("tsvector_to_array(tsvector)", "text[]")),
        # The server's own take a configuration before the text: these would fit better.
        *(("to_tsvector(text, text)", "tsvector"), ("plainto_tsquery(text, text)", "tsquery")),
    )
    for name, returns in made:
        body = f"CREATE FUNCTION public.{name} RETURNS {returns} LANGUAGE plpgsql AS"
        pgvector_rig.query(f"{body} 'BEGIN RAISE ''called''; END'", "beside")
    async with opened(url) as stores:
        store = await made_store(stores)
        await put(stores, store, "one", {"red fox": [1, 0]})
        assert await stores.with_words([store], ["fox"], 5) == [1]


async def test_a_word_that_was_too_common_is_not_looked_at_again(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmop.workloads.retrieval.pgvector.MOST_WITH_A_WORD", 1)
    async with opened(pgvector_rig.database("common")) as stores:
        store = await made_store(stores)
        await put(stores, store, "one", {"the fox": [1, 0], "the whale": [0, 1]})
        assert await stores.with_words([store], ["the", "fox"], 5) == [1]
        sent = []
        read = stores._postgres.read

        async def noted(work: Callable[[Connection], T]) -> T:
            return await read(lambda connection: work(Noted(connection, sent)))

        monkeypatch.setattr(stores._postgres, "read", noted)
        assert await stores.with_words([store], ["the", "whale"], 5) == [2]
        assert await stores.with_words([store], ["the"], 5) == []
        assert [["whale"]] == sent
        await put(stores, store, "two", {"a dog": [1, 1]})  # nothing went: it is not less common
        assert await stores.with_words([store], ["the", "dog"], 5) == [3]
        assert ["dog"] == sent[-1]


class Noted:
    """A connection that notes the first value of each statement."""

    def __init__(self, connection: Connection, sent: list[object]) -> None:
        self._connection = connection
        self._sent = sent

    def execute(self, statement: str, values: Sequence[object] = (), /) -> Rows:
        self._sent.append(values[0])
        return self._connection.execute(statement, values)


async def test_the_extension_may_lie_in_a_schema_of_any_name(pgvector_rig: PostgresRig) -> None:
    url = pgvector_rig.database("oddly")
    schema = '"an ""odd"" 100% name?"'
    pgvector_rig.query(f"CREATE SCHEMA {schema}; CREATE EXTENSION vector SCHEMA {schema}", "oddly")
    for _ in range(2):  # made, and found
        async with opened(url) as stores:
            store = await stores.find("vs_a") or await made_store(stores)
            await put(stores, store, "one", {"red fox": [1, 0]})
            assert [*(await stores.compare([store], VECTOR[None], 5, ())).scores.values()] == [1.0]


def sleep(connection: Connection) -> object:
    return connection.execute("SELECT pg_sleep(60)").fetchone()


def pid(connection: Connection) -> int:
    found: int = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    return found


async def test_a_statement_has_a_bound_and_the_sites_own_counts_before_ours(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = pgvector_rig.database("slow")
    monkeypatch.setattr(postgres, "_READ_S", 1)
    monkeypatch.setattr(postgres, "_WRITE_S", 1)
    async with opened(url) as stores:
        store = await made_store(stores)
        for run in (stores._postgres.read, stores._postgres.write):
            with pytest.raises(TooSlow, match="statement_timeout") as raised:
                await run(sleep)
            assert raised.value.setting == "statement_timeout"
        assert await stores.find("vs_a") == store
    monkeypatch.setattr(postgres, "_READ_S", 600)
    pgvector_rig.query("ALTER DATABASE slow SET statement_timeout = '300ms'")
    async with opened(url) as stores:
        with pytest.raises(TooSlow, match="statement_timeout"):
            await stores._postgres.read(sleep)
    async with opened(f"{url}&options=-c%20statement_timeout%3D5s") as stores:
        said = await stores._postgres.read(lambda each: each.execute("SHOW statement_timeout").fetchone())
    assert said == ("5s",)


async def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none?connect_timeout=2"
        with pytest.raises(TooSlow, match="connect_timeout") as raised:
            async with opened(url):
                pass
    assert raised.value.setting == "connect_timeout"


async def test_a_lock_of_somebody_else_is_not_waited_for_for_ever(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = pgvector_rig.database("locked")
    monkeypatch.setattr(postgres, "_LOCK_WAIT_S", 1)
    async with opened(url) as stores:
        store = await made_store(stores)
        document = await put(stores, store, "one", {"a": [1, 0]})
        with psycopg.connect(**postgres.address(url).parameters) as other:
            other.execute("LOCK TABLE llmop_vectors.passages IN ACCESS EXCLUSIVE MODE")
            for attempt in (stores.kept(document), stores.clear(document)):
                with pytest.raises(TooSlow, match="lock_timeout") as raised:
                    await attempt
                assert raised.value.setting == "lock_timeout"
        assert await stores.kept(document) == ["a"]


async def test_a_server_that_stands_still_is_given_up(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_READ_S", 1)
    monkeypatch.setattr(postgres, "_GRACE_S", 0)
    async with opened(pgvector_rig.database("still")) as stores:
        store = await made_store(stores)
        stopped = []

        def stop_and_ask(connection: Connection) -> object:
            stopped.append(pid(connection))
            os.kill(stopped[0], signal.SIGSTOP)
            return connection.execute("SELECT 1").fetchone()

        try:
            with pytest.raises(TooSlow, match="nothing came in 1 s"):
                await stores._postgres.read(stop_and_ask)
        finally:
            os.kill(stopped[0], signal.SIGCONT)
        assert await stores.find("vs_a") == store


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_takes_not_every_letter_is_refused(
    pgvector_rig: PostgresRig, encoding: str
) -> None:
    """SQL_ASCII is what initdb makes of LANG=C."""
    url = pgvector_rig.database("letters")
    pgvector_rig.query("DROP DATABASE letters")
    pgvector_rig.query(f"CREATE DATABASE letters ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    words = await refused(url)
    assert words.startswith("WrongEncoding ")
    assert f"has the encoding {encoding}" in words
    assert "ENCODING 'UTF8' TEMPLATE template0" in words


async def test_letters_are_what_they_are_whatever_the_environment_says(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    async with opened(pgvector_rig.database("client")) as stores:
        store = await made_store(stores)
        document = await put(stores, store, "one", {"Łódź €": [1, 0]})
        assert await stores.kept(document) == ["Łódź €"]


async def test_a_server_without_the_extension_is_refused_with_the_package_that_brings_it() -> None:
    with PostgresRig(pgvector=True) as rig:
        url = rig.database("bare")
        major = rig.query("SHOW server_version").partition(".")[0]
        rig.take_pgvector_away()
        assert f"the package postgresql-{major}-pgvector" in await refused(url)


async def test_a_newer_schema_another_installation_and_a_second_process_are_refused(
    pgvector_rig: PostgresRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = pgvector_rig.database("owned")
    async with opened(url) as stores:
        await made_store(stores)
        monkeypatch.setattr(postgres, "_LOCK_WAIT_S", 1)
        assert "InUse" in await refused(url)
        monkeypatch.setattr(postgres, "_LOCK_WAIT_S", 60)
        assert "InUse" in await refused(f"{url}&options=-c%20statement_timeout%3D500ms")
    async with opened(url) as stores:
        assert await stores.find("vs_a") is not None
    assert "DROP SCHEMA llmop_vectors CASCADE" in await refused(url, "there")
    pgvector_rig.query("UPDATE llmop_vectors.about SET format = 2", "owned")
    assert "made by a newer llmop" in await refused(url)


async def test_a_server_that_goes_away_loses_nothing_and_doubles_nothing(pgvector_rig: PostgresRig) -> None:
    async with opened(pgvector_rig.database("away")) as stores:
        store = await made_store(stores)
        await stores.put(store, [wanted(store, "one")])
        document = await stores.document(store, "one")
        assert document is not None
        rows = [Row(Passage(f"p{place}"), f"p{place}", VECTOR.tobytes()) for place in range(4)]
        assert await stores.keep(document, 0, rows[:2])
        pgvector_rig.kill_server()
        try:
            for attempt in (
                stores.keep(document, 2, rows[2:]),
                stores.kept(document),
                stores.compare([store], VECTOR[None], 5, ()),
                stores.with_words([store], ["p1"], 5),
            ):
                with pytest.raises(Unavailable, match="does not answer"):
                    await attempt
        finally:
            pgvector_rig.start_server()
        assert await stores.kept(document) == ["p0", "p1"]
        assert await stores.keep(document, 0, rows)
        await stores.end(document)
        assert await stores.kept(document) == ["p0", "p1", "p2", "p3"]
        assert (await stores.counts(store)) == ({Status.COMPLETED: 1}, 4 * (2 + 8))
        assert len((await stores.compare([store], VECTOR[None], 9, ())).scores) == 4


async def test_one_that_starts_while_the_server_is_away_begins_when_it_is_back(
    pgvector_rig: PostgresRig,
) -> None:
    stores = PgvectorStores(pgvector_rig.database("late"), "here")
    pgvector_rig.kill_server()
    try:
        with pytest.raises(Unavailable):
            await stores.prepare()
        with pytest.raises(Unavailable):
            await stores.find("vs_a")
    finally:
        pgvector_rig.start_server()
    assert await stores.find("vs_a") is None
    await made_store(stores)
    pgvector_rig.query("DROP SCHEMA llmop_vectors CASCADE", "late")
    with pytest.raises(Unavailable, match="are gone"):
        await stores.find("vs_a")
    await stores.close()


_KEEPER = """
    import asyncio, sys
    import numpy as np
    from llmop.workloads.retrieval.chunks import Passage
    from llmop.workloads.retrieval.pgvector import PgvectorStores
    from llmop.workloads.retrieval.stores import Row

    async def main(url):
        stores = PgvectorStores(url, "here")
        await stores.prepare()
        ((number, _, _),) = await stores.due(1)
        document, _ = await stores.begin(number, counts=True)
        begun = len(await stores.kept(document))
        vector = np.array([1, 0], dtype=np.float32).tobytes()
        for place in range(begun, 1_000_000):
            await stores.keep(document, place, [Row(Passage(f"p{place}"), f"p{place}", vector)])
            print(place, flush=True)

    asyncio.run(main(sys.argv[1]))
"""


async def test_a_process_that_is_killed_while_it_writes_is_followed_by_one_that_goes_on(
    pgvector_rig: PostgresRig,
) -> None:
    url = pgvector_rig.database("killed")
    async with opened(url) as stores:
        store = await made_store(stores)
        await stores.put(store, [wanted(store, "one")])
    told = 0
    for _ in range(3):
        with subprocess.Popen(  # noqa: ASYNC220  # asyncio's forks in full
            [sys.executable, "-c", textwrap.dedent(_KEEPER), url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = await asyncio.to_thread(process.stdout.readline)
            assert int(first) in (told, told + 1)  # the last one may have been kept and not told
            for _ in range(30):
                told = int(await asyncio.to_thread(process.stdout.readline)) + 1
            process.kill()
            told = max([told, *(int(line) + 1 for line in process.stdout if line.endswith("\n"))])
    async with opened(url) as stores:
        document = await stores.document(store, "one")
        assert document is not None
        kept = await stores.kept(document)
        assert kept == [f"p{place}" for place in range(len(kept))]
        assert len(kept) in (told, told + 1)
        number = sum(len(text) + 8 for text in kept)
        assert document.size == number
        await stores.end(document)
        found = await stores.compare([store], VECTOR[None], 10_000, ())
        assert len(found.scores) == len(kept)
