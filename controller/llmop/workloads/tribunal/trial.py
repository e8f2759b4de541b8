"""One question before a tribunal: which calls come next, and what follows from what came of them. Pure: no socket, no clock, no chance.

draft -> critique -> (refine -> critique) x rounds -> judge. Every step ends in the next one or in a verdict; whatever fails, as long as
there is a draft there is an answer, unless the tribunal wants an error then.
"""

import dataclasses
import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from llmop.domain.tribunal import Tribunal
from llmop.workloads.tribunal import prompts, reviews
from llmop.workloads.tribunal.reviews import Review, Unusable
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

T = TypeVar("T")

LABELS = string.ascii_uppercase
_LEAST_ANSWER = 16  # tokens; less is no answer
_BYTES_PER_TOKEN = 3  # of a prompt, before an engine has counted it: rather too many tokens than too few
_BUSY = frozenset((429, 503))
_THE_CLIENTS = frozenset((400, 413, 422))
_NO_FORMS = frozenset((400, 422, 500, 501))  # what engines answer to a form that they cannot hold a model to


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a client asks. `options` are the fields of its request that go on to those who write for it; `max_tokens` None = no wish."""

    messages: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float | None = None
    max_tokens: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Author:
    """Who writes a draft, and the label under which others see it."""

    member: str
    model: str
    label: str
    weight: float
    temperature: float | None
    seed: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """One version of an author's draft. `scores` are the critics' of this version."""

    author: Author
    round: int
    text: str
    finish_reason: str
    scores: tuple[float, ...] = ()

    @property
    def standing(self) -> float | None:
        return self.author.weight * reviews.standing(self.scores) if self.scores else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Critique:
    """What one critic found in a round; `problem` says why it counts for nothing."""

    member: str
    model: str
    round: int
    reviews: tuple[Review, ...] = ()
    dissents: bool = False
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """`drafts` holds every version, `critiques` those of every round, `heard` every call that was made."""

    tribunal: Tribunal
    question: Question
    seed: int
    authors: tuple[Author, ...]
    stage: Role = Role.DRAFT
    round: int = 0
    drafts: tuple[Draft, ...] = ()
    critiques: tuple[Critique, ...] = ()
    heard: tuple[Heard, ...] = ()
    verdict: Verdict | None = None

    @property
    def spent(self) -> Tokens:
        return tokens_of(self.heard)

    @property
    def standing_drafts(self) -> tuple[Draft, ...]:
        """The last version of each author's draft, in the order of the labels."""
        last = {draft.author.label: draft for draft in self.drafts}
        return tuple(last[label] for label in sorted(last))

    @property
    def round_critiques(self) -> tuple[Critique, ...]:
        """What usable critiques of the standing drafts there are; those of the round before where a new round brought none."""
        usable = [each for each in self.critiques if not each.problem]
        newest = max((each.round for each in usable), default=0)
        return tuple(each for each in usable if each.round == newest)


def begin(tribunal: Tribunal, question: Question, seed: int) -> Trial:
    """The same seed gives the same labels and orders."""
    places = [(number, copy) for number, each in enumerate(tribunal.drafters) for copy in range(each.copies)]
    labels = _shuffled(LABELS[: len(places)], seed, "labels")
    authors = []
    for label, (number, copy) in zip(labels, places, strict=True):
        drafter = tribunal.drafters[number]
        name = f"drafter-{number + 1}"
        several = drafter.copies > 1
        wished = question.options.get("seed")
        first = wished if isinstance(wished, int) else seed
        authors.append(
            Author(
                member=f"{name}.{copy + 1}" if several else name,
                model=drafter.model,
                label=label,
                weight=drafter.weight,
                temperature=drafter.temperature if drafter.temperature is not None else question.temperature,
                seed=(first + copy) % 2**31 if several else None,
            )
        )
    return Trial(tribunal=tribunal, question=question, seed=seed, authors=tuple(authors))


def tokens_of(heard: Sequence[Heard]) -> Tokens:
    total = Tokens()
    for each in heard:
        total = total.plus(each.result.tokens or Tokens())
    return total


# What comes next


