"""What a member's answer means to a tribunal, and which tribunals are known."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmop.domain import resources
from llmop.manifest import admit
from llmop.workloads import known
from llmop.workloads.answers import Answer
from llmop.workloads.judgement import Broken, Outcome, Overdue, Unreachable
from llmop.workloads.known import Virtual
from llmop.workloads.refusals import Refused
from llmop.workloads.tribunal import runner
from llmop.workloads.tribunal.values import Call, Failure, Reply, Role, Tokens

CALL = Call(role=Role.DRAFT, member="drafter-1", model="m", round=0, body={"model": "m", "messages": []})


def completion(text: Any, usage: Any = None, **choice: Any) -> Answer:
    body = {"choices": [{"message": {"content": text}} | choice], "usage": usage}
    return Answer(200, json.dumps(body).encode())


def test_an_answer_is_its_text_and_what_the_engine_counted() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    assert runner.read(CALL, completion("yes", usage, finish_reason="length")) == Reply(
        "yes", "length", Tokens(7, 2)
    )


def test_what_an_engine_does_not_count_is_estimated_and_marked() -> None:
    found = runner.read(CALL, completion("a" * 40))
    assert isinstance(found, Reply)
    assert found.tokens == Tokens(len('{"model":"m","messages":[]}') // 4, 10, True)


def test_an_answer_without_a_text_is_none_and_its_tokens_count() -> None:
    found = runner.read(CALL, completion(None, {"prompt_tokens": 7, "completion_tokens": 2}))
    assert isinstance(found, Failure)
    assert (found.reason, found.tokens) == ("empty", Tokens(7, 2))


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        (Unreachable("no such file"), "failed", 0),
        (Broken("reset"), "failed", 0),
        (Overdue(3600), "timeout", 0),
        (Answer(401, b"{}"), "refused", 0),  # ours, not the client's
        (Answer(404, b'{"error":{"message":"no model"}}'), "refused", 404),
        (Answer(503, b"{}", "", 10.0), "refused", 503),
        (Answer(500, b"oh"), "failed", 500),
        (Answer(200, b"oh"), "failed", 0),
        (Answer(200, b'{"choices":[]}'), "failed", 0),
        (Answer(200, b'{"choices":[{"message":{"content":[1]}}]}'), "failed", 0),
        (Answer(200, b"[]"), "failed", 0),
    ],
)
def test_everything_else_is_a_failure_with_its_reason(outcome: Outcome, reason: str, status: int) -> None:
    found = runner.read(CALL, outcome)
    assert isinstance(found, Failure)
    assert (found.reason, found.status) == (reason, status)
    assert found.message.startswith("drafter-1: the model 'm' ")


def stored(
    name: str, namespace: str = "default", created_at: float = 1.0, rounds: int = 1
) -> resources.Resource:
    document = {
        "apiVersion": "llmop/v1alpha1",
        "kind": "Tribunal",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "drafters": [{"model": "a"}],
            "critics": [{"model": "a"}],
            "judge": {"model": "a"},
            "rounds": rounds,
        },
    }
    spec = admit.admit(document, namespace="").spec
    return resources.Resource(
        kind="Tribunal",
        name=name,
        namespace=namespace,
        uid=f"{namespace}/{name}",
        created_at=created_at,
        spec=dict(spec),
    )


async def test_what_was_heard_last_is_known_after_a_start(tmp_path: Path) -> None:
    file = tmp_path / "tribunals.json"
    await Virtual(tmp_path).put(resources.TRIBUNAL, [stored("panel", rounds=3)])
    assert file.stat().st_mode & 0o777 == 0o600

    again = Virtual(tmp_path)
    again.load()
    assert (await again.find("panel")).rounds == 3


async def test_the_older_of_two_holds_the_name(tmp_path: Path) -> None:
    tribunals = Virtual(tmp_path)
    await tribunals.put(resources.TRIBUNAL, [stored("panel", "b", 2.0), stored("panel", "a", 1.0)])
    assert (await tribunals.find("panel")).namespace == "a"


async def test_who_asks_early_waits_a_moment(tmp_path: Path) -> None:
    tribunals = Virtual(tmp_path)
    asking = asyncio.create_task(tribunals.find("panel"))
    await asyncio.sleep(0)
    await tribunals.put(resources.TRIBUNAL, [])
    await tribunals.put(resources.TRIBUNAL, [stored("panel")])
    assert (await asking).name == "panel"


async def test_then_it_does_not_exist_or_nothing_is_known_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_PATIENCE_S", 0.01)
    tribunals = Virtual(tmp_path)
    with pytest.raises(Refused) as nothing:
        await tribunals.find("panel")
    for kind in resources.VIRTUAL:
        await tribunals.put(kind, [])
    with pytest.raises(Refused) as absent:
        await tribunals.find("panel")
    assert (nothing.value.status, absent.value.status) == (503, 404)


@pytest.mark.parametrize("content", ["{", "[3]", '[{"name": "x", "what": 1}]'])
def test_a_file_that_is_damaged_is_waited_out(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tribunals.json"
    file.write_text(content)
    tribunals = Virtual(tmp_path)
    tribunals.load()
    assert not tribunals.has("x")
