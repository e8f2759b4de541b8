"""A tribunal's calls on their way: members that are busy, too slow or cut off, and a key that is not known yet."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmop.domain.tribunal import Drafter, Member, Tribunal
from llmop.workloads.answers import Answer
from llmop.workloads.judgement import Broken, Outcome
from llmop.workloads.tribunal import runner
from llmop.workloads.tribunal.runner import Record
from llmop.workloads.tribunal.trial import Question
from llmop.workloads.tribunal.values import Tokens

PANEL = Tribunal(
    name="panel",
    namespace="default",
    drafters=(Drafter(model="a"), Drafter(model="b")),
    critics=(Member(model="k"),),
    judge=Member(model="j"),
    rounds=0,
)
GOOD = Tokens(10, 5)
NO_KEY = Answer(401, b"{}")


def says(text: str) -> Answer:
    usage = {"prompt_tokens": GOOD.prompt, "completion_tokens": GOOD.completion}
    return Answer(200, json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode())


def busy(status: int = 429, after: float | None = 0.01) -> Answer:
    return Answer(status, b'{"error":{"message":"full"}}', "", after)


class Members:
    """Each says what it has to say, then "yes"; None is said never."""

    def __init__(self, **outcomes: list[Outcome | None]) -> None:
        self._outcomes = outcomes
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}  # bytes
        self.forms: list[str] = []  # models that were asked for a form

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        model = body["model"]
        self.asked.append(model)
        if "response_format" in body:
            self.forms.append(model)
        self.sent[model] = len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        waiting = self._outcomes.get(model)
        outcome = waiting.pop(0) if waiting else says("yes")
        if outcome is None:
            await asyncio.Event().wait()
        assert outcome is not None
        return outcome


async def deliberate(members: Members, tribunal: Tribunal = PANEL) -> Record:
    question = Question(messages=({"role": "user", "content": "What is it?"},))
    return await runner.deliberate(
        tribunal, question, 7, caller=members, is_virtual=lambda _: False, tell=lambda _: None
    )


def outcomes(record: Record) -> dict[str, str]:
    return {each["model"]: each["outcome"] for each in record.told["calls"]}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_member_that_is_busy_for_a_moment_is_asked_once_more(status: int) -> None:
    members = Members(b=[busy(status)])
    record = await deliberate(members)
    assert ["a", "b", "b", "k", "j"] == members.asked
    assert {"answered"} == set(outcomes(record).values())
    assert Tokens(40, 20) == record.trial.spent  # what was refused took nothing


async def test_and_then_done_without() -> None:
    members = Members(b=[busy(), busy(), says("too late")])
    record = await deliberate(members)
    assert 2 == members.asked.count("b")
    assert "refused" == outcomes(record)["b"]
    assert Tokens(30, 15) == record.trial.spent


@pytest.mark.parametrize("after", [None, 6.0], ids=["it does not say when", "too late for people"])
async def test_one_that_is_busy_for_longer_is_done_without_at_once(after: float | None) -> None:
    members = Members(b=[busy(after=after)])
    assert "refused" == outcomes(await deliberate(members))["b"]
    assert 1 == members.asked.count("b")


async def test_nobody_is_waited_for_beyond_the_time_of_the_step() -> None:
    members = Members(b=[busy(after=4.9)])
    record = await deliberate(members, _hurried(2.0))
    assert "refused" == outcomes(record)["b"]
    assert 1 == members.asked.count("b")


async def test_the_prompt_of_a_call_that_was_cut_off_counts_and_is_marked() -> None:
    members = Members(b=[None])
    record = await deliberate(members, _hurried(0.1))
    assert "timeout" == outcomes(record)["b"]
    estimate = members.sent["b"] // 4
    assert estimate > 0
    assert Tokens(30 + estimate, 15, estimated=True) == record.trial.spent
    assert record.told["estimated"]
    (cut_off,) = [each for each in record.told["calls"] if each["model"] == "b"]
    assert {"prompt_tokens": estimate, "completion_tokens": 0, "total_tokens": estimate} == cut_off["tokens"]
    assert record.trial.spent.total == sum(each["tokens"]["total_tokens"] for each in record.told["members"])


async def test_so_does_that_of_an_answer_that_broke_off() -> None:
    members = Members(j=[Broken("reset")])
    record = await deliberate(members)
    assert ("failed", "fell_back") == (outcomes(record)["j"], record.told["outcome"])
    assert Tokens(30 + members.sent["j"] // 4, 15, estimated=True) == record.trial.spent


@pytest.mark.parametrize("status", [400, 422, 500, 501])
async def test_a_critic_is_held_to_the_form_where_its_engine_knows_forms(status: int) -> None:
    members = Members(k=[Answer(status, b'{"error": "no grammar here"}')])
    record = await deliberate(members)
    assert ["a", "b", "k", "k", "j"] == members.asked
    assert ["k"] == members.forms  # once, and then without
    assert {"answered"} == set(outcomes(record).values())
    assert Tokens(40, 20) == record.trial.spent


async def test_what_is_not_the_forms_fault_is_no_reason_to_ask_again() -> None:
    members = Members(k=[Answer(404, b"{}")], a=[Answer(400, b"{}")])
    record = await deliberate(members)
    assert (1, 1) == (members.asked.count("k"), members.asked.count("a"))
    assert "refused" == outcomes(record)["k"]


async def test_a_gateway_that_has_not_heard_of_our_key_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmop.workloads.tribunal.runner._KEY_AGAIN_S", 0.01)
    members = Members(a=[NO_KEY, NO_KEY], b=[NO_KEY] * 3)
    record = await deliberate(members)
    assert (3, 3) == (members.asked.count("a"), members.asked.count("b"))
    assert ("answered", "refused") == (outcomes(record)["a"], outcomes(record)["b"])
    (lost,) = [each for each in record.told["calls"] if each["model"] == "b"]
    assert "does not take the key of llmop workloads" in lost["problem"]
    assert lost["tokens"] is None


def _hurried(step_s: float) -> Tribunal:
    return Tribunal(
        name="panel",
        namespace="default",
        drafters=PANEL.drafters,
        critics=PANEL.critics,
        judge=PANEL.judge,
        rounds=0,
        round_timeout_s=step_s,
    )
