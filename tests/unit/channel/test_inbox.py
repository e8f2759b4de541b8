"""The inbox: what comes as a file is judged as if it had come by HTTPS, once, whatever lies beside it."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.channel.desk_rig import INSTALLATION, Rig, job_name_of, token_of, uid_of
from tests.waiting import until

from llmop.channel import inbox, letters, messages
from llmop.domain.replica import AgentPhase, EngineLoad, SubmissionState

CLAIMED = {"state": SubmissionState.SUBMITTED, "job_id": "5", "claimed_restart": 0}
END = {"reason": "Drained", "endedAt": 1_760_000_000, "exitCode": 0, "message": "", "logTail": ["bye"]}
READY = {"phase": "ready", "endpoint": {"host": "10.0.0.7", "port": 8000}}


class Post:
    """A shared directory with the directory of replica 1, its inbox, and agents that write there."""

    def __init__(self, rig: Rig, root: Path) -> None:
        self.rig = rig
        self.root = root
        self.directory = root / "inbox"
        self.replica = root / "replicas/chat-r1"
        for each in (self.directory, self.replica):
            each.mkdir(parents=True, mode=0o700)
        self._nonces = 0
        self.inbox: inbox.Inbox
        self.reopen()

    def reopen(self) -> None:
        """Another controller looks from now on."""
        self.inbox = inbox.Inbox(self.root, self.rig.desk, self.rig.clock, INSTALLATION)

    def name(self, seq: int, number: int = 1) -> str:
        self._nonces += 1
        return f"{job_name_of(number)}.{seq:010d}.{self._nonces:08x}.json"

    def put(
        self, seq: int = 1, *, number: int = 1, kind: str = "heartbeat", token: str = "", **fields: Any
    ) -> Path:
        body = {
            "replica": uid_of(number),
            "jobName": job_name_of(number),
            "jobId": "5",
            "restartCount": 0,
            "node": "n1",
            "holder": {"jobId": "5", "restartCount": 0},
            "seq": seq,
            **READY,
            **fields,
        }
        document = {"token": token or token_of(number), "message": kind, "body": body}
        return self.lay(self.name(seq, number), json.dumps(document).encode())

    def lay(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    async def look(self) -> None:
        await self.inbox.look()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
async def post(rig: Rig, tmp_path: Path) -> Post:
    """A controller that has looked once, and replica 1, claimed by job 5."""
    await rig.add(**CLAIMED)
    made = Post(rig, tmp_path)
    await made.look()
    return made


async def test_a_heartbeat_is_taken_in_and_its_file_is_gone(post: Post) -> None:
    post.put(3)
    await post.look()
    beat = post.rig.known()
    assert beat is not None
    assert (AgentPhase.READY, "10.0.0.7", 8000, 3, True) == (
        beat.phase,
        beat.host,
        beat.port,
        beat.seq,
        beat.by_file,
    )
    assert ["chat-r1"] == post.rig.heard
    assert [] == post.left


async def test_what_an_engine_says_of_its_load_comes_with_a_file_too(post: Post) -> None:
    post.put(3, load={"queueDepth": 3, "running": None, "kvCacheUsage": 1.5, "age": 2})
    await post.look()

    assert EngineLoad(queue_depth=3, age_s=2.0) == post.rig.known().load  # type: ignore[union-attr]


async def test_messages_of_one_agent_are_taken_in_their_order(post: Post) -> None:
    for seq, phase in ((11, "draining"), (2, "loading"), (10, "ready")):
        post.put(seq, phase=phase)
    await post.look()
    beat = post.rig.known()
    assert beat is not None
    assert (11, AgentPhase.DRAINING) == (beat.seq, beat.phase)
    assert [] == post.left


async def test_a_file_that_https_has_overtaken_is_old_news(post: Post) -> None:
    await post.rig.say(seq=8, phase="ready")
    post.put(7, phase="loading")
    await post.look()
    beat = post.rig.known()
    assert beat is not None
    assert (8, AgentPhase.READY, False) == (beat.seq, beat.phase, beat.by_file)
    assert [] == post.left


async def test_what_lay_there_before_says_nothing_about_now_but_an_end_is_an_end(post: Post) -> None:
    await post.rig.add(2, **CLAIMED)
    post.put(3)
    post.put(4, number=2, phase="ended", endpoint=None, exit=END)
    post.reopen()
    await post.look()
    assert post.rig.known() is None
    ended = post.rig.known(2)
    assert ended is not None
    assert ended.end is not None
    assert [] == post.left


async def test_after_a_gap_in_looking_a_heartbeat_may_be_of_any_age(post: Post) -> None:
    post.put(3)
    post.rig.clock.advance(inbox.GAP_S + 1)
    await post.look()
    assert post.rig.known() is None
    post.put(4)
    post.rig.clock.advance(inbox.POLL_S)
    await post.look()
    beat = post.rig.known()
    assert beat is not None
    assert 4 == beat.seq


async def test_a_heartbeat_is_as_old_as_the_look_that_first_showed_it(rig: Rig, tmp_path: Path) -> None:
    """Nobody knows yet which job holds the replica: it waits, and does not become younger."""
    await rig.add()
    post = Post(rig, tmp_path)
    await post.look()
    path = post.put(3)
    seen_at = rig.clock.now()
    for _ in range(3):
        await post.look()
        assert [path.name] == post.left
        rig.clock.advance(inbox.POLL_S)
    await rig.record(**CLAIMED)
    await post.look()
    beat = rig.known()
    assert beat is not None
    assert seen_at == beat.received_at
    assert [] == post.left


async def test_what_nobody_can_judge_is_dropped_in_the_end(rig: Rig, tmp_path: Path) -> None:
    await rig.add()
    post = Post(rig, tmp_path)
    await post.look()
    post.put(3)
    await post.look()
    rig.clock.advance(inbox.KEPT_S + 1)
    await post.look()
    assert [] == post.left


async def test_a_claim_is_recorded_and_answered_in_the_directory_of_the_replica(
    rig: Rig, tmp_path: Path
) -> None:
    await rig.add()
    post = Post(rig, tmp_path)
    nonce = post.put(0, kind="claim").name.split(".")[2]
    await post.look()
    answer = post.replica / f"answer-{nonce}.json"
    assert {"verdict": "run", "takeOver": False, "period": 5.0} == json.loads(answer.read_text())
    assert 0o600 == answer.stat().st_mode & 0o777
    assert ("5", 0) == (
        (await rig.ledger()).submission.job_id,
        (await rig.ledger()).submission.claimed_restart,
    )
    assert [] == post.left


async def test_what_an_earlier_start_of_the_job_left_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    """No controller was there for its claim and its last words; Slurm has started the job again, and that start is the holder."""
    await rig.add(state=SubmissionState.SUBMITTED, job_id="5", claimed_restart=1)
    before = await rig.ledger()
    post = Post(rig, tmp_path)
    nonce = post.put(0, kind="claim").name.split(".")[2]
    post.put(7, phase="ended", endpoint=None, exit=END)
    await post.look()
    assert "superseded" == json.loads((post.replica / f"answer-{nonce}.json").read_text())["verdict"]
    assert before == await rig.ledger()
    assert rig.known() is None
    assert [] == post.left


async def test_a_claim_of_another_job_is_answered_with_superseded(post: Post) -> None:
    nonce = post.put(0, kind="claim", jobId="6").name.split(".")[2]
    await post.look()
    answer = json.loads((post.replica / f"answer-{nonce}.json").read_text())
    assert "superseded" == answer["verdict"]


async def test_a_claim_that_cannot_be_answered_waits(rig: Rig, tmp_path: Path) -> None:
    await rig.add()
    post = Post(rig, tmp_path)
    post.replica.rmdir()
    path = post.put(0, kind="claim")
    await post.look()
    assert [path.name] == post.left
    post.replica.mkdir()
    await post.look()
    assert 1 == len(list(post.replica.iterdir()))
    assert [] == post.left


async def test_after_a_crash_before_the_files_are_removed_nothing_is_done_twice(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.add()
    post = Post(rig, tmp_path)
    await post.look()
    with monkeypatch.context() as patch:
        patch.setattr(letters, "remove", lambda _inbox, _names: "the controller is killed here")
        post.put(0, kind="claim")
        await post.look()
        post.put(1)
        await post.look()
    before = await rig.ledger()
    assert 2 == len(post.left)
    await rig.start()
    post.reopen()
    await post.look()
    assert before.submission == (await rig.ledger()).submission
    assert rig.known() is None
    assert [] == post.left


async def test_a_file_that_cannot_be_removed_is_acted_on_once(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "remove", lambda _inbox, _names: "Read-only file system")
    post.put(1)
    await post.look()
    heard_at = post.rig.known().received_at  # type: ignore[union-attr]
    post.rig.clock.advance(5)
    await post.look()
    assert heard_at == post.rig.known().received_at  # type: ignore[union-attr]
    assert "Read-only file system" == post.inbox.problem


async def test_a_controller_that_was_deposed_leaves_the_messages_to_the_next(rig: Rig, post: Post) -> None:
    path = post.put(1)
    await rig.store.take_over("the next one", 0.0)
    await post.look()
    assert [path.name] == post.left
    assert rig.known() is None


async def test_a_message_that_cannot_be_read_now_is_read_later(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = post.put(1)
    with monkeypatch.context() as patch:

        def fails(*_: object) -> int:
            raise OSError(24, "Too many open files")

        patch.setattr(letters.os, "open", fails)
        await post.look()
    assert [path.name] == post.left
    assert "messages cannot be read: Too many open files" == post.inbox.problem
    await post.look()
    assert post.rig.known() is not None
    assert ([], "") == (post.left, post.inbox.problem)


async def test_a_message_that_its_agent_replaced_on_another_machine_is_no_problem(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.put(1)
    with monkeypatch.context() as patch:

        def fails(*_: object) -> int:
            raise OSError(errno.ESTALE, "Stale file handle")

        patch.setattr(letters.os, "open", fails)
        await post.look()
    assert "" == post.inbox.problem


async def test_a_message_that_can_never_be_read_is_dropped_in_the_end(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    post.put(1)
    monkeypatch.setattr(letters.os, "open", fails)
    await post.look()
    post.rig.clock.advance(inbox.KEPT_S + 1)
    await post.look()
    assert [] == post.left


def _lays(content: bytes) -> Callable[[Post], object]:
    return lambda post: post.lay(post.name(1), content)


def _says(**fields: Any) -> Callable[[Post], object]:
    return lambda post: post.put(1, **fields)


def _link(post: Post) -> None:
    secret = post.root / "secret.json"
    secret.write_bytes(post.put(1).read_bytes())
    (post.directory / post.name(1)).symlink_to(secret)
    next(path for path in post.directory.iterdir() if not path.is_symlink()).unlink()


def _socket(post: Post) -> None:
    here = Path.cwd()
    os.chdir(post.directory)  # a socket's path has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(post.name(1))
    finally:
        os.chdir(here)


HOSTILE: dict[str, Callable[[Post], object]] = {
    "a link": _link,
    "a pipe": lambda post: os.mkfifo(post.directory / post.name(1)),
    "a socket": _socket,
    "a file that others can change": lambda post: post.put(1).chmod(0o622),
    "nothing": _lays(b""),
    "no JSON": _lays(b"\xff\x00{"),
    "a list": _lays(b"[]"),
    "a deep list": _lays(b"[" * 100_000),
    "too much": _lays(b" " * (messages.BODY_LIMIT + 1)),
    "no body": _lays(b'{"token": "token-1", "message": "heartbeat"}'),
    "another message": _says(kind="drain"),
    "no token": _says(token=" \n"),
    "a wrong token": _says(token="token-2"),
    "a replica that is not there": _says(replica="nobody"),
    "another job's name": _says(jobName=job_name_of(2)),
    "a job that does not hold the replica": _says(jobId="6"),
    "an option": _says(jobId="-u root"),
    "a place for a host": _says(endpoint={"host": "../x", "port": 1}),
    "a number that is none": _says(restartCount=True),
}


@pytest.mark.parametrize("lay", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_no_message_does_nothing_and_goes(post: Post, lay: Callable[[Post], object]) -> None:
    lay(post)
    assert 1 == len(post.left)
    await post.rig.add(2, **CLAIMED)
    post.put(9, number=2)
    await post.look()
    assert post.rig.known() is None
    assert post.rig.known(2) is not None, "a good message beside it is taken in"
    assert [] == post.left


async def test_what_a_link_leads_to_stays(post: Post) -> None:
    _link(post)
    await post.look()
    assert (post.root / "secret.json").exists()


async def test_a_file_of_another_account_is_not_read(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.put(1)
    monkeypatch.setattr(letters.os, "geteuid", lambda: 4_000_000)
    await post.look()
    assert post.rig.known() is None


async def test_a_directory_in_the_place_of_a_message_stays_and_holds_up_nobody(post: Post) -> None:
    name = post.name(1)
    (post.directory / name).mkdir()
    post.put(2)
    await post.look()
    assert post.rig.known() is not None
    assert [name] == post.left
    assert name in post.inbox.problem


async def test_what_has_another_name_is_not_ours(post: Post) -> None:
    names = [
        "README",
        "llmop-zzzzzz-chat-r1-00000001.0000000001.00000001.json",  # another installation
        "llmop-k3v9qd-chat-r1-00000001.1.00000001.json",
        "llmop-k3v9qd-chat-r1-00000001.0000000001.00000001.json.bak",
        "llmop-k3v9qd.0000000001.00000001.json",
    ]
    for name in names:
        post.lay(name, b"{}")
    await post.look()
    post.rig.clock.advance(inbox.KEPT_S + 1)
    await post.look()
    assert sorted(names) == post.left


async def test_a_draft_is_left_to_its_agent_for_a_while(post: Post) -> None:
    draft = post.lay("." + post.name(1), b"{")
    await post.look()
    assert [draft.name] == post.left
    post.rig.clock.advance(inbox.KEPT_S + 1)
    await post.look()
    assert [] == post.left


async def test_one_flood_does_not_crowd_out_the_others(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "MOST", letters.MOST_OF_ONE + 1)
    await post.rig.add(2, **CLAIMED)
    for seq in range(1, 41):
        post.put(seq)
    post.put(1, number=2)
    await post.look()
    assert 24 == len(post.left)
    assert post.rig.known(2) is not None
    for _ in range(2):
        await post.look()
    assert [] == post.left
    assert 40 == post.rig.known().seq  # type: ignore[union-attr]


async def test_a_directory_that_is_gone_is_an_error_and_then_works_again(post: Post) -> None:
    post.directory.rmdir()
    with pytest.raises(FileNotFoundError):
        await post.look()
    post.directory.mkdir()
    post.put(1)
    await post.look()
    assert post.rig.known() is not None


@given(content=st.binary(max_size=200))
def test_no_content_is_an_error_of_ours(content: bytes) -> None:
    try:
        messages.letter_of(content, job_name_of(1))
    except messages.BadField as error:
        assert str(error)


# Orders


class Told:
    """The inboxes of one cluster, and the signals that were sent."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.signals: list[tuple[str, str, str]] = []
        self.problem = ""
        self.inboxes = inbox.Inboxes(
            post.rig.desk, post.rig.clock, INSTALLATION, lambda: {"main": str(post.root)}, self._signal
        )
        post.rig.desk.deliver = self.inboxes.deliver

    async def _signal(self, *job: str) -> str:
        assert self.orders(), "the file comes first"
        self.signals.append(job)  # type: ignore[arg-type]
        return self.problem

    def orders(self) -> list[dict[str, Any]]:
        path = self.post.replica / "orders.json"
        return json.loads(path.read_text()) if path.exists() else []

    async def beat(self, seq: int, phase: str = "ready") -> None:
        """Returns when the look is over that takes the message in: a file is gone before that, and no other look begins until then."""
        self.post.put(seq, phase=phase)
        self.inboxes.look()
        await asyncio.gather(*self.inboxes._looking.values())
        assert [] == self.post.left

    async def delivered(self) -> None:
        """Returns when no order is on its way any more."""
        await asyncio.gather(*self.inboxes._delivering)


