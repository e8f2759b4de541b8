"""What operators look at, made of stored objects and of what the reconciler has in memory: plain values, ready to become JSON.

It goes out by every gateway, so each thing in it is named here: no spec or status as a whole, no environment, no arguments, no lines of logs,
nothing of keys. Times are epoch seconds. It is bounded: `left_out` says how much there is beyond.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmop.domain import endpoint, resources, rollouts, times
from llmop.planner import autoscale
from llmop.rpc import tables

MOST = 1000  # deployments, replicas, clusters, each
_LONGEST = 500  # characters of a sentence


def overview(
    deployments: Iterable[resources.Resource],
    replicas: Iterable[resources.Resource],
    clusters: Iterable[resources.Resource],
    *,
    loads: Mapping[str, autoscale.Load],
    following: Mapping[str, endpoint.NextReplica],
    seen_at: Mapping[str, float],
    now: float,
) -> dict[str, Any]:
    """`loads` and `following` are by deployment (`namespace/name`), `seen_at` says when a cluster was looked at last."""
    listed = listing(deployments, replicas, clusters)
    return {
        "now": int(now),
        "clusters": [cluster(each, seen_at.get(each.name)) for each in listed.clusters],
        "deployments": [
            deployment(each, of, loads.get(name_of(each)), following.get(name_of(each)), now)
            for each, of in listed.deployments
        ],
        "left_out": listed.left_out,
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What is shown, in order: clusters, and deployments with their replicas; and how much there is beyond."""

    clusters: Sequence[resources.Resource]
    deployments: Sequence[tuple[resources.Resource, Sequence[resources.Resource]]]
    left_out: Mapping[str, int]


def listing(
    deployments: Iterable[resources.Resource],
    replicas: Iterable[resources.Resource],
    clusters: Iterable[resources.Resource],
) -> Listing:
    """Of too many replicas those stay that are not over, then those that ended last. A replica whose deployment is not listed is left out:
    objects are read one kind after the other.
    """
    owners = sorted(deployments, key=_place)
    shown = owners[:MOST]
    owned = [each for each in replicas if each.owner is not None]
    kept = sorted(owned, key=_precedence)[:MOST]
    of: dict[str, list[resources.Resource]] = {each.uid: [] for each in shown}
    for each in sorted(kept, key=lambda each: (each.created_at, each.name)):
        if each.owner is not None and each.owner.uid in of:
            of[each.owner.uid].append(each)
    places = sorted(clusters, key=_place)
    return Listing(
        clusters=places[:MOST],
        deployments=[(each, of[each.uid]) for each in shown],
        left_out={
            "clusters": max(0, len(places) - MOST),
            "deployments": len(owners) - len(shown),
            "replicas": len(owned) - sum(map(len, of.values())),
        },
    )


def _place(resource: resources.Resource) -> tuple[str, str]:
    return resource.namespace, resource.name


def name_of(resource: resources.Resource) -> str:
    return f"{resource.namespace}/{resource.name}"


def _precedence(replica: resources.Resource) -> tuple[float, str, str]:
    return -(_ended_at(replica) or float("inf")), replica.namespace, replica.name


def _ended_at(replica: resources.Resource) -> int | None:
    return _epoch((replica.status.get("end") or {}).get("at"))


def cluster(resource: resources.Resource, seen_at: float | None) -> dict[str, Any]:
    reachable = tables.condition(resource, "Reachable")
    return {
        "name": resource.name,
        "driver": str(resource.spec.get("driver") or ""),
        "reachable": reachable.get("status") or "Unknown",
        "reason": reachable.get("reason") or "",
        "message": _sentence(reachable.get("message")),
        "seen_at": None if seen_at is None else int(seen_at),
    }


