"""The agent and its controller: the claim, and controllers that are away, move, or are somebody else's."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.agent.controller import Authority, FakeController, Json
from tests.integration.agent.rig import TOKEN, Rig, eventually


def holder(rig: Rig) -> Json:
    document: Json = json.loads((rig.shared / "claims/llmop-k3v9qd-llama").read_text())
    return document


def held_by(rig: Rig, job: str) -> None:
    (rig.shared / "claims").mkdir()
    claim = {"jobId": job, "restartCount": 0, "node": "n9"}
    (rig.shared / "claims/llmop-k3v9qd-llama").write_text(json.dumps(claim))


def test_the_claim_link_holds_the_job_and_leaves_no_other_file(rig: Rig, controller: FakeController) -> None:
    rig.start(SLURMD_NODENAME="n1")
    controller.wait_for_phase("ready")

    assert {"jobId": "17", "restartCount": 0, "node": "n1"} == holder(rig)
    assert ["llmop-k3v9qd-llama"] == [path.name for path in (rig.shared / "claims").iterdir()]


def test_a_job_that_the_controller_refuses_ends_without_a_trace(rig: Rig, controller: FakeController) -> None:
    controller.verdict = {"verdict": "superseded", "takeOver": False}
    assert 0 == rig.end(rig.start())

    assert not (rig.directory / "exit.json").exists()
    assert [] == controller.beats
    assert "Superseded (0)" in rig.log()


def test_a_claim_of_another_job_is_left_alone_unless_the_controller_hands_it_over(
    rig: Rig, controller: FakeController
) -> None:
    held_by(rig, "16")
    assert 0 == rig.end(rig.start())
    assert {"jobId": "16", "restartCount": 0} == controller.claims[0]["holder"]
    assert "16" == holder(rig)["jobId"]

    controller.verdict = {"verdict": "run", "takeOver": True}
    rig.start()
    controller.wait_for_phase("ready")
    assert "17" == holder(rig)["jobId"]


def test_without_a_controller_the_link_alone_decides(lonely: Rig) -> None:
    held_by(lonely, "16")
    assert 0 == lonely.end(lonely.start())
    assert "job 16 is the replica" in lonely.log()

    lonely.start(job="16")
    eventually(lambda: "ready at" in lonely.log(), what="a ready engine")


def test_a_job_that_loses_the_replica_ends_and_leaves_no_record(rig: Rig, controller: FakeController) -> None:
    agent = rig.start()
    controller.wait_for_phase("ready")
    controller.supersede()

    assert 0 == rig.end(agent)
    assert not (rig.directory / "exit.json").exists()
    assert [] == rig.engines()


def test_the_record_of_an_earlier_start_is_not_that_of_one_that_is_killed(
    rig: Rig, controller: FakeController
) -> None:
    (rig.directory / "exit.json").write_text('{"reason": "Terminated"}')
    agent = rig.start(SLURM_RESTART_COUNT="1")
    controller.wait_for_phase("ready")
    agent.kill()
    agent.wait()
    assert not (rig.directory / "exit.json").exists()


def test_a_controller_that_comes_up_later_is_found(lonely: Rig, controller: FakeController) -> None:
    lonely.start()
    eventually(lambda: "ready at" in lonely.log(), what="a ready engine")
    lonely.point_to(controller.url)

    assert "127.0.0.1" == controller.wait_for_phase("ready")["endpoint"]["host"]


def test_an_agent_follows_its_controller_to_another_address(
    rig: Rig, controller: FakeController, authority: Authority
) -> None:
    agent = rig.start()
    controller.wait_for_phase("ready")
    successor = FakeController(authority, TOKEN)
    try:
        rig.point_to(successor.url)
        controller.token = "the old one knows it no more"
        controller.server.controller = (
            successor  # what still reaches the old address is not answered as before
        )
        controller.server.shutdown()
        controller.server.server_close()
        successor.wait_for_phase("ready")
        successor.order(id="o1", type="drain", reason="Deleted", deadline=5)
        assert 0 == rig.end(agent)
    finally:
        successor.close()


def test_a_controller_with_another_ca_is_told_nothing(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = FakeController(Authority(tmp_path / "other"), TOKEN)
    try:
        rig.document["controllerWait"] = 0.5
        rig.point_to(stranger.url)
        rig.start()
        eventually(lambda: "ready at" in rig.log(), what="a ready engine")
        eventually(lambda: "certificate verify failed" in rig.log(), what="a word about the certificate")
        assert ([], []) == (stranger.claims, stranger.beats)
    finally:
        stranger.close()


def test_a_controller_that_refuses_the_token_does_not_stop_the_engine(
    rig: Rig, controller: FakeController
) -> None:
    rig.document["controllerWait"] = 0.5
    controller.token = "of another replica"
    agent = rig.start()
    eventually(lambda: "ready at" in rig.log(), what="a ready engine")
    controller.token = TOKEN
    controller.wait_for_phase("ready")

    assert agent.poll() is None
