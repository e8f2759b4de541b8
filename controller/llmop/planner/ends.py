"""What the ends of replicas, and their health, say about a revision."""

import dataclasses
from collections.abc import Sequence

from llmop.domain import job, replica
from llmop.planner import assess, backoff, classify, rollout, values
from llmop.planner.draft import Draft

# Ends after which another try with the same manifest would end the same way: somebody has to look.
_STALLING = frozenset({replica.EndReason.REJECTED, replica.EndReason.NEVER_RUNS})


def recorded(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    record: values.Record,
    newest: int,
    seen: values.Observed,
    draft: Draft,
) -> values.Record:
    """Records what is over, and what it says about the revision."""
    crashes = 0
    for each in replicas:
        if each.end is None:
            continue
        end = each.end
        keep = not classify.is_quiet(end) and desired.deployment.deleted_at is None
        draft.actions.append(values.RecordEnd(replica=each.facts, end=end, keep=keep))
        if classify.is_quiet(end):
            draft.announce(each.facts, end.reason, end.message)
            continue
        draft.announce(each.facts, end.reason, _sentence(end), warning=True)
        record = dataclasses.replace(
            record,
            last_failure=values.Failure(
                reason=end.reason,
                message=end.message,
                at=end.at,
                exit_code=end.exit_code,
                node=end.node,
                log_tail=end.log_tail,
            ),
        )
        if end.reason in _STALLING and each.revision == newest:
            record = backoff.stalled(record, end.reason, end.message, desired.deployment.generation, seen.now)
        elif classify.is_crash(end) and each.revision == newest:
            crashes += 1
    return backoff.after_crashes(record, crashes, newest, seen.now) if crashes else record


def _sentence(end: replica.End) -> str:
    where = f" on {end.node}" if end.node else ""
    code = f" (exit code {end.exit_code})" if end.exit_code else ""
    return f"{end.message}{where}{code}"


def health(
    replicas: Sequence[assess.Assessment], record: values.Record, newest: int, seen: values.Observed
) -> values.Record:
    ready = [
        each
        for each in replicas
        if each.is_routed and each.revision == newest and each.facts.ready_at is not None
    ]
    if not ready:
        return record
    became_ready = max(each.facts.ready_at or 0.0 for each in ready)
    if record.budget_since is not None and became_ready >= record.budget_since:
        record = backoff.after_ready(record)
    longest = seen.now - min(each.facts.ready_at or seen.now for each in ready)
    if (
        record.crashes
        and longest >= backoff.HEALTHY_S
        and not backoff.is_ahead(record.retry_at, backoff.CRASH_MAX_S, seen.now)
    ):
        record = backoff.after_health(record)
    return record


def may_be_unrecorded(each: assess.Assessment, newest: int, seen: values.Observed) -> bool:
    """It was given up, or ends by itself in a way that counts or may count, and Slurm has not said yet that the job is over.

    After SIGTERM only Slurm knows whether somebody has cancelled the job (counts) or whether it was preempted (does not). A snapshot
    may show the job in COMPLETING before its agent has said a word. An agent that has fallen silent is not waited for, nor a job that
    `hangs_from` now: it may stay in COMPLETING for hours.
    """
    if each.is_over or each.revision != newest:
        return False
    hangs = hangs_from(each, seen)
    if hangs is not None and seen.now > hangs:
        return False
    if classify.is_given_up(each.facts):
        return True
    heartbeat = each.heartbeat
    if heartbeat is None or each.facts.drain is not None or not rollout.is_leaving(each):
        return False
    if seen.now - heartbeat.due_from > seen.timing.unreachable_s:
        return False
    if heartbeat.phase not in (replica.AgentPhase.DRAINING, replica.AgentPhase.ENDED):
        return True
    ending = heartbeat.end.reason if heartbeat.end is not None else heartbeat.ending
    return ending is not None and (ending is replica.EndReason.TERMINATED or ending in classify.CRASHES)


def hangs_from(each: assess.Assessment, seen: values.Observed) -> float | None:
    """When a job in COMPLETING is not waited for any longer, whoever is heard: Slurm's end time is then when it ended (squeue(1))."""
    if each.job is None or each.job.state is not job.JobState.COMPLETING or each.job.ends_at is None:
        return None
    return each.job.ends_at + seen.timing.unreachable_s
