"""plan(desired, observed) -> Plan: one frozen input, one pure function, one inert plan.

In order: how is each replica, what is over, what is unresolved, what drains; then one step of the rollout; then what people see.
Nothing is done on a cluster whose brake is pulled, and nothing new is submitted on one that does not answer.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import endpoint, fences, ids, replica
from llmop.planner import (
    artifacts,
    assess,
    backoff,
    drain,
    ends,
    eta,
    hopeless,
    revisions,
    rollout,
    routes,
    scaled,
    status,
    submission,
    values,
)
from llmop.planner.draft import Draft


def plan(desired: values.Desired, seen: values.Observed, names: values.Names) -> values.Plan:
    """The plan for one deployment. `names` is called once for each new replica or revision."""
    draft = Draft()
    desired = scaled.by_load(desired, seen, draft)
    deployment = desired.deployment
    is_going = deployment.deleted_at is not None
    newest = revisions.newest(desired, names, draft)
    revision = revisions.made_of(desired, newest)
    replicas = [
        assess.assess(each, seen, asked=is_going or each.drain is not None) for each in desired.replicas
    ]
    if twins := revisions.twins((*desired.revisions, newest)):
        replicas = [dataclasses.replace(each, twin=twins.get(each.revision, 0)) for each in replicas]
    record = backoff.released(desired.record, deployment.generation, seen.now)
    record = backoff.for_revision(record, revision.number)
    record = ends.recorded(desired, replicas, record, revision.number, seen, draft)
    record = ends.health(replicas, record, revision.number, seen)
    longest_s = deployment.spec.template.startup_timeout_s
    leads = eta.learned(record.leads, desired.replicas, replicas, longest_s)
    record = dataclasses.replace(record, leads=leads) if leads != record.leads else record
    _announce_ready(desired, replicas, draft)
    replicas = _deleted_by_hand(desired, replicas, seen, draft)
    for each in replicas:
        _advance(each, seen, draft)
    if not desired.is_held:
        replicas = _give_up(desired, replicas, seen, draft)
    gate = artifacts.gate(desired, revision, seen)
    draft.actions.extend(gate.actions)
    draft.recheck(gate.recheck_at)
    record, brake, replicas = _roll(desired, replicas, record, revision, seen, names, gate, draft)
    if desired.is_held:
        draft.actions = [each for each in draft.actions if not isinstance(each, values.SubmitJob)]
    else:
        _remove_ended(desired, replicas, draft)
        revisions.prune(desired, replicas, {newest.number, revision.number}, draft)
    if is_going and not desired.replicas:
        draft.actions.append(values.FinishDeletion())
    _look_again(replicas, seen, draft)
    return _finish(desired, replicas, record, brake, newest, revision, seen, gate, draft)


def _announce_ready(desired: values.Desired, replicas: Sequence[assess.Assessment], draft: Draft) -> None:
    """For those that were not ready when they were written down last."""
    was_ready = {each.uid for each in desired.replicas if each.ready_at is not None}
    for each in replicas:
        if each.is_routed and each.facts.uid not in was_ready:
            message = f"serves on {each.facts.node}" if each.facts.node else "serves"
            draft.announce(each.facts, "Ready", message)


def _deleted_by_hand(
    desired: values.Desired, replicas: Sequence[assess.Assessment], seen: values.Observed, draft: Draft
) -> list[assess.Assessment]:
    """A replica that somebody deleted drains; a replacement follows from the counts."""
    result = []
    for each in replicas:
        if each.facts.deleted_at is not None and each.facts.drain is None and not each.is_over:
            each = _drained(each, replica.DrainReason.DELETED, "deleted by a user", desired, seen, draft)
        result.append(each)
    return result


def _drained(
    each: assess.Assessment,
    reason: replica.DrainReason,
    why: str,
    desired: values.Desired,
    seen: values.Observed,
    draft: Draft,
) -> assess.Assessment:
    grace_s = desired.deployment.spec.template.termination_grace_s
    decided = drain.start(each, reason, grace_s, seen.now, why)
    draft.actions.append(values.StartDrain(replica=each.facts, drain=decided, why=why))
    draft.announce(each.facts, "Draining", why)
    facts = dataclasses.replace(each.facts, drain=decided)
    shown = each.phase if each.is_pending else replica.Phase.DRAINING
    return dataclasses.replace(
        each,
        facts=facts,
        phase=shown,
        reason=reason if shown is replica.Phase.DRAINING else each.reason,
        message=why if shown is replica.Phase.DRAINING else each.message,
        is_routed=False,
    )


def _advance(each: assess.Assessment, seen: values.Observed, draft: Draft) -> None:
    """The submit protocol and the drain of one replica."""
    if each.is_over:
        draft.actions.extend(submission.leftovers(each.facts, seen.clusters.get(each.facts.cluster)))
        return
    if each.facts.submission.state in replica.UNRESOLVED or each.facts.submission.job_id is None:
        resolution = submission.resolve(each.facts, seen)
        draft.actions.extend(resolution.actions)
        draft.recheck(resolution.wait_until)
        draft.is_stalled_submission |= resolution.is_stalled
        return
    draft.actions.extend(submission.twins(each.facts, seen.clusters.get(each.facts.cluster)))
    moved = drain.progress(each, seen)
    draft.actions.extend(moved.actions)
    draft.recheck(moved.wait_until)


def _give_up(
    desired: values.Desired, replicas: Sequence[assess.Assessment], seen: values.Observed, draft: Draft
) -> list[assess.Assessment]:
    """Jobs that come to nothing are cancelled; their end tells why, and counts."""
    templates = {revision.number: revision.template for revision in desired.revisions}
    result = []
    for each in replicas:
        template = templates.get(each.facts.revision, desired.deployment.spec.template)
        outlook = hopeless.outlook(each, template, seen)
        draft.recheck(outlook.wait_until)
        if outlook.reason is not None:
            each = _drained(each, outlook.reason, outlook.message, desired, seen, draft)
            draft.actions.extend(drain.progress(each, seen).actions)
        result.append(each)
    return result


def _roll(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    record: values.Record,
    revision: values.Revision,
    seen: values.Observed,
    names: values.Names,
    gate: artifacts.Gate,
    draft: Draft,
) -> tuple[values.Record, backoff.Brake, list[assess.Assessment]]:
    """One step of the rollout, as far as brakes, back-off and budget let it."""
    spec = desired.deployment.spec
    is_going = desired.deployment.deleted_at is not None
    is_paused = revisions.is_paused(desired)
    view = seen.clusters.get(revision.template.cluster)
    brake = backoff.creation(record, spec.replicas, spec.max_surge, seen.now)
    draft.recheck(brake.until)
    if desired.is_held or (view is not None and view.brake):
        return record, brake, list(replicas)
    bounds = rollout.Bounds(
        replicas=0 if is_going else spec.replicas,
        max_surge=0 if is_going else spec.max_surge,
        max_unavailable=spec.max_unavailable,
        min_ready_s=spec.min_ready_s,
    )
    decide = rollout.paused_step if is_paused else rollout.step
    step = decide(replicas, _target(replicas, revision.number, gate), bounds, seen.now)
    doomed = {each.facts.uid for each in step.drain}
    result = []
    for each in replicas:
        if each.facts.uid in doomed:
            newest = each.revision if is_paused else revision.number
            reason, why = _drain_reason(each, newest, is_going=is_going)
            each = _drained(each, reason, why, desired, seen, draft)
            _advance_drained(each, seen, draft)
        result.append(each)
    may_create = (
        view is not None
        and revision.number > 0
        and view.is_current
        and view.fences.identity is not fences.Identity.NOTHING
        and not desired.problems
        and not desired.name_conflict
        and desired.runtime is not None
        and gate.is_open
    )
    # A crash is replaced once its end is recorded and counted, or back-off would always be one crash late.
    uncounted = sum(1 for each in replicas if ends.may_be_unrecorded(each, revision.number, seen))
    create = max(0, min(step.create - uncounted, brake.allowed)) if may_create else 0
    for _ in range(create):
        made = _new_replica(desired, revision, seen, names())
        draft.actions.append(values.CreateReplica(replica=made, why="a replica is missing"))
        message = f"for revision {revision.number} of {made.deployment}"
        draft.announce(made, "Created", message)
    if create:
        record = backoff.after_submissions(record, create, seen.now)
    return record, brake, result


def _target(replicas: Sequence[assess.Assessment], newest: int, gate: artifacts.Gate) -> int:
    """The revision to roll to. As long as the newest one cannot have replicas, those of the one before it stay as they are."""
    if gate.is_open:
        return newest
    return max((each.revision for each in replicas if not rollout.is_leaving(each)), default=newest)


def _advance_drained(each: assess.Assessment, seen: values.Observed, draft: Draft) -> None:
    """What follows at once from a drain that this pass decided; orders of this pass for the same replica are dropped."""
    draft.actions = [
        action
        for action in draft.actions
        if not (isinstance(action, values.SubmitJob) and action.replica.uid == each.facts.uid)
    ]
    _advance(each, seen, draft)


def _drain_reason(each: assess.Assessment, newest: int, *, is_going: bool) -> tuple[replica.DrainReason, str]:
    if is_going:
        return replica.DrainReason.DELETED, "its deployment is being deleted"
    if each.is_replaced:
        return replica.DrainReason.UNREACHABLE, "its agent has been silent for too long"
    if each.revision != newest:
        return replica.DrainReason.REPLACED, "a newer revision takes its place"
    return replica.DrainReason.SCALED_DOWN, "fewer replicas are wanted"


def _new_replica(
    desired: values.Desired, revision: values.Revision, seen: values.Observed, fresh: values.FreshName
) -> replica.Replica:
    deployment = desired.deployment
    name = ids.replica_name(deployment.name, fresh.suffix)
    return replica.Replica(
        name=name,
        namespace=deployment.namespace,
        uid=fresh.uid,
        deployment=deployment.name,
        deployment_uid=deployment.uid,
        revision=revision.number,
        cluster=revision.template.cluster,
        created_at=seen.now,
        submission=replica.Submission(
            state=replica.SubmissionState.SUBMITTING,
            job_name=ids.job_name(seen.installation, name, fresh.uid),
            intent_at=seen.now,
        ),
        phase=replica.Phase.SUBMITTING,
    )


def _remove_ended(desired: values.Desired, replicas: Sequence[assess.Assessment], draft: Draft) -> None:
    """All but the newest failed one."""
    ended = sorted(
        (each for each in replicas if each.facts.end is not None),
        key=lambda each: each.facts.end.at if each.facts.end else 0.0,
    )
    kept = 0 if desired.deployment.deleted_at is not None else 1
    shown = ended[len(ended) - kept :] if kept else []
    for each in ended:
        if each in shown and each.facts.deleted_at is None:
            continue
        draft.actions.append(values.RemoveReplica(replica=each.facts, why="it has ended"))


def _look_again(replicas: Sequence[assess.Assessment], seen: values.Observed, draft: Draft) -> None:
    """When a heartbeat that stops now would change a phase, and when gateways and jobs that hang are not waited for any longer."""
    timing = seen.timing
    draft.recheck(routes.unknown_until(replicas, seen))
    for each in replicas:
        if (hangs_from := ends.hangs_from(each, seen)) is not None:
            draft.recheck(hangs_from + 0.001)
        heartbeat = each.heartbeat
        if heartbeat is None or each.is_over:
            continue
        for limit in (timing.suspect_s, timing.unreachable_s, timing.replaced_s):
            at = heartbeat.due_from + limit
            if at >= seen.now:
                # A millisecond past the limit: the comparison is "older than".
                draft.recheck(at + 0.001)
                break


def _finish(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    record: values.Record,
    brake: backoff.Brake,
    newest: values.Revision,
    made_of: values.Revision,
    seen: values.Observed,
    gate: artifacts.Gate,
    draft: Draft,
) -> values.Plan:
    spec = desired.deployment.spec
    counts = status.count(replicas, newest.number, spec.min_ready_s, seen.now)
    for each in replicas:
        if (
            each.is_routed
            and each.facts.ready_at is not None
            and seen.now - each.facts.ready_at < spec.min_ready_s
        ):
            draft.recheck(each.facts.ready_at + spec.min_ready_s)
    stored = dataclasses.replace(desired, record=record)
    shown = status.deployment_conditions(
        stored,
        replicas,
        counts,
        brake,
        seen,
        newest.number,
        gate,
        is_stalled_submission=draft.is_stalled_submission,
        is_template_waiting=revisions.is_paused(desired) and newest.hash != desired.template_hash,
    )
    current = _current_revision(replicas, made_of.number)
    record = dataclasses.replace(record, conditions=shown, current_revision=current)
    key = f"{desired.deployment.namespace}/{desired.deployment.name}"
    estimates = [each.estimated_start_at for each in replicas if each.estimated_start_at is not None]
    routed: tuple[endpoint.Endpoint, ...] = (
        () if desired.name_conflict else routes.endpoints(key, replicas, seen)
    )
    return values.Plan(
        actions=tuple(draft.actions),
        replicas=tuple(_shown(each) for each in replicas),
        status=values.DeploymentStatus(
            replicas=counts.replicas,
            ready=counts.ready,
            updated=counts.updated,
            pending=counts.pending,
            available=counts.available,
            update_revision=newest.number,
            record=record,
            estimated_start_at=min(estimates, default=None),
        ),
        endpoints=routed,
        model=routes.model(desired, eta.next_replica(replicas, record.leads, seen.now)),
        recheck_at=min((at for at in draft.rechecks if at > seen.now), default=None),
    )


def _current_revision(replicas: Sequence[assess.Assessment], made_of: int) -> int:
    """The revision that serves: the oldest one among routed replicas, else the one that new replicas are made of."""
    return min((each.revision for each in replicas if each.is_routed), default=made_of)


def _shown(each: assess.Assessment) -> values.ReplicaStatus:
    return values.ReplicaStatus(
        replica=replica.learn(each.facts, phase=each.phase),
        phase=each.phase,
        reason=each.reason,
        message=each.message,
        is_ready=each.is_routed,
        estimated_start_at=each.estimated_start_at,
    )
