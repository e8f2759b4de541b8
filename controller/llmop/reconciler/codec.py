"""Replicas, revisions and statuses between the store's JSON and the planner's values."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmop.domain import conditions, replica, resources, times
from llmop.manifest import convert, stored
from llmop.planner import values
from llmop.store import interface


def _exact(at: float | None) -> str | None:
    """RFC 3339 with microseconds: facts that are compared with each other must come back as they were."""
    if at is None:
        return None
    return (
        datetime.datetime.fromtimestamp(at, datetime.UTC)
        .isoformat(timespec="microseconds")
        .replace("+00:00", "Z")
    )


def _time(text: object) -> float | None:
    return times.from_rfc3339(text) if isinstance(text, str) and text else None


def _shown(at: float | None) -> str | None:
    return None if at is None else times.to_rfc3339(at)


def replica_of(resource: resources.Resource, ledger: interface.Ledger) -> replica.Replica:
    """The planner's view of a stored Replica. Of one that `is_replica` says cannot be read, what the ledger knows."""
    spec, status = resource.spec, resource.status
    endpoint = status.get("endpoint") or {}
    return replica.Replica(
        name=resource.name,
        namespace=resource.namespace,
        uid=resource.uid,
        deployment=str(spec.get("deployment") or (resource.owner.name if resource.owner else "")),
        deployment_uid=resource.owner.uid if resource.owner else "",
        revision=number_of(resource),
        cluster=str(spec.get("cluster") or ledger.cluster),
        created_at=resource.created_at,
        submission=ledger.submission,
        resource_version=resource.resource_version,
        deleted_at=resource.deleted_at,
        drain=_drain(spec.get("drain")),
        end=_end(status.get("end")),
        started_at=_time(status.get("startedAt")),
        ready_at=_time(status.get("readyAt")),
        host=str(endpoint.get("host", "")),
        port=int(endpoint.get("port", 0)),
        node=str(status.get("node", "")),
        ends_at=_time(status.get("endsAt")),
        engine_restarts=int(status.get("restarts", 0)),
        missing_since=_time(status.get("missingSince")),
        blocked_since=_time(status.get("blockedSince")),
        unheard_since=_time(status.get("unheardSince")),
        was_running=bool(status.get("wasRunning", False)),
        phase=replica.Phase(status["phase"]) if status.get("phase") else None,
    )


def is_replica(resource: resources.Resource) -> bool:
    """Whether a stored Replica says what it is a replica of."""
    return number_of(resource) > 0 and all(resource.spec.get(name) for name in ("deployment", "cluster"))


def is_revision(resource: resources.Resource) -> bool:
    """Whether a stored Revision says which one it is, and what of."""
    spec = resource.spec
    return (
        number_of(resource) > 0
        and isinstance(spec.get("hash"), str)
        and isinstance(spec.get("template"), Mapping)
    )


def number_of(resource: resources.Resource) -> int:
    """Which revision a Revision is, or a Replica is made of; 0 = it does not say."""
    number = resource.spec.get("revision")
    return number if isinstance(number, int) else 0


def _drain(data: Mapping[str, Any] | None) -> replica.Drain | None:
    if not data:
        return None
    return replica.Drain(
        reason=replica.DrainReason(data["reason"]),
        requested_at=times.from_rfc3339(data["requestedAt"]),
        deadline_at=times.from_rfc3339(data["deadline"]),
        message=str(data.get("message", "")),
    )


def drain_json(drain: replica.Drain) -> dict[str, Any]:
    return {
        "reason": str(drain.reason),
        "requestedAt": _exact(drain.requested_at),
        "deadline": _exact(drain.deadline_at),
        "message": drain.message,
    }


def _end(data: Mapping[str, Any] | None) -> replica.End | None:
    if not data:
        return None
    return replica.End(
        reason=replica.EndReason(data["reason"]),
        at=times.from_rfc3339(data["at"]),
        message=data.get("message", ""),
        exit_code=data.get("exitCode"),
        node=data.get("node", ""),
        log_tail=tuple(data.get("logTail", ())),
    )


