"""The agent with a controller that answers: start, ready, drain, end."""

from __future__ import annotations

from .controller import FakeController
from .conftest import KEY, TOKEN, Rig


def test_the_engine_becomes_ready_and_is_drained_by_an_order(rig: Rig, controller: FakeController) -> None:
    agent = rig.start(SLURMD_NODENAME="n1", SLURM_RESTART_COUNT="2")
    ready = controller.wait_for_phase("ready")

    assert ["run"] == [controller.verdict["verdict"]]
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
    assert TOKEN not in rig.log() and KEY not in rig.log()
    assert not list((rig.directory / "scratch").iterdir())
