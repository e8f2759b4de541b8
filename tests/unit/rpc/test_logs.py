"""Logs of replicas, read from the shared directory and from nowhere else."""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.control import manifests
from tests.control.rig import Rig, serving
from tests.waiting import PATIENCE_S

from llmop.api.v1 import logs_pb2
from llmop.domain import resources
from llmop.rpc import logs
from llmop.store import interface
from llmop.testing import builders as make
from llmop.testing.memory_store import MemoryStore

JOB = logs_pb2.TailRequest.SOURCE_JOB


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A server whose cluster shares tmp_path, with a replica named chat-1."""
    async with serving(MemoryStore(), tmp_path) as running:
        await running.apply(manifests.cluster(shared_dir=str(tmp_path)))
        replica = resources.Resource(
            kind=resources.REPLICA,
            name="chat-1",
            namespace="default",
            uid="uid-1",
            spec={"cluster": "default"},
            status={"phase": "Ready"},
        )
        await running.store.commit([interface.Create(resource=replica)])
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "replicas" / "chat-1"
    made.mkdir(parents=True)
    return made


def tail(rig: Rig, replica: str = "chat-1", **request: Any) -> Any:
    return rig.logs.Tail(logs_pb2.TailRequest(namespace="default", replica=replica, **request))


async def everything(call: Any) -> str:
    return b"".join([answer.data async for answer in call]).decode()


async def code(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await everything(call)
    return str(raised.value.code().name)


class Reader:
    """Collects a followed log until it holds what a test waits for."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._text = ""

    async def until(self, end: str) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while not self._text.endswith(end):
                self._text += (await self._call.read()).data.decode()
        return self._text


async def end(rig: Rig) -> None:
    live = await rig.store.get(resources.REPLICA, "default", "chat-1")
    await rig.store.commit(
        [
            interface.WriteStatus(
                kind=live.kind,
                namespace="default",
                name="chat-1",
                uid=live.uid,
                expected_version=live.resource_version,
                status={"phase": "Ended", "end": {"reason": "Drained"}},
            )
        ]
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(None, "one\ntwo\nthree"), (0, ""), (1, "three"), (2, "two\nthree"), (9, "one\ntwo\nthree")],
)
async def test_the_last_lines_are_sent(rig: Rig, directory: Path, lines: int | None, expected: str) -> None:
    (directory / "engine.log").write_text("one\ntwo\nthree")
    assert expected == await everything(tail(rig, lines=lines))
    (directory / "engine.log").write_text("one\ntwo\nthree\n")
    assert (expected and expected + "\n") == await everything(tail(rig, lines=lines))


async def test_the_last_lines_of_a_large_file_are_found(rig: Rig, directory: Path) -> None:
    text = "".join(f"line {index} {'x' * 100}\n" for index in range(5000))
    (directory / "engine.log").write_text(text)
    assert "".join(text.splitlines(keepends=True)[-3000:]) == await everything(tail(rig, lines=3000))
    (directory / "engine.log").write_text("y" * (3 * logs.CHUNK))
    assert "y" * (3 * logs.CHUNK) == await everything(tail(rig, lines=1))


async def test_the_log_of_the_job_is_another_file(rig: Rig, directory: Path) -> None:
    (directory / "job.log").write_text("batch")
    assert "batch" == await everything(tail(rig, source=JOB))
    assert "NOT_FOUND" == await code(tail(rig))


async def test_a_followed_log_goes_on_until_the_replica_has_ended(rig: Rig, directory: Path) -> None:
    call = tail(rig, follow=True)
    reader = Reader(call)
    log = directory / "engine.log"
    log.write_text("one\n")
    assert "one\n" == await reader.until("one\n")
    with log.open("a") as file:
        file.write("two\n")
    assert "one\ntwo\n" == await reader.until("two\n")
    await end(rig)
    assert grpc.aio.EOF is await asyncio.wait_for(call.read(), 10)


async def test_a_followed_log_survives_rotation_and_truncation(rig: Rig, directory: Path) -> None:
    log = directory / "engine.log"
    log.write_text("first\n")
    reader = Reader(tail(rig, follow=True))
    await reader.until("first\n")
    with log.open("a") as file:
        log.rename(directory / "engine.log.1")
        file.write("late\n")
    fresh = directory / "fresh"
    fresh.write_text("second\n")
    fresh.rename(log)
    assert "first\nlate\nsecond\n" == await reader.until("second\n")
    log.write_text("x\n")
    assert "first\nlate\nsecond\nx\n" == await reader.until("x\n")


async def test_a_followed_log_ends_when_the_replica_is_gone(rig: Rig, directory: Path) -> None:
    (directory / "engine.log").write_text("bye\n")
    live = await rig.store.get(resources.REPLICA, "default", "chat-1")
    call = tail(rig, follow=True)
    await Reader(call).until("bye\n")
    await rig.store.commit(
        [interface.Remove(kind=live.kind, namespace="default", name="chat-1", uid=live.uid)]
    )
    assert grpc.aio.EOF is await asyncio.wait_for(call.read(), 10)