@pytest.fixture
async def told(post: Post) -> Told:
    made = Told(post)
    made.inboxes.look()
    await asyncio.gather(*made.inboxes._looking.values())
    return made


def drain(told: Told, seconds: float = 120.0, order_id: str = "a") -> None:
    told.post.rig.desk.drain(uid_of(1), order_id, "ScaledDown", told.post.rig.clock.now() + seconds)


ORDER = {"id": "a", "type": "drain", "reason": "ScaledDown", "deadline": 120.0}
JOB = ("main", job_name_of(1), "5")


async def test_an_order_for_an_agent_that_writes_files_is_a_file_and_a_signal(told: Told) -> None:
    await told.beat(1)
    drain(told)
    await until(lambda: told.signals == [JOB])
    assert [ORDER] == told.orders()


async def test_an_order_that_was_given_before_anything_was_heard_goes_with_the_first_message(
    told: Told,
) -> None:
    drain(told)
    await told.beat(1)
    await until(lambda: told.signals == [JOB])


async def test_a_file_of_unknown_age_tells_where_orders_go_and_nothing_else(post: Post) -> None:
    """A new controller finds it; its order need not wait for the next one."""
    told = Told(post)
    drain(told)
    post.put(3)
    post.reopen()
    told.inboxes.look()
    await until(lambda: told.signals == [JOB])
    assert post.rig.known() is None
    assert {uid_of(1)} == post.rig.desk.writers


