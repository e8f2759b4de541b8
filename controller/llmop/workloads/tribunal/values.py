"""The words in which a tribunal is spoken about: calls that go out, what came of them, and the verdict. Pure."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, NamedTuple


class Role(enum.StrEnum):
    DRAFT = "draft"
    CRITIQUE = "critique"
    REFINE = "refine"
    JUDGE = "judge"


class Tokens(NamedTuple):
    """Of one call, or of many. `estimated`: an engine did not say it."""

    prompt: int = 0
    completion: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def plus(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.estimated or other.estimated,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A chat completion to be asked for. `member` is the caller's name for who answers, as `drafter-1`; `round` counts refinements."""

    role: Role
    member: str
    model: str
    round: int
    body: Mapping[str, Any]


class Reply(NamedTuple):
    """A whole answer. `finish_reason` is the engine's word."""

    text: str
    finish_reason: str
    tokens: Tokens


class Failure(NamedTuple):
    """No usable answer came. `reason` is a word: timeout, refused, failed, empty. `status` is that of HTTP where there was one,
    `tokens` what was spent all the same.
    """

    reason: str
    message: str
    status: int = 0
    retry_after: float | None = None
    tokens: Tokens | None = None


class Heard(NamedTuple):
    """What came of a call, after so many seconds."""

    call: Call
    result: Reply | Failure
    seconds: float


class Phase(NamedTuple):
    """Calls to be made at once. What has not come at `deadline_s`, seconds after the beginning, is a timeout."""

    role: Role
    round: int
    calls: tuple[Call, ...]
    deadline_s: float


class Outcome(enum.StrEnum):
    """Where an answer comes from."""

    JUDGED = "judged"
    AGREED = "agreed"  # the critics agreed on a draft before the end
    FELL_BACK = "fell_back"  # it is the best draft, because something stood in the way of the judge


class Answer(NamedTuple):
    """`reason` says why it is not the judge's, "" where it is."""

    text: str
    finish_reason: str
    outcome: Outcome
    reason: str = ""


class Failed(NamedTuple):
    """There is no answer. `status` is what the client gets, `code` a word for programs."""

    status: int
    code: str
    message: str
    retry_after: float | None = None


Verdict = Answer | Failed
