"""Events, for `events`, `describe` and `get ev`."""

import json
from collections.abc import Sequence
from typing import Any

from llmop.cli import targets
from llmop.domain import times


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