def deployment(
    resource: resources.Resource,
    replicas: Sequence[resources.Resource],
    load: autoscale.Load | None,
    following: endpoint.NextReplica | None,
    now: float,
) -> dict[str, Any]:
    spec, status = resource.spec, resource.status
    state = _state(resource)
    return {
        "namespace": resource.namespace,
        "name": resource.name,
        "model": str(_mapping(spec.get("model")).get("name") or resource.name),
        "runtime": str(spec.get("runtime") or ""),
        "ready": int(status.get("readyReplicas") or 0),
        "desired": 0 if resource.deleted_at is not None else rollouts.wanted(spec, status),
        "is_ready": state.get("type") == "Ready" and state.get("status") == "True",
        "is_stalled": state.get("type") == "Stalled",
        "reason": state.get("reason") or "",
        "message": _sentence(state.get("message")),
        "next": next_of(status, following or endpoint.NextReplica(), now),
        "load": None if load is None else _load(load),
        "scaling": _scaling(spec, status),
        "replicas": [_replica(each) for each in replicas],
    }


def _state(resource: resources.Resource) -> Mapping[str, Any]:
    """The condition that says most; as `llmctl get md` has it under REASON."""
    stalled = tables.condition(resource, "Stalled")
    if stalled.get("status") == "True" and resource.deleted_at is None:
        return stalled
    return tables.condition(resource, "Ready")


def next_of(status: Mapping[str, Any], following: endpoint.NextReplica, now: float) -> dict[str, Any] | None:
    """When the next replica's job starts and when it answers. `source` says whose word the start is: Slurm's, or that of the deployment's
    earlier replicas. What should have been before now was wrong, as in `planner.eta`.
    """
    said = _ahead(_epoch((status.get("pending") or {}).get("estimatedStartTime")), now)
    learned, ready = _ahead(following.starts_at, now), _ahead(following.ready_at, now)
    if said is None and learned is None and ready is None:
        return None
    return {
        "starts_at": learned if said is None else said,
        "source": "Slurm" if said is not None else "EarlierReplicas" if learned is not None else None,
        "ready_at": ready,
    }


def _ahead(at: float | None, now: float) -> int | None:
    return None if at is None or at <= now else int(at)


def _load(load: autoscale.Load) -> dict[str, Any]:
    """`is_whole`: every gateway that may have requests was heard just now."""
    return {
        "in_flight": load.in_flight,
        "queued": load.queued,
        "tokens_per_second": None if load.tokens_per_s is None else round(load.tokens_per_s, 1),
        "is_whole": load.is_whole,
    }


def _scaling(spec: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any] | None:
    """None for a deployment with a fixed number of replicas. The newest step is the last."""
    bounds = _mapping(spec.get("scaling"))
    least, most = bounds.get("minReplicas", 1), bounds.get("maxReplicas")
    if not isinstance(least, int) or not isinstance(most, int):
        return None
    return {
        "min": least,
        "max": most,
        "steps": [
            {
                "at": _epoch(each.get("time")),
                "from": int(each["from"]),
                "to": int(each["to"]),
                "reason": str(each.get("reason") or ""),
                "message": _sentence(each.get("message")),
            }
            for each in status.get("scalingHistory") or ()
        ],
    }


def _replica(resource: resources.Resource) -> dict[str, Any]:
    status = resource.status
    return {
        "name": resource.name,
        "cluster": str(resource.spec.get("cluster") or ""),
        "phase": str(status.get("phase") or ""),
        "is_ready": bool(status.get("ready")),
        "reason": tables.replica_reason(resource),
        "job_id": status.get("jobId"),
        "node": str(status.get("node") or ""),
        "restarts": int(status.get("restarts") or 0),
        "created_at": int(resource.created_at),
        "estimated_start_at": _epoch(status.get("estimatedStartTime")),
        "started_at": _epoch(status.get("startedAt")),
        "ready_at": _epoch(status.get("readyAt")),
        "ends_at": _epoch(status.get("endsAt")),
        "ended_at": _ended_at(resource),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    """`value`, or an empty one in its place: what is stored may break the rules of this version."""
    return value if isinstance(value, Mapping) else {}


def _epoch(text: object) -> int | None:
    """None also for what is no time, as another version may have written it: one object must not blank the whole."""
    try:
        return int(times.from_rfc3339(text)) if isinstance(text, str) and text else None
    except ValueError:
        return None


def _sentence(text: object) -> str:
    """Slurm's words and ours may be long; the objects have them whole."""
    whole = str(text or "")
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]}…"
