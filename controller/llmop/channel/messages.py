"""What agents say, as JSON, whichever way it comes (docs/reference/agent-channel.md). Nothing in it is trusted."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from llmop.channel import desk
from llmop.domain import endings, replica

BODY_LIMIT = 256 * 1024
NUMBER_MAX = 2**31 - 1
JOB_ID_LENGTH = 64
HOST_LENGTH = 255
DETAIL_LENGTH = 500

_WORD = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")


class BadField(Exception):
    """A message that cannot be understood; names the field."""


def _text(body: Mapping[str, Any], name: str, limit: int = 300, *, within: str = "") -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > limit or not value.isprintable():
        raise BadField(f"{within}{name}: must be text of 1 to {limit} printable characters")
    return value


def _word(body: Mapping[str, Any], name: str, limit: int, *, within: str = "") -> str:
    """Text that may become an argument of a command or part of an address."""
    value = _text(body, name, limit, within=within)
    if _WORD.fullmatch(value) is None:
        raise BadField(f"{within}{name}: must be letters, digits and . _ : % -, the first no sign")
    return value


def _line(body: Mapping[str, Any], name: str, limit: int) -> str:
    """Text for people; it may be missing, and is cut."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadField(f"{name}: must be text")
    return endings.line(value or "", limit)


def _number(body: Mapping[str, Any], name: str, *, within: str = "") -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise BadField(f"{within}{name}: must be a whole number from 0 to {NUMBER_MAX}")
    return value


def _decimal(body: Mapping[str, Any], name: str, high: float, expected: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
        raise BadField(f"{name}: must be {expected}")
    return float(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadField(f"{name}: must be an object or null")
    return value


def claim_of(body: Mapping[str, Any]) -> desk.Claim:
    """Raises BadField."""
    holder = _object(body, "holder")
    return desk.Claim(
        replica_uid=_text(body, "replica"),
        job_name=_text(body, "jobName"),
        job_id=_word(body, "jobId", JOB_ID_LENGTH),
        restart_count=_number(body, "restartCount"),
        holder=(
            _word(holder, "jobId", JOB_ID_LENGTH, within="holder."),
            _number(holder, "restartCount", within="holder."),
        )
        if holder is not None
        else None,
    )


def heartbeat_of(body: Mapping[str, Any], now: float) -> replica.Heartbeat:
    """Raises BadField."""
    try:
        phase = replica.AgentPhase(_text(body, "phase"))
    except ValueError:
        raise BadField(f"phase: must be one of {', '.join(replica.AgentPhase)}") from None
    endpoint = _object(body, "endpoint")
    port = _number(endpoint, "port", within="endpoint.") if endpoint is not None else 0
    if endpoint is not None and not 1 <= port <= 65535:
        raise BadField("endpoint.port: must be from 1 to 65535")
    end = _object(body, "exit")
    if end is not None and phase is not replica.AgentPhase.ENDED:
        raise BadField("exit: comes with the phase ended only")
    _text(body, "jobName")
    ending = _ending_of(body)
    if ending is not None and phase is not replica.AgentPhase.DRAINING:
        raise BadField("ending: comes with the phase draining only")
    return replica.Heartbeat(
        replica_uid=_text(body, "replica"),
        job_id=_word(body, "jobId", JOB_ID_LENGTH),
        restart_count=_number(body, "restartCount"),
        phase=phase,
        received_at=now,
        seq=_number(body, "seq"),
        node=_line(body, "node", endings.NODE_LENGTH),
        host=_word(endpoint, "host", HOST_LENGTH, within="endpoint.") if endpoint is not None else "",
        port=port,
        engine_restarts=_number(body, "engineRestarts") if body.get("engineRestarts") is not None else 0,
        connections=_number(body, "connections") if body.get("connections") is not None else 0,
        progress=_decimal(body, "progress", 1.0, "a number from 0 to 1, or null"),
        detail=_line(body, "detail", DETAIL_LENGTH),
        load=_load_of(body.get("load")),
        ending=ending,
        end=_end_of(end) if end is not None else None,
    )


def _load_of(value: object) -> replica.EngineLoad | None:
    """What an engine says of itself is never a reason to refuse a sign of life: what cannot be is not known."""
    if not isinstance(value, dict):
        return None
    age_s = _amount(value.get("age"), NUMBER_MAX)
    if age_s is None:
        return None
    queue_depth, running = (_amount(value.get(name), NUMBER_MAX) for name in ("queueDepth", "running"))
    return replica.EngineLoad(
        queue_depth=int(queue_depth) if queue_depth is not None and queue_depth.is_integer() else None,
        running=int(running) if running is not None and running.is_integer() else None,
        kv_cache_usage=_amount(value.get("kvCacheUsage"), 1.0),
        age_s=age_s,
    )


def _amount(value: object, high: float) -> float | None:
    """A number from 0 to `high`, which NaN is not."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
        return None
    return float(value)


def _ending_of(body: Mapping[str, Any]) -> replica.EndReason | None:
    if body.get("ending") is None:
        return None
    try:
        return replica.EndReason(_text(body, "ending"))
    except ValueError:
        raise BadField("ending: must be a reason of an exit record, or null") from None


def _end_of(data: Mapping[str, Any]) -> replica.End:
    try:
        return endings.end_of(data)
    except KeyError as error:
        raise BadField(f"exit.{error.args[0]}: is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise BadField(f"exit: cannot be used: {error}") from error


def wait_s(body: Mapping[str, Any]) -> float:
    """How long a reply to a heartbeat may be held back. Raises BadField."""
    return _decimal(body, "wait", NUMBER_MAX, "seconds, not negative") or 0.0


def object_of(content: bytes) -> Mapping[str, Any]:
    """Raises BadField."""
    if len(content) > BODY_LIMIT:
        raise BadField(f"body: must be at most {BODY_LIMIT} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise BadField("body: must be JSON") from None
    if not isinstance(body, dict):
        raise BadField("body: must be a JSON object")
    return body


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A message that came as a file; `kind` is claim or heartbeat."""

    kind: str
    token: str
    body: Mapping[str, Any]


def letter_of(content: bytes, job_name: str) -> Letter:
    """`job_name` is what the file's name says. Raises BadField."""
    document = object_of(content)
    kind, body = document.get("message"), _object(document, "body")
    if kind not in ("claim", "heartbeat"):
        raise BadField("message: must be claim or heartbeat")
    if body is None:
        raise BadField("body: is missing")
    if _text(body, "jobName") != job_name:
        raise BadField("jobName: is not that of the file's name")
    return Letter(kind=kind, token=_text(document, "token"), body=body)
