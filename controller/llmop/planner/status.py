"""What people are told about a deployment: counts and conditions. Same problem, same words."""

import dataclasses
from collections.abc import Sequence

from llmop.domain import conditions, fences, job, replica
from llmop.planner import artifacts, assess, backoff, canary, rollout, routes, values

_TRUE, _FALSE, _UNKNOWN = conditions.Status.TRUE, conditions.Status.FALSE, conditions.Status.UNKNOWN

_STALLING = frozenset({"SubmissionBudgetSpent"})
CRASHES_BEFORE_STALLED = 3  # bad ends of one revision in a row: somebody has to look, retries go on slowly


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    replicas: int
    ready: int
    updated: int
    pending: int
    available: int


def count(replicas: Sequence[assess.Assessment], newest: int, min_ready_s: float, now: float) -> Counts:
    holding = [each for each in replicas if rollout.holds_capacity(each)]
    return Counts(
        replicas=len(holding),
        ready=sum(1 for each in holding if each.is_routed),
        updated=sum(1 for each in holding if each.revision == newest and each.facts.drain is None),
        pending=sum(1 for each in holding if each.is_pending),
        available=sum(1 for each in holding if rollout.is_available(each, min_ready_s, now)),
    )


def deployment_conditions(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    counts: Counts,
    brake: backoff.Brake,
    seen: values.Observed,
    newest: int,
    gate: artifacts.Gate,
    *,
    is_stalled_submission: bool,
    is_template_waiting: bool = False,
) -> tuple[conditions.Condition, ...]:
    """Ready, Available, Progressing, Stalled, CapacityAvailable and ArtifactsReady.

    `is_template_waiting`: a changed template has no revision yet, because the deployment is paused.
    """
    spec = desired.deployment.spec
    wanted = 0 if desired.deployment.deleted_at is not None else spec.replicas
    view = seen.clusters.get(spec.template.cluster)
    is_complete = _serving(desired, replicas, newest, seen.now) >= wanted
    stalled = _stalled(
        desired,
        brake,
        gate,
        view,
        is_complete=is_complete,
        is_stalled_submission=is_stalled_submission,
    )
    capacity = _capacity(desired, replicas, seen)
    progressing = _progressing(desired, replicas, counts, brake, seen, newest, wanted, gate)
    if counts.available >= wanted - spec.max_unavailable and (counts.available > 0 or wanted == 0):
        available = _condition("Available", _TRUE, "MinimumReplicasAvailable", "")
    else:
        needed = max(1, wanted - spec.max_unavailable)
        available = _condition(
            "Available",
            _FALSE,
            "TooFewReplicas",
            f"{counts.available} of at least {needed} replicas are available",
        )
    is_settled = (
        counts.available >= wanted and counts.updated == counts.replicas == wanted and not is_template_waiting
    )
    if desired.deployment.deleted_at is not None:
        ready = _condition("Ready", _FALSE, "Deleting", _blocking(replicas))
    elif stalled.status is _TRUE:
        ready = _condition("Ready", _FALSE, stalled.reason, stalled.message)
    elif is_settled and not _was_ready(desired) and routes.unknown_until(replicas, seen) is not None:
        words = "all replicas are ready, and gateways have not taken over their addresses yet"
        ready = _condition("Ready", _FALSE, "AwaitingGateways", words)
    elif is_settled:
        ready = _condition("Ready", _TRUE, "AllReplicasReady", "")
    elif (capacity.status is _FALSE and counts.pending) or (
        # Nothing is made before the cluster answers: "0 of 3 were made" would be what follows, and not why.
        capacity.status is _UNKNOWN and progressing.reason == "CreatingReplicas"
    ):
        ready = _condition("Ready", _FALSE, capacity.reason, capacity.message)
    else:
        ready = _condition("Ready", _FALSE, progressing.reason, progressing.message)
    after = tuple(
        dataclasses.replace(each, observed_generation=desired.deployment.generation)
        for each in (
            ready,
            available,
            progressing,
            stalled,
            capacity,
            gate.condition,
            *_scaling(desired, seen),
            *((conditions.spec_refused(desired.refusal),) if desired.refusal else ()),
        )
    )
    timed = tuple(dataclasses.replace(each, changed_at=seen.now) for each in after)
    return conditions.carry_over(desired.record.conditions, timed)


