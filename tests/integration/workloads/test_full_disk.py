"""A disk that is really full, and directories and databases that cannot be used."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.gateway.rig import gateway_rig
from tests.integration.gateway.upstreams import Call
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import jsonl, row

BIN = Path(sys.executable).parent
ROWS = 30
ANSWER = b"x" * 100_000  # so that not all of them fit


class Disk:
    """A small file system in a mount namespace of its own, which outlives the processes that use it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        is_root = os.geteuid() == 0
        namespace = ("--mount",) if is_root else ("--mount", "--map-root-user")
        script = 'mount -t tmpfs -o size=12m,mode=700 tmpfs "$0" && echo mounted && exec sleep 300'
        self._holder = subprocess.Popen(
            ["unshare", *namespace, "sh", "-c", script, str(directory)], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert b"mounted\n" == self._holder.stdout.readline()
        join = ("--mount",) if is_root else ("--mount", "--user", "--preserve-credentials")
        self.prefix = ("nsenter", "--target", str(self._holder.pid), *join)
        self._inside = Path(f"/proc/{self._holder.pid}/root{directory}")
        self._ballast = self._inside / "ballast"

    def fill(self, *, but: int) -> None:
        """Leaves so many bytes."""
        room = os.statvfs(self._inside)
        self._ballast.write_bytes(b"x" * (room.f_bavail * room.f_frsize - but))

    def make_room(self) -> None:
        self._ballast.unlink()

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


@pytest.fixture
def disk(folder: Path) -> Iterator[Disk]:
    made = Disk(folder / "workloads")
    yield made
    made.end()


@pytest.fixture
async def workloads(folder: Path, disk: Disk) -> AsyncIterator[Workloads]:
    async with gateway_rig(folder, workloads=folder / "workloads.sock") as rig:
        made = Workloads(folder, rig)
        made.prefix = disk.prefix
        await made.start()
        try:
            yield made
        finally:
            await made.kill()


async def test_a_batch_waits_for_room_and_nothing_of_it_is_there_twice(
    workloads: Workloads, disk: Disk
) -> None:
    """Also over a kill -9 in the middle: a process starts on a full disk, too."""
    go = asyncio.Event()
    asked: Counter[str] = Counter()

    async def large(call: Call) -> None:
        asked[json.loads(call.body)["messages"][0]["content"]] += 1
        await go.wait()
        await call.answer(json.dumps({"echo": ANSWER.decode()}).encode())

    (engine,) = await workloads.rig.serve(large)
    content = jsonl(*map(row, range(ROWS)))
    name = await workloads.batch(content)
    await engine.until(lambda each: len(each.calls) == 4)
    disk.fill(but=500_000)
    go.set()
    full = {"waiting": "results cannot be recorded: database or disk is full"}
    before = await workloads.until(name, lambda batch: batch.get("llmop") == full)
    assert before["request_counts"]["completed"] < ROWS
    refused = await workloads.upload(b"x" * 3_000_000)
    assert (507, "insufficient_storage") == (refused.status_code, refused.json()["error"]["code"])
    assert "No space left on device" in refused.json()["error"]["message"]

    await workloads.kill(signal.SIGKILL)
    await workloads.start()
    again = await workloads.until(name, lambda batch: batch.get("llmop") == full)
    assert again["request_counts"]["completed"] >= before["request_counts"]["completed"]

    disk.make_room()
    shown = await workloads.completed(name)
    output = (await workloads.call("GET", f"/v1/files/{shown['output_file_id']}/content")).text
    assert [f"c{number}" for number in range(ROWS)] == [
        json.loads(line)["custom_id"] for line in output.splitlines()
    ]
    assert "llmop" not in shown
    assert {1, 2} >= set(asked.values())  # what was asked when it was killed is asked again, and once
    assert 200 == (await workloads.upload(b"x" * 100_000)).status_code


# What cannot be used is refused at the start


def refused(state: Path) -> str:
    """What `llmop workloads` says on its way out."""
    done = subprocess.run(
        [BIN / "llmop", "workloads", "--state-dir", str(state), "--gateway", f"unix:{state}/none"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(state.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 1 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def state(folder: Path) -> Path:
    made = folder / "state"
    (made / "workloads").mkdir(mode=0o700, parents=True)
    made.chmod(0o700)
    return made


def test_a_directory_that_others_may_enter_is_refused(state: Path) -> None:
    (state / "workloads").chmod(0o755)
    assert f"{state}/workloads: others may enter it (mode 0755); run: chmod 700 {state}/workloads" in refused(
        state
    )


@pytest.mark.parametrize(
    "content, words",
    [
        (b"no database " * 100, "file is not a database; it is no database of llmop: move it away"),
        (None, "unable to open database file; see that this file and its directory are yours"),
    ],
    ids=["something else", "a directory"],
)
def test_a_database_that_is_none_is_refused(state: Path, content: bytes | None, words: str) -> None:
    database = state / "workloads" / "workloads.db"
    if content is None:
        database.mkdir()
    else:
        database.write_bytes(content)
    assert f"error: {database}: {words}" in refused(state)


def test_a_place_for_files_that_is_none_is_refused(state: Path) -> None:
    (state / "workloads" / "files").touch()
    assert f"{state}/workloads/files" in refused(state)
