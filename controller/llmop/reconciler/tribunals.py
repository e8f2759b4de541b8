"""One pass over a Tribunal: nothing is started for it, so there is its name to publish and its state to show."""

import dataclasses
from typing import Any

from llmop.domain import conditions, endpoint, resources
from llmop.manifest import convert
from llmop.planner import tribunals
from llmop.reconciler import codec


def look(
    owner: resources.Resource, public: tribunals.Public, name_conflict: str, now: float
) -> tuple[endpoint.RoutedModel | None, dict[str, Any]]:
    """The model that gateways get to see, and the status."""
    tribunal = convert.tribunal(owner)
    before = tuple(codec.condition_of(each) for each in owner.status.get("conditions", ()))
    ready = dataclasses.replace(
        tribunals.ready(tribunal, public, name_conflict),
        observed_generation=owner.generation,
        changed_at=now,
    )
    shown = conditions.carry_over(before, (ready,))
    status = {
        "observedGeneration": owner.generation,
        "conditions": [codec.condition_json(each) for each in shown],
    }
    return tribunals.model(tribunal, owner.created_at, name_conflict), status
