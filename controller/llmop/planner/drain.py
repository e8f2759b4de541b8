"""How a replica that shall end is brought to its end.

| its job                    | then                                                                                   |
|----------------------------|----------------------------------------------------------------------------------------|
| waits                      | cancelled at once                                                                      |
| runs, was never ready      | cancelled at once: nobody uses it                                                      |
| runs, its agent has ended  | left to end by itself                                                                  |
| runs                       | gateways first, then the agent is told; it waits for its connections until the deadline |
| runs past its deadline     | cancelled                                                                              |
"""

import dataclasses

from llmop.domain import job, replica
from llmop.planner import assess, values

GATEWAY_PATIENCE_S = 5.0  # the stop order waits this long for gateways to acknowledge
AFTER_DEADLINE_S = 60.0  # what the agent needs to end the engine after the last connection was cut


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    actions: tuple[values.Action, ...] = ()
    wait_until: float | None = None


def start(
    each: assess.Assessment, reason: replica.DrainReason, grace_s: float, now: float, message: str = ""
) -> replica.Drain:
    """The drain of one replica: a replica that serves nobody gets no time."""
    grace = grace_s if each.facts.ready_at is not None else 0.0
    return replica.Drain(reason=reason, requested_at=now, deadline_at=now + grace, message=message)


def progress(each: assess.Assessment, seen: values.Observed) -> Progress:
    """The next step for a replica that drains and whose job is known."""
    drain = each.facts.drain
    view = seen.clusters.get(each.facts.cluster)
    if drain is None or view is None or view.brake or each.is_over or each.facts.submission.job_id is None:
        return Progress()
    own_job = each.job
    ordered = _order(each, drain, seen)
    if (
        own_job is None
        or own_job.state is job.JobState.COMPLETING
        or own_job.state.is_terminal
        or not view.is_current
    ):
        # Before the next snapshot there is nothing to act on: it may be over already, and its id may be another job's by now.
        return Progress(
            actions=ordered, wait_until=None if ordered else drain.requested_at + GATEWAY_PATIENCE_S
        )
    job_ids = (own_job.job_id,)
    if own_job.state in (job.JobState.PENDING, job.JobState.REQUEUED, job.JobState.HELD):
        return Progress(
            actions=(
                values.CancelJobs(
                    replica=each.facts, job_ids=job_ids, why="not wanted any more, and not started yet"
                ),
            )
        )
    if each.facts.ready_at is None:
        return Progress(
            actions=(
                values.CancelJobs(
                    replica=each.facts, job_ids=job_ids, why="not wanted any more, and never ready"
                ),
            )
        )
    cancel_at = drain.deadline_at + AFTER_DEADLINE_S
    if seen.now >= cancel_at:
        return Progress(
            actions=(values.CancelJobs(replica=each.facts, job_ids=job_ids, why="past its drain deadline"),)
        )
    wait_until = cancel_at if ordered else min(cancel_at, drain.requested_at + GATEWAY_PATIENCE_S)
    return Progress(actions=ordered, wait_until=wait_until)


def _order(each: assess.Assessment, drain: replica.Drain, seen: values.Observed) -> tuple[values.Action, ...]:
    """The stop order goes out once all live gateways have acknowledged, or after 5 s."""
    gateways_know = (
        each.facts.uid in seen.drained_by_gateways or seen.now >= drain.requested_at + GATEWAY_PATIENCE_S
    )
    if not gateways_know:
        return ()
    return (values.OrderDrain(replica=each.facts, deadline_s=max(0.0, drain.deadline_at - seen.now)),)
