"""A tribunal's state machine: which calls come next, and what every failure leads to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.domain.tribunal import Drafter, Member, Tribunal
from llmop.workloads.tribunal import trial as trials
from llmop.workloads.tribunal.trial import Question, Trial
from llmop.workloads.tribunal.values import (
    Answer,
    Call,
    Failed,
    Failure,
    Heard,
    Outcome,
    Phase,
    Reply,
    Role,
    Tokens,
    Verdict,
)

PANEL = Tribunal(
    name="panel",
    namespace="default",
    drafters=(Drafter(model="a"), Drafter(model="b"), Drafter(model="c")),
    critics=(Member(model="k"), Member(model="l")),
    judge=Member(model="j"),
    rounds=0,
)
QUESTION = Question(messages=({"role": "user", "content": "What is it?"},))
TOKENS = Tokens(10, 5)

Member_ = Callable[[Trial, Call], Reply | Failure]


def reply(text: str) -> Reply:
    return Reply(text, "stop", TOKENS)


def down(reason: str = "failed", status: int = 502, **more: Any) -> Failure:
    return Failure(reason, f"the model answered {status}", status, **more)


def scores(trial: Trial, by_model: Mapping[str, float]) -> Reply:
    """A critique that gives each drafter's model its score."""
    rows = {
        each.author.label: {
            "score": by_model[each.author.model],
            "findings": [f"{each.author.model} is so"],
        }
        for each in trial.standing_drafts
    }
    return reply(json.dumps({"reviews": rows}))


def usual(trial: Trial, call: Call) -> Reply | Failure:
    if call.role is Role.CRITIQUE:
        return scores(trial, {"a": 5, "b": 7, "c": 6})
    return reply(f"{call.role} of {call.model} in {call.round}")


def play(
    tribunal: Tribunal,
    members: Member_ = usual,
    question: Question = QUESTION,
    step_s: float = 1.0,
) -> tuple[Trial, Verdict, list[Phase]]:
    """Until the verdict. Every phase takes `step_s`."""
    trial, phases, now = trials.begin(tribunal, question, 7), [], 0.0
    while isinstance(step := trials.next_step(trial, now), Phase):
        phases.append(step)
        now += step_s
        trial = trials.hear(trial, [Heard(call, members(trial, call), step_s) for call in step.calls])
    return trial, step, phases


def by(answers: Mapping[str, Reply | Failure], otherwise: Member_ = usual) -> Member_:
    """What members with these models say."""
    return lambda trial, call: answers.get(call.model) or otherwise(trial, call)


def contents(call: Call) -> str:
    return "\n".join(each["content"] for each in call.body["messages"])


def test_drafts_critiques_and_the_judge_follow_each_other() -> None:
    trial, verdict, phases = play(PANEL)

    assert [(each.role, [call.model for call in each.calls]) for each in phases] == [
        (Role.DRAFT, ["a", "b", "c"]),
        (Role.CRITIQUE, ["k", "l"]),
        (Role.JUDGE, ["j"]),
    ]
    assert verdict == Answer("judge of j in 0", "stop", Outcome.JUDGED)
    assert trial.spent == Tokens(60, 30)


def test_rounds_refine_and_read_again() -> None:
    _, _, phases = play(dataclasses.replace(PANEL, rounds=2))

    assert [(each.role.value, each.round) for each in phases] == [
        ("draft", 0),
        ("critique", 0),
        ("refine", 1),
        ("critique", 1),
        ("refine", 2),
        ("critique", 2),
        ("judge", 2),
    ]
    refined = next(call for call in phases[2].calls if call.model == "a")
    assert refined.body["messages"][1] == {"role": "assistant", "content": "draft of a in 0"}
    assert "a is so" in contents(refined)
    assert "b is so" not in contents(refined)


