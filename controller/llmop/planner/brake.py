"""The mass-vanish brake: when many running jobs are gone at once without a reason, it is more likely that we see wrong.

A lost StateSaveLocation, a failover to a controller with old state, or a foreign `squeue` must not make us replace a whole fleet.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from llmop.domain import job, replica

SHARE = 0.3
AT_LEAST = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`problem` is "" when there is nothing to fear; `missing` are the uids of the replicas in question."""

    problem: str
    missing: frozenset[str]


def unexplained(
    replicas: Sequence[replica.Replica],
    snapshot: job.Snapshot,
    heartbeats: Mapping[str, replica.Heartbeat],
    exits: Mapping[str, replica.End],
    fresh_s: float,
) -> frozenset[str]:
    """Running replicas whose job is not in a complete snapshot, although nothing says that it ended.

    Not explained by: an exit record, a walltime end that has passed, a drain of ours, a silent agent.
    """
    present = {seen.job_id for seen in snapshot.jobs}
    result = set()
    for each in replicas:
        if (
            not _runs(each)
            or each.submission.job_id in present
            or each.drain is not None
            or each.uid in exits
        ):
            continue
        resolved_at = each.submission.resolved_at
        if resolved_at is None or resolved_at >= snapshot.started_at:
            continue
        if each.ends_at is not None and each.ends_at <= snapshot.taken_at:
            continue
        heartbeat = heartbeats.get(each.uid)
        if heartbeat is None or heartbeat.end is not None or snapshot.taken_at - heartbeat.due_from > fresh_s:
            continue
        result.add(each.uid)
    return frozenset(result)


def _runs(each: replica.Replica) -> bool:
    return (
        each.end is None and each.was_running and each.submission.state is replica.SubmissionState.SUBMITTED
    )


def is_blind(heartbeats: Mapping[str, replica.Heartbeat], now: float, silent_s: float) -> bool:
    """Agents fall silent one by one; when max(3, 30 %) of them are silent at once it is our listener, our clock or the network."""
    talking = [beat for beat in heartbeats.values() if beat.phase is not replica.AgentPhase.ENDED]
    silent = sum(1 for beat in talking if now - beat.due_from > silent_s)
    return silent >= max(AT_LEAST, math.ceil(SHARE * len(talking)))


def judge(
    replicas: Sequence[replica.Replica],
    snapshot: job.Snapshot,
    heartbeats: Mapping[str, replica.Heartbeat],
    exits: Mapping[str, replica.End],
    before: Verdict | None,
    fresh_s: float,
) -> Verdict:
    """Pulls the brake at max(3, 30 %) of the running replicas of one cluster; a second complete snapshot that agrees releases it."""
    missing = unexplained(replicas, snapshot, heartbeats, exits, fresh_s)
    running = sum(1 for each in replicas if _runs(each))
    if len(missing) < max(AT_LEAST, math.ceil(SHARE * running)):
        return Verdict(problem="", missing=frozenset())
    if before is not None and before.missing and missing <= before.missing:
        return Verdict(problem="", missing=missing)
    return Verdict(
        problem=f"{len(missing)} of {running} running jobs vanished at once without a reason; waiting for a second look",
        missing=missing,
    )
