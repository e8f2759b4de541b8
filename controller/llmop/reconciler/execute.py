"""Carries out a plan: one transaction with everything that is written down, then the effects. Decides nothing."""

import dataclasses
from collections.abc import Mapping

from llmop.clock import Clock
from llmop.domain import replica, resources
from llmop.manifest import convert
from llmop.planner import values
from llmop.reconciler import codec, mirror
from llmop.store import interface


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """What is left to do after the transaction."""

    submit: tuple[values.SubmitJob, ...] = ()
    cancel: tuple[values.CancelJobs, ...] = ()
    orders: tuple[values.OrderDrain, ...] = ()
    stage: tuple[values.StageArtifact, ...] = ()
    ended: tuple[replica.Replica, ...] = ()
    removed: tuple[replica.Replica, ...] = ()  # their agents are not listened to any more


@dataclasses.dataclass(slots=True)
class _Transaction:
    writes: list[interface.Write] = dataclasses.field(default_factory=list)
    submit: list[values.SubmitJob] = dataclasses.field(default_factory=list)
    cancel: list[values.CancelJobs] = dataclasses.field(default_factory=list)
    orders: list[values.OrderDrain] = dataclasses.field(default_factory=list)
    stage: list[values.StageArtifact] = dataclasses.field(default_factory=list)
    removed: list[replica.Replica] = dataclasses.field(default_factory=list)
    ends: dict[str, replica.End] = dataclasses.field(default_factory=dict)
    is_finished: bool = False


def transaction(
    plan: values.Plan,
    owner: resources.Resource,
    template: Mapping[str, object],
    stored: mirror.Mirror,
    clock: Clock,
    url: str,
) -> tuple[list[interface.Write], Effects]:
    """The writes of the plan and the effects that follow once they are committed. `template` is what a new revision of `owner` keeps."""
    draft = _Transaction()
    now = clock.now()
    if any(isinstance(action, values.CreateReplica | values.RecordEnd) for action in plan.actions):
        # What such a pass learned about crashes and budgets is in the owner's status, behind a guard that drops it when somebody wrote
        # in between. Facts are not dropped: this unchanged write makes the whole pass fail instead, and it is done again.
        draft.writes.append(interface.Update(resource=owner, expected_version=owner.resource_version))
    for action in plan.actions:
        _translate(action, owner, template, stored, clock, now, draft)
    gone = {each.uid for each in draft.removed}
    for shown in plan.replicas:
        if shown.replica.uid in gone:
            continue
        status = codec.replica_status(shown, draft.ends.get(shown.replica.uid))
        _write_status(stored.get(resources.REPLICA, owner.namespace, shown.replica.name), status, draft)
    if not draft.is_finished:
        _write_status(owner, codec.deployment_status(plan.status, owner.generation, url), draft)
    effects = Effects(
        submit=tuple(draft.submit),
        cancel=tuple(draft.cancel),
        orders=tuple(draft.orders),
        stage=tuple(draft.stage),
        ended=tuple(action.replica for action in plan.actions if isinstance(action, values.RecordEnd)),
        removed=tuple(draft.removed),
    )
    return draft.writes, effects


def _translate(  # noqa: C901  (one row per action, nothing else)
    action: values.Action,
    owner: resources.Resource,
    template: Mapping[str, object],
    stored: mirror.Mirror,
    clock: Clock,
    now: float,
    draft: _Transaction,
) -> None:
    match action:
        case values.CreateRevision(revision=revision):
            made = codec.new_revision(revision, template, owner, now)
            draft.writes.append(interface.Create(resource=made))
        case values.RemoveRevision(revision=revision):
            draft.writes.append(
                interface.Remove(
                    kind=resources.REVISION, namespace=owner.namespace, name=revision.name, uid=revision.uid
                )
            )
        case values.PinArtifacts(revision=revision, pins=pins):
            known = stored.get(resources.REVISION, owner.namespace, revision.name)
            _write_status(known, convert.write_pins(pins), draft)
        case values.StageArtifact():
            draft.stage.append(action)
        case values.CreateReplica(replica=fresh):
            draft.writes.append(_created(fresh, owner, clock))
        case values.AdoptJob(replica=each, job_id=job_id):
            draft.writes.append(_adopted(each, job_id, now))
        case values.StartDrain(replica=each, drain=drain):
            known = stored.get(resources.REPLICA, each.namespace, each.name)
            if known is not None:
                drained = codec.with_drain(known, drain)
                draft.writes.append(
                    interface.Update(resource=drained, expected_version=known.resource_version)
                )
        case values.RecordEnd(replica=each, end=end, keep=keep):
            draft.ends[each.uid] = end
            draft.writes.append(_ended(each))
            if not keep:
                _remove(each, now, draft)
        case values.RemoveReplica(replica=each):
            draft.writes.append(_ended(each))
            _remove(each, now, draft)
        case values.Announce():
            draft.writes.append(_event(action, owner.namespace, now))
        case values.FinishDeletion():
            draft.is_finished = True
            draft.writes.append(
                interface.Remove(kind=owner.kind, namespace=owner.namespace, name=owner.name, uid=owner.uid)
            )
        case values.SubmitJob():
            draft.submit.append(action)
        case values.CancelJobs():
            draft.cancel.append(action)
        case values.OrderDrain():
            draft.orders.append(action)


def _created(made: replica.Replica, owner: resources.Resource, clock: Clock) -> interface.Create:
    ledger = interface.Ledger(
        replica_uid=made.uid,
        namespace=made.namespace,
        replica_name=made.name,
        cluster=made.cluster,
        submission=made.submission,
        secrets=interface.Secrets(api_key=clock.secret(), agent_token=clock.secret()),
    )
    return interface.Create(resource=codec.new_replica(made, owner), ledger=ledger)


def _adopted(each: replica.Replica, job_id: str, now: float) -> interface.RecordSubmission:
    submission = dataclasses.replace(
        each.submission,
        state=replica.SubmissionState.SUBMITTED,
        job_id=job_id,
        resolved_at=now,
        message="",
        retry_at=None,
    )
    return interface.RecordSubmission(
        replica_uid=each.uid,
        states=replica.UNRESOLVED | {each.submission.state},
        submission=submission,
        job_id_is=each.submission.job_id,
    )


def _event(said: values.Announce, namespace: str, now: float) -> interface.RecordEvent:
    return interface.RecordEvent(
        namespace=namespace,
        regarding=said.regarding,
        type="Warning" if said.warning else "Normal",
        reason=said.reason,
        message=said.message,
        at=now,
    )


def _ended(each: replica.Replica) -> interface.RecordSubmission:
    """The end is a fact; from now on no attempt may begin."""
    return interface.RecordSubmission(
        replica_uid=each.uid,
        states=frozenset(replica.SubmissionState),
        submission=dataclasses.replace(each.submission, state=replica.SubmissionState.ENDED),
    )


def _remove(each: replica.Replica, now: float, draft: _Transaction) -> None:
    draft.removed.append(each)
    draft.writes.append(
        interface.Remove(
            kind=resources.REPLICA, namespace=each.namespace, name=each.name, uid=each.uid, tombstoned_at=now
        )
    )


def _write_status(
    resource: resources.Resource | None, status: Mapping[str, object], draft: _Transaction
) -> None:
    if resource is None or resource.status == status:
        return
    draft.writes.append(
        interface.WriteStatus(
            kind=resource.kind,
            namespace=resource.namespace,
            name=resource.name,
            uid=resource.uid,
            expected_version=resource.resource_version,
            status=status,
        )
    )