def test_critics_see_no_names_and_each_another_order() -> None:
    orders, labelled = set(), set()
    for seed in range(20):
        trial = trials.begin(PANEL, QUESTION, seed)
        phase = trials.next_step(trial, 0)
        assert isinstance(phase, Phase)
        trial = trials.hear(trial, [Heard(call, reply(f"text {call.model}"), 1) for call in phase.calls])
        phase = trials.next_step(trial, 1)
        assert isinstance(phase, Phase)
        for call in phase.calls:
            text = contents(call)
            assert "drafter" not in text
            orders.add(tuple(sorted("abc", key=lambda model: text.index(f"text {model}"))))
        labels = {author.model: author.label for author in trial.authors}
        assert sorted(labels.values()) == ["A", "B", "C"]
        labelled.add(tuple(labels.values()))

    assert len(orders) == len(labelled) == 6  # every order there is of three


def test_the_same_seed_plays_the_same_trial() -> None:
    assert play(PANEL)[2] == play(PANEL)[2]


def test_the_judge_reads_every_critique_and_the_dissent_first() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        if call.model == "k":
            return scores(trial, {"a": 9, "b": 2, "c": 3})
        if call.model == "l":
            return scores(trial, {"a": 1, "b": 8, "c": 3})
        return usual(trial, call)

    three = dataclasses.replace(PANEL, critics=(Member(model="k"), Member(model="k"), Member(model="l")))
    trial, _, phases = play(three, members)

    assert [each.dissents for each in trial.critiques] == [False, False, True]
    text = contents(phases[-1].calls[0])
    assert text.count("<critic number=") == 3
    assert text.index('<critic number="1" dissent>') < text.index('<critic number="2">')
    assert text.index("1 of 10") < text.index("9 of 10")  # the dissenting score of a


def test_early_agreement_ends_it_without_refining_and_without_the_judge() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        return scores(trial, {"a": 5, "b": 9.5, "c": 6}) if call.role is Role.CRITIQUE else usual(trial, call)

    trial, verdict, phases = play(dataclasses.replace(PANEL, rounds=3), members)

    assert isinstance(verdict, Answer)
    assert (verdict.text, verdict.outcome) == ("draft of b in 0", Outcome.AGREED)
    assert [each.role for each in phases] == [Role.DRAFT, Role.CRITIQUE]
    assert trial.spent == Tokens(50, 25)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": 9.5, "b": 1, "c": 1}, {"a": 1, "b": 9.5, "c": 1}),  # of two minds
        ({"a": 9.5, "b": 1, "c": 1}, {"a": 8.9, "b": 1, "c": 1}),  # one is not convinced
        ({"a": 9.5, "b": 9.5, "c": 1}, {"a": 9.5, "b": 1, "c": 1}),  # one cannot tell two apart
    ],
)
def test_critics_who_do_not_agree_leave_it_to_the_judge(
    first: dict[str, float], second: dict[str, float]
) -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        by_model = {"k": first, "l": second}
        return scores(trial, by_model[call.model]) if call.model in by_model else usual(trial, call)

    assert play(PANEL, members)[1] == Answer("judge of j in 0", "stop", Outcome.JUDGED)


def test_a_critic_that_was_not_heard_may_be_the_one_who_dissents() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        if call.model == "k":
            return scores(trial, {"a": 10, "b": 1, "c": 1})
        return reply("I like them all") if call.model == "l" else usual(trial, call)

    trial, verdict, _ = play(PANEL, members)

    assert isinstance(verdict, Answer)
    assert verdict.outcome is Outcome.JUDGED
    assert trial.critiques[1].problem == 'invalid: there is no JSON object with "reviews" in the answer'


def test_agreement_can_be_turned_off() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        return scores(trial, {"a": 10, "b": 1, "c": 1}) if call.role is Role.CRITIQUE else usual(trial, call)

    verdict = play(dataclasses.replace(PANEL, agreement=None), members)[1]
    assert isinstance(verdict, Answer)
    assert verdict.outcome is Outcome.JUDGED


# Drafters


def test_the_others_go_on_without_a_drafter_that_fails() -> None:
    trial, verdict, phases = play(PANEL, by({"a": down()}))

    assert isinstance(verdict, Answer)
    assert verdict.outcome is Outcome.JUDGED
    assert {each.author.model for each in trial.drafts} == {"b", "c"}
    assert contents(phases[1].calls[0]).count("<draft id=") == 2


