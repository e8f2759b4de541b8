"""Conditions: the honest, stable answer to "how is it?"."""

import dataclasses
import enum


class Status(enum.StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """Same problem, same words: `reason` and `message` hold no time, no counter that runs, no order that varies.

    `changed_at` moves only when `status` flips.
    """

    type: str
    status: Status
    reason: str
    message: str = ""
    observed_generation: int = 0
    changed_at: float = 0.0


SPEC_REFUSED = "SpecRefused"  # the reason wherever an object cannot be followed because its spec is refused
_SPEC_ACCEPTED = "SpecAccepted"


def spec_refused(message: str) -> Condition:
    """What every kind has while this version refuses what is stored, and no object has otherwise."""
    return Condition(type=_SPEC_ACCEPTED, status=Status.FALSE, reason=SPEC_REFUSED, message=message)


def carry_over(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """`after`, sorted by type, with the times of transitions that did not happen taken from `before`."""
    known = {condition.type: condition for condition in before}
    result = []
    for condition in sorted(after, key=lambda each: each.type):
        previous = known.get(condition.type)
        if previous is not None and previous.status == condition.status:
            condition = dataclasses.replace(condition, changed_at=previous.changed_at)
        result.append(condition)
    return tuple(result)
