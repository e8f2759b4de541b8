"""What the outcome of one attempt means for a row. Pure."""

from typing import NamedTuple

from llmop.workloads.answers import Answer, code_of, says

MOST_ATTEMPTS = 5  # for what may be the row's own fault: one that kills every replica must end some time
_PAUSE_S = 5.0  # where nobody says how long
_LONGEST_PAUSE_S = 300.0
_BACKOFF_S = 1.0  # doubled with every attempt
_UNREACHABLE_S = 2.0


class Unreachable(NamedTuple):
    """The gateway took no request."""

    message: str


class Broken(NamedTuple):
    """The request went out and no whole answer came."""

    message: str


class Overdue(NamedTuple):
    """No answer came in `seconds`."""

    seconds: float


Outcome = Answer | Unreachable | Broken | Overdue


class Keep(NamedTuple):
    """It is the row's result."""

    answer: Answer


class GiveUp(NamedTuple):
    """The row has no answer, for this reason."""

    code: str
    message: str


class Again(NamedTuple):
    """Ask again after so many seconds. `slow`: everything that goes the same way has to wait, and fewer at once go it afterwards.
    `why` is the same text as long as the reason is the same.
    """

    after_s: float
    slow: bool
    why: str


def judge(outcome: Outcome, failures: int) -> Keep | GiveUp | Again:
    """`failures` is how many attempts of this row have failed before for what may be its own fault."""
    if isinstance(outcome, Unreachable):
        return Again(_UNREACHABLE_S, True, f"the gateway cannot be reached: {outcome.message}")
    if isinstance(outcome, Overdue):
        return GiveUp("request_timeout", f"there was no answer in {outcome.seconds:g} s")
    if isinstance(outcome, Broken):
        if failures + 1 >= MOST_ATTEMPTS:
            return GiveUp("request_failed", f"the answer broke off {MOST_ATTEMPTS} times: {outcome.message}")
        return Again(_BACKOFF_S * 2**failures, False, "")
    if outcome.status in (429, 503):
        return Again(_pause(outcome), True, says(outcome.body) or f"the gateway answers {outcome.status}")
    if outcome.status in (502, 504) and failures + 1 < MOST_ATTEMPTS:
        return Again(max(_pause(outcome, 0.0), _BACKOFF_S * 2**failures), False, "")
    return Keep(outcome)


def refused_us(outcome: Outcome) -> bool:
    """Whether the gateway does not take the key that the rows are asked under."""
    return isinstance(outcome, Answer) and outcome.status == 401


def owner_is_gone(outcome: Outcome) -> bool:
    """Whether the gateway does not know the key any more that the row is asked for."""
    return isinstance(outcome, Answer) and outcome.status == 403 and code_of(outcome.body) == "owner_gone"


def _pause(answer: Answer, default: float = _PAUSE_S) -> float:
    asked = answer.retry_after
    return default if asked is None else min(max(asked, 0.0), _LONGEST_PAUSE_S)
