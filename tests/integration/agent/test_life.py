"""The agent with a controller that answers: start, ready, drain, end."""

from __future__ import annotations

import json
import signal
import time

import pytest
from tests.integration.agent.controller import FakeController
from tests.integration.agent.rig import KEY, TOKEN, Rig, eventually


def test_the_engine_becomes_ready_and_is_drained_by_an_order(rig: Rig, controller: FakeController) -> None:
    agent = rig.start(SLURMD_NODENAME="n1", SLURM_RESTART_COUNT="2")
    ready = controller.wait_for_phase("ready")

    claim = controller.claims[0]
    assert {"jobId": "17", "restartCount": 2} == claim["holder"]
    assert "agent" == claim["agent"]
    assert "127.0.0.1" == ready["endpoint"]["host"]
    assert ("0b6c", "llmop-k3v9qd-llama", "17", 2, "n1") == tuple(
        ready[name] for name in ("replica", "jobName", "jobId", "restartCount", "node")
    )
    assert 200 == rig.ask(ready["endpoint"]["port"], "/health").status

    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=10)
    assert 0 == rig.end(agent)
    record = rig.record()
    assert ("Drained", 0, "17", 2, "n1") == tuple(
        record[name] for name in ("reason", "exitCode", "jobId", "restartCount", "node")
    )
    assert "ScaledDown" == record["message"]
    assert record == controller.wait_for_phase("ended")["exit"]
    assert TOKEN not in rig.log()
    assert KEY not in rig.log()
    assert [] == list((rig.directory / "scratch").iterdir())


def test_heartbeats_rise_and_pass_through_the_phases_in_order(rig: Rig, controller: FakeController) -> None:
    loading = rig.fault("loading")
    agent = rig.start()
    controller.wait_for_phase("loading")
    loading.unlink()
    controller.wait_for_phase("ready")
    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=10)
    rig.end(agent)

    beats = sorted(controller.beats, key=lambda beat: beat["seq"])
    phases = [beat["phase"] for beat in beats]
    changes = [phase for phase, before in zip(phases, [None, *phases], strict=False) if phase != before]
    assert ["loading", "ready", "draining", "ended"] == [phase for phase in changes if phase != "starting"]
    assert len(beats) == len({beat["seq"] for beat in beats})
    assert all(
        beat["endpoint"] is None for beat in beats if beat["phase"] in ("starting", "loading", "ended")
    )


def test_a_drain_waits_for_an_open_stream_and_then_ends(rig: Rig, controller: FakeController) -> None:
    agent = rig.start()
    port = controller.wait_for_phase("ready")["endpoint"]["port"]
    stream = rig.ask(port, "/stream")
    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=30)

    draining = controller.wait_for_beat(lambda beat: beat["phase"] == "draining" and beat["connections"] == 1)
    assert port == draining["endpoint"]["port"]
    assert b"data: x\n" == stream.readline()
    rig.fault("end-stream")
    assert b"data: [DONE]" in stream.read()
    assert 0 == rig.end(agent)
    assert "ScaledDown" == rig.record()["message"]


def test_the_deadline_cuts_a_stream_that_does_not_end(rig: Rig, controller: FakeController) -> None:
    agent = rig.start()
    stream = rig.ask(controller.wait_for_phase("ready")["endpoint"]["port"], "/stream")
    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=0.5)

    assert 0 == rig.end(agent)
    stream.close()
    record = rig.record()
    assert ("Drained", -signal.SIGTERM) == (record["reason"], record["engineExitCode"])
    assert "1 connections were cut" in record["message"]


def test_a_second_order_shortens_the_deadline_and_a_longer_one_does_not(
    rig: Rig, controller: FakeController
) -> None:
    agent = rig.start()
    stream = rig.ask(controller.wait_for_phase("ready")["endpoint"]["port"], "/stream")
    controller.order(id="o1", type="drain", reason="RollingUpdate", deadline=600)
    assert "Drained" == controller.wait_for_phase("draining")["ending"]
    controller.order(id="o2", type="drain", reason="Deleted", deadline=0.2)
    controller.order(id="o3", type="drain", reason="Deleted", deadline=900)

    assert 0 == rig.end(agent)
    stream.close()


