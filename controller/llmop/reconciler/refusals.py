"""What people are told of an object whose stored spec this version refuses."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llmop.domain import conditions, resources
from llmop.manifest import stored
from llmop.reconciler import codec

# Nothing else is written into the status of these, and no pass is made over those that are accepted.
KINDS = (resources.SERVING_RUNTIME, resources.RESOURCE_PROFILE, resources.API_KEY)


def status(owner: resources.Resource, now: float) -> dict[str, Any]:
    """The status of an object of one of `KINDS`: the refusal, or nothing."""
    words = stored.refusal(owner)
    if not words:
        return {}
    return {
        "observedGeneration": owner.generation,
        "conditions": conditions_of(owner, (), words, now),
    }


def is_due(owner: resources.Resource) -> bool:
    """Whether the status of an object of one of `KINDS` says something else than is true, as far as a look at it can tell."""
    shown = owner.status.get("conditions") or ()
    return bool(shown) or bool(stored.refusal(owner))


def conditions_of(
    owner: resources.Resource, found: Sequence[conditions.Condition], words: str, now: float
) -> list[dict[str, Any]]:
    """`found`, and the refusal where there is one, as the status of `owner` has them from `now` on."""
    before = tuple(codec.condition_of(each) for each in owner.status.get("conditions", ()))
    every = (*found, conditions.spec_refused(words)) if words else tuple(found)
    timed = tuple(
        dataclasses.replace(each, observed_generation=owner.generation, changed_at=now) for each in every
    )
    return [codec.condition_json(each) for each in conditions.carry_over(before, timed)]
