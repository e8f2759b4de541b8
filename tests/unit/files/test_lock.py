"""Whose turn it is: one holder at a time, and a vanished one is followed by exactly one."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from llmop.files import lock

ME = lock.Owner(token="me", host="login1", machine="boot-1 pid:[1]", pid=100, started=5000)
FAR = dataclasses.replace(ME, token="far", host="login2", machine="boot-2 pid:[1]")


@pytest.mark.parametrize(
    ("owner", "running", "unchanged_s", "is_gone"),
    [
        (
            dataclasses.replace(ME, token="old"),
            5000,
            1e6,
            False,
        ),  # it lives: a stopped process keeps its turn
        (dataclasses.replace(ME, token="old"), 0, 0.0, True),
        (dataclasses.replace(ME, token="old"), 6000, 0.0, True),  # its number has another owner
        (FAR, 0, lock.VANISHED_S - 1, False),  # on another machine its number says nothing
        (FAR, 5000, lock.VANISHED_S, True),
        (None, 0, lock.VANISHED_S - 1, False),
        (None, 0, lock.VANISHED_S, True),
    ],
)
def test_a_holder_is_gone_when_it_can_be_known(
    owner: lock.Owner | None, running: int, unchanged_s: float, is_gone: bool
) -> None:
    seen = lock.Seen(owner=owner, touched_ns=1)

    assert is_gone == lock.has_vanished(seen, ME, running, unchanged_s, lock.VANISHED_S)


def test_one_holds_it_until_it_lets_go(tmp_path: Path) -> None:
    first = lock.Lock(tmp_path / "x.lock", lock.myself())
    second = lock.Lock(tmp_path / "x.lock", lock.myself())

    assert first.take()
    assert not second.take()
    seen = second.look()
    assert seen is not None
    assert not second.is_gone(seen, 1e6)
    assert first.touch()
    first.release()
    assert second.take()
    assert not first.touch()
    first.release()
    assert second.is_mine()
    second.release()
    assert [] == list(tmp_path.iterdir())


def test_of_many_that_follow_a_vanished_holder_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    for _ in range(20):
        assert lock.Lock(path, FAR).take()
        seen = lock.Lock(path, ME).look()
        assert seen is not None
        start = threading.Barrier(8)
        followers = [lock.Lock(path, lock.myself()) for _ in range(8)]

        def follow(mine: lock.Lock, start: threading.Barrier = start, seen: lock.Seen = seen) -> None:
            start.wait()
            mine.bury(seen)
            while not mine.take() and not path.exists():
                pass

        threads = [threading.Thread(target=follow, args=(each,)) for each in followers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = [each for each in followers if each.is_mine()]
        assert 1 == len(holding)
        holding[0].release()
        assert [] == list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_read_is_seen_as_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert lock.Lock(path, FAR).take()
    (path / "owner.json").write_text("{")
    mine = lock.Lock(path, ME)

    seen = mine.look()
    assert seen is not None
    assert seen.owner is None
    assert mine.is_gone(seen, lock.VANISHED_S)
    mine.bury(seen)
    assert mine.take()


def test_a_holder_that_sweeps_leaves_its_own_lock_to_one_that_buries_it_too_hastily(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    mine = lock.Lock(path, ME)
    assert mine.take()
    left = lock.Lock(path.with_name("x.lock.killed"), FAR)
    assert left.take()
    grave = path.with_name("x.lock.hasty")
    path.rename(grave)  # for a moment, until it sees whose it is

    mine.sweep()
    grave.rename(path)
    assert mine.is_mine()
    assert [path] == list(tmp_path.iterdir())
