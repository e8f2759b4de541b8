"""Makes a tribunal's calls, through the gateway like any client. What follows from them is decided in `trial`."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from llmop.domain.tribunal import Tribunal
from llmop.workloads.answers import Answer, says
from llmop.workloads.calls import Caller
from llmop.workloads.judgement import Broken, Outcome, Overdue, refused_us
from llmop.workloads.tribunal import transcript, trial
from llmop.workloads.tribunal.trial import Question, Trial
from llmop.workloads.tribunal.values import Call, Failure, Heard, Phase, Reply, Tokens, Verdict

URL = "/v1/chat/completions"
_BYTES_PER_TOKEN = 4  # where an engine does not say what it took
_KEY_TRIES, _KEY_AGAIN_S = 3, 1.0  # the gateway reads its keys once a second, and ours may be new
_BUSY = frozenset((429, 503))
_LONGEST_BUSY_S = (
    5.0  # one that wants to be asked later than that is done without: somebody waits for the answer
)
_NO_KEY = "the gateway does not take the key of llmop workloads"

Tell = Callable[[Phase | Heard], None]


class Record(NamedTuple):
    """A trial that is over."""

    trial: Trial
    verdict: Verdict
    seconds: float

    @property
    def told(self) -> dict[str, Any]:
        return transcript.transcript(self.trial, self.verdict, self.seconds)


async def deliberate(
    tribunal: Tribunal,
    question: Question,
    seed: int,
    *,
    caller: Caller,
    is_virtual: Callable[[str], bool],
    tell: Tell,
) -> Record:
    """`tell` gets every step when it begins and every call when it is over. Cancelled, it takes all its requests back."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    current = trial.begin(tribunal, question, seed)
    while isinstance(step := trial.next_step(current, loop.time() - began_at), Phase):
        tell(step)
        deadline = began_at + step.deadline_s
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_hear(call, deadline, caller, is_virtual, tell)) for call in step.calls
            ]
        current = trial.hear(current, [task.result() for task in tasks])
    return Record(current, step, loop.time() - began_at)


async def _hear(
    call: Call, deadline: float, caller: Caller, is_virtual: Callable[[str], bool], tell: Tell
) -> Heard:
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    result: Reply | Failure
    if is_virtual(call.model):
        message = (
            f"{call.member}: the model '{call.model}' has no replicas of its own, and cannot be a member"
        )
        result = Failure("refused", message)
    else:
        try:
            async with asyncio.timeout_at(deadline):
                result = read(call, await _ask(call, caller, deadline))
        except TimeoutError:
            waited = round(deadline - began_at)
            message = f"{call.member}: no answer of the model '{call.model}' in {waited} s"
            result = Failure("timeout", message, tokens=_prompt(call))
    heard = Heard(call, result, loop.time() - began_at)
    tell(heard)
    return heard


async def _ask(call: Call, caller: Caller, deadline: float) -> Outcome:
    """A critic whose engine cannot hold it to a form is asked without one."""
    outcome = await _ask_patiently(call, caller, deadline)
    again = trial.without_form(call, outcome.status) if isinstance(outcome, Answer) else None
    return outcome if again is None else await _ask_patiently(again, caller, deadline)


async def _ask_patiently(call: Call, caller: Caller, deadline: float) -> Outcome:
    """A member that is busy for a moment is asked once more, where its time allows."""
    outcome = await _ask_with_key(call, caller)
    pause = outcome.retry_after if isinstance(outcome, Answer) and outcome.status in _BUSY else None
    if pause is None or pause > _LONGEST_BUSY_S or asyncio.get_running_loop().time() + pause >= deadline:
        return outcome
    await asyncio.sleep(pause)
    return await _ask_with_key(call, caller)


async def _ask_with_key(call: Call, caller: Caller) -> Outcome:
    for _ in range(_KEY_TRIES):
        outcome = await caller.ask(URL, dict(call.body))
        if not refused_us(outcome):
            break
        await asyncio.sleep(_KEY_AGAIN_S)
    return outcome


def read(call: Call, outcome: Outcome) -> Reply | Failure:
    """What the gateway's answer to a call means."""
    who = f"{call.member}: the model '{call.model}'"
    if isinstance(outcome, Overdue):
        return Failure("timeout", f"{who} gave no answer in {outcome.seconds:g} s", tokens=_prompt(call))
    if isinstance(outcome, Broken):
        return Failure("failed", f"{who} could not be heard: {outcome.message}", tokens=_prompt(call))
    if not isinstance(outcome, Answer):
        return Failure("failed", f"{who} could not be asked: {outcome.message}")
    if refused_us(outcome):
        return Failure("refused", f"{who} could not be asked: {_NO_KEY}")
    if outcome.status != 200:
        words = says(outcome.body) or "without a word"
        reason = "failed" if outcome.status >= 500 and outcome.status != 503 else "refused"
        return Failure(
            reason, f"{who} answered {outcome.status}: {words}", outcome.status, outcome.retry_after
        )
    return _read_completion(call, outcome.body, who)


def _read_completion(call: Call, body: bytes, who: str) -> Reply | Failure:
    try:
        value = orjson.loads(body)
        choice = value["choices"][0]
        text = choice["message"]["content"] or ""
        finish_reason = choice.get("finish_reason") or "stop"
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        return Failure("failed", f"{who} answered something that is no chat completion")
    if not isinstance(text, str) or not isinstance(finish_reason, str):
        return Failure("failed", f"{who} answered something that is no chat completion")
    tokens = _tokens(value.get("usage")) or _prompt(call)._replace(
        completion=len(text.encode()) // _BYTES_PER_TOKEN
    )
    if not text.strip():
        return Failure("empty", f"{who} answered without a text", 200, tokens=tokens)
    return Reply(text, finish_reason, tokens)


def _prompt(call: Call) -> Tokens:
    """Of a call that went out, whatever came of it: the engine has at least begun to read."""
    return Tokens(len(orjson.dumps(call.body)) // _BYTES_PER_TOKEN, 0, True)


def _tokens(usage: Any) -> Tokens | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is int and type(completion) is int and prompt >= 0 and completion >= 0:
        return Tokens(prompt, completion)
    return None
