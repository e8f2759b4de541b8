"""An agent that reaches no controller: it asks, reports and takes orders by files, and goes back to HTTPS when it can."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.agent.controller import FakeController, Json
from tests.integration.agent.rig import TOKEN, Rig, eventually

CLOSED = "https://127.0.0.1:9"  # discard: nobody listens there


class Inbox:
    """The controller's side, by hand."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.directory = rig.shared / "inbox"
        self.directory.mkdir(mode=0o700)
        self.taken: list[Json] = []

    @property
    def names(self) -> list[str]:
        """What lies there, the oldest first."""
        return sorted(path.name for path in self.directory.iterdir() if not path.name.startswith("."))

    def take(self) -> list[Json]:
        """All messages, which are gone then."""
        found = []
        for name in self.names:
            path = self.directory / name
            try:
                letter: Json = json.loads(path.read_text())
            except FileNotFoundError:  # a newer one has replaced it
                continue
            assert 0o600 == path.stat().st_mode & 0o777
            assert TOKEN == letter["token"]
            path.unlink()
            found.append({**letter, "nonce": name.split(".")[2]})
        self.taken += found
        return found

    def wait_for(self, wanted: Callable[[Json], bool]) -> Json:
        return eventually(
            lambda: next((each for each in self.take() if wanted(each)), None),
            what=f"such a message after {self.taken[-3:]}",
        )

    def wait_for_phase(self, phase: str) -> Json:
        found = self.wait_for(lambda each: each["message"] == "heartbeat" and each["body"]["phase"] == phase)
        return dict(found["body"])

    def answer(self, **reply: object) -> Json:
        """Answers the claim, which is returned."""
        claim = self.wait_for(lambda each: each["message"] == "claim")
        path = self.rig.directory / f"answer-{claim['nonce']}.json"
        path.with_suffix(".new").write_text(json.dumps({"period": 0.2, "takeOver": False, **reply}))
        path.with_suffix(".new").rename(path)
        return dict(claim["body"])

    def order(self, **order: object) -> None:
        (self.rig.directory / "orders.new").write_text(json.dumps([order]))
        (self.rig.directory / "orders.new").rename(self.rig.directory / "orders.json")


@pytest.fixture
def inbox(lonely: Rig) -> Inbox:
    """Of a replica whose controller cannot be reached, and that would wait for it for long."""
    lonely.document["controllerWait"] = 60
    lonely.point_to(CLOSED)
    return Inbox(lonely)


def test_from_the_claim_to_the_end_without_a_connection(lonely: Rig, inbox: Inbox) -> None:
    agent = lonely.start(SLURMD_NODENAME="n1")
    claim = inbox.answer(verdict="run")
    assert ("17", {"jobId": "17", "restartCount": 0}) == (claim["jobId"], claim["holder"])

    ready = inbox.wait_for_phase("ready")
    assert "127.0.0.1" == ready["endpoint"]["host"]
    assert 200 == lonely.ask(ready["endpoint"]["port"], "/health").status

    inbox.order(id="o1", type="drain", reason="ScaledDown", deadline=5)
    agent.send_signal(signal.SIGUSR1)
    inbox.wait_for_phase("draining")
    assert 0 == lonely.end(agent)
    ended = inbox.wait_for_phase("ended")
    assert "Drained" == ended["exit"]["reason"] == lonely.record()["reason"]
    seqs = [each["body"]["seq"] for each in inbox.taken if each["message"] == "heartbeat"]
    assert seqs == sorted(set(seqs))
    assert [] == list(inbox.directory.iterdir())


def test_files_say_how_busy_the_engine_is(lonely: Rig, inbox: Inbox) -> None:
    lonely.engine["metrics"] = {"path": "/metrics", "queueDepth": "q"}
    (lonely.faults / "metrics").write_text("q 3\n")
    lonely.start()
    inbox.answer(verdict="run")

    said = inbox.wait_for(lambda each: bool(each["body"].get("load")))
    assert 3 == said["body"]["load"]["queueDepth"]


def test_orders_are_read_also_when_the_signal_is_lost(lonely: Rig, inbox: Inbox) -> None:
    agent = lonely.start()
    inbox.answer(verdict="run")
    inbox.wait_for_phase("ready")
    inbox.order(id="o1", type="drain", reason="ScaledDown", deadline=5)
    assert 0 == lonely.end(agent)
    assert "Drained" == lonely.record()["reason"]


def test_of_messages_that_nobody_takes_only_the_newest_lies_there(lonely: Rig, inbox: Inbox) -> None:
    lonely.start()
    inbox.answer(verdict="run")
    seen: set[str] = set()

    def renewed() -> bool:
        assert len(inbox.names) <= 2, "a new one, and the one before that is just being removed"
        seen.update(inbox.names)
        return len(seen) >= 4

    eventually(renewed, what="a message that replaces another")