def test_too_few_drafts_are_an_error() -> None:
    _, verdict, phases = play(dataclasses.replace(PANEL, min_successful=3), by({"a": down()}))

    assert isinstance(verdict, Failed)
    assert (verdict.status, verdict.code) == (502, "too_few_drafts")
    assert "2 of 3 drafts came, 3 are needed" in verdict.message
    assert len(phases) == 1


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (down(), 502, "too_few_drafts", None),
        (down("refused", 503, retry_after=30.0), 503, "drafters_busy", 30.0),
        (down("refused", 422), 422, "drafters_refused", None),
        (down("refused", 404), 502, "too_few_drafts", None),
        (down("timeout", 0), 504, "too_few_drafts", None),
    ],
)
def test_what_the_client_gets_when_every_drafter_fails(
    failure: Failure, status: int, code: str, retry_after: float | None
) -> None:
    _, verdict, _ = play(PANEL, by(dict.fromkeys("abc", failure)))

    assert isinstance(verdict, Failed)
    assert (verdict.status, verdict.code, verdict.retry_after) == (status, code, retry_after)


def test_copies_of_one_drafter_differ_in_their_seed() -> None:
    twins = dataclasses.replace(PANEL, drafters=(Drafter(model="a", copies=3, temperature=0.9),))
    calls = play(twins)[2][0].calls

    assert [each.member for each in calls] == ["drafter-1.1", "drafter-1.2", "drafter-1.3"]
    assert len({each.body["seed"] for each in calls}) == 3
    assert {each.body["temperature"] for each in calls} == {0.9}


# Critics


def whole(review: str) -> str:
    """A critique of three drafts, in which every review is this one."""
    return '{"reviews": {' + ", ".join(f'"{label}": {review}' for label in "ABC") + "}}"


def test_the_form_asks_for_a_review_of_every_draft_and_of_nothing_else() -> None:
    calls = play(PANEL)[2][1].calls

    for call in calls:
        form = call.body["response_format"]["json_schema"]["schema"]["properties"]["reviews"]
        assert form["required"] == ["A", "B", "C"]
        assert not form["additionalProperties"]
        assert form["properties"]["A"]["properties"]["score"]["enum"] == list(range(11))
    assert all(
        "response_format" not in call.body
        for phase in play(PANEL)[2]
        if phase.role is not Role.CRITIQUE
        for call in phase.calls
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"reviews": [3]}', '"reviews" is not an object'),
        (whole("3"), "reviews.A is not an object"),
        ('{"reviews": {"Z": {"score": 1, "findings": []}}}', '"Z" is reviewed, and there is no such draft'),
        (whole('{"score": "9", "findings": []}'), "reviews.A.score is not a number"),
        (whole('{"score": NaN, "findings": []}'), "reviews.A.score is not a number"),
        (whole('{"score": 11, "findings": []}'), "reviews.A.score is not between 0 and 10"),
        (whole('{"score": true, "findings": []}'), "reviews.A.score is not a number"),
        (whole('{"score": 1}'), "reviews.A.findings is not a list of texts"),
        ('{"reviews": {"A": {"score": 1, "findings": []}}}', "no review of draft B, C"),
        ('{"reviews": ' + "[" * 100_000, "no JSON object"),
    ],
)
def test_a_critic_that_answers_garbage_counts_for_nothing(text: str, problem: str) -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        return reply(text) if call.model == "k" else usual(trial, call)

    trial, verdict, phases = play(PANEL, members)

    assert problem in trial.critiques[0].problem
    assert isinstance(verdict, Answer)
    assert verdict.outcome is Outcome.JUDGED
    assert contents(phases[-1].calls[0]).count("<critic number=") == 1


def test_json_among_other_words_is_found() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        if call.model != "k":
            return usual(trial, call)
        good = scores(trial, {"a": 5, "b": 7, "c": 6}).text
        return reply(f"<think>{{maybe}} {{}}</think>Here it is:\n```json\n{good}\n```\nDone.")

    assert not play(PANEL, members)[0].critiques[0].problem


