"""Whether a waiting job starts now, or what Slurm says it waits for. Pure; times are epoch seconds."""

import dataclasses
import math
from collections.abc import Collection

from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.state import HOLDS_SLOTS, Node


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What there is when the scheduler looks. `maintenance` is its start and its end; `max_running` None = as many as fit."""

    now: float
    nodes: Collection[Node]
    jobs: Collection[VirtualJob]
    closed_partitions: Collection[str]
    maintenance: tuple[float, float] | None
    max_running: int | None


def place(job: VirtualJob, cluster: Cluster) -> tuple[str, list[Node]]:
    """Slurm's word for why it waits ("None" also of a job that is held for no reason), and the nodes on which it may start now."""
    free = [node for node in cluster.nodes if node.reachable and not node.drained]
    fitting = [node for node in free if node.slots - node.used >= job.slots]
    reason = _why_it_waits(job, cluster, free, fitting)
    return ("None", fitting) if reason is None else (reason, [])


def _why_it_waits(job: VirtualJob, cluster: Cluster, free: list[Node], fitting: list[Node]) -> str | None:
    """The first that applies."""
    now, reason = cluster.now, None
    if job.held or job.blocked:
        reason = job.held or job.blocked
    elif _has_twin(job, cluster.jobs):
        reason = "Dependency"
    elif job.partition in cluster.closed_partitions:
        reason = "PartitionDown"
    elif job.restarts and now < job.eligible_at:
        reason = "BeginTime"
    elif all(node.slots < job.slots for node in cluster.nodes):
        reason = "PartitionConfig"
    elif _is_quota_used(cluster):
        reason = "QOSMaxJobsPerUserLimit"
    elif _is_reserved(job, cluster):
        reason = "ReqNodeNotAvail, Reserved for maintenance"
    elif now < job.eligible_at:
        reason = "Priority"
    elif not free:
        reason = "ReqNodeNotAvail, UnavailableNodes:" + ",".join(node.name for node in cluster.nodes)
    elif not fitting:
        reason = "Resources"
    return reason


def _has_twin(job: VirtualJob, jobs: Collection[VirtualJob]) -> bool:
    """Singleton: another job of this name runs, or waits and has a lower id."""
    return job.request.singleton and any(
        other.name == job.name and (other.phase is not Phase.PENDING or other.id < job.id)
        for other in jobs
        if other is not job and other.phase is not Phase.ENDED
    )


def _is_quota_used(cluster: Cluster) -> bool:
    running = sum(job.phase in HOLDS_SLOTS for job in cluster.jobs)
    return cluster.max_running is not None and running >= cluster.max_running


def _is_reserved(job: VirtualJob, cluster: Cluster) -> bool:
    if cluster.maintenance is None:
        return False
    start, end = cluster.maintenance
    return cluster.now < end and cluster.now + (job.time_limit_s or math.inf) > start
