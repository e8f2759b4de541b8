"""A step of the number of replicas in words and numbers, for people."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmop.domain import scaling
from llmop.planner import engine_load
from llmop.planner.autoscale import moves, values


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A number of replicas, why, and what it was made of, as JSON. The message tells of one moment, with its numbers."""

    desired: int
    reason: str
    message: str
    inputs: Mapping[str, Any]


def step(wanted: scaling.Scaling, before: int, decision: values.Decision | None) -> Step:
    """From `before` to what was decided last. The limits may have changed since; without a decision there are only they."""
    decided = decision.desired if decision is not None else before
    desired = moves.bounded(wanted, decided)
    if decision is None or desired != decided:
        reason, message = moves.bound_words(wanted, desired, decided, None)
        return Step(desired=desired, reason=reason, message=message, inputs={})
    if decision.reason == "Woken" and decision.last is not None:
        numbers = f"{decision.last.in_flight + decision.last.queued} now"  # averages do not know of them yet
    else:
        numbers = ", ".join(
            f"{each.type} {_number(each.stable)}, target {each.target}" for each in decision.readings
        )
    return Step(
        desired=desired,
        reason=decision.reason,
        message=f"{decision.message} ({numbers})",
        inputs=_inputs(decision),
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _inputs(decision: values.Decision) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 1)

    return {
        "metrics": [
            {
                "type": str(each.type),
                "target": each.target,
                "average": rounded(each.stable),
                "peak": rounded(each.panic),
                "forecast": rounded(each.forecast),
                "replicas": each.replicas,
            }
            for each in decision.readings
        ],
        "inFlight": None if decision.last is None else decision.last.in_flight,
        "queued": None if decision.last is None else decision.last.queued,
        **engine_load.inputs(decision.last.engines if decision.last is not None else None),
        "readyReplicas": decision.fleet.ready,
        "comingReplicas": decision.fleet.on_the_way,
        "leadTime": None if decision.fleet.lead_s is None else f"{round(decision.fleet.lead_s)}s",
        "recommended": decision.recommended,
    }