def end_json(end: replica.End) -> dict[str, Any]:
    return {
        "reason": str(end.reason),
        "message": end.message,
        "exitCode": end.exit_code,
        "node": end.node,
        "at": _shown(end.at),
        "logTail": list(end.log_tail),
    }


def new_replica(made: replica.Replica, owner: resources.Resource) -> resources.Resource:
    return resources.Resource(
        kind=resources.REPLICA,
        name=made.name,
        namespace=made.namespace,
        uid=made.uid,
        labels=owner.labels,
        owner=resources.Owner(kind=owner.kind, name=owner.name, uid=owner.uid),
        created_at=made.created_at,
        spec={
            "deployment": made.deployment,
            "revision": made.revision,
            "cluster": made.cluster,
            "drain": None,
        },
        status={"phase": str(replica.Phase.SUBMITTING), "ready": False, "jobName": made.submission.job_name},
    )


def replica_status(shown: values.ReplicaStatus, end: replica.End | None = None) -> dict[str, Any]:
    """`end` when it is being recorded with this status."""
    facts = shown.replica
    end = end or facts.end
    return {
        "phase": str(shown.phase),
        "reason": shown.reason,
        "message": shown.message,
        "ready": shown.is_ready,
        "jobId": facts.submission.job_id,
        "jobName": facts.submission.job_name,
        "node": facts.node,
        "endpoint": {"host": facts.host, "port": facts.port} if facts.host else None,
        "restarts": facts.engine_restarts,
        "startedAt": _exact(facts.started_at),
        "readyAt": _exact(facts.ready_at),
        "endsAt": _exact(facts.ends_at),
        "missingSince": _exact(facts.missing_since),
        "blockedSince": _exact(facts.blocked_since),
        "unheardSince": _exact(facts.unheard_since),
        "wasRunning": facts.was_running,
        "estimatedStartTime": _shown(shown.estimated_start_at),
        "end": end_json(end) if end is not None else None,
    }


def revision_of(resource: resources.Resource) -> values.Revision:
    return values.Revision(
        number=number_of(resource),
        hash=str(resource.spec["hash"]),
        template=stored.template(resource.spec["template"]),
        name=resource.name,
        uid=resource.uid,
        pins=convert.pins(resource),
    )


def new_revision(
    revision: values.Revision, template: Mapping[str, Any], owner: resources.Resource, now: float
) -> resources.Resource:
    return resources.Resource(
        kind=resources.REVISION,
        name=revision.name,
        namespace=owner.namespace,
        uid=revision.uid,
        labels=owner.labels,
        owner=resources.Owner(kind=owner.kind, name=owner.name, uid=owner.uid),
        created_at=now,
        spec={"revision": revision.number, "hash": revision.hash, "template": dict(template)},
        status=convert.write_pins(revision.pins) if revision.pins else {},
    )


def record_of(status: Mapping[str, Any]) -> values.Record:
    """What earlier passes left in a deployment's status."""
    kept = status.get("backoff") or {}
    failure = status.get("lastFailure")
    return values.Record(
        conditions=tuple(condition_of(each) for each in status.get("conditions", ())),
        crashes=int(kept.get("crashes", 0)),
        crash_revision=int(kept.get("crashRevision", 0)),
        retry_at=_time(kept.get("retryAt")),
        budget_since=_time(kept.get("budgetSince")),
        budget_spent=int(kept.get("budgetSpent", 0)),
        stalled_reason=str(kept.get("stalledReason", "")),
        stalled_message=str(kept.get("stalledMessage", "")),
        stalled_generation=int(kept.get("stalledGeneration", 0)),
        stalled_until=_time(kept.get("stalledUntil")),
        current_revision=int(status.get("currentRevision") or 0),
        last_failure=_failure(failure) if failure else None,
        leads=leads_of(status),
        scaling=_scaling(status),
    )


def leads_of(status: Mapping[str, Any]) -> tuple[values.Lead, ...]:
    """How long the last replicas of a deployment took until they were ready, by time."""
    last = (status.get("leadTime") or {}).get("last", ())
    return tuple(values.Lead(wait_s=wait_s, boot_s=boot_s) for wait_s, boot_s in last)