def next_step(trial: Trial, now_s: float) -> Phase | Verdict:
    """`now_s` is seconds after the beginning."""
    if trial.verdict is not None:
        return trial.verdict
    tribunal = trial.tribunal
    if now_s >= tribunal.timeout_s:
        return _instead(trial, "budget_spent", f"its {tribunal.timeout_s:g} s are over", 504)
    calls = _CALLS[trial.stage](trial)
    room = tribunal.max_tokens - trial.spent.total
    if tribunal.round_max_tokens:
        room = min(room, tribunal.round_max_tokens)
    share = (room - sum(_prompt_tokens(call) for call in calls)) // len(calls)
    if share < _LEAST_ANSWER:
        return _instead(trial, "budget_spent", f"the tokens left are too few for the step {trial.stage}", 422)
    limited = tuple(
        dataclasses.replace(call, body={**call.body, "max_tokens": min(call.body["max_tokens"], share)})
        for call in calls
    )
    deadline = min(now_s + tribunal.round_timeout_s, tribunal.timeout_s)
    return Phase(trial.stage, trial.round, limited, deadline)


def _draft_calls(trial: Trial) -> tuple[Call, ...]:
    return tuple(
        _authors_call(trial, author, Role.DRAFT, trial.question.messages) for author in trial.authors
    )


def _critique_calls(trial: Trial) -> tuple[Call, ...]:
    calls = []
    for number, critic in enumerate(trial.tribunal.critics, 1):
        shown = [prompts.Shown(each.author.label, each.text) for each in trial.standing_drafts]
        order = _shuffled(shown, trial.seed, f"critic {number} {trial.round}")
        messages = prompts.critique(trial.tribunal.prompts, trial.question.messages, order)
        body = _body(trial, critic.model, messages, critic.temperature)
        body["response_format"] = reviews.form([each.label for each in shown])
        calls.append(_call(trial, Role.CRITIQUE, f"critic-{number}", critic.model, body))
    return tuple(calls)


def _refine_calls(trial: Trial) -> tuple[Call, ...]:
    calls = []
    for draft in trial.standing_drafts:
        objections = [
            prompts.Objection(review.label, review.score, review.findings, critique.dissents)
            for critique in trial.round_critiques
            for review in critique.reviews
            if review.label == draft.author.label
        ]
        messages = prompts.refine(trial.tribunal.prompts, trial.question.messages, draft.text, objections)
        calls.append(_authors_call(trial, draft.author, Role.REFINE, messages))
    return tuple(calls)


def _judge_calls(trial: Trial) -> tuple[Call, ...]:
    shown = [prompts.Shown(each.author.label, each.text) for each in trial.standing_drafts]
    shown = _shuffled(shown, trial.seed, "judge")
    critiques = [
        [
            prompts.Objection(each.label, each.score, each.findings, critique.dissents)
            for each in critique.reviews
        ]
        for critique in trial.round_critiques
    ]
    judge = trial.tribunal.judge
    messages = prompts.judge(trial.tribunal.prompts, trial.question.messages, shown, critiques)
    temperature = judge.temperature if judge.temperature is not None else trial.question.temperature
    body = {**trial.question.options, **_body(trial, judge.model, messages, temperature)}
    body["max_tokens"] = _answer_tokens(trial)
    return (_call(trial, Role.JUDGE, "judge", judge.model, body),)


_CALLS = {
    Role.DRAFT: _draft_calls,
    Role.CRITIQUE: _critique_calls,
    Role.REFINE: _refine_calls,
    Role.JUDGE: _judge_calls,
}


def _authors_call(trial: Trial, author: Author, role: Role, messages: Sequence[Mapping[str, Any]]) -> Call:
    body = {**trial.question.options, **_body(trial, author.model, messages, author.temperature)}
    body["max_tokens"] = _answer_tokens(trial)
    if author.seed is not None:
        body["seed"] = author.seed
    return _call(trial, role, author.member, author.model, body)


def _call(trial: Trial, role: Role, member: str, model: str, body: Mapping[str, Any]) -> Call:
    return Call(role=role, member=member, model=model, round=trial.round, body=body)


