"""What `get` shows of each kind: columns and cells are made here, so that an old client prints new columns.

Cells are text for people and never parsed; programs read the object. `now` is epoch seconds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmop.domain import resources, rollouts, times

NONE = "<none>"
UNKNOWN = "<unknown>"

_Cell = Callable[[resources.Resource, float], str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    name: str
    cell: _Cell
    wide: bool = False


def cells(resource: resources.Resource, now: float) -> list[str]:
    """One row, in the order of `columns`; never empty text, so that a cell never swallows its neighbour."""
    return [_shown(column, resource, now) or NONE for column in columns(resource.kind)]


def _shown(column: Column, resource: resources.Resource, now: float) -> str:
    """One object that another version wrote, or that is damaged, must not keep all others of a list from being shown."""
    try:
        return column.cell(resource, now)
    except (AttributeError, KeyError, TypeError, ValueError):
        return UNKNOWN


def columns(kind: str) -> Sequence[Column]:
    return _TABLES[kind]


def _name(resource: resources.Resource, now: float) -> str:
    return resource.name


def _age(resource: resources.Resource, now: float) -> str:
    return times.human(now - resource.created_at) if resource.created_at else UNKNOWN


def _at(source: str, *path: str) -> _Cell:
    """The text at `path` below spec or status; numbers as they are, lists joined, nothing for what is absent."""

    def cell(resource: resources.Resource, now: float) -> str:
        value: Any = getattr(resource, source)
        for step in path:
            if not isinstance(value, Mapping):
                return ""
            value = value.get(step)
        return _text(value)

    return cell


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_text(each) for each in value)
    return str(value)


def _number(path: str) -> _Cell:
    """A count of the status; 0 while the status is not written yet."""

    def cell(resource: resources.Resource, now: float) -> str:
        return str(resource.status.get(path) or 0)

    return cell


def condition(resource: resources.Resource, condition_type: str) -> Mapping[str, Any]:
    """The condition of that type, or {}."""
    for each in resource.status.get("conditions") or ():
        if each.get("type") == condition_type:
            return dict(each)
    return {}


def _deployment_ready(resource: resources.Resource, now: float) -> str:
    return f"{resource.status.get('readyReplicas') or 0}/{rollouts.wanted(resource.spec, resource.status)}"


def _deployment_model(resource: resources.Resource, now: float) -> str:
    return _text(_at("spec", "model", "name")(resource, now)) or resource.name


def _deployment_reason(resource: resources.Resource, now: float) -> str:
    """Why it is not as it should be: the most final word first; nothing when it is ready."""
    if resource.deleted_at is not None:
        return "Terminating"
    stalled = condition(resource, "Stalled")
    if stalled.get("status") == "True":
        return _text(stalled.get("reason"))
    ready = condition(resource, "Ready")
    if ready.get("status") == "True":
        return ""
    return _text(ready.get("reason"))


def _replica_ready(resource: resources.Resource, now: float) -> str:
    return _text(bool(resource.status.get("ready")))


def _replica_ends(resource: resources.Resource, now: float) -> str:
    ends_at = resource.status.get("endsAt")
    if not ends_at or resource.status.get("end"):
        return ""
    left = times.from_rfc3339(ends_at) - now
    return times.human(left) if left > 0 else "overdue"


def _replica_reason(resource: resources.Resource, now: float) -> str:
    return replica_reason(resource)


def replica_reason(resource: resources.Resource) -> str:
    """Why it is as it is, in a word; "" where there is nothing to say."""
    end = resource.status.get("end") or {}
    drain = resource.spec.get("drain") or {}
    return _text(end.get("reason") or resource.status.get("reason") or drain.get("reason"))


def _replica_endpoint(resource: resources.Resource, now: float) -> str:
    endpoint = resource.status.get("endpoint") or {}
    return f"{endpoint['host']}:{endpoint['port']}" if endpoint else ""


def _revision_owner(resource: resources.Resource, now: float) -> str:
    return resource.owner.name if resource.owner else ""


def _cluster_reachable(resource: resources.Resource, now: float) -> str:
    return _text(condition(resource, "Reachable").get("status")) or "Unknown"


def _cluster_reason(resource: resources.Resource, now: float) -> str:
    if (refused := condition(resource, "SpecAccepted")).get("status") == "False":
        return _text(refused.get("reason"))
    reachable = condition(resource, "Reachable")
    return "" if reachable.get("status") == "True" else _text(reachable.get("reason"))


def _key_models(resource: resources.Resource, now: float) -> str:
    return _text(resource.spec.get("models")) or "*"


def _key_expires(resource: resources.Resource, now: float) -> str:
    expires_at = resource.spec.get("expiresAt")
    if not expires_at:
        return ""
    left = times.from_rfc3339(expires_at) - now
    return times.human(left) if left > 0 else "expired"


def _event_last_seen(resource: resources.Resource, now: float) -> str:
    last = resource.spec.get("lastSeenAt")
    return times.human(now - times.from_rfc3339(last)) if last else UNKNOWN


def _event_object(resource: resources.Resource, now: float) -> str:
    regarding = resource.spec.get("regarding") or {}
    kind = resources.KINDS.get(regarding.get("kind", ""))
    word = kind.singular if kind else _text(regarding.get("kind"))
    return f"{word}/{regarding.get('name', '')}"


def _virtual_ready(resource: resources.Resource, now: float) -> str:
    return _text(condition(resource, "Ready").get("status")) or "Unknown"


def _virtual_reason(resource: resources.Resource, now: float) -> str:
    ready = condition(resource, "Ready")
    return "" if ready.get("status") == "True" else _text(ready.get("reason"))


def _tribunal_models(field: str) -> _Cell:
    def cell(resource: resources.Resource, now: float) -> str:
        return ",".join(_text(each.get("model")) for each in resource.spec.get(field) or ())

    return cell


_NAME = Column(name="NAME", cell=_name)
_AGE = Column(name="AGE", cell=_age)

_TABLES: Mapping[str, Sequence[Column]] = {
    resources.MODEL_DEPLOYMENT: (
        _NAME,
        Column(name="READY", cell=_deployment_ready),
        Column(name="UP-TO-DATE", cell=_number("updatedReplicas")),
        Column(name="AVAILABLE", cell=_number("availableReplicas")),
        Column(name="PENDING", cell=_number("pendingReplicas")),
        Column(name="MODEL", cell=_deployment_model),
        Column(name="RUNTIME", cell=_at("spec", "runtime")),
        Column(name="REASON", cell=_deployment_reason),
        _AGE,
        Column(name="URL", cell=_at("status", "url"), wide=True),
        Column(name="PROFILE", cell=_at("spec", "resourceProfile"), wide=True),
        Column(name="REVISION", cell=_at("status", "currentRevision"), wide=True),
    ),
    resources.REPLICA: (
        _NAME,
        Column(name="READY", cell=_replica_ready),
        Column(name="PHASE", cell=_at("status", "phase")),
        Column(name="JOB", cell=_at("status", "jobId")),
        Column(name="NODE", cell=_at("status", "node")),
        Column(name="RESTARTS", cell=_number("restarts")),
        Column(name="ENDS", cell=_replica_ends),
        Column(name="REASON", cell=_replica_reason),
        _AGE,
        Column(name="REVISION", cell=_at("spec", "revision"), wide=True),
        Column(name="CLUSTER", cell=_at("spec", "cluster"), wide=True),
        Column(name="ENDPOINT", cell=_replica_endpoint, wide=True),
    ),
    resources.REVISION: (
        _NAME,
        Column(name="DEPLOYMENT", cell=_revision_owner),
        Column(name="REVISION", cell=_at("spec", "revision")),
        Column(name="HASH", cell=_at("spec", "hash")),
        _AGE,
    ),
    resources.SERVING_RUNTIME: (
        _NAME,
        Column(name="ENGINE", cell=_at("spec", "engine")),
        Column(name="PROTOCOLS", cell=_at("spec", "protocols")),
        Column(name="CONTAINER", cell=_at("spec", "container")),
        _AGE,
        Column(name="IMAGE", cell=_at("spec", "image"), wide=True),
    ),
    resources.RESOURCE_PROFILE: (
        _NAME,
        Column(name="CLUSTER", cell=_at("spec", "cluster")),
        Column(name="PARTITION", cell=_at("spec", "partition")),
        Column(name="GRES", cell=_at("spec", "gres")),
        Column(name="TIME-LIMIT", cell=_at("spec", "timeLimit")),
        _AGE,
        Column(name="ACCOUNT", cell=_at("spec", "account"), wide=True),
        Column(name="QOS", cell=_at("spec", "qos"), wide=True),
        Column(name="CONSTRAINT", cell=_at("spec", "constraint"), wide=True),
    ),
    resources.CLUSTER: (
        _NAME,
        Column(name="DRIVER", cell=_at("spec", "driver")),
        Column(name="REACHABLE", cell=_cluster_reachable),
        Column(name="VERSION", cell=_at("status", "version")),
        Column(name="REASON", cell=_cluster_reason),
        _AGE,
        Column(name="SHARED-DIR", cell=_at("spec", "sharedDir"), wide=True),
    ),
    resources.API_KEY: (
        _NAME,
        Column(name="OWNER", cell=_at("spec", "owner")),
        Column(name="MODELS", cell=_key_models),
        Column(name="PRIORITY", cell=_at("spec", "priority")),
        Column(name="EXPIRES", cell=_key_expires),
        _AGE,
        Column(name="REQUESTS/MIN", cell=_at("spec", "limits", "requestsPerMinute"), wide=True),
        Column(name="TOKENS/MIN", cell=_at("spec", "limits", "tokensPerMinute"), wide=True),
        Column(name="PARALLEL", cell=_at("spec", "limits", "parallelRequests"), wide=True),
        Column(name="SHADOW", cell=_at("spec", "shadow"), wide=True),
        Column(name="OPERATIONS", cell=_at("spec", "operations"), wide=True),
    ),
    resources.TRIBUNAL: (
        _NAME,
        Column(name="READY", cell=_virtual_ready),
        Column(name="DRAFTERS", cell=_tribunal_models("drafters")),
        Column(name="CRITICS", cell=_tribunal_models("critics")),
        Column(name="JUDGE", cell=_at("spec", "judge", "model")),
        Column(name="REASON", cell=_virtual_reason),
        _AGE,
        Column(name="ROUNDS", cell=_at("spec", "rounds"), wide=True),
        Column(name="MAX-TOKENS", cell=_at("spec", "maxTokens"), wide=True),
        Column(name="TIMEOUT", cell=_at("spec", "timeout"), wide=True),
    ),
    resources.ASSISTANT: (
        _NAME,
        Column(name="READY", cell=_virtual_ready),
        Column(name="MODEL", cell=_at("spec", "model")),
        Column(name="VECTOR-STORES", cell=_at("spec", "vectorStores")),
        Column(name="REASON", cell=_virtual_reason),
        _AGE,
        Column(name="TOP-K", cell=_at("spec", "topK"), wide=True),
        Column(name="MIN-SCORE", cell=_at("spec", "minScore"), wide=True),
    ),
    resources.EVENT: (
        Column(name="LAST SEEN", cell=_event_last_seen),
        Column(name="TYPE", cell=_at("spec", "type")),
        Column(name="REASON", cell=_at("spec", "reason")),
        Column(name="OBJECT", cell=_event_object),
        Column(name="MESSAGE", cell=_at("spec", "message")),
        Column(name="COUNT", cell=_at("spec", "count"), wide=True),
        Column(name="NAME", cell=_name, wide=True),
    ),
}
