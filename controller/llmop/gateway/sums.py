"""Counts of several worker processes as one: told from process to process as plain values, and added up. Pure."""

from typing import Any

from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Dialect
from llmop.gateway.metrics import UNKNOWN_MODEL, Counts, ModelCounts
from llmop.gateway.queue import Priority
from llmop.gateway.retry import Failure

Told = dict[str, Any]


def tell(counts: Counts) -> Told:
    """The values themselves, not copies."""
    return {
        "models": {
            name: {field: getattr(model, field) for field in ModelCounts.__slots__}
            for name, model in counts.models.items()
        },
        "refused": counts.refused,
        "limited": counts.limited,
        "connections": counts.connections,
        "restarts": counts.restarts,
        "faults": counts.faults,
    }


def add(one: Any, other: Any) -> Any:
    """Numbers are added, lists place by place, mappings name by name; what only one of them has stays."""
    if isinstance(one, dict):
        both = one | other
        return {
            name: add(one[name], other[name]) if name in one and name in other else both[name]
            for name in both
        }
    if isinstance(one, list):
        return [add(left, right) for left, right in zip(one, other, strict=True)]
    return one + other


def of_the_dead(told: Told) -> Told:
    """What stays of a process that has ended: what it counted, not what it held."""
    held = {"in_flight": 0, "queued": [0] * len(Priority), "queued_bytes": 0}
    models = {name: model | held for name, model in told["models"].items()}
    return told | {"models": models, "connections": 0}


def hear(told: Told) -> Counts:
    counts = Counts()
    for name, values in told["models"].items():
        model = counts.unknown if name == UNKNOWN_MODEL else ModelCounts()
        for field, value in values.items():
            setattr(model, field, value)
        model.codes = {Dialect(dialect): row for dialect, row in model.codes.items()}
        model.dropped = {Dropped(why): number for why, number in model.dropped.items()}
        model.failures = {Failure(failure): number for failure, number in model.failures.items()}
        counts.models[name] = model
    counts.refused = told["refused"]
    counts.limited = told["limited"]
    counts.connections = told["connections"]
    counts.restarts = told["restarts"]
    counts.faults = told["faults"]
    return counts
