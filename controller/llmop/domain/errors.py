"""What can go wrong, as a tree. Each error says what happens next.

LlmopError
├── NeedsUser            nothing will change until a person changes something; not retried
├── WaitUntil            the world is not there yet; tried again at a known time
├── NotFound             there is no such object
├── AlreadyExists        an object of this name is there
├── Conflict             a precondition failed, or another manager owns the field
├── Invalid              the object breaks rules of its kind; carries every violation
├── Expired              the history asked for is gone; list again
├── Deposed              another controller has taken over; stop all effects
└── Unavailable          a dependency (store, Slurm) does not answer; tried again with back-off
"""

import dataclasses


class LlmopError(Exception):
    """Base of all errors that llmop raises on purpose; `str()` is the text for people."""


class NeedsUser(LlmopError):
    """A person has to act. `reason` is a CamelCase word for conditions."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WaitUntil(LlmopError):
    """Try again at `when` (epoch seconds)."""

    def __init__(self, when: float, reason: str, message: str) -> None:
        super().__init__(message)
        self.when = when
        self.reason = reason


class NotFound(LlmopError):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'{kind} "{name}" not found')
        self.kind = kind
        self.name = name


class AlreadyExists(LlmopError):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'{kind} "{name}" already exists')
        self.kind = kind
        self.name = name


class Conflict(LlmopError):
    """`paths` names the fields in conflict, where fields are the matter."""

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken rule. `path` is like `spec.probes.startup.timeout` or `spec.args[2]`; `message` names value and fix."""

    path: str
    reason: str
    message: str


class Invalid(LlmopError):
    def __init__(self, kind: str, name: str, violations: tuple[Violation, ...]) -> None:
        details = "; ".join(f"{violation.path}: {violation.message}" for violation in violations)
        super().__init__(f'{kind} "{name}" is invalid: {details}')
        self.kind = kind
        self.name = name
        self.violations = violations


class Expired(LlmopError):
    def __init__(self, requested: int, oldest: int) -> None:
        super().__init__(
            f"resource version {requested} is too old; the history starts at {oldest}: list again"
        )
        self.requested = requested
        self.oldest = oldest


class Deposed(LlmopError):
    """`why` where it was not seen by the epoch."""

    def __init__(self, epoch: int, why: str = "") -> None:
        super().__init__(why or f"epoch {epoch} is over: another controller has taken over")
        self.epoch = epoch


class Unavailable(LlmopError):
    pass