def _scaling(desired: values.Desired, seen: values.Observed) -> tuple[conditions.Condition, ...]:
    """ScalingActive and ScalingLimited, as a HorizontalPodAutoscaler has them."""
    bounds, decision = desired.deployment.spec.scaling, seen.scaling
    if bounds is None:
        return ()
    if decision is None:
        active = _condition("ScalingActive", _UNKNOWN, "NotLookedYet", "the load was not looked at yet")
        return (active, _condition("ScalingLimited", _UNKNOWN, "NotLookedYet", ""))
    if decision.is_known:
        active = _condition("ScalingActive", _TRUE, "LoadKnown", "")
    else:
        words = "the load is not known in full: no replica is given up"
        active = _condition("ScalingActive", _FALSE, "LoadUnknown", words)
    if decision.limit:
        words = {
            "TooManyReplicas": f"the load asks for more than maxReplicas {bounds.max_replicas}",
            "TooFewReplicas": "the load asks for fewer than minReplicas, or a schedule, lets there be",
        }[decision.limit]
        return (active, _condition("ScalingLimited", _TRUE, decision.limit, words))
    return (active, _condition("ScalingLimited", _FALSE, "WithinBounds", ""))


def _was_ready(desired: values.Desired) -> bool:
    """What people were told of this very generation: they are not told otherwise because a gateway is slow."""
    return any(
        each.type == "Ready"
        and each.status is _TRUE
        and each.observed_generation == desired.deployment.generation
        for each in desired.record.conditions
    )


def _condition(kind: str, status: conditions.Status, reason: str, message: str) -> conditions.Condition:
    return conditions.Condition(type=kind, status=status, reason=reason, message=message)


def _serving(desired: values.Desired, replicas: Sequence[assess.Assessment], newest: int, now: float) -> int:
    """Available replicas of the revision that new ones are made of; while paused that is the one that crashes, if any does."""
    revision = desired.record.crash_revision or newest
    return sum(
        1
        for each in replicas
        if each.revision == revision
        and not rollout.is_leaving(each)
        and rollout.is_available(each, desired.deployment.spec.min_ready_s, now)
    )


def _stalled(
    desired: values.Desired,
    brake: backoff.Brake,
    gate: artifacts.Gate,
    view: values.ClusterView | None,
    *,
    is_complete: bool,
    is_stalled_submission: bool,
) -> conditions.Condition:
    """`is_complete`: no replica is missing, so whatever holds back new ones holds back nothing (after a scale-down, say)."""
    if desired.refusal:
        return _condition("Stalled", _TRUE, conditions.SPEC_REFUSED, desired.refusal)
    if desired.problems:
        return _condition("Stalled", _TRUE, "InvalidReference", "; ".join(desired.problems))
    if desired.name_conflict:
        return _condition("Stalled", _TRUE, "NameConflict", desired.name_conflict)
    if view is not None and view.fences.identity is fences.Identity.NOTHING:
        return _condition("Stalled", _TRUE, "SiteRewritesJobs", canary.NO_IDENTITY)
    if gate.needs_user:
        return _condition("Stalled", _TRUE, gate.condition.reason, gate.condition.message)
    if is_complete:
        return _condition("Stalled", _FALSE, "NotStalled", "")
    if desired.record.stalled_reason:
        return _condition("Stalled", _TRUE, desired.record.stalled_reason, desired.record.stalled_message)
    if brake.reason in _STALLING:
        return _condition("Stalled", _TRUE, brake.reason, _with_failure(brake.message, desired.record))
    if desired.record.crashes >= CRASHES_BEFORE_STALLED:
        words = _with_failure(backoff.crashed(desired.record), desired.record)
        return _condition("Stalled", _TRUE, "CrashLoopBackOff", words)
    if is_stalled_submission:
        return _condition(
            "Stalled", _TRUE, "SubmissionUnresolved", "submissions leave no job; trying again slowly"
        )
    return _condition("Stalled", _FALSE, "NotStalled", "")


def _with_failure(message: str, record: values.Record) -> str:
    """The sentence with the cause that is known: people should not have to look for it."""
    failure = record.last_failure
    return f"{message}; the last one: {failure.reason}: {failure.message}" if failure is not None else message


