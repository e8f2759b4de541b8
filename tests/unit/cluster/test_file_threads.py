"""File access with an end."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmop.cluster import file_threads


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_threads, "PATIENCE_S", 0.1)


async def test_what_hangs_is_given_up_and_what_waits_behind_it_is_never_begun() -> None:
    threads = file_threads.FileThreads("test")
    hangs, begun = threading.Event(), []
    try:
        with pytest.raises(TimeoutError, match=r"does not answer within 0\.1 s"):
            await threads.run(hangs.wait)
        with pytest.raises(TimeoutError):
            await threads.run(begun.append, "second")
    finally:
        hangs.set()
    await threads.run(begun.append, "third")
    assert ["third"] == begun


async def test_one_place_that_hangs_takes_nothing_from_another() -> None:
    hangs = threading.Event()
    places = [file_threads.FileThreads(f"test-{number}") for number in range(20)]
    try:
        waiting = [asyncio.ensure_future(place.run(hangs.wait)) for place in places]
        assert "here" == await file_threads.FileThreads("other").run(lambda: "here")
        assert all(
            isinstance(each, TimeoutError) for each in await asyncio.gather(*waiting, return_exceptions=True)
        )
    finally:
        hangs.set()


async def test_what_goes_wrong_is_told_as_it_is() -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/x")

    with pytest.raises(PermissionError):
        await file_threads.FileThreads("test").run(refuse)


_HANGS = """
import asyncio, sys
from llmop.cluster import file_threads

file_threads.PATIENCE_S = 0.1

async def main():
    try:
        await file_threads.FileThreads("test").run(open, sys.argv[1])
    except TimeoutError:
        print("ends")

asyncio.run(main())
"""


def test_the_interpreter_ends_without_those_that_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nobody-writes-here")
    done = subprocess.run(
        [sys.executable, "-c", _HANGS, str(tmp_path / "nobody-writes-here")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "ends\n", "") == (done.returncode, done.stdout, done.stderr)


async def test_several_threads_work_at_the_same_time_and_go_when_nobody_can_ask_any_more() -> None:
    threads = file_threads.FileThreads("pair", 2)
    together = threading.Barrier(2)
    await asyncio.gather(threads.run(together.wait, 30), threads.run(together.wait, 30))
    at_work = [each for each in threading.enumerate() if each.name.startswith("pair-")]
    assert 2 == len(at_work)
    del threads
    for each in at_work:
        each.join(30)
        assert not each.is_alive()
