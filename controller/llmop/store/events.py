"""What an Event is called and what it says."""

import datetime
import hashlib
from collections.abc import Mapping
from typing import Any

from llmop.domain import resources
from llmop.store import interface

DISTINCT_MESSAGES = 10
"""So many different messages of one (object, type, reason) are kept apart; later ones are combined into one Event."""

_COMBINED = "(combined from similar events): "


def series(event: interface.RecordEvent) -> str:
    """What events that differ by their message only have in common; 32 hexadecimal digits."""
    about = event.regarding
    return _digest(event.namespace, about.kind, about.name, about.uid, event.type, event.reason)


def name(event: interface.RecordEvent) -> str:
    return f"{event.regarding.name}.{_digest(series(event), 'message', event.message)[:16]}"


def combined_name(event: interface.RecordEvent) -> str:
    return f"{event.regarding.name}.{_digest(series(event), 'combined')[:16]}"


def first(event: interface.RecordEvent, *, combined: bool) -> resources.Resource:
    """The Event that `event` opens."""
    called = combined_name(event) if combined else name(event)
    about = event.regarding
    return resources.Resource(
        kind=resources.EVENT,
        name=called,
        namespace=event.namespace,
        uid=_uid(called, series(event), repr(event.at)),
        generation=1,
        created_at=event.at,
        spec={
            "regarding": {"kind": about.kind, "name": about.name, "uid": about.uid},
            "type": event.type,
            "reason": event.reason,
            "message": _COMBINED + event.message if combined else event.message,
            "count": 1,
            "firstSeenAt": _rfc3339(event.at),
            "lastSeenAt": _rfc3339(event.at),
        },
    )


def again(spec: Mapping[str, Any], event: interface.RecordEvent, *, combined: bool) -> dict[str, Any]:
    """The content of a known Event after it happened once more. Its last time never goes back."""
    return {
        **spec,
        "message": _COMBINED + event.message if combined else event.message,
        "count": spec["count"] + 1,
        "lastSeenAt": max(spec["lastSeenAt"], _rfc3339(event.at)),
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _uid(*parts: str) -> str:
    digits = _digest("uid", *parts)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _rfc3339(at: float) -> str:
    moment = datetime.datetime.fromtimestamp(at, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
