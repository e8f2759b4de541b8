"""When not to submit: crash back-off and the submission budget."""

import dataclasses

from llmop.domain import times
from llmop.planner import values

CRASH_BASE_S = 10.0
CRASH_MAX_S = 300.0
HEALTHY_S = 600.0  # this long Ready without a crash, and the past is forgotten
BUDGET_WINDOW_S = 3600.0
USER_RETRY_S = 600.0  # how long a problem for people blocks new replicas when nobody changes the manifest


def is_ahead(until: float | None, longest_s: float, now: float) -> bool:
    """`until` is still to come. One that is further ahead than the longest delay is not: somebody has set the clock back since."""
    return until is not None and now < until <= now + longest_s + 1.0


def crash_delay_s(crashes: int) -> float:
    """10 s after the first crash, doubled for each further one, 5 minutes at most."""
    return min(CRASH_MAX_S, CRASH_BASE_S * 2.0 ** min(crashes - 1, 10)) if crashes > 0 else 0.0


def budget(replicas: int, max_surge: int) -> int:
    """Submissions per hour without one becoming Ready."""
    return 2 * (replicas + max_surge) + 3


def after_crashes(record: values.Record, crashes: int, revision: int, now: float) -> values.Record:
    """`record` after `crashes` more bad ends of replicas of `revision`."""
    before = record.crashes if record.crash_revision == revision else 0
    total = before + crashes
    return dataclasses.replace(
        record, crashes=total, crash_revision=revision, retry_at=now + crash_delay_s(total)
    )


def crashed(record: values.Record) -> str:
    """What is true of every end that counts, of whatever kind and age; the same words until the next one."""
    one = record.crashes == 1
    ended = "1 replica" if one else f"{record.crashes} replicas"
    words = f"{ended} of this template ended although {'it was' if one else 'they were'} wanted"
    return f"{words}; no new one before {times.to_rfc3339(record.retry_at)}" if record.retry_at else words


def after_submissions(record: values.Record, count: int, now: float) -> values.Record:
    if record.budget_since is None or now - record.budget_since >= BUDGET_WINDOW_S:
        return dataclasses.replace(record, budget_since=now, budget_spent=count)
    return dataclasses.replace(record, budget_spent=record.budget_spent + count)


def after_ready(record: values.Record) -> values.Record:
    """One became Ready: the budget starts anew."""
    return dataclasses.replace(record, budget_since=None, budget_spent=0)


def after_health(record: values.Record) -> values.Record:
    return dataclasses.replace(record, crashes=0, crash_revision=0, retry_at=None)


def for_revision(record: values.Record, newest: int) -> values.Record:
    """`record` without the crashes of another revision: a changed manifest is tried at once; the budget still counts."""
    return after_health(record) if record.crashes and record.crash_revision != newest else record


def stalled(record: values.Record, reason: str, message: str, generation: int, now: float) -> values.Record:
    return dataclasses.replace(
        record,
        stalled_reason=reason,
        stalled_message=message,
        stalled_generation=generation,
        stalled_until=now + USER_RETRY_S,
    )


def released(record: values.Record, generation: int, now: float) -> values.Record:
    """`record` without a stall that is over: the manifest changed, or it is time for another try."""
    if record.stalled_reason and (
        record.stalled_generation != generation or not is_ahead(record.stalled_until, USER_RETRY_S, now)
    ):
        return dataclasses.replace(
            record, stalled_reason="", stalled_message="", stalled_generation=0, stalled_until=None
        )
    return record


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Brake:
    """How many replicas may be made now, and why not more; `until` is when to look again."""

    allowed: int
    reason: str = ""
    message: str = ""
    until: float | None = None


def creation(record: values.Record, replicas: int, max_surge: int, now: float) -> Brake:
    """How many new replicas back-off and budget allow now."""
    if record.stalled_reason:
        return Brake(
            allowed=0,
            reason=record.stalled_reason,
            message=record.stalled_message,
            until=record.stalled_until,
        )
    if is_ahead(record.retry_at, CRASH_MAX_S, now):
        return Brake(
            allowed=0,
            reason="CrashLoopBackOff",
            message=crashed(record),
            until=record.retry_at,
        )
    since = record.budget_since
    if since is None or now - since >= BUDGET_WINDOW_S:
        return Brake(allowed=budget(replicas, max_surge))
    left = budget(replicas, max_surge) - record.budget_spent
    if left <= 0:
        return Brake(
            allowed=0,
            reason="SubmissionBudgetSpent",
            message=f"{record.budget_spent} submissions within an hour and not one became ready",
            until=since + BUDGET_WINDOW_S,
        )
    # After a crash one replica at a time: the next one would most likely end the same way.
    return Brake(allowed=1 if record.crashes else left)
