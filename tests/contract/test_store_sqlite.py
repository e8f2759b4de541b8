"""What only a store on SQLite does: files, their modes and lock, crashes, and disks that refuse."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llmop.domain import errors, resources
from llmop.store import interface, sqlite
from llmop.store.sql import SqlStore, open_store


def thing(name: str, size: int = 0) -> interface.Create:
    return interface.Create(
        resource=resources.Resource(
            kind="ModelDeployment", namespace="team", name=name, uid=f"uid-{name}", spec={"x": "x" * size}
        )
    )


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


async def test_only_the_owner_can_read_what_it_makes(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "llmop"
    before = os.umask(0)
    try:
        store = await open_store(f"sqlite:///{folder}/store.db")
        await store.commit([thing("a")])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    expected = dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 384)
    assert expected == modes
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


async def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    store = await open_store(f"sqlite:///{path}")
    await store.close()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_everything_is_there_after_it_is_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    first = await open_store(url)
    name = await first.installation()
    await first.commit([thing("a")])
    epoch = await first.take_over("me", 0.0)
    await first.close()
    second = await open_store(url)
    assert name == await second.installation()
    assert "a" == (await second.get("ModelDeployment", "team", "a")).name
    assert [1] == [change.revision for change in await second.changes(0)]
    assert epoch + 1 == await second.take_over("me", 0.0)
    await second.close()


_HOLD = """
    import asyncio, sys
    from llmop.store.sql import open_store

    asyncio.run(open_store(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
"""


async def test_a_second_controller_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    holder = start(_HOLD, f"sqlite:///{path}")
    with holder:
        assert holder.stdout is not None
        assert "open\n" == holder.stdout.readline()
        with pytest.raises(
            errors.NeedsUser, match=rf"in use by another controller \(pid {holder.pid} on "
        ) as raised:
            await open_store(f"sqlite:///{path}")
        assert "StoreInUse" == raised.value.reason
        holder.kill()
    store = await open_store(f"sqlite:///{path}")
    await store.close()


async def test_one_process_does_not_open_a_database_twice(store: SqlStore, tmp_path: Path) -> None:
    with pytest.raises(errors.NeedsUser, match=f"pid {os.getpid()} on"):
        await open_store(f"sqlite:///{tmp_path}/store.db")
    await store.commit([thing("a")])


async def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/store.db")
    await store.close()
    with pytest.raises(errors.Unavailable, match="is closed"):
        await store.commit([thing("a")])


async def test_a_failed_opening_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database" * 100)
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="not an SQLite database: restore it from a backup"):
            await open_store(f"sqlite:///{path}")
    path.unlink()
    await (await open_store(f"sqlite:///{path}")).close()


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await open_store(f"sqlite:///{path}")).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(errors.NeedsUser, match="newer version of llmop") as raised:
        await open_store(f"sqlite:///{path}")
    assert "StoreTooNew" == raised.value.reason


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "store.db", "sqlite:///x.db?mode=ro"]
)
async def test_an_address_that_is_none_is_explained(url: str) -> None:
    with pytest.raises(errors.NeedsUser, match=r"say sqlite:////absolute/path or postgresql://"):
        await open_store(url)


async def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.Unavailable, match=r"can't be opened: \S+/file: (File exists|Not a directory)"):
        await open_store(f"sqlite:///{tmp_path}/file/store.db")


async def test_a_database_that_a_backup_holds_locked_is_unavailable_and_then_works_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    store = SqlStore(await sqlite.open_sqlite(path, patience=0.05))
    await store.commit([thing("a")])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.Unavailable, match="another process has it locked"):
        await store.commit([thing("b")])
    assert "a" == (await store.get("ModelDeployment", "team", "a")).name
    other.execute("ROLLBACK")
    other.close()
    await store.commit([thing("b")])
    await store.close()


_FILL = """
    import asyncio, resource, sys
    from llmop.domain import errors, resources
    from llmop.store import interface
    from llmop.store.sql import open_store

    def thing(number, size):
        return interface.Create(resource=resources.Resource(
            kind="Cluster", name=f"c{number}", uid=str(number), spec={"x": "x" * size}))

    async def main():
        store = await open_store(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        written = 0
        try:
            while written < 10_000:
                await store.commit([thing(written, 20_000), thing(f"{written}-twin", 20_000)])
                written += 1
        except errors.Unavailable as error:
            print(error)
        listing = await store.list("Cluster")
        assert listing.revision == written, (listing.revision, written)
        assert len(listing.items) == 2 * written
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        committed = await store.commit([thing("after", 10)])
        assert committed.revision == written + 1
        print("written again")
        await store.close()

    asyncio.run(main())
"""


def test_a_file_that_may_not_grow_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The same as a quota that is used up, as far as SQLite can see: a write fails with another error than ENOSPC."""
    url = f"sqlite:///{tmp_path}/store.db"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FILL), url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "is a quota used up, or the disk failing?" in done.stdout
    assert done.stdout.endswith("written again\n")


LOOP = """
    import asyncio, sys
    from llmop.domain import resources
    from llmop.store import interface
    from llmop.store.sql import open_store

    async def main():
        store = await open_store(sys.argv[1])
        number = 0
        while True:
            number += 1
            both = [interface.Create(resource=resources.Resource(
                kind="Cluster", name=f"c{number}-{twin}", uid=f"{number}-{twin}")) for twin in "ab"]
            committed = await store.commit(both, durable=number % 2 == 0)
            print(committed.revision, flush=True)

    asyncio.run(main())
"""


async def check_kill_9(url: str, commits: int) -> None:
    """Kills a writer after some commits and looks what the next one finds."""
    with start(LOOP, url) as writer:
        assert writer.stdout is not None
        for _ in range(commits):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = commits + len(writer.stdout.read().splitlines())
    store = await open_store(url)
    revision = await store.revision()
    assert acknowledged <= revision <= acknowledged + 1
    expected = sorted(f"c{number}-{twin}" for number in range(1, revision + 1) for twin in "ab")
    assert expected == [item.name for item in (await store.list("Cluster")).items]
    changes = await store.changes(0, limit=10_000)
    assert revision == changes[-1].revision
    assert sorted(range(1, revision + 1)) == sorted({change.revision for change in changes})
    committed = await store.commit([thing("after")])
    assert revision + 1 == committed.revision
    await store.close()


async def check_one_locked_connection(store: SqlStore, path: Path) -> None:
    """One connection does all for `store`, whose file is `path` on a shared file system, and nobody else gets in; closes it."""
    await asyncio.gather(
        *(store.commit([thing(f"a{number}")], durable=number % 2 == 0) for number in range(20)),
        *(store.list("ModelDeployment") for _ in range(20)),
    )
    assert 20 == len(await store.changes(0))
    assert {"store.db", "store.db.lock", "store.db.lease", "store.db-journal"} == {
        file.name for file in path.parent.iterdir()
    }
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM counter")
    other.close()
    await store.close()
    assert {"store.db", "store.db.lock"} == {file.name for file in path.parent.iterdir()}
    await (await open_store(f"sqlite:///{path}")).close()


@pytest.mark.parametrize("commits", [1, 7, 40, 150])
async def test_kill_9_in_the_middle_leaves_whole_transactions_and_all_that_were_acknowledged(
    tmp_path: Path, commits: int
) -> None:
    await check_kill_9(f"sqlite:///{tmp_path}/store.db", commits)


async def test_on_a_shared_file_system_one_connection_does_all_and_leaves_no_shared_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    await (await open_store(f"sqlite:///{path}")).close()  # left in WAL mode by a life on a local disk
    store = SqlStore(await sqlite.open_sqlite(path, shared=True))
    assert "lies on a shared file system" in caplog.text
    await check_one_locked_connection(store, path)


async def test_a_cancelled_commit_took_place_or_did_not_and_the_next_ones_go_on(store: SqlStore) -> None:
    for number in range(30):
        task = asyncio.ensure_future(store.commit([thing(f"a{number}"), thing(f"b{number}")]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await store.commit([thing("last")])
    items = (await store.list("ModelDeployment")).items
    names = {item.name for item in items} - {"last"}
    assert {name[1:] for name in names if name[0] == "a"} == {name[1:] for name in names if name[0] == "b"}
    assert await store.revision() == len(names) // 2 + 1


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away_is_missed_until_it_is_back(
    tmp_path: Path, shared: bool, replaced: bool
) -> None:
    """It would take what nobody ever reads again; and connections made later would find another one."""
    path, away = tmp_path / "store.db", tmp_path / "away.db"
    store = SqlStore(await sqlite.open_sqlite(path, shared=shared))
    await store.commit([thing("a")])
    await anext(store.watch(0))
    path.rename(away)
    if replaced:
        path.touch()
    what = "is another file than the one that was opened" if replaced else "is gone"
    for attempt in (store.changes(1), store.commit([thing("b")]), store.list("ModelDeployment")):
        with pytest.raises(errors.Unavailable, match=f"the store {path} {what}: put the file back"):
            await attempt
    if replaced:
        assert path.stat().st_size == 0
    else:
        assert not path.exists()

    away.rename(path)
    await store.commit([thing("c")])
    assert ["a", "c"] == sorted(each.name for each in (await store.list("ModelDeployment")).items)
    await store.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_what_was_committed_here_is_not_read_again_where_nobody_else_can_commit(
    tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await sqlite.open_sqlite(tmp_path / "store.db", shared=shared)
    store = SqlStore(opened)
    await store.commit([thing("a")])
    await anext(store.watch(0))
    made = await store.commit([thing("b")])
    reads = []

    async def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return await sqlite.Sqlite.read(opened, *arguments)

    monkeypatch.setattr(opened, "read", counted)
    assert made.changes == await store.changes(1)
    assert shared == bool(reads)
    assert ["a", "b"] == [change.resource.name for change in await store.changes(0)]
    await store.close()
