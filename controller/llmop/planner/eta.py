"""When the next replica will be there: by the scheduler's estimate of its start where there is one, else by what the deployment's
replicas took of late.
"""

import math
import statistics
from collections.abc import Sequence

from llmop.domain import endpoint, replica
from llmop.planner import assess, values

KEPT = 20  # lead times that are remembered

_PENDING = frozenset({replica.Phase.SUBMITTING, replica.Phase.PENDING})
_RUNNING = frozenset({replica.Phase.STARTING, replica.Phase.LOADING})
# A time so far ahead (seconds) is rounded up to so much: what is shown to clients shall not change with every look at the queue.
_GRIDS = ((300.0, 10.0), (3600.0, 60.0), (math.inf, 600.0))


def learned(
    record_leads: tuple[values.Lead, ...],
    before: Sequence[replica.Replica],
    replicas: Sequence[assess.Assessment],
    longest_boot_s: float,
) -> tuple[values.Lead, ...]:
    """With the lead times of those that have just become ready. One whose engine was started again, or was ill in between, tells nothing."""
    # An agent is often heard before Slurm is seen to have started its job: it counts once both are known.
    were_ready = {each.uid for each in before if each.ready_at is not None and each.started_at is not None}
    found = list(record_leads)
    for each in replicas:
        facts = each.facts
        if (
            not each.is_routed
            or facts.uid in were_ready
            or facts.engine_restarts
            or facts.ready_at is None
            or facts.started_at is None
        ):
            continue
        wait_s, boot_s = facts.started_at - facts.created_at, facts.ready_at - facts.started_at
        if 0 <= boot_s <= longest_boot_s:
            found.append(values.Lead(wait_s=round(max(0.0, wait_s)), boot_s=round(boot_s)))
    return tuple(found[-KEPT:])


def next_replica(
    replicas: Sequence[assess.Assessment], leads: Sequence[values.Lead], now: float
) -> endpoint.NextReplica:
    """None is looked for where one serves: clients are told of the queue there."""
    if any(each.is_routed for each in replicas):
        return endpoint.NextReplica()
    coming = [each for each in replicas if not each.is_over and each.facts.drain is None]
    wait_s = statistics.median(lead.wait_s for lead in leads) if leads else None
    boot_s = statistics.median(lead.boot_s for lead in leads) if leads else None
    running = [each for each in coming if each.phase in _RUNNING]
    if running:
        starts = [each.facts.started_at for each in running if each.facts.started_at is not None]
        ready_at = min(starts) + boot_s if starts and boot_s is not None else None
        return endpoint.NextReplica(stage=endpoint.Stage.LOADING, ready_at=_rounded(ready_at, now))
    pending = [each for each in coming if each.phase in _PENDING]
    if pending:
        starts_at = min(
            (
                each.estimated_start_at
                if each.estimated_start_at is not None
                else math.inf
                if wait_s is None
                else each.facts.created_at + wait_s
            )
            for each in pending
        )
        known = None if math.isinf(starts_at) else starts_at
        return endpoint.NextReplica(
            stage=endpoint.Stage.PENDING,
            starts_at=_rounded(known, now),
            ready_at=_rounded(known + boot_s, now) if known is not None and boot_s is not None else None,
        )
    return endpoint.NextReplica()


def _rounded(at: float | None, now: float) -> float | None:
    """None for what should have been before now: the estimate was wrong."""
    if at is None or at <= now:
        return None
    grid = next(grid for ahead, grid in _GRIDS if at - now <= ahead)
    return math.ceil(at / grid) * grid