@pytest.mark.parametrize("fields", [{"token": "token-2"}, {"jobId": "6"}])
async def test_a_file_of_unknown_age_by_somebody_else_tells_nothing(
    post: Post, fields: dict[str, Any]
) -> None:
    post.put(3, **fields)
    post.reopen()
    await post.look()
    assert set() == post.rig.desk.writers
    assert [] == post.left


async def test_it_is_announced_again_until_it_is_acknowledged(told: Told) -> None:
    await told.beat(1)
    drain(told)
    await until(lambda: told.signals == [JOB])
    drain(told)
    await told.beat(2)
    await told.delivered()
    assert [JOB] == told.signals, "not with every message"
    told.post.rig.clock.advance(inbox.AGAIN_S + 1)
    await told.beat(3)
    await until(lambda: told.signals == [JOB, JOB])
    assert [{**ORDER, "deadline": 120.0 - inbox.AGAIN_S - 1}] == told.orders()
    told.post.rig.clock.advance(inbox.AGAIN_S + 1)
    await told.beat(4, "draining")
    told.post.rig.clock.advance(inbox.AGAIN_S + 1)
    await told.beat(5, "draining")
    await told.delivered()
    assert [JOB, JOB] == told.signals


async def test_an_order_that_could_not_be_announced_is_tried_again_at_the_next_occasion(told: Told) -> None:
    await told.beat(1)
    told.problem = "the last look at the queue does not show the job running"
    drain(told)
    await until(lambda: told.signals == [JOB])
    await told.delivered()
    told.problem = ""
    drain(told)  # the next pass
    await until(lambda: told.signals == [JOB, JOB])
    await told.delivered()
    drain(told)
    assert set() == told.inboxes._delivering


