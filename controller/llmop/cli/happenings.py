"""Events, for `events`, `describe` and `get ev`."""

import json
from collections.abc import Sequence
from typing import Any

from llmop.cli import targets
from llmop.domain import ids, resources, times


def last_seen(row: Any) -> tuple[float, str]:
    """What events are sorted by."""
    seen = json.loads(row.object.spec_json).get("lastSeenAt")
    return (times.from_rfc3339(seen) if seen else 0.0, row.object.metadata.name)


def about(rows: Sequence[Any], kind: str, name: str, uid: str = "") -> list[Any]:
    """The events of one object, oldest first; with `uid` without those of an earlier object of its name."""
    found = []
    for row in rows:
        regarding = json.loads(row.object.spec_json).get("regarding") or {}
        if (regarding.get("kind"), regarding.get("name")) == (kind, name) and uid in (
            "",
            regarding.get("uid"),
        ):
            found.append(row)
    return sorted(found, key=last_seen)


def about_replicas(rows: Sequence[Any], deployment: Any, replicas: Sequence[Any]) -> list[Any]:
    """The events of a deployment's replicas, of those that are gone too. `replicas` are all that the namespace has.

    Whose replica one was that is gone says its name, and that it happened after the deployment was made.
    """
    owners = {
        each.metadata.uid: json.loads(each.spec_json).get("deployment") == deployment.metadata.name
        for each in replicas
    }
    made = deployment.metadata.creation_time.seconds
    found = []
    for row in rows:
        spec = json.loads(row.object.spec_json)
        regarding = spec.get("regarding") or {}
        if regarding.get("kind") == resources.REPLICA and owners.get(
            regarding.get("uid"),
            last_seen(row)[0] >= made
            and ids.is_replica_name(str(regarding.get("name", "")), deployment.metadata.name),
        ):
            found.append(row)
    return found


def line(row: Any, now: float) -> list[str]:
    """LAST SEEN, TYPE, REASON, OBJECT, MESSAGE; the age tells how often, where that was more than once."""
    spec = json.loads(row.object.spec_json)
    seen, first = spec.get("lastSeenAt"), spec.get("firstSeenAt")
    age = times.human(now - times.from_rfc3339(seen)) if seen else "<unknown>"
    count = spec.get("count") or 1
    if count > 1 and first:
        age += f" (x{count} over {times.human(now - times.from_rfc3339(first))})"
    regarding = spec.get("regarding") or {}
    label = targets.label(str(regarding.get("kind", "")), str(regarding.get("name", ""))).replace(
        ".llmop/", "/"
    )
    return [age, str(spec.get("type", "")), str(spec.get("reason", "")), label, str(spec.get("message", ""))]
