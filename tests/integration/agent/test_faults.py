"""What goes wrong on the node: crashes, hangs, strangers on the port, missing things."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.integration.agent.controller import FakeController, Json
from tests.integration.agent.rig import KEY, Rig, eventually


def listen(port: int = 0) -> socket.socket:
    """A stranger's server: it belongs to the test, not to the agent's processes."""
    stranger = socket.socket()
    try:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
    except OSError:
        stranger.close()
        raise
    return stranger


def test_killing_the_agent_ends_the_engine_and_its_children(rig: Rig, controller: FakeController) -> None:
    rig.engine["argv"].append("--child")
    agent = rig.start()
    controller.wait_for_phase("ready")
    eventually(lambda: len(rig.engines()) >= 2, what="the engine's child")
    agent.send_signal(signal.SIGKILL)
    agent.wait()

    eventually(lambda: not rig.engines(), what="the end of the engine")
    eventually(lambda: not list((rig.directory / "scratch").iterdir()), what="the end of its files")


def test_killing_the_guard_as_well_ends_everything(rig: Rig, controller: FakeController) -> None:
    rig.engine["argv"].append("--child")
    rig.engine["maxRestarts"] = 0
    agent = rig.start()
    controller.wait_for_phase("ready")
    eventually(lambda: len(rig.engines()) >= 2, what="the engine's child")
    with open(f"/proc/{agent.pid}/task/{agent.pid}/children") as file:
        guard = int(file.read())
    os.kill(guard, signal.SIGKILL)

    assert 70 == rig.end(agent)
    assert [] == rig.engines()


def test_a_crashed_engine_is_started_again_on_a_new_port_and_then_given_up(
    rig: Rig, controller: FakeController
) -> None:
    """Whoever was told the old port may still come there: it stays closed, for clients and for strangers."""
    agent = rig.start()
    old = controller.wait_for_phase("ready")["endpoint"]["port"]
    crash(rig, old)
    after = controller.wait_for_beat(lambda beat: beat["engineRestarts"] == 1 and beat["phase"] == "ready")
    new = after["endpoint"]["port"]
    assert old != new
    with pytest.raises(ConnectionRefusedError):
        rig.ask(old, "/health")
    for port in (old, new):
        with pytest.raises(OSError) as taken:
            listen(port)
        assert errno.EADDRINUSE == taken.value.errno

    rig.fault("crash")
    crash(rig, new)
    assert 70 == rig.end(agent)
    record = rig.record()
    assert ("EngineCrashed", 3) == (record["reason"], record["engineExitCode"])
    assert "the engine ended with status 3; it was restarted 1 times" == record["message"]


def crash(rig: Rig, port: int) -> None:
    with pytest.raises(OSError):
        rig.ask(port, "/crash")


def test_the_exit_record_shows_the_engines_last_lines_without_the_key(
    rig: Rig, controller: FakeController
) -> None:
    rig.engine["maxRestarts"] = 0
    rig.fault("crash")
    assert 70 == rig.end(rig.start())

    assert ["the engine fails with the key ***"] == rig.record()["logTail"]
    assert KEY not in controller.wait_for_phase("ended")["exit"]["logTail"][0]


def test_the_port_of_a_dead_engine_is_held_against_strangers(rig: Rig, controller: FakeController) -> None:
    rig.start()
    port = controller.wait_for_phase("ready")["endpoint"]["port"]
    crash(rig, port)
    waiting = controller.wait_for_beat(
        lambda beat: beat["phase"] == "starting" and beat["engineRestarts"] == 1
    )

    assert waiting["endpoint"] is None
    with pytest.raises(OSError) as taken:
        listen(port)
    assert errno.EADDRINUSE == taken.value.errno
    with pytest.raises(ConnectionRefusedError):
        rig.ask(port, "/health")


def chosen_port(rig: Rig) -> int:
    """The port of the engine that waits before it binds."""

    def found() -> int | None:
        for pid in rig.engines():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            except (
                FileNotFoundError,
                ProcessLookupError,
            ):  # a program on the way to the engine, which has ended
                continue
            if "--port" in words:
                return int(words[words.index("--port") + 1])
        return None

    port = eventually(found, what="the start of the engine")
    assert port is not None
    return port


def test_an_engine_whose_port_was_taken_gets_another_one_without_a_restart_being_counted(
    rig: Rig, controller: FakeController
) -> None:
    rig.engine["maxRestarts"] = 0
    rig.engine["health"]["period"] = 30  # the agent looks at the port only when the engine has ended
    wait = rig.fault("wait")
    rig.start()
    taken = chosen_port(rig)
    with listen(taken) as stranger:
        wait.unlink()
        ready = controller.wait_for_phase("ready")
        assert taken != ready["endpoint"]["port"]
        assert 0 == ready["engineRestarts"]
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_a_stranger_on_the_port_never_sees_a_probe(rig: Rig, controller: FakeController) -> None:
    wait = rig.fault("wait")
    rig.start()
    taken = chosen_port(rig)
    with listen(taken) as stranger:
        eventually(lambda: chosen_port(rig) != taken, what="a start on another port")
        wait.unlink()
        assert taken != controller.wait_for_phase("ready")["endpoint"]["port"]
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_an_engine_that_hangs_is_restarted(rig: Rig, controller: FakeController) -> None:
    rig.engine["health"]["timeout"] = 1
    rig.start()
    controller.wait_for_phase("ready")
    hang = rig.fault("hang")
    restart = controller.wait_for_beat(lambda beat: beat["engineRestarts"] == 1)
    assert "the engine failed 2 probes: /health answers " in restart["detail"]
    hang.unlink()
    controller.wait_for_beat(lambda beat: beat["engineRestarts"] == 1 and beat["phase"] == "ready")


def test_an_engine_that_works_too_hard_to_answer_is_unhealthy_but_left_alone(
    rig: Rig, controller: FakeController
) -> None:
    rig.engine["health"].update(timeout=1, failureThreshold=4)
    rig.start()
    controller.wait_for_phase("ready")
    busy = rig.fault("busy")
    controller.wait_for_phase("unhealthy")
    known = len(controller.beats)
    busy.unlink()

    ready = controller.wait_for_beat(lambda beat: beat["phase"] == "ready", after=known)
    assert 0 == ready["engineRestarts"]


def test_an_engine_that_refuses_its_warm_up_is_never_ready(rig: Rig, controller: FakeController) -> None:
    rig.engine["maxRestarts"] = 0
    rig.fault("refuse")
    assert 70 == rig.end(rig.start())

    assert "/generate answers 422" in rig.record()["message"]
    assert "ready" not in {beat["phase"] for beat in controller.beats}


def test_an_engine_that_is_not_ready_in_time_ends_the_job(rig: Rig) -> None:
    rig.engine["startupTimeout"] = 5
    rig.fault("loading")
    assert 124 == rig.end(rig.start())

    record = rig.record()
    assert "StartupTimeout" == record["reason"]
    assert "not ready within 5 s: loading: /health answers 503" in record["message"]


def test_what_is_missing_on_the_node_is_named(lonely: Rig) -> None:
    lonely.engine["requires"] = ["/nowhere/x.gguf", "/etc/passwd", "/nowhere/y.gguf"]
    assert 78 == lonely.end(lonely.start())

    assert "not on this node: /nowhere/x.gguf, /nowhere/y.gguf" == lonely.record()["message"]


def test_a_program_that_is_not_there_is_a_missing_artifact(lonely: Rig) -> None:
    lonely.engine["argv"] = ["/nowhere/llama-server", "--port", "{port}"]
    assert 78 == lonely.end(lonely.start())

    assert "/nowhere/llama-server: No such file or directory" in lonely.record()["message"]
    assert [] == list((lonely.directory / "scratch").iterdir())


def test_a_secret_file_that_others_may_read_is_refused_and_nothing_is_left(lonely: Rig) -> None:
    secrets = lonely.shared / "hf.env"
    secrets.write_text("A=b")
    secrets.chmod(0o644)
    lonely.engine["envFiles"] = [str(secrets)]
    assert 64 == lonely.end(lonely.start())

    assert f"engine.envFiles: {secrets} is open to others: chmod 600 {secrets}" == lonely.record()["message"]
    assert [] == list((lonely.directory / "scratch").iterdir())


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "gives 0 (CUDA_VISIBLE_DEVICES='')"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "gives 1 (CUDA_VISIBLE_DEVICES='0')"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "gives 0 (CUDA_VISIBLE_DEVICES='NoDevFiles')"),
        ({"ROCR_VISIBLE_DEVICES": "0,1,2"}, "gives 3 (ROCR_VISIBLE_DEVICES='0,1,2')"),
    ],
)
def test_a_wrong_number_of_gpus_makes_the_node_unusable(lonely: Rig, environment: Json, found: str) -> None:
    lonely.document["gpus"] = 2
    assert 69 == lonely.end(lonely.start(**environment))

    assert f"2 GPUs are asked for, the scheduler {found}" == lonely.record()["message"]


def test_a_node_without_a_container_program_is_unusable(lonely: Rig) -> None:
    lonely.engine["container"] = {"kind": "apptainer", "image": "/etc/passwd", "gpu": "none", "binds": []}
    assert 69 == lonely.end(lonely.start(PATH="/nowhere"))

    assert "neither apptainer nor singularity is in PATH (/nowhere)" == lonely.record()["message"]


def test_a_shared_directory_that_cannot_be_written_is_a_storage_fault(lonely: Rig) -> None:
    (lonely.shared / "claims").write_text("not a directory")
    assert 73 == lonely.end(lonely.start())

    assert "Storage" == lonely.record()["reason"]


def test_a_configuration_of_another_release_is_refused(lonely: Rig) -> None:
    lonely.document["version"] = 2
    assert 64 == lonely.end(lonely.start())

    record = lonely.record()
    assert ("BadSpec", "17") == (record["reason"], record["jobId"])
    assert "version is 2: it must be 1: this agent is of another release" == record["message"]
