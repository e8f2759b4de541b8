"""llmctl as a process: terminals, pipes, signals, start-up, lost connections, the context file."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.control import manifests
from tests.integration.cli.conftest import World, conditions

import llmop
from llmop.domain import resources

READY = conditions(Ready=("True", "AllReplicasReady"))
LLMCTL = [sys.executable, "-m", "llmop.cli.main"]


def environment(**extra: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[3] / "controller"), "TERM": "xterm"} | extra


@contextlib.contextmanager
def started(world: World, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*LLMCTL, "--controller", world.address, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: IO[str] | None) -> str:
    """The next line, with a deadline."""
    assert stream is not None
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(60)
    assert found, "no line within a minute"
    return found[0]


def on_terminal(
    world: World, *arguments: str, answer: str = "", then: Callable[[], None] | None = None
) -> tuple[str, int]:
    """What the command shows on a terminal of its own, and its exit code; `then` runs once there is output."""
    terminal, other_side = pty.openpty()
    process = subprocess.Popen(
        [*LLMCTL, "--controller", world.address, *arguments],
        stdin=other_side,
        stdout=other_side,
        stderr=other_side,
        env=environment(),
        start_new_session=True,
    )
    os.close(other_side)
    shown = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.1)
            if not ready:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the other side is closed
                break
            shown += data
            if answer and b"[y/N]" in shown:
                os.write(terminal, answer.encode())
                answer = ""
            if then is not None:
                then()
                then = None
        return shown.decode(), process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def imported(*arguments: str) -> set[str]:
    """Which of the slow libraries a command imports."""
    program = (
        "import sys; from llmop.cli import main; from llmop.clock import SystemClock\n"
        f"main.run({list(arguments)!r}, SystemClock())\n"
        "print('|' + ' '.join(m for m in ('grpc', 'google.protobuf', 'pydantic', 'yaml', 'rich', 'sqlalchemy') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    )
    return set(done.stdout.rpartition("|")[2].split())


def test_version_and_help_import_no_slow_library() -> None:
    assert set() == imported("version", "--client")
    assert set() == imported("--help")
    assert set() == imported("get", "--help")


def test_version_of_the_client_needs_no_parser_either() -> None:
    """What the program llmctl itself imports: `llmop.cli.start` is its entry point."""
    program = (
        "import sys; before = set(sys.modules); sys.argv = ['llmctl', 'version', '--client']\n"
        "from llmop.cli import start; start.main(); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    )
    version, modules = done.stdout.splitlines()
    assert f"Client Version: {llmop.__version__}" == version
    assert {"gc", "llmop", "llmop.cli", "llmop.cli.start"} == set(modules.split())


def test_the_program_that_is_installed_says_the_same_as_the_parser() -> None:
    llmctl = Path(sys.executable).with_name("llmctl")
    for arguments in (("version", "--client"), ("version", "--client", "-o", "json"), ("get", "--help")):
        told = [
            subprocess.run(
                [*program, *arguments],
                capture_output=True,
                text=True,
                env=environment(),
                timeout=60,
                check=True,
            ).stdout
            for program in ([str(llmctl)], LLMCTL)
        ]
        assert told[0] == told[1]


def test_a_command_imports_what_it_uses_only(world: World) -> None:
    assert {"grpc", "google.protobuf"} == imported("--controller", world.address, "get", "md")
    file = world.directory / "chat.json"
    file.write_text(json.dumps(manifests.runtime()))
    assert {"grpc", "google.protobuf", "yaml"} == imported(
        "--controller", world.address, "apply", "-f", str(file)
    )


def test_progress_on_a_terminal_is_rewritten_in_place(world: World) -> None:
    world.base()
    file = world.directory / "chat.json"
    file.write_text(json.dumps(manifests.deployment()))

    def come_up() -> None:
        deadline = time.monotonic() + 30
        while (
            not world.do(world.store.list(resources.MODEL_DEPLOYMENT)).items and time.monotonic() < deadline
        ):
            threading.Event().wait(0.01)
        world.status(resources.MODEL_DEPLOYMENT, "chat", conditions=READY, readyReplicas=1)

    shown, code = on_terminal(world, "apply", "-f", str(file), "--wait", "--timeout=60s", then=come_up)
    assert 0 == code
    assert "modeldeployment.llmop/chat created" in shown
    assert "modeldeployment.llmop/chat ready" in shown
    assert "\x1b[" in shown


def test_data_goes_to_stdout_when_only_messages_go_to_a_terminal(world: World) -> None:
    world.base()
    world.add(manifests.deployment(), uid="uid-chat")
    world.status(resources.MODEL_DEPLOYMENT, "chat", conditions=READY, readyReplicas=1)
    terminal, other_side = pty.openpty()
    try:
        done = subprocess.run(
            [*LLMCTL, "--controller", world.address, "wait", "md/chat", "--for=condition=Ready"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=other_side,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
    finally:
        os.close(other_side)
        os.close(terminal)
    assert (0, "modeldeployment.llmop/chat condition met\n") == (done.returncode, done.stdout)


def test_delete_all_asks_on_a_terminal(world: World) -> None:
    for name in ("a", "b"):
        world.add(manifests.runtime(name), uid=f"uid-{name}")
    shown, code = on_terminal(world, "delete", "sr", "--all", answer="n\n")
    assert (202, True) == (code, "nothing was deleted" in shown)
    assert ["a", "b"] == [item.name for item in world.do(world.store.list(resources.SERVING_RUNTIME)).items]
    shown, code = on_terminal(world, "delete", "sr", "--all", answer="y\n")
    assert (0, True) == (code, 'servingruntime.llmop "b" deleted' in shown)
    assert () == world.do(world.store.list(resources.SERVING_RUNTIME)).items


def test_a_closed_stdout_ends_it_quietly(world: World) -> None:
    world.add(manifests.runtime(), uid="uid-runtime")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*LLMCTL, "--controller", world.address, "get", "sr", "-o", "json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (141, "") == (done.returncode, done.stderr)


def test_ctrl_c_ends_a_watch_at_once(world: World) -> None:
    world.add(manifests.runtime(), uid="uid-runtime")
    with started(world, "get", "sr", "-w") as process:
        assert line(process.stdout).startswith("NAME")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(60)
        assert process.stderr is not None
        assert "" == process.stderr.read()


def test_output_that_finds_no_room_is_no_fault_of_llmctl() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*LLMCTL, "version", "--client"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert "error: the output: No space left on device; make room on its disk\n" == ended.stderr
    assert 203 == ended.returncode


def test_an_abort_within_a_library_says_where(world: World) -> None:
    """gRPC aborts when it cannot go on; an end without a word helps nobody."""
    world.add(manifests.runtime(), uid="uid-runtime")
    with started(world, "get", "sr", "-w") as process:
        assert line(process.stdout).startswith("NAME")
        process.send_signal(signal.SIGABRT)
        assert -signal.SIGABRT == process.wait(60)
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith("Fatal Python error: Aborted"), said
    assert "cli/main.py" in said, said


def test_ctrl_c_ends_a_wait_at_once(world: World) -> None:
    with started(world, "wait", "md/chat", "--for=condition=Ready", "--timeout=1h") as process:
        assert "modeldeployment.llmop/chat: does not exist yet\n" == line(process.stderr)
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(60)


def test_ctrl_c_ends_a_followed_log_at_once(world: World) -> None:
    world.base()
    world.replica("chat-1", phase="Ready")
    log = world.directory / "shared" / "replicas" / "chat-1" / "engine.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\n")
    with started(world, "logs", "-f", "chat-1") as process:
        assert "one\n" == line(process.stdout)
        with log.open("a") as file:
            file.write("two\n")
        assert "two\n" == line(process.stdout)
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(60)


def test_a_watch_prints_what_changes(world: World) -> None:
    world.add(manifests.runtime("first"), uid="uid-first")
    with started(world, "get", "sr", "-w") as process:
        assert "NAME    ENGINE   PROTOCOLS   CONTAINER   AGE\n" == line(process.stdout)
        assert "first   first    openai      none        10m\n" == line(process.stdout)
        world.add(manifests.runtime("a-longer-one"), uid="uid-second")
        assert "a-longer-one   a-longer-one   openai      none        10m\n" == line(process.stdout)


def test_a_watch_of_labels_leaves_the_others_out(world: World) -> None:
    with started(world, "get", "md", "-w", "-l", "team=nlp", "-o", "name") as process:
        for name, team in (("a", "cv"), ("b", "nlp")):
            document = manifests.deployment(name)
            document["metadata"]["labels"] = {"team": team}
            world.add(document, uid=f"uid-{name}")
        assert "modeldeployment.llmop/b\n" == line(process.stdout)


def test_a_watch_goes_on_when_the_controller_comes_back(world: World) -> None:
    with started(world, "events", "-w") as process:
        world.event("Replica", "chat-1", "Submitted", "job 17", ago=0)
        assert line(process.stdout).startswith("LAST SEEN")
        assert "job 17" in line(process.stdout)
        world.restart()
        assert "the connection to the controller is lost; trying again\n" == line(process.stderr)
        world.event("Replica", "chat-1", "Ready", "the engine answers", ago=0)
        assert "the engine answers" in line(process.stdout)


def test_nobody_at_the_address_is_said_in_one_line(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/none.sock"
    done = subprocess.run(
        [*LLMCTL, "--controller", address, "get", "md"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    expected = f'The connection to the controller at {address} was refused - is it running? Start one with "llmop up".\n'
    assert (204, "", expected) == (done.returncode, done.stdout, done.stderr)


def test_a_controller_that_is_slow_to_greet_is_waited_for(world: World, tmp_path: Path) -> None:
    """The kernel takes the connection at once, the busy process answers it later."""
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as behind:
        door.bind(str(tmp_path / "slow.sock"))
        door.listen()
        behind.connect(world.address.removeprefix("unix://"))

        def serve() -> None:
            client, _ = door.accept()
            threading.Event().wait(1.0)
            with client:
                pipe(client, behind)

        server = threading.Thread(target=serve)
        server.start()
        done = subprocess.run(
            [*LLMCTL, "--controller", f"unix://{tmp_path}/slow.sock", "get", "md"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        server.join(20)
    assert (0, "No resources found in default namespace.\n") == (done.returncode, done.stderr)


def pipe(one: socket.socket, other: socket.socket) -> None:
    """Bytes in both directions until one side ends."""
    ends = {one: other, other: one}
    while True:
        readable, _, _ = select.select(list(ends), [], [], 20)
        for end in readable:
            with contextlib.suppress(OSError):
                data = end.recv(1 << 16)
                if data:
                    ends[end].sendall(data)
                    continue
            return
        if not readable:
            return


@pytest.mark.parametrize(
    ("arguments", "variable", "code"),
    [
        ((), "", 0),
        (("--context", "here"), "", 0),
        ((), "here", 0),
        (("--context", "away"), "here", 204),
        ((), "away", 204),
        (("--context", "nowhere"), "", 203),
    ],
)
def test_the_context_says_where_the_controller_is(
    world: World, tmp_path: Path, arguments: tuple[str, ...], variable: str, code: int
) -> None:
    folder = tmp_path / "config" / "llmop"
    folder.mkdir(parents=True)
    (folder / "contexts.yaml").write_text(
        f"currentContext: here\ncontexts:\n- {{name: here, controller: 'unix://{tmp_path}/run/control.sock'}}\n"
        "- {name: away, controller: 'unix:///nowhere.sock'}\n"
    )
    done = subprocess.run(
        [*LLMCTL, "get", "md", *arguments],
        capture_output=True,
        text=True,
        env=environment(XDG_CONFIG_HOME=str(tmp_path / "config"), LLMOP_CONTEXT=variable),
        timeout=60,
        check=False,
    )
    assert code == done.returncode, done.stderr