def test_a_job_that_is_superseded_by_file_ends_without_a_trace(lonely: Rig, inbox: Inbox) -> None:
    agent = lonely.start()
    inbox.answer(verdict="superseded")
    assert 0 == lonely.end(agent)
    assert "Superseded (0)" in lonely.log()
    assert not (lonely.directory / "exit.json").exists()
    assert [] == inbox.take()


def test_a_claim_is_handed_over_by_file(lonely: Rig, inbox: Inbox) -> None:
    (lonely.shared / "claims").mkdir()
    link = lonely.shared / "claims/llmop-k3v9qd-llama"
    link.write_text(json.dumps({"jobId": "16", "restartCount": 0, "node": "n9"}))
    lonely.start()
    claim = inbox.answer(verdict="run", takeOver=True)
    assert {"jobId": "16", "restartCount": 0} == claim["holder"]
    inbox.wait_for_phase("ready")
    assert "17" == json.loads(link.read_text())["jobId"]


def test_without_an_answer_the_link_decides_and_the_reports_are_files(lonely: Rig, inbox: Inbox) -> None:
    lonely.document["controllerWait"] = 0.5
    lonely.start()
    inbox.wait_for_phase("ready")
    assert "the link decides" in lonely.log()
    assert "claim" in {each["message"] for each in inbox.taken}


def test_it_goes_back_to_https_when_it_can(lonely: Rig, inbox: Inbox, controller: FakeController) -> None:
    agent = lonely.start()
    inbox.answer(verdict="run")
    last = inbox.wait_for_phase("ready")
    lonely.point_to(controller.url)
    beat = controller.wait_for_phase("ready")
    assert beat["seq"] > last["seq"]
    eventually(lambda: inbox.names == [], what="the last file to be taken back")
    controller.order(id="o1", type="drain", reason="Deleted", deadline=5)
    assert 0 == lonely.end(agent)
    assert "ended" == controller.beats[-1]["phase"]
    assert [] == inbox.take()


def test_it_turns_to_files_when_its_controller_is_away_for_long(rig: Rig, controller: FakeController) -> None:
    inbox = Inbox(rig)
    rig.start()
    controller.wait_for_phase("ready")
    assert [] == inbox.names
    controller.is_away = True
    ready = eventually(
        lambda: next((each for each in inbox.take() if each["body"]["phase"] == "ready"), None),
        what="a file",
    )
    after = len(controller.beats)
    controller.is_away = False
    assert controller.wait_for_phase("ready", after=after)["seq"] > ready["body"]["seq"]


def test_a_listener_that_hangs_holds_up_neither_the_claim_nor_the_reports(lonely: Rig, inbox: Inbox) -> None:
    """As behind a firewall that drops packets: what is tried there takes its time, and the files do not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        lonely.point_to(f"https://127.0.0.1:{hung.getsockname()[1]}")
        agent = lonely.start()
        inbox.answer(verdict="run")
        inbox.wait_for_phase("ready")
        begun = len(inbox.taken)
        eventually(lambda: inbox.take() and len(inbox.taken) >= begun + 3, what="three more reports")
        inbox.order(id="o1", type="drain", reason="ScaledDown", deadline=5)
        agent.send_signal(signal.SIGUSR1)
        assert 0 == lonely.end(agent)
        inbox.wait_for_phase("ended")


def test_an_inbox_that_cannot_be_written_does_not_stop_the_engine(lonely: Rig, inbox: Inbox) -> None:
    agent = lonely.start()
    inbox.answer(verdict="run")
    ready = inbox.wait_for_phase("ready")
    moved = inbox.directory.rename(lonely.shared / "moved")
    eventually(lambda: "inbox: " in lonely.log(), what="a line in the log")
    assert 200 == lonely.ask(ready["endpoint"]["port"], "/health").status
    moved.rename(inbox.directory)
    inbox.wait_for_phase("ready")
    assert "can be written again" in lonely.log()
    agent.send_signal(signal.SIGTERM)
    assert 0 == lonely.end(agent)
    assert TOKEN not in lonely.log()


def test_an_agent_that_is_killed_while_it_writes_leaves_no_message_in_part(
    lonely: Rig, inbox: Inbox, tmp_path: Path
) -> None:
    agent = lonely.start()
    inbox.answer(verdict="run")
    inbox.wait_for_phase("ready")
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    for name in inbox.names:
        json.loads((inbox.directory / name).read_text())