def _scaling(status: Mapping[str, Any]) -> values.ScalingRecord | None:
    kept = status.get("scaling")
    if not kept:
        return None
    return values.ScalingRecord(
        desired=int(kept["desiredReplicas"]),
        history=tuple(
            values.ScalingStep(
                at=times.from_rfc3339(each["time"]),
                before=int(each["from"]),
                after=int(each["to"]),
                reason=each["reason"],
                message=each["message"],
                inputs=each["inputs"],
            )
            for each in status.get("scalingHistory", ())
        ),
    )


def _scaling_json(record: values.ScalingRecord | None) -> dict[str, Any]:
    """Nothing for a deployment with a fixed number of replicas."""
    if record is None:
        return {}
    return {
        "scaling": {"desiredReplicas": record.desired},
        "scalingHistory": [
            {
                "time": _shown(each.at),
                "from": each.before,
                "to": each.after,
                "reason": each.reason,
                "message": each.message,
                "inputs": dict(each.inputs),
            }
            for each in record.history
        ],
    }


def _failure(data: Mapping[str, Any]) -> values.Failure:
    return values.Failure(
        reason=data["reason"],
        message=data.get("message", ""),
        at=times.from_rfc3339(data["time"]),
        exit_code=data.get("exitCode"),
        node=data.get("node", ""),
        log_tail=tuple(data.get("logTail", ())),
    )


def condition_of(data: Mapping[str, Any]) -> conditions.Condition:
    return conditions.Condition(
        type=data["type"],
        status=conditions.Status(data["status"]),
        reason=data["reason"],
        message=data.get("message", ""),
        observed_generation=int(data.get("observedGeneration", 0)),
        changed_at=_time(data.get("lastTransitionTime")) or 0.0,
    )


def condition_json(condition: conditions.Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": _shown(condition.changed_at),
    }


def deployment_status(shown: values.DeploymentStatus, generation: int, url: str) -> dict[str, Any]:
    record = shown.record
    failure = record.last_failure
    return {
        "observedGeneration": generation,
        "replicas": shown.replicas,
        "readyReplicas": shown.ready,
        "updatedReplicas": shown.updated,
        "pendingReplicas": shown.pending,
        "availableReplicas": shown.available,
        "currentRevision": record.current_revision,
        "updateRevision": shown.update_revision,
        "url": url,
        "retryAt": _shown(record.retry_at),
        "pending": {"estimatedStartTime": _shown(shown.estimated_start_at), "source": "Slurm"}
        if shown.estimated_start_at
        else None,
        "leadTime": _lead_time(record.leads),
        "conditions": [condition_json(each) for each in record.conditions],
        "lastFailure": None
        if failure is None
        else {
            "reason": failure.reason,
            "message": failure.message,
            "exitCode": failure.exit_code,
            "node": failure.node,
            "time": _shown(failure.at),
            "logTail": list(failure.log_tail),
        },
        "backoff": {
            "crashes": record.crashes,
            "crashRevision": record.crash_revision,
            "retryAt": _exact(record.retry_at),
            "budgetSince": _exact(record.budget_since),
            "budgetSpent": record.budget_spent,
            "stalledReason": record.stalled_reason,
            "stalledMessage": record.stalled_message,
            "stalledGeneration": record.stalled_generation,
            "stalledUntil": _exact(record.stalled_until),
        },
        **_scaling_json(record.scaling),
    }


def _lead_time(leads: Sequence[values.Lead]) -> dict[str, Any] | None:
    """`last` holds seconds in the queue and to the first answer, of the last replicas that became ready."""
    if not leads:
        return None
    place = math.ceil(0.95 * len(leads)) - 1
    return {
        "queueWaitP95": f"{sorted(each.wait_s for each in leads)[place]}s",
        "bootP95": f"{sorted(each.boot_s for each in leads)[place]}s",
        "last": [[each.wait_s, each.boot_s] for each in leads],
    }


def with_drain(resource: resources.Resource, drain: replica.Drain) -> resources.Resource:
    return dataclasses.replace(resource, spec={**resource.spec, "drain": drain_json(drain)})
