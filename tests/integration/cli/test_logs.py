"""llmctl logs: one replica, all of a deployment, over their coming and going."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator

from tests.control import manifests
from tests.integration.cli.conftest import NOW, Transcript, World
from tests.integration.cli.test_processes import line, started
from tests.integration.cli.test_transcripts import MD, remove, running

from llmop.domain import resources
from llmop.store import interface
from llmop.testing import builders as make

SHARED = "shared/replicas"


def write(world: World, replica: str, text: str, file: str = "engine.log") -> None:
    path = world.directory / SHARED / replica / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        log.write(text)


def left(world: World, name: str, *, uid: int) -> None:
    """A replica that was there and is gone; its submission is remembered."""
    made = resources.Resource(
        kind=resources.REPLICA,
        name=name,
        namespace="default",
        uid=make.uid_of(uid),
        spec={"deployment": "chat", "cluster": "default"},
    )
    ledger = interface.Ledger(
        replica_uid=made.uid,
        namespace="default",
        replica_name=name,
        cluster="default",
        submission=make.submission(name, made.uid),
        secrets=interface.Secrets(api_key="k", agent_token="t"),
    )
    world.commit(interface.Create(resource=made, ledger=ledger))
    remove(world, resources.REPLICA, name)


def test_logs(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    running(world)
    write(world, "chat-aaaaa", "old\n")
    write(world, "chat-bbbbb", "one\ntwo\nthree")
    write(world, "chat-bbbbb", "batch\n", "job.log")
    transcript.run("logs", "chat-aaaaa")
    transcript.run("logs", "md/chat")
    transcript.run("logs", "md/chat", "--tail", "2", "--no-prefix")
    transcript.run("logs", "rep", "chat-bbbbb", "--source=job", "--prefix")
    transcript.run("logs", "md/chat", "--source=job")
    transcript.run("logs", "rep/nobody")
    transcript.run("logs", "rep/chat-aaaaa", "--source=job")
    transcript.run("logs", "cl/default")
    transcript.run("logs")
    world.add(manifests.deployment("idle"), uid="uid-idle")
    transcript.run("logs", "md/idle")
    transcript.run("logs", "md/nobody", "-f")
    transcript.run("logs", "md/chat", "-f", "-p")
    transcript.run("logs", "md/chat", "--tail", "some")


def test_logs_since_and_previous(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    running(world)
    write(world, "chat-aaaaa", "long ago\nrecently\nafter a restart\n")
    marks = ((NOW - 4000, "0 start"), (NOW - 3900, "9"), (NOW - 60, "18 start"), (NOW - 55, "34"))
    write(world, "chat-aaaaa", "".join(f"{at:.0f} {rest}\n" for at, rest in marks), "engine.log.times")
    transcript.run("logs", "chat-aaaaa", "--since=1h")
    transcript.run("logs", "chat-aaaaa", "--since=60s")
    transcript.run("logs", "chat-aaaaa", "--previous", "--tail=1")
    transcript.run("logs", "chat-aaaaa", "--since=1m", "--source=job")
    transcript.run("logs", "chat-aaaaa", "--since=soon")
    transcript.run("logs", "chat-aaaaa", "--since=-5s")
    write(world, "chat-bbbbb", "text\n")
    transcript.run("logs", "chat-bbbbb", "--since=5m")
    transcript.run("logs", "md/chat", "--previous")


def test_logs_after_the_end(transcript: Transcript) -> None:
    """Of a deployment without replicas, and of the replica that ended last, whether it is kept or gone."""
    world = transcript.world
    world.base()
    world.add(manifests.deployment("chat"), uid="uid-chat")
    left(world, "chat-ggggg", uid=7)
    world.event(resources.REPLICA, "chat-ggggg", "Preempted", "the job was preempted", ago=90)
    write(world, "chat-ggggg", "I was preempted\n")
    transcript.run("logs", "md/chat")
    transcript.run("logs", "rep/chat-ggggg")
    end = {"reason": "EngineCrashed", "at": "2025-10-09T08:53:00Z", "message": "signal 9"}
    world.replica("chat-kkkkk", phase="Ended", end=end)
    write(world, "chat-kkkkk", "I crashed\n")
    transcript.run("logs", "md/chat")
    world.replica("chat-lllll", phase="Ready", ready=True)
    write(world, "chat-lllll", "I live\n")
    transcript.run("logs", "md/chat")
    transcript.run("logs", "md/chat", "--previous")


@contextlib.contextmanager
def following(world: World, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with started(world, "logs", "-f", "md/chat", *arguments) as process:
        yield process


def test_a_deployment_is_followed_over_the_coming_and_going_of_its_replicas(world: World) -> None:
    world.base()
    world.add(manifests.deployment("chat"), uid="uid-chat")
    world.replica("chat-aaaaa", phase="Ready")
    world.replica("other-aaaaa", "other", phase="Ready")
    write(world, "other-aaaaa", "not mine\n")
    write(world, "chat-aaaaa", "1\n2\n")
    with following(world, "--tail=1") as process:
        assert "[chat-aaaaa] 2\n" == line(process.stdout)
        world.replica("chat-bbbbb", phase="Pending")
        assert "chat-bbbbb has come\n" == line(process.stderr)
        write(world, "chat-bbbbb", "hello\nhalf a ")
        assert "[chat-bbbbb] hello\n" == line(process.stdout)
        write(world, "chat-bbbbb", "line\n")
        assert "[chat-bbbbb] half a line\n" == line(process.stdout)
        write(world, "chat-aaaaa", "no line end")
        live = world.get(resources.REPLICA, "chat-aaaaa")
        world.commit(
            interface.WriteStatus(
                kind=live.kind,
                namespace="default",
                name=live.name,
                uid=live.uid,
                expected_version=live.resource_version,
                status={
                    "phase": "Ended",
                    "end": {
                        "reason": "Preempted",
                        "message": "for another job",
                        "at": "2025-10-09T08:53:00Z",
                    },
                },
            )
        )
        assert "[chat-aaaaa] no line end\n" == line(process.stdout)
        assert "chat-aaaaa has ended: Preempted: for another job\n" == line(process.stderr)
        remove(world, resources.REPLICA, "chat-aaaaa")
        remove(world, MD, "chat")
        remove(world, resources.REPLICA, "chat-bbbbb")
        assert "chat-bbbbb has ended\n" == line(process.stderr)
        assert 0 == process.wait(60)


def test_a_lost_connection_loses_and_repeats_no_line(world: World) -> None:
    world.base()
    world.add(manifests.deployment("chat"), uid="uid-chat")
    world.replica("chat-aaaaa", phase="Ready")
    write(world, "chat-aaaaa", "before\n")
    with following(world) as process:
        assert "[chat-aaaaa] before\n" == line(process.stdout)
        world.restart()
        write(world, "chat-aaaaa", "after\n")
        assert "[chat-aaaaa] after\n" == line(process.stdout)


def test_a_deployment_that_goes_while_the_command_begins_ends_it(world: World) -> None:
    world.base()
    world.add(manifests.deployment("chat"), uid="uid-chat")
    with following(world) as process:
        gone = threading.Event()

        def go() -> None:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if not gone.is_set():
                    remove(world, MD, "chat")
                    gone.set()
                threading.Event().wait(0.05)

        go()
        assert process.wait(60) in (0, 209)
