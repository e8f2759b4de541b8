"""What people are told about a cluster."""

from collections.abc import Sequence
from typing import Any

from llmop.domain import conditions, fences, resources, site
from llmop.manifest import stored
from llmop.planner import canary as decisions
from llmop.reconciler import canary, observe, refusals
from llmop.store import interface


def status(
    owner: resources.Resource,
    watch: observe.ClusterWatch,
    orphans: Sequence[str],
    now: float,
    *,
    writes_files: bool | None,
) -> dict[str, Any]:
    """The status of a Cluster: Reachable, SharedDirectory, what Slurm says about itself, and jobs of ours that nobody owns.

    `writes_files`: agents there report through the inbox; None = none was heard.
    """
    seen = (_reachable(watch), _directory(watch), _fenced(watch))
    learned = watch.capabilities
    return {
        "observedGeneration": owner.generation,
        "conditions": refusals.conditions_of(owner, seen, stored.refusal(owner), now),
        "version": learned.version if learned is not None else "",
        "accounting": learned.accounting if learned is not None else None,
        "minJobAge": f"{learned.min_job_age_s}s" if learned is not None else "",
        "killWait": f"{learned.kill_wait_s}s" if learned is not None else "",
        "partitions": list(learned.partitions) if learned is not None else [],
        "settings": dict(learned.values) if learned is not None else {},
        "orphans": list(orphans),
        "canary": canary.write(watch.canary.known) if watch.canary.known is not None else {},
        "fences": canary.rows(watch.canary.known, learned, writes_files=writes_files),
    }


def _reachable(watch: observe.ClusterWatch) -> conditions.Condition:
    if watch.problem:
        return _condition("Reachable", conditions.Status.FALSE, "NotAnswering", watch.problem)
    if watch.braked:
        return _condition("Reachable", conditions.Status.UNKNOWN, "MassVanish", watch.braked)
    if watch.is_current:
        return _condition("Reachable", conditions.Status.TRUE, "Answers", "")
    return _condition("Reachable", conditions.Status.UNKNOWN, "NotLookedYet", "the cluster was not asked yet")


def _fenced(watch: observe.ClusterWatch) -> conditions.Condition:
    """Whether the submit protocol can work here, as the canary saw it."""
    if watch.site.driver is not site.DriverKind.SLURM:
        return _condition("Fenced", conditions.Status.TRUE, "NotNeeded", "")
    if watch.canary.unproven:
        return _condition("Fenced", conditions.Status.UNKNOWN, "CanaryNotBack", watch.canary.unproven)
    holding = watch.canary.holding
    if holding.identity is fences.Identity.NOTHING:
        return _condition("Fenced", conditions.Status.FALSE, "SiteRewritesJobs", decisions.NO_IDENTITY)
    if watch.canary.known is None:
        message = (
            f"the canary job was rejected, so that Slurm's usual behaviour is assumed: {watch.canary.problem}"
        )
        return _condition("Fenced", conditions.Status.UNKNOWN, "CanaryRejected", message)
    if holding.identity is fences.Identity.COMMENT or not holding.singleton:
        message = "this site changes jobs when they are submitted; status.fences says what stands in"
        return _condition("Fenced", conditions.Status.TRUE, "WithSubstitutes", message)
    return _condition("Fenced", conditions.Status.TRUE, "Proven", "")


def _directory(watch: observe.ClusterWatch) -> conditions.Condition:
    if watch.directory_problem is None:
        words = "the shared directory was not looked at yet"
        return _condition("SharedDirectory", conditions.Status.UNKNOWN, "NotLookedYet", words)
    if watch.directory_problem:
        return _condition("SharedDirectory", conditions.Status.FALSE, "NotUsable", watch.directory_problem)
    return _condition("SharedDirectory", conditions.Status.TRUE, "Usable", "")


def write(owner: resources.Resource, shown: dict[str, Any]) -> interface.WriteStatus:
    return interface.WriteStatus(
        kind=owner.kind,
        namespace=owner.namespace,
        name=owner.name,
        uid=owner.uid,
        expected_version=owner.resource_version,
        status=shown,
    )


def _condition(kind: str, word: conditions.Status, reason: str, message: str) -> conditions.Condition:
    return conditions.Condition(type=kind, status=word, reason=reason, message=message)