def _body(
    trial: Trial, model: str, messages: Sequence[Mapping[str, Any]], temperature: float | None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": trial.tribunal.answer_tokens,
    }
    if temperature is not None:
        body["temperature"] = temperature
    return body


def _answer_tokens(trial: Trial) -> int:
    wished = trial.question.max_tokens
    return trial.tribunal.answer_tokens if wished is None else min(wished, trial.tribunal.answer_tokens)


def _prompt_tokens(call: Call) -> int:
    size = sum(_size(each.get("content")) for each in call.body["messages"])
    return size // _BYTES_PER_TOKEN + 8 * len(call.body["messages"])


def _size(content: Any) -> int:
    if isinstance(content, str):
        return len(content.encode())
    if isinstance(content, list):
        return sum(_size(part.get("text")) for part in content if isinstance(part, dict))
    return 0


def without_form(call: Call, status: int) -> Call | None:
    """The call to be made instead where a critic's engine has answered `status`: not every engine knows forms, and each refuses them
    with a status of its own. None where the form is not to blame; a form that the client asked for goes to authors and the judge only.
    """
    if call.role is not Role.CRITIQUE or "response_format" not in call.body or status not in _NO_FORMS:
        return None
    body = {name: value for name, value in call.body.items() if name != "response_format"}
    return dataclasses.replace(call, body=body)


# What follows


def hear(trial: Trial, heard: Sequence[Heard]) -> Trial:
    """`heard` is what came of every call of the last phase."""
    trial = dataclasses.replace(trial, heard=(*trial.heard, *heard))
    return _HEAR[trial.stage](trial, heard)


def _hear_drafts(trial: Trial, heard: Sequence[Heard]) -> Trial:
    drafts = _drafts(trial, heard)
    trial = dataclasses.replace(trial, drafts=drafts)
    failures = [each.result for each in heard if isinstance(each.result, Failure)]
    if len(drafts) < max(1, trial.tribunal.min_successful):
        return dataclasses.replace(trial, verdict=_too_few(trial, failures))
    return dataclasses.replace(trial, stage=Role.CRITIQUE)


def _drafts(trial: Trial, heard: Sequence[Heard]) -> tuple[Draft, ...]:
    by_member = {author.member: author for author in trial.authors}
    return tuple(
        Draft(
            author=by_member[each.call.member],
            round=trial.round,
            text=each.result.text,
            finish_reason=each.result.finish_reason,
        )
        for each in heard
        if isinstance(each.result, Reply)
    )


def _hear_critiques(trial: Trial, heard: Sequence[Heard]) -> Trial:
    labels = [each.author.label for each in trial.standing_drafts]
    found = [_critique(each, labels) for each in heard]
    usable = [each for each in found if not each.problem]
    marks = reviews.dissents([_scores(each) for each in usable])
    marked = {each.member: mark for each, mark in zip(usable, marks, strict=True)}
    found = [dataclasses.replace(each, dissents=marked.get(each.member, False)) for each in found]
    trial = dataclasses.replace(trial, critiques=(*trial.critiques, *found), drafts=_scored(trial, usable))
    leader = _agreed(trial, found)
    if leader is not None:
        word = (
            f"all critics put this draft first, with {trial.tribunal.agreement:g} of {reviews.BEST:g} or more"
        )
        return dataclasses.replace(
            trial, verdict=Answer(leader.text, leader.finish_reason, Outcome.AGREED, word)
        )
    if usable and trial.round < trial.tribunal.rounds:
        return dataclasses.replace(trial, stage=Role.REFINE, round=trial.round + 1)
    return dataclasses.replace(trial, stage=Role.JUDGE)


def _critique(heard: Heard, labels: Sequence[str]) -> Critique:
    call, result = heard.call, heard.result
    made = Critique(member=call.member, model=call.model, round=call.round)
    if isinstance(result, Failure):
        return dataclasses.replace(made, problem=f"{result.reason}: {result.message}")
    read = reviews.read(result.text, labels)
    if isinstance(read, Unusable):
        return dataclasses.replace(made, problem=f"invalid: {read.problem}")
    return dataclasses.replace(made, reviews=read)