def test_without_any_usable_critique_nothing_is_refined_and_the_judge_is_told() -> None:
    trial, verdict, phases = play(
        dataclasses.replace(PANEL, rounds=3), by({"k": reply("so so"), "l": down("timeout", 0)})
    )

    assert [each.role for each in phases] == [Role.DRAFT, Role.CRITIQUE, Role.JUDGE]
    assert "No critic gave a usable opinion" in contents(phases[-1].calls[0])
    assert isinstance(verdict, Answer)
    assert verdict.outcome is Outcome.JUDGED
    assert trial.critiques[1].problem.startswith("timeout: ")


# Refining


def test_an_author_who_cannot_refine_stands_by_the_earlier_version() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        return down() if call.role is Role.REFINE and call.model == "b" else usual(trial, call)

    trial, _, phases = play(dataclasses.replace(PANEL, rounds=1), members)

    assert {each.author.model: each.round for each in trial.standing_drafts} == {"a": 1, "b": 0, "c": 1}
    assert "draft of b in 0" in contents(phases[3].calls[0])


def test_when_nobody_can_refine_the_judge_comes_next() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        return down() if call.role is Role.REFINE else usual(trial, call)

    _, _, phases = play(dataclasses.replace(PANEL, rounds=3), members)

    assert [each.role.value for each in phases] == ["draft", "critique", "refine", "judge"]


# The judge, and what is answered without one


@pytest.mark.parametrize("failure", [down(), down("timeout", 0), down("empty", 200)])
def test_the_best_draft_answers_for_a_judge_that_fails(failure: Failure) -> None:
    _, verdict, _ = play(PANEL, by({"j": failure}))

    assert isinstance(verdict, Answer)
    assert (verdict.text, verdict.outcome) == ("draft of b in 0", Outcome.FELL_BACK)
    assert verdict.reason.startswith("judge_failed: the judge failed: ")


@pytest.mark.parametrize(("failure", "status"), [(down(), 502), (down("timeout", 0), 504)])
def test_or_an_error_where_the_tribunal_wants_one(failure: Failure, status: int) -> None:
    _, verdict, _ = play(dataclasses.replace(PANEL, falls_back=False), by({"j": failure}))

    assert isinstance(verdict, Failed)
    assert (verdict.status, verdict.code) == (status, "judge_failed")


def test_one_critic_who_sees_a_fault_outweighs_a_better_mean() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        if call.model == "k":
            return scores(trial, {"a": 8.5, "b": 6.5, "c": 1})
        if call.model == "l":
            return scores(trial, {"a": 5, "b": 6.5, "c": 1})
        return down() if call.model == "j" else usual(trial, call)

    verdict = play(PANEL, members)[1]  # a: mean 6.75, lowest 5; b: 6.5 of both
    assert isinstance(verdict, Answer)
    assert verdict.text == "draft of b in 0"


def test_a_refinement_that_made_it_worse_is_not_the_best_draft() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        if call.role is Role.CRITIQUE:
            return scores(trial, {"a": 5, "b": 8 - 4 * call.round, "c": 6 - call.round})
        return down() if call.model == "j" else usual(trial, call)

    verdict = play(dataclasses.replace(PANEL, rounds=1), members)[1]
    assert isinstance(verdict, Answer)
    assert verdict.text == "draft of b in 0"


def test_weights_count_and_decide_alone_without_scores() -> None:
    heavy = dataclasses.replace(
        PANEL, drafters=(Drafter(model="a"), Drafter(model="b"), Drafter(model="c", weight=1.5))
    )
    for critics in ({}, {"k": reply("-"), "l": reply("-")}):
        verdict = play(heavy, by({"j": down(), **critics}))[1]
        assert isinstance(verdict, Answer)
        assert verdict.text == "draft of c in 0"


# Budgets


def test_time_that_is_over_ends_it_with_the_best_draft() -> None:
    short = dataclasses.replace(PANEL, timeout_s=100, round_timeout_s=60, rounds=5)
    trial, verdict, phases = play(short, step_s=50)

    assert [each.deadline_s for each in phases] == [60, 100]
    assert isinstance(verdict, Answer)
    assert (verdict.text, verdict.outcome) == ("draft of b in 0", Outcome.FELL_BACK)
    assert verdict.reason == "budget_spent: its 100 s are over"
    assert len(trial.heard) == 5