def _capacity(
    desired: values.Desired, replicas: Sequence[assess.Assessment], seen: values.Observed
) -> conditions.Condition:
    view = seen.clusters.get(desired.deployment.spec.template.cluster)
    if view is None or (view.snapshot_started_at is None and not view.problem):
        return _condition("CapacityAvailable", _UNKNOWN, "NotLookedYet", "the cluster has not answered yet")
    if view.problem:
        return _condition("CapacityAvailable", _UNKNOWN, "ClusterUnreachable", view.problem)
    if view.brake:
        return _condition("CapacityAvailable", _UNKNOWN, "MassVanish", view.brake)
    if view.unproven:
        return _condition("CapacityAvailable", _UNKNOWN, "CanaryNotBack", view.unproven)
    # The worst reason wins, so that the text does not depend on the order of replicas.
    severity = {
        job.PendingClass.NEVER: 0,
        job.PendingClass.HELD_BY_ADMIN: 1,
        job.PendingClass.HELD: 2,
        job.PendingClass.QUOTA: 3,
        job.PendingClass.INFRASTRUCTURE: 4,
        job.PendingClass.UNKNOWN: 5,
        job.PendingClass.NORMAL: 6,
    }
    waiting = [each for each in replicas if each.phase in (replica.Phase.PENDING, replica.Phase.BLOCKED)]
    if waiting:
        worst = min(waiting, key=lambda each: (severity.get(_class(each), 5), each.reason, each.message))
        return _condition("CapacityAvailable", _FALSE, worst.reason or "Pending", worst.message)
    refused = [each for each in replicas if each.reason == "SubmissionRefused"]
    if refused:
        return _condition(
            "CapacityAvailable", _FALSE, "SubmissionRefused", min(each.message for each in refused)
        )
    return _condition("CapacityAvailable", _TRUE, "NothingWaits", "")


def _class(each: assess.Assessment) -> job.PendingClass:
    return (each.job.pending if each.job is not None else None) or job.PendingClass.UNKNOWN


def _progressing(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    counts: Counts,
    brake: backoff.Brake,
    seen: values.Observed,
    newest: int,
    wanted: int,
    gate: artifacts.Gate,
) -> conditions.Condition:
    spec = desired.deployment.spec
    if desired.is_held:
        words = "replicas stay as they are, and nothing is submitted"
        return _condition("Progressing", _FALSE, conditions.SPEC_REFUSED, words)
    if spec.paused and desired.deployment.deleted_at is None:
        words = "the deployment is paused: replicas are not replaced"
        if counts.available < wanted:
            words = f"{counts.available} of {wanted} replicas are available; {words}"
        return _condition("Progressing", _UNKNOWN, "DeploymentPaused", words)
    if counts.updated == counts.replicas == wanted and counts.available >= wanted:
        return _condition("Progressing", _TRUE, "AllReplicasAvailable", "")
    overdue = [
        each
        for each in replicas
        if each.revision == newest
        and each.phase in (replica.Phase.STARTING, replica.Phase.LOADING)
        and each.facts.started_at is not None
        and seen.now - each.facts.started_at > spec.progress_deadline_s
    ]
    if overdue:
        return _condition(
            "Progressing",
            _FALSE,
            "ProgressDeadlineExceeded",
            f"a replica runs for more than {spec.progress_deadline_s} s without being ready",
        )
    if not gate.is_open and counts.updated < wanted:
        return dataclasses.replace(
            gate.condition, type="Progressing", status=_FALSE if gate.needs_user else _TRUE
        )
    if brake.reason and counts.updated < wanted:
        return _condition("Progressing", _FALSE, brake.reason, _with_failure(brake.message, desired.record))
    if counts.updated < wanted:
        return _condition(
            "Progressing",
            _TRUE,
            "CreatingReplicas",
            f"{counts.updated} of {wanted} replicas of the newest revision were made",
        )
    if counts.replicas > wanted:
        return _condition(
            "Progressing", _TRUE, "DrainingReplicas", "replicas that are not wanted any more are ending"
        )
    return _condition(
        "Progressing", _TRUE, "WaitingForReplicas", f"{counts.available} of {wanted} replicas are available"
    )


def _blocking(replicas: Sequence[assess.Assessment]) -> str:
    names = sorted(each.facts.name for each in replicas if each.facts.end is None)
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"waiting for {shown}{more} to end" if names else ""