def _scores(critique: Critique) -> dict[str, float]:
    return {each.label: each.score for each in critique.reviews}


def _scored(trial: Trial, usable: Sequence[Critique]) -> tuple[Draft, ...]:
    scores = [_scores(each) for each in usable]
    standing = trial.standing_drafts
    return tuple(
        dataclasses.replace(draft, scores=tuple(each[draft.author.label] for each in scores))
        if scores and draft in standing
        else draft
        for draft in trial.drafts
    )


def _agreed(trial: Trial, found: Sequence[Critique]) -> Draft | None:
    """A critic that could not be heard may be the one who dissents."""
    threshold = trial.tribunal.agreement
    if threshold is None or any(each.problem for each in found):
        return None
    label = reviews.agreed([_scores(each) for each in found], threshold)
    return next((each for each in trial.standing_drafts if each.author.label == label), None)


def _hear_refined(trial: Trial, heard: Sequence[Heard]) -> Trial:
    """An author who fails stands by the earlier version; without a new version there is nothing to read again."""
    refined = _drafts(trial, heard)
    stage = Role.CRITIQUE if refined else Role.JUDGE
    return dataclasses.replace(trial, drafts=(*trial.drafts, *refined), stage=stage)


def _hear_judge(trial: Trial, heard: Sequence[Heard]) -> Trial:
    result = heard[0].result
    if isinstance(result, Reply):
        verdict: Verdict = Answer(result.text, result.finish_reason, Outcome.JUDGED)
    else:
        status = 504 if result.reason == "timeout" else 502
        verdict = _instead(trial, "judge_failed", f"the judge failed: {result.message}", status)
    return dataclasses.replace(trial, verdict=verdict)


_HEAR = {
    Role.DRAFT: _hear_drafts,
    Role.CRITIQUE: _hear_critiques,
    Role.REFINE: _hear_refined,
    Role.JUDGE: _hear_judge,
}


def best(trial: Trial) -> Draft | None:
    """The version with the best standing, the later of equals; of drafts that nobody has judged the one of the most weight, then the
    manifest's first.
    """
    scored = [each for each in trial.drafts if each.standing is not None]
    if scored:
        return max(scored, key=lambda each: (each.standing, each.round, -trial.authors.index(each.author)))
    unscored = trial.standing_drafts
    return max(
        unscored, key=lambda each: (each.author.weight, -trial.authors.index(each.author)), default=None
    )


def _instead(trial: Trial, code: str, why: str, status: int) -> Verdict:
    """The judge does not come to it."""
    draft = best(trial)
    if draft is not None and trial.tribunal.falls_back:
        return Answer(draft.text, draft.finish_reason, Outcome.FELL_BACK, f"{code}: {why}")
    return Failed(status, code, f"the tribunal '{trial.tribunal.name}' has no answer: {why}")


def _too_few(trial: Trial, failures: Sequence[Failure]) -> Failed:
    """A request that every drafter refuses in the same way is the client's to mend; members that are all busy are asked again later."""
    name, statuses = trial.tribunal.name, {each.status for each in failures}
    words = "; ".join(dict.fromkeys(each.message for each in failures))
    few = f"{len(trial.drafts)} of {len(trial.authors)} drafts came"
    message = (
        f"the tribunal '{name}' has no answer: {few}, {trial.tribunal.min_successful} are needed: {words}"
    )
    if not trial.drafts and len(statuses) == 1 and statuses <= _THE_CLIENTS:
        return Failed(min(statuses), "drafters_refused", message)
    if statuses and statuses <= _BUSY:
        after = max((each.retry_after or 0.0 for each in failures), default=0.0)
        return Failed(503, "drafters_busy", message, after or None)
    if {each.reason for each in failures} == {"timeout"}:
        return Failed(504, "too_few_drafts", message)
    return Failed(502, "too_few_drafts", message)


def _shuffled(items: Sequence[T], seed: int, what: str) -> list[T]:
    """The same order for the same seed and purpose."""
    places = sorted(
        range(len(items)), key=lambda place: hashlib.sha256(f"{seed} {what} {place}".encode()).digest()
    )
    return [items[place] for place in places]
