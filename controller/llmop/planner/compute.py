"""plan(desired, observed) -> Plan: one frozen input, one pure function, one inert plan.

In order: how is each replica, what is over, what is unresolved, what drains; then one step of the rollout; then what people see.
Nothing is done on a cluster whose brake is pulled, and nothing new is submitted on one that does not answer.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import endpoint, fences, ids, replica, resources, staging
from llmop.planner import (
    artifacts,
    assess,
    autoscale,
    backoff,
    classify,
    drain,
    eta,
    hopeless,
    rollout,
    routes,
    status,
    submission,
    values,
)

HISTORY = 10  # steps of the number of replicas that people are shown
# Ends after which another try with the same manifest would end the same way: somebody has to look.
_STALLING = frozenset({replica.EndReason.REJECTED, replica.EndReason.NEVER_RUNS})


@dataclasses.dataclass(slots=True)
class _Draft:
    """Collects the plan. Lives for one call."""

    actions: list[values.Action] = dataclasses.field(default_factory=list)
    rechecks: list[float] = dataclasses.field(default_factory=list)
    is_stalled_submission: bool = False

    def recheck(self, at: float | None) -> None:
        if at is not None:
            self.rechecks.append(at)


def plan(desired: values.Desired, seen: values.Observed, names: values.Names) -> values.Plan:
    """The plan for one deployment. `names` is called once for each new replica or revision."""
    draft = _Draft()
    desired = _scaled(desired, seen, draft)
    deployment = desired.deployment
    is_going = deployment.deleted_at is not None
    newest = _newest_revision(desired, names, draft)
    revision = _made_of(desired, newest)
    replicas = [
        assess.assess(each, seen, asked=is_going or each.drain is not None) for each in desired.replicas
    ]
    record = backoff.released(desired.record, deployment.generation, seen.now)
    record = backoff.for_revision(record, revision.number)
    record = _ends(desired, replicas, record, revision.number, seen, draft)
    record = _health(replicas, record, revision.number, seen)
    longest_s = deployment.spec.template.startup_timeout_s
    leads = eta.learned(record.leads, desired.replicas, replicas, longest_s)
    record = dataclasses.replace(record, leads=leads) if leads != record.leads else record
    _announce_ready(desired, replicas, draft)
    replicas = _deleted_by_hand(desired, replicas, seen, draft)
    for each in replicas:
        _advance(each, seen, draft)
    replicas = _give_up(desired, replicas, seen, draft)
    gate = artifacts.gate(desired, revision, seen)
    draft.actions.extend(gate.actions)
    draft.recheck(gate.recheck_at)
    record, brake, replicas = _roll(desired, replicas, record, revision, seen, names, gate, draft)
    _prune(desired, replicas, {newest.number, revision.number}, draft)
    if is_going and not desired.replicas:
        draft.actions.append(values.FinishDeletion())
    _look_again(replicas, seen, draft)
    return _finish(desired, replicas, record, brake, newest, revision, seen, gate, draft)


def _scaled(desired: values.Desired, seen: values.Observed, draft: _Draft) -> values.Desired:
    """With the number of replicas that the load asks for, and the step to there in the record."""
    deployment, record = desired.deployment, desired.record
    bounds = deployment.spec.scaling
    if bounds is None:
        return desired if record.scaling is None else _recorded(desired, None)
    if record.scaling is None:
        held = sum(1 for each in desired.replicas if each.end is None and each.drain is None)
        return _recorded(desired, values.ScalingRecord(desired=autoscale.bounded(bounds, held)))
    before = record.scaling.desired
    step = autoscale.step(bounds, before, seen.scaling)
    if step.desired == before or deployment.deleted_at is not None:
        return _recorded(desired, record.scaling)
    made = values.ScalingStep(
        at=seen.now,
        before=before,
        after=step.desired,
        reason=step.reason,
        message=step.message,
        inputs=step.inputs,
    )
    owner = resources.Owner(kind=resources.MODEL_DEPLOYMENT, name=deployment.name, uid=deployment.uid)
    message = f"from {before} to {step.desired} replicas: {step.message}"
    draft.actions.append(values.Announce(regarding=owner, warning=False, reason="Scaled", message=message))
    history = (*record.scaling.history, made)[-HISTORY:]
    return _recorded(desired, values.ScalingRecord(desired=step.desired, history=history))


def _recorded(desired: values.Desired, scaling: values.ScalingRecord | None) -> values.Desired:
    deployment = desired.deployment
    if scaling is not None:
        spec = dataclasses.replace(deployment.spec, replicas=scaling.desired)
        deployment = dataclasses.replace(deployment, spec=spec)
    record = dataclasses.replace(desired.record, scaling=scaling)
    return dataclasses.replace(desired, deployment=deployment, record=record)


def owner_of(each: replica.Replica) -> resources.Owner:
    return resources.Owner(kind=resources.REPLICA, name=each.name, uid=each.uid)


def _newest_revision(desired: values.Desired, names: values.Names, draft: _Draft) -> values.Revision:
    newest = max(desired.revisions, key=lambda each: each.number, default=None)
    if newest is not None and newest.hash == desired.template_hash:
        return newest
    if _is_paused(desired):
        return newest or _no_revision(desired)
    number = newest.number + 1 if newest is not None else 1
    fresh = names()
    revision = values.Revision(
        number=number,
        hash=desired.template_hash,
        template=desired.deployment.spec.template,
        pins=_pins_of(desired),
        name=f"{desired.deployment.name[:50].rstrip('-')}-{number}-{fresh.suffix}",
        uid=fresh.uid,
    )
    if desired.deployment.deleted_at is not None:
        return newest or revision
    draft.actions.append(values.CreateRevision(revision=revision))
    return revision


def _no_revision(desired: values.Desired) -> values.Revision:
    """Stands for the first revision of a deployment that was paused before it had one: nothing is made of it."""
    template = desired.deployment.spec.template
    return values.Revision(number=0, hash="", template=template, name="", uid="")


def _is_paused(desired: values.Desired) -> bool:
    """What is being deleted is not held up by a pause."""
    return desired.deployment.spec.paused and desired.deployment.deleted_at is None


def _made_of(desired: values.Desired, newest: values.Revision) -> values.Revision:
    """The revision that new replicas are made of: the newest, while paused the oldest that still runs or did last."""
    if not _is_paused(desired):
        return newest
    stored = {each.number: each for each in desired.revisions}
    running = [
        each.revision
        for each in desired.replicas
        if each.end is None and each.drain is None and each.deleted_at is None and each.revision in stored
    ]
    return stored.get(min(running, default=desired.record.current_revision), newest)


def _pins_of(desired: values.Desired) -> tuple[staging.Pin, ...]:
    """The same template again (an undo) means the same bytes again, although a tag may have moved meanwhile."""
    same = [each for each in desired.revisions if each.hash == desired.template_hash]
    return max(same, key=lambda each: each.number).pins if same else ()


def _ends(
    desired: values.Desired,
    replicas: Sequence[assess.Assessment],
    record: values.Record,
    newest: int,
    seen: values.Observed,
    draft: _Draft,
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
            draft.actions.append(
                values.Announce(
                    regarding=owner_of(each.facts), warning=False, reason=end.reason, message=end.message
                )
            )
            continue
        draft.actions.append(
            values.Announce(
                regarding=owner_of(each.facts), warning=True, reason=end.reason, message=_sentence(end)
            )
        )
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
        if end.reason in _STALLING and each.facts.revision == newest:
            record = backoff.stalled(record, end.reason, end.message, desired.deployment.generation, seen.now)
        elif classify.is_crash(end) and each.facts.revision == newest:
            crashes += 1
    return backoff.after_crashes(record, crashes, newest, seen.now) if crashes else record


def _sentence(end: replica.End) -> str:
    where = f" on {end.node}" if end.node else ""
    code = f" (exit code {end.exit_code})" if end.exit_code else ""
    return f"{end.message}{where}{code}"


def _health(
    replicas: Sequence[assess.Assessment], record: values.Record, newest: int, seen: values.Observed
) -> values.Record:
    ready = [
        each
        for each in replicas
        if each.is_routed and each.facts.revision == newest and each.facts.ready_at is not None
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


def _announce_ready(desired: values.Desired, replicas: Sequence[assess.Assessment], draft: _Draft) -> None:
    """For those that were not ready when they were written down last."""
    was_ready = {each.uid for each in desired.replicas if each.ready_at is not None}
    for each in replicas:
        if each.is_routed and each.facts.uid not in was_ready:
            message = f"serves on {each.facts.node}" if each.facts.node else "serves"
            draft.actions.append(
                values.Announce(
                    regarding=owner_of(each.facts), warning=False, reason="Ready", message=message
                )
            )


def _deleted_by_hand(
    desired: values.Desired, replicas: Sequence[assess.Assessment], seen: values.Observed, draft: _Draft
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
    draft: _Draft,
) -> assess.Assessment:
    grace_s = desired.deployment.spec.template.termination_grace_s
    decided = drain.start(each, reason, grace_s, seen.now, why)
    draft.actions.append(values.StartDrain(replica=each.facts, drain=decided, why=why))
    draft.actions.append(
        values.Announce(regarding=owner_of(each.facts), warning=False, reason="Draining", message=why)
    )
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


def _advance(each: assess.Assessment, seen: values.Observed, draft: _Draft) -> None:
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
    desired: values.Desired, replicas: Sequence[assess.Assessment], seen: values.Observed, draft: _Draft
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
    draft: _Draft,
) -> tuple[values.Record, backoff.Brake, list[assess.Assessment]]:
    """One step of the rollout, as far as brakes, back-off and budget let it."""
    spec = desired.deployment.spec
    is_going = desired.deployment.deleted_at is not None
    is_paused = _is_paused(desired)
    view = seen.clusters.get(revision.template.cluster)
    brake = backoff.creation(record, spec.replicas, spec.max_surge, seen.now)
    draft.recheck(brake.until)
    if view is not None and view.brake:
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
            newest = each.facts.revision if is_paused else revision.number
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
    uncounted = sum(1 for each in replicas if _may_have_failed_unrecorded(each, revision.number, seen))
    create = max(0, min(step.create - uncounted, brake.allowed)) if may_create else 0
    for _ in range(create):
        made = _new_replica(desired, revision, seen, names())
        draft.actions.append(values.CreateReplica(replica=made, why="a replica is missing"))
        message = f"for revision {revision.number} of {made.deployment}"
        draft.actions.append(
            values.Announce(regarding=owner_of(made), warning=False, reason="Created", message=message)
        )
    if create:
        record = backoff.after_submissions(record, create, seen.now)
    return record, brake, result


def _target(replicas: Sequence[assess.Assessment], newest: int, gate: artifacts.Gate) -> int:
    """The revision to roll to. As long as the newest one cannot have replicas, those of the one before it stay as they are."""
    if gate.is_open:
        return newest
    return max((each.facts.revision for each in replicas if not rollout.is_leaving(each)), default=newest)


def _may_have_failed_unrecorded(each: assess.Assessment, newest: int, seen: values.Observed) -> bool:
    """It was given up, or ends by itself in a way that counts or may count, and Slurm has not said yet that the job is over.

    After SIGTERM only Slurm knows whether somebody has cancelled the job (counts) or whether it was preempted (does not). A snapshot
    may show the job in COMPLETING before its agent has said a word. An agent that has fallen silent is not waited for: its job may
    hang in COMPLETING for long.
    """
    if each.is_over or each.facts.revision != newest:
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


def _advance_drained(each: assess.Assessment, seen: values.Observed, draft: _Draft) -> None:
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
    if each.facts.revision != newest:
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


def _prune(
    desired: values.Desired, replicas: Sequence[assess.Assessment], needed: set[int], draft: _Draft
) -> None:
    """Ended replicas beyond the newest failed one, and revisions beyond the limit that no replica uses."""
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
    is_last_pass = desired.deployment.deleted_at is not None and not desired.replicas
    in_use = {each.facts.revision for each in replicas} | (set() if is_last_pass else needed)
    spare = [each for each in desired.revisions if each.number not in in_use]
    limit = 0 if desired.deployment.deleted_at is not None else desired.deployment.spec.revision_history_limit
    for revision in spare[: max(0, len(spare) - limit)]:
        draft.actions.append(values.RemoveRevision(revision=revision))


def _look_again(replicas: Sequence[assess.Assessment], seen: values.Observed, draft: _Draft) -> None:
    """When a heartbeat that stops now would change a phase, and when gateways are not waited for any longer."""
    timing = seen.timing
    draft.recheck(routes.unknown_until(replicas, seen))
    for each in replicas:
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
    draft: _Draft,
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
        is_template_waiting=_is_paused(desired) and newest.hash != desired.template_hash,
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
    return min((each.facts.revision for each in replicas if each.is_routed), default=made_of)


def _shown(each: assess.Assessment) -> values.ReplicaStatus:
    return values.ReplicaStatus(
        replica=replica.learn(each.facts, phase=each.phase),
        phase=each.phase,
        reason=each.reason,
        message=each.message,
        is_ready=each.is_routed,
        estimated_start_at=each.estimated_start_at,
    )
