"""One pass over a model without replicas: nothing is started for it, so there is its name to publish and its state to show."""

from typing import Any

from llmop.domain import endpoint, resources
from llmop.manifest import convert, stored
from llmop.planner import virtual
from llmop.reconciler import refusals


def look(
    owner: resources.Resource, public: virtual.Public, name_conflict: str, now: float
) -> tuple[endpoint.RoutedModel | None, dict[str, Any]]:
    """The model that gateways get to see, and the status. One that is refused answers as far as it can be read; nobody sees it otherwise."""
    found = stored.read(owner, convert.VIRTUAL[owner.kind])
    own = found.value
    if own is None or found.refusal:
        ready = virtual.refused(found.refusal)
    else:
        ready = virtual.ready(own, public, name_conflict)
    status = {
        "observedGeneration": owner.generation,
        "conditions": refusals.conditions_of(owner, (ready,), found.refusal, now),
    }
    published = None if own is None else virtual.model(owner.kind, own, owner.created_at, name_conflict)
    return published, status
