"""Replicas whose job comes to nothing: Slurm never runs it, holds it, or runs it and nobody hears of its agent.

Such a job ends only because we cancel it. The reason is kept in its drain, so that its end is the failure that it is
(`classify.given_up`).
"""

import dataclasses

from llmop.domain import deployment, job, replica
from llmop.planner import assess, values

CONFIRMED_S = 120.0  # administrators do change limits: a job that Slurm will not run gets this long


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """`reason` is None while there is hope, at the latest until `wait_until` (None = nothing speaks against it)."""

    reason: replica.DrainReason | None = None
    message: str = ""
    wait_until: float | None = None


def outlook(each: assess.Assessment, template: deployment.Template, seen: values.Observed) -> Outlook:
    """`template` is that of the replica's revision."""
    view = seen.clusters.get(each.facts.cluster)
    own_job = each.job
    if own_job is None or view is None or view.brake or not view.is_current:
        return Outlook()
    if each.is_over or each.facts.drain is not None:
        return Outlook()
    if each.phase is replica.Phase.BLOCKED:
        return _blocked(each.facts, own_job, seen.now)
    if each.facts.unheard_since is not None:
        return _unheard(each.facts, view, template, seen)
    return Outlook()


def _blocked(each: replica.Replica, own_job: job.ObservedJob, now: float) -> Outlook:
    if own_job.pending is job.PendingClass.HELD_BY_ADMIN:
        return Outlook()
    until = (each.blocked_since or now) + CONFIRMED_S
    if now < until:
        return Outlook(wait_until=until)
    is_never = own_job.pending is job.PendingClass.NEVER
    reason = replica.DrainReason.NEVER_RUNS if is_never else replica.DrainReason.LAUNCH_FAILED
    return Outlook(reason=reason, message=own_job.explanation or own_job.reason)


def _unheard(
    each: replica.Replica,
    view: values.ClusterView,
    template: deployment.Template,
    seen: values.Observed,
) -> Outlook:
    """An agent reports within seconds, and limits the start of its engine itself; the same limit holds for one that does not report.

    Longer than it takes until many silent agents show that nobody is heard: then it is our fault (`brake.is_blind`). What was before
    our own start does not count either.
    """
    patience_s = max(float(template.startup_timeout_s), 2 * seen.timing.replaced_s)
    until = max(each.unheard_since or seen.now, seen.controller_since) + patience_s
    if seen.now < until:
        return Outlook(wait_until=until)
    if seen.is_blind:
        return Outlook()
    return Outlook(
        reason=replica.DrainReason.STARTUP_TIMEOUT,
        message=f"the job ran for {patience_s:.0f} s without a word of its agent: look into "
        f"{view.site.shared_dir}/replicas/{each.name}/job.log; {view.site.python}, that directory or the way to the controller may be "
        "missing",
    )
