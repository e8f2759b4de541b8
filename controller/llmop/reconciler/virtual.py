"""One pass over a model without replicas: nothing is started for it, so there is its name to publish and its state to show."""

import dataclasses
from typing import Any

from llmop.domain import conditions, endpoint, resources
from llmop.manifest import convert
from llmop.planner import virtual
from llmop.reconciler import codec


def look(
    owner: resources.Resource, public: virtual.Public, name_conflict: str, now: float
) -> tuple[endpoint.RoutedModel | None, dict[str, Any]]:
    """The model that gateways get to see, and the status."""
    own = convert.VIRTUAL[owner.kind](owner)
    before = tuple(codec.condition_of(each) for each in owner.status.get("conditions", ()))
    ready = dataclasses.replace(
        virtual.ready(own.models, public, name_conflict),
        observed_generation=owner.generation,
        changed_at=now,
    )
    shown = conditions.carry_over(before, (ready,))
    status = {
        "observedGeneration": owner.generation,
        "conditions": [codec.condition_json(each) for each in shown],
    }
    published = virtual.model(owner.kind, own, owner.created_at, name_conflict)
    return published, status
