"""What people are told about a cluster."""

from collections.abc import Sequence
from typing import Any

from llmop.domain import conditions, resources
from llmop.reconciler import codec, observe
from llmop.store import interface


def status(
    owner: resources.Resource, watch: observe.ClusterWatch, orphans: Sequence[str], now: float
) -> dict[str, Any]:
    """The status of a Cluster: Reachable, what Slurm says about itself, and jobs of ours that nobody owns."""
    if watch.problem:
        reachable = _condition(conditions.Status.FALSE, "NotAnswering", watch.problem)
    elif watch.braked:
        reachable = _condition(conditions.Status.UNKNOWN, "MassVanish", watch.braked)
    elif watch.is_current:
        reachable = _condition(conditions.Status.TRUE, "Answers", "")
    else:
        reachable = _condition(conditions.Status.UNKNOWN, "NotLookedYet", "the cluster was not asked yet")
    before = tuple(codec.condition_of(each) for each in owner.status.get("conditions", ()))
    shown = conditions.carry_over(
        before,
        (
            conditions.Condition(
                type=reachable.type,
                status=reachable.status,
                reason=reachable.reason,
                message=reachable.message,
                observed_generation=owner.generation,
                changed_at=now,
            ),
        ),
    )
    learned = watch.capabilities
    return {
        "observedGeneration": owner.generation,
        "conditions": [codec.condition_json(each) for each in shown],
        "version": learned.version if learned is not None else "",
        "accounting": learned.accounting if learned is not None else None,
        "minJobAge": f"{learned.min_job_age_s}s" if learned is not None else "",
        "killWait": f"{learned.kill_wait_s}s" if learned is not None else "",
        "partitions": list(learned.partitions) if learned is not None else [],
        "settings": dict(learned.values) if learned is not None else {},
        "orphans": list(orphans),
    }


def write(owner: resources.Resource, shown: dict[str, Any]) -> interface.WriteStatus:
    return interface.WriteStatus(
        kind=owner.kind,
        namespace=owner.namespace,
        name=owner.name,
        uid=owner.uid,
        expected_version=owner.resource_version,
        status=shown,
    )


def _condition(word: conditions.Status, reason: str, message: str) -> conditions.Condition:
    return conditions.Condition(type="Reachable", status=word, reason=reason, message=message)