def test_an_engine_that_loads_is_drained_at_once(rig: Rig, controller: FakeController) -> None:
    rig.fault("loading")
    agent = rig.start()
    controller.wait_for_phase("loading")
    controller.order(id="o1", type="drain", reason="Deleted", deadline=600)

    assert 0 == rig.end(agent)
    assert "Drained" == rig.record()["reason"]


def test_what_the_engine_leaves_behind_is_killed(rig: Rig, controller: FakeController) -> None:
    rig.engine["argv"].append("--child")
    agent = rig.start()
    controller.wait_for_phase("ready")
    eventually(lambda: len(rig.engines()) >= 2, what="the engine's child")
    controller.order(id="o1", type="drain", reason="Deleted", deadline=5)

    assert 0 == rig.end(agent)
    assert [] == rig.engines()


def test_sigterm_ends_the_replica_as_terminated(rig: Rig, controller: FakeController) -> None:
    agent = rig.start()
    controller.wait_for_phase("ready")
    agent.send_signal(signal.SIGTERM)

    assert "Terminated" == controller.wait_for_phase("draining")["ending"]
    assert 0 == rig.end(agent)
    assert ("Terminated", 0) == (rig.record()["reason"], rig.record()["exitCode"])


def test_usr1_carries_out_the_orders_file(rig: Rig, controller: FakeController) -> None:
    agent = rig.start()
    stream = rig.ask(controller.wait_for_phase("ready")["endpoint"]["port"], "/stream")
    orders = [{"id": "o1", "type": "drain", "reason": "Rollover", "deadline": 0.3}]
    (rig.directory / "orders.json").write_text(json.dumps(orders))
    agent.send_signal(signal.SIGUSR1)

    assert 0 == rig.end(agent)
    stream.close()
    assert rig.record()["message"].startswith("Rollover")


@pytest.mark.parametrize("left", [121, 60])
def test_usr1_without_orders_drains_until_the_margin_before_the_end_of_the_job(
    rig: Rig, controller: FakeController, left: int
) -> None:
    end = int(time.time()) + left  # noqa: TID251 - the scheduler's variable is wall time
    agent = rig.start(SLURM_JOB_END_TIME=str(end))
    stream = rig.ask(controller.wait_for_phase("ready")["endpoint"]["port"], "/stream")
    agent.send_signal(signal.SIGUSR1)

    assert 0 == rig.end(agent)
    stream.close()
    assert "the job's end is near; 1 connections were cut at the deadline" == rig.record()["message"]


def test_the_engine_gets_only_the_environment_that_the_contract_names(
    rig: Rig, controller: FakeController
) -> None:
    secrets = rig.shared / "hf.env"
    secrets.write_text("# comment\nHF_TOKEN=a b'\"$(x)\n")
    secrets.chmod(0o600)
    rig.engine.update(
        envFiles=[str(secrets)], env={"PORT_IS": "{port}", "BRACES": "{{x}}"}, apiKeyEnv="ENGINE_KEY"
    )
    rig.start(HTTP_PROXY="http://127.0.0.1:9", CUDA_VISIBLE_DEVICES="0,1", LD_PRELOAD_X="x")
    port = controller.wait_for_phase("ready")["endpoint"]["port"]

    # The guard hands its order on by a pipe; only the engine itself has the variables.
    engine = next(pid for pid in rig.engines())
    with open(f"/proc/{engine}/environ") as file:
        found = dict(line.split("=", 1) for line in file.read().strip("\0").split("\0"))
    names = {"PATH", "HOME", "USER", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"}
    assert names | {"HF_TOKEN", "PORT_IS", "BRACES", "ENGINE_KEY"} == set(found)
    assert ("a b'\"$(x)", str(port), "{x}", KEY) == tuple(
        found[name] for name in ("HF_TOKEN", "PORT_IS", "BRACES", "ENGINE_KEY")
    )
