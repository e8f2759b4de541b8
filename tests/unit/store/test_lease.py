"""A database between machines: theirs who show that they live, and nobody's who cannot."""

import dataclasses
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import until

from llmop.domain import errors
from llmop.files import lock
from llmop.store import lease

FAR = lock.Owner(token="far", host="login2", machine="boot-2 pid:[1]", pid=4711, started=5000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SILENT_S", 0.4)
    monkeypatch.setattr(lease, "LOOK_S", 0.02)
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)


@pytest.fixture
def far(tmp_path: Path) -> lock.Lock:
    """The lease of a process on another machine."""
    held = lock.Lock(tmp_path / "store.db.lease", FAR)
    assert held.take()
    return held


@pytest.fixture
def alive(far: lock.Lock) -> Iterator[None]:
    """That process renews it."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.02):
            far.touch()

    thread = threading.Thread(target=renew)
    thread.start()
    yield
    over.set()
    thread.join()


async def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    held.check()
    assert ["store.db.lease"] == [path.name for path in tmp_path.iterdir()]
    held.release()
    held.release()
    assert [] == list(tmp_path.iterdir())


async def test_one_process_has_it_once(tmp_path: Path) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    with pytest.raises(errors.NeedsUser, match=rf"in use by another controller \(pid {os.getpid()} on"):
        await lease.Lease.take(tmp_path / "store.db")
    held.check()
    held.release()


@pytest.mark.usefixtures("alive")
async def test_a_holder_on_another_machine_that_lives_is_named(tmp_path: Path, far: lock.Lock) -> None:
    with pytest.raises(errors.NeedsUser, match="pid 4711 on login2") as raised:
        await lease.Lease.take(tmp_path / "store.db")
    assert "StoreInUse" == raised.value.reason
    assert far.is_mine()


async def test_a_silent_holder_on_another_machine_is_waited_for_and_then_followed(
    tmp_path: Path, far: lock.Lock, caplog: pytest.LogCaptureFixture
) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    assert "was held by pid 4711 on login2: waiting" in caplog.text
    assert not far.touch()
    held.check()
    held.release()


@pytest.fixture
def gone() -> int:
    """The number of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


async def test_a_process_of_this_machine_that_is_gone_is_followed_at_once(
    tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENT_S", 1e9)
    dead = dataclasses.replace(lock.myself(), token="dead", pid=gone, started=1)
    assert lock.Lock(tmp_path / "store.db.lease", dead).take()
    held = await lease.Lease.take(tmp_path / "store.db")
    held.release()


async def test_who_has_lost_it_is_deposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    other = lock.Lock(tmp_path / "store.db.lease", FAR)
    seen = other.look()
    assert seen is not None
    other.bury(seen)
    assert other.take()
    monkeypatch.setattr(lease, "TRUSTED_S", 0.0)
    for _ in range(2):
        with pytest.raises(errors.Deposed, match="was taken by another controller"):
            held.check()
    held.release()
    assert other.is_mine(), "what is the other's is not given back"


async def test_who_cannot_renew_it_for_long_stops_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    monkeypatch.setattr(lease, "TRUSTED_S", 0.0)
    with monkeypatch.context() as patch:

        def fails(_path: Path) -> bytes:
            raise OSError(5, "Input/output error")

        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(errors.Unavailable, match="cannot be renewed: Input/output error"):
            held.check()
    held.check()
    held.release()


async def test_of_two_that_wait_for_a_silent_holder_the_slower_one_leaves_it_to_the_other(
    tmp_path: Path, far: lock.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lock.Lock(far.path, dataclasses.replace(FAR, token="other", host="login3"))
    bury, look = lock.Lock.bury, lock.Lock.look

    def is_late(mine: lock.Lock, seen: lock.Seen) -> None:
        monkeypatch.setattr(lock.Lock, "bury", bury)
        monkeypatch.setattr(lock.Lock, "look", sees_it_alive)
        other.bury(seen)
        assert other.take()
        mine.bury(seen)

    def sees_it_alive(mine: lock.Lock) -> lock.Seen | None:
        seen = look(mine)
        other.touch()
        return seen

    monkeypatch.setattr(lock.Lock, "bury", is_late)
    with pytest.raises(errors.NeedsUser, match="on login3"):
        await lease.Lease.take(tmp_path / "store.db")
    assert other.is_mine()


async def test_it_is_renewed_again_after_a_hasty_follower_has_put_it_back(tmp_path: Path) -> None:
    held = await lease.Lease.take(tmp_path / "store.db")
    path, grave = tmp_path / "store.db.lease", tmp_path / "store.db.lease.hasty"
    path.rename(grave)
    await until(lambda: held._renewed_at < 0)
    grave.rename(path)
    await until(lambda: held._renewed_at > 0)
    held.check()
    held.release()
