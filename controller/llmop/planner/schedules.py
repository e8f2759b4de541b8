"""Which schedules are in force at a moment: those whose start came last, after their end."""

from llmop import cron
from llmop.domain import scaling
from llmop.planner import autoscale


def floor(wanted: scaling.Scaling, now: float) -> autoscale.Floor | None:
    """The schedule in force that wants most; None where none is in force."""
    found = None
    for each in wanted.schedules:
        began = cron.last_fired(cron.trigger(each.start, each.timezone), now)
        ended = cron.last_fired(cron.trigger(each.end, each.timezone), now)
        if began is None or (ended is not None and ended >= began):
            continue
        if found is None or each.min_replicas > found.replicas:
            found = autoscale.Floor(replicas=each.min_replicas, schedule=each.name)
    return found