@pytest.mark.parametrize("replica", ["../secret", "", "chat-1/../../etc", "nobody"])
async def test_only_names_of_stored_replicas_become_paths(rig: Rig, tmp_path: Path, replica: str) -> None:
    (tmp_path / "replicas" / "secret").mkdir(parents=True)
    (tmp_path / "replicas" / "secret" / "engine.log").write_text("no")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "engine.log").write_text("no")
    assert "NOT_FOUND" == await code(tail(rig, replica=replica))


async def test_links_pipes_and_directories_are_refused(rig: Rig, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    log = directory / "engine.log"
    log.symlink_to(tmp_path / "key")
    assert "FAILED_PRECONDITION" == await code(tail(rig))
    log.unlink()
    os.mkfifo(log)
    assert "FAILED_PRECONDITION" == await code(tail(rig))
    log.unlink()
    log.mkdir()
    assert "FAILED_PRECONDITION" == await code(tail(rig))


async def test_a_negative_number_of_lines_is_a_bad_request(rig: Rig) -> None:
    assert "INVALID_ARGUMENT" == await code(tail(rig, lines=-1))


async def test_a_replica_whose_cluster_is_gone_has_no_log(rig: Rig) -> None:
    live = await rig.store.get(resources.REPLICA, "default", "chat-1")
    moved = dataclasses.replace(live, spec={"cluster": "elsewhere"})
    await rig.store.commit([interface.Update(resource=moved, expected_version=live.resource_version)])
    assert "NOT_FOUND" == await code(tail(rig))


def times(directory: Path, *marks: str) -> None:
    (directory / "engine.log.times").write_text("".join(f"{mark}\n" for mark in marks))


@pytest.mark.parametrize(
    ("since", "lines", "expected"),
    [
        (50, None, "one\ntwo\nthree\nfour\n"),
        (100, None, "two\nthree\nfour\n"),
        (
            119,
            None,
            "two\nthree\nfour\n",
        ),  # to within the period of the marks: rather too much than too little
        (120, None, "four\n"),  # in the middle of a line: from the next one
        (130, None, ""),
        (100, 1, "four\n"),
        (120, 9, "four\n"),
    ],
)
async def test_what_was_written_since_is_sent(
    rig: Rig, directory: Path, since: float, lines: int | None, expected: str
) -> None:
    (directory / "engine.log").write_text("one\ntwo\nthree\nfour\n")
    times(directory, "90 0 start", "100 4", "120 11", "130 19", "torn")
    assert expected == await everything(tail(rig, since=since, lines=lines))


async def test_a_log_without_times_says_so(rig: Rig, directory: Path) -> None:
    (directory / "engine.log").write_text("one\n")
    assert "FAILED_PRECONDITION" == await code(tail(rig, since=5))
    (directory / "job.log").write_text("one\n")
    assert "INVALID_ARGUMENT" == await code(tail(rig, since=5, source=JOB))
    (directory / "engine.log.times").symlink_to(directory / "job.log")
    assert "FAILED_PRECONDITION" == await code(tail(rig, since=5))


async def test_the_run_before_the_restart_is_sent(rig: Rig, directory: Path) -> None:
    (directory / "engine.log").write_text("old 1\nold 2\nnew\n")
    times(directory, "90 0 start", "95 6", "100 12 start")
    assert "old 1\nold 2\n" == await everything(tail(rig, previous=True))
    assert "old 2\n" == await everything(tail(rig, previous=True, lines=1))
    times(directory, "90 0 start")
    assert "NOT_FOUND" == await code(tail(rig, previous=True))
    assert "INVALID_ARGUMENT" == await code(tail(rig, previous=True, follow=True))


async def test_a_reader_goes_on_where_it_stopped(rig: Rig, directory: Path) -> None:
    log = directory / "engine.log"
    log.write_text("one\n")
    (answer,) = [each async for each in tail(rig)]
    assert (b"one\n", 4) == (answer.data, answer.offset)
    with log.open("a") as file:
        file.write("two\n")
    assert "two\n" == await everything(tail(rig, offset=answer.offset))
    log.write_text("x\n")
    assert "x\n" == await everything(tail(rig, offset=answer.offset))
    assert "INVALID_ARGUMENT" == await code(tail(rig, offset=-1))


async def test_the_log_of_a_replica_that_is_gone_is_still_there(rig: Rig, directory: Path) -> None:
    """As long as its submission is remembered, that is as long as its directory is kept."""
    gone = directory.parent / "chat-abcde"
    gone.mkdir()
    (gone / "engine.log").write_text("bye\n")
    assert "NOT_FOUND" == await code(tail(rig, replica="chat-abcde"))
    uid = make.uid_of(9)
    made = resources.Resource(
        kind=resources.REPLICA, name="chat-abcde", namespace="default", uid=uid, spec={"cluster": "default"}
    )
    ledger = interface.Ledger(
        replica_uid=uid,
        namespace="default",
        replica_name="chat-abcde",
        cluster="default",
        submission=make.submission("chat-abcde", uid),
        secrets=interface.Secrets(api_key="k", agent_token="t"),
    )
    await rig.store.commit([interface.Create(resource=made, ledger=ledger)])
    remove = interface.Remove(
        kind=made.kind, namespace="default", name=made.name, uid=made.uid, tombstoned_at=1.0
    )
    await rig.store.commit([remove])
    assert "bye\n" == await everything(tail(rig, replica="chat-abcde"))
    assert "bye\n" == await everything(tail(rig, replica="chat-abcde", follow=True))
