"""The store on a real FUSE file system, found out by itself: slower, never two controllers, and whole after every end."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.test_store_sqlite import LOOP, check_kill_9, check_one_locked_connection, start, thing
from tests.rigs.bindfs import Bindfs
from tests.rigs.errors import RigError

from llmop.domain import errors
from llmop.files import lock
from llmop.store import filesystem, lease, sqlite
from llmop.store.sql import SqlStore, open_store


def mount(source: Path, mounted: Path) -> Bindfs:
    try:
        return Bindfs(source, mounted).start()
    except RigError as error:
        pytest.fail(f"no FUSE mount: {error}", pytrace=False)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Bindfs]:
    """The directory `there`, seen over FUSE as `here`."""
    made = mount(tmp_path / "there", tmp_path / "here")
    yield made
    made.stop()


@pytest.fixture
async def store(far: Bindfs) -> AsyncIterator[SqlStore]:
    opened = await open_store(f"sqlite:///{far.mounted}/store.db")
    yield opened
    await opened.close()


def test_the_kind_of_a_real_mount_is_found_out(far: Bindfs) -> None:
    kind = filesystem.kind_of(far.mounted / "not/there/yet")
    assert kind.startswith("fuse")
    assert filesystem.is_shared(kind)
    assert not filesystem.is_shared(filesystem.kind_of(far.source))


async def test_it_warns_and_uses_a_rollback_journal_and_one_locked_connection(
    far: Bindfs, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store(f"sqlite:///{far.mounted}/store.db")
    (warning,) = [each.getMessage() for each in caplog.records if "shared file system" in each.getMessage()]
    assert "(fuse" in warning
    modes = {path.stat().st_mode & 0o777 for path in far.mounted.iterdir() if path.is_file()}
    assert {0o600} == modes
    await check_one_locked_connection(store, far.mounted / "store.db")


@pytest.mark.parametrize("commits", [1, 40])
async def test_kill_9_in_the_middle_leaves_whole_transactions_and_the_next_one_starts_at_once(
    far: Bindfs, commits: int
) -> None:
    await check_kill_9(f"sqlite:///{far.mounted}/store.db", commits)


async def test_two_controllers_on_one_mount_are_one_too_many(store: SqlStore, far: Bindfs) -> None:
    with pytest.raises(errors.NeedsUser, match=f"pid {os.getpid()} on") as raised:
        await open_store(f"sqlite:///{far.mounted}/store.db")
    assert "StoreInUse" == raised.value.reason
    await store.commit([thing("a")])


async def test_where_locks_do_not_reach_the_other_machine_the_lease_does(
    store: SqlStore, far: Bindfs, tmp_path: Path
) -> None:
    other = mount(far.source, tmp_path / "elsewhere")
    try:
        path = other.mounted / "store.db"
        sqlite.ProcessLock.take(path).release()  # it is free there
        with pytest.raises(errors.NeedsUser, match=f"pid {os.getpid()} on"):
            await open_store(f"sqlite:///{path}")
    finally:
        other.stop()
    await store.commit([thing("a")])


async def test_a_holder_that_is_followed_by_another_writes_no_more(
    store: SqlStore, far: Bindfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([thing("before")])
    monkeypatch.setattr(lease, "TRUSTED_S", 0.0)
    follower = lock.Lock(far.mounted / "store.db.lease", lock.myself())
    seen = follower.look()
    assert seen is not None
    follower.bury(seen)
    assert follower.take()
    with pytest.raises(errors.Deposed):
        await store.commit([thing("after")])
    with pytest.raises(errors.Deposed):
        await store.get("ModelDeployment", "team", "before")
    follower.release()


async def test_a_file_system_that_is_gone_makes_the_store_unavailable(far: Bindfs, store: SqlStore) -> None:
    await store.commit([thing("a")])
    far.break_down()
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            await store.commit([thing("b")])


async def test_what_was_acknowledged_before_a_file_system_went_is_there_when_it_is_back(far: Bindfs) -> None:
    url = f"sqlite:///{far.mounted}/store.db"
    with start(LOOP, url) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            assert writer.stdout.readline()
        far.break_down()
        acknowledged = 20 + len(writer.stdout.read().splitlines())  # it ends by itself
    assert 0 != writer.returncode
    far.stop()
    far.start()
    again = await open_store(url)
    assert acknowledged <= await again.revision() <= acknowledged + 1
    await again.close()