def test_tokens_that_are_spent_end_it_with_the_best_draft() -> None:
    def members(trial: Trial, call: Call) -> Reply | Failure:
        found = usual(trial, call)
        assert isinstance(found, Reply)
        return found._replace(tokens=Tokens(100, 200))

    frugal = dataclasses.replace(PANEL, max_tokens=1500, rounds=5, answer_tokens=200)
    trial, verdict, phases = play(frugal, members)

    assert [each.role.value for each in phases] == ["draft", "critique"]
    assert trial.spent == Tokens(500, 1000)
    assert isinstance(verdict, Answer)
    assert verdict.reason == "budget_spent: the tokens left are too few for the step refine"


def test_a_budget_that_is_too_small_for_the_question_is_an_error() -> None:
    long = Question(messages=({"role": "user", "content": "long " * 1000},))
    _, verdict, phases = play(dataclasses.replace(PANEL, max_tokens=2000), question=long)

    assert isinstance(verdict, Failed)
    assert (verdict.status, verdict.code, phases) == (422, "budget_spent", [])


def test_calls_share_what_is_left() -> None:
    frugal = dataclasses.replace(PANEL, max_tokens=20_000, round_max_tokens=600, answer_tokens=1024)
    calls = play(frugal)[2][0].calls

    assert len({each.body["max_tokens"] for each in calls}) == 1
    assert 150 < calls[0].body["max_tokens"] < 200


def test_what_the_client_wishes_reaches_those_who_write_for_it_only() -> None:
    question = dataclasses.replace(
        QUESTION, options={"stop": ["END"], "top_p": 0.5}, temperature=0.3, max_tokens=50
    )
    _, _, phases = play(PANEL, question=question)

    for call in (*phases[0].calls, *phases[2].calls):
        assert (call.body["stop"], call.body["temperature"], call.body["max_tokens"]) == (["END"], 0.3, 50)
    for call in phases[1].calls:
        assert "stop" not in call.body
        assert "temperature" not in call.body
        assert call.body["max_tokens"] == 1024


@given(st.data())
def test_whatever_happens_there_is_a_verdict_and_the_sum_is_exact(data: st.DataObject) -> None:
    """Any member may fail at any time, in any way, and any amount of time may pass."""
    tribunal = dataclasses.replace(
        PANEL,
        rounds=data.draw(st.integers(0, 3)),
        min_successful=data.draw(st.integers(1, 3)),
        max_tokens=data.draw(st.integers(500, 50_000)),
        falls_back=data.draw(st.booleans()),
    )
    total = 0

    def members(trial: Trial, call: Call) -> Reply | Failure:
        nonlocal total
        kind = data.draw(st.integers(0, 9))
        if kind == 0:
            return down("timeout", 0)
        if kind == 1:
            return down("refused", data.draw(st.sampled_from([400, 404, 429, 503])))
        spent = Tokens(data.draw(st.integers(0, 500)), data.draw(st.integers(0, 500)))
        total += spent.total
        if kind == 2:
            return Failure("empty", "it said nothing", 200, tokens=spent)
        if call.role is Role.CRITIQUE and kind < 8:
            given_ = {each: data.draw(st.integers(0, 10)) for each in "abc"}
            return scores(trial, given_)._replace(tokens=spent)
        return Reply(data.draw(st.sampled_from(["x", "{", '{"reviews": []}', "ä"])), "stop", spent)

    trial, verdict, phases = play(tribunal, members, step_s=data.draw(st.floats(0, 100)))

    assert trial.spent.total == total
    assert len(phases) <= 3 + 2 * tribunal.rounds
    if isinstance(verdict, Answer):
        assert len({each.author.label for each in trial.drafts}) >= tribunal.min_successful
        if verdict.outcome is not Outcome.JUDGED:
            assert verdict.text in {each.text for each in trial.drafts}
            assert verdict.reason
    elif tribunal.falls_back:
        assert len(trial.drafts) < tribunal.min_successful or not trial.heard