async def test_a_shorter_deadline_is_delivered_at_once(told: Told) -> None:
    await told.beat(1)
    drain(told)
    await until(lambda: len(told.signals) == 1)
    drain(told, 10.0)
    await until(lambda: len(told.signals) == 2)
    assert [{**ORDER, "deadline": 10.0}] == told.orders()


async def test_an_agent_that_is_heard_by_https_gets_no_files(told: Told) -> None:
    await told.beat(0)
    await told.post.rig.say(seq=1)
    drain(told)
    await told.post.rig.say(seq=2)
    assert set() == told.inboxes._delivering
    assert [] == told.orders()


async def test_a_directory_that_hangs_makes_deaf_only_where_agents_write(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.beat(1)

    def hangs(*_: object) -> None:
        raise TimeoutError("does not answer within 10 s")

    monkeypatch.setattr(letters, "find", hangs)
    desk = told.post.rig.desk
    for _ in range(3):
        told.post.rig.clock.advance(inbox.GAP_S / 2)
        told.inboxes.look()
        await asyncio.sleep(0)
    assert desk.is_deaf
    await told.post.rig.say(seq=2)
    told.inboxes.look()
    assert not desk.is_deaf


async def test_a_directory_that_hangs_where_nobody_writes_makes_nobody_deaf(
    post: Post, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = Told(post)
    elsewhere = tmp_path / "elsewhere"
    told.inboxes = inbox.Inboxes(
        post.rig.desk,
        post.rig.clock,
        INSTALLATION,
        lambda: {"main": str(post.root), "idle": str(elsewhere)},
        told._signal,
    )
    find = letters.find

    def hangs(directory: Path, *given: Any) -> letters.Found:
        if directory.is_relative_to(elsewhere):
            raise TimeoutError("does not answer within 10 s")
        return find(directory, *given)

    monkeypatch.setattr(letters, "find", hangs)
    await told.beat(1)
    for _ in range(3):
        post.rig.clock.advance(inbox.GAP_S / 2)
        told.inboxes.look()
        await asyncio.gather(*told.inboxes._looking.values())
    told.inboxes.look()
    assert not post.rig.desk.is_deaf


async def test_a_file_of_a_replica_that_is_gone_is_not_waited_for(post: Post) -> None:
    await post.rig.bury()
    post.put(3)
    post.reopen()
    await post.look()
    assert set() == post.rig.desk.writers
    assert [] == post.left
