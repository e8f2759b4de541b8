"""How far a rollout is, in kubectl's sentences (pkg/polymorphichelpers/rollout_status.go)."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from llmop.domain.resources import STORED_TEXT


class State(enum.StrEnum):
    COMPLETE = "complete"
    WAITING = "waiting"
    STUCK = "stuck"  # it will not get on by itself


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    state: State
    message: str


def wanted(spec: Mapping[str, Any], status: Mapping[str, Any]) -> int:
    """How many replicas a deployment shall have now: the number that was written, or that its load asks for. Before the first pass has
    looked at `scaling` those that there are, within its bounds: so will the pass decide. Those that there are too where what is stored
    says nothing that can be read: it is held as it is.
    """
    present = int(status.get("replicas") or 0)
    bounds = spec.get("scaling")
    if not bounds:
        return _count(spec.get("replicas", present if STORED_TEXT in spec else 1), present)
    decided = (status.get("scaling") or {}).get("desiredReplicas")
    if decided is not None:
        return int(decided)
    if not isinstance(bounds, Mapping):
        return present
    least, most = _count(bounds.get("minReplicas", 1), 1), _count(bounds.get("maxReplicas"), present)
    return min(most, max(least, present))


def bounds(spec: Mapping[str, Any]) -> str:
    """ "1 to 4", as `scaling` has it; "" without one, and "?" for what cannot be read."""
    written = spec.get("scaling")
    if not written:
        return ""
    least, most = (
        (written.get(name, "?") for name in ("minReplicas", "maxReplicas"))
        if isinstance(written, Mapping)
        else "??"
    )
    return f"{least} to {most}"


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def progress(
    name: str, generation: int, spec: Mapping[str, Any], status: Mapping[str, Any], *, is_deleting: bool
) -> Progress:
    """How far the newest version of a deployment is; `spec` and `status` are those of the object."""
    if is_deleting:
        return _stuck(f'deployment "{name}" is being deleted')
    if int(status.get("observedGeneration") or 0) < generation:
        return _waiting("Waiting for deployment spec update to be observed...")
    conditions = {str(each.get("type")): each for each in status.get("conditions") or ()}
    stalled, progressing = conditions.get("Stalled", {}), conditions.get("Progressing", {})
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return Progress(state=State.COMPLETE, message=f'deployment "{name}" successfully rolled out')
    if stalled.get("status") == "True":
        return _stuck(f'deployment "{name}" is stalled: {_sentence(stalled)}')
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return _stuck(f'deployment "{name}" exceeded its progress deadline: {progressing.get("message", "")}')
    needed = wanted(spec, status)
    total, updated, available = (
        int(status.get(field) or 0) for field in ("replicas", "updatedReplicas", "availableReplicas")
    )
    if spec.get("paused") and available >= needed:
        return _stuck(f'deployment "{name}" is paused; llmctl rollout resume md/{name} lets it go on')
    waiting = f'Waiting for deployment "{name}" rollout to finish:'
    if updated < needed:
        return _waiting(f"{waiting} {updated} out of {needed} new replicas have been updated...")
    if total > updated:
        return _waiting(f"{waiting} {total - updated} old replicas are pending termination...")
    if available < updated:
        return _waiting(f"{waiting} {available} of {updated} updated replicas are available...")
    return _waiting(f"{waiting} {_sentence(ready)}")


def _waiting(message: str) -> Progress:
    return Progress(state=State.WAITING, message=message)


def _stuck(message: str) -> Progress:
    return Progress(state=State.STUCK, message=message)


def _sentence(condition: Mapping[str, Any]) -> str:
    reason, message = condition.get("reason") or "Unknown", condition.get("message") or ""
    return f"{reason}: {message}" if message else str(reason)
