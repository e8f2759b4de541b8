"""What a client is told while its request waits, or instead of an answer. Pure; `now` is in epoch seconds here."""

import math

import orjson

from llmop.domain import awaited
from llmop.domain.endpoint import NextReplica, RoutedModel, Stage
from llmop.gateway import errors
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Refusal
from llmop.gateway.routes import Route

_UNKNOWN_RETRY = 10  # seconds, where nothing is known of the next replica, or it is late
_LONGEST_RETRY = 3600
_EVENT_STREAM = b"/generate_stream"

_WHY = {
    Dropped.NO_ENDPOINT: "requests for it do not wait",
    Dropped.SATURATED: "requests for it do not wait",
    Dropped.QUEUE_FULL: "as many requests as may wait for it do",
    Dropped.TTL_EXPIRED: "the request has waited as long as it may",
    Dropped.SHUTTING_DOWN: "this gateway is shutting down",
}


def refusal(
    model: RoutedModel, why: Dropped, *, has_endpoints: bool, retry_after: int, now: float
) -> Refusal:
    """429 where there are endpoints and all are full, `retry_after` seconds being the queue's; 503 where there is none, or no gateway any more."""
    if why is Dropped.SHUTTING_DOWN:
        return Refusal(
            status=503, code="shutting_down", message=_WHY[why], retry_after=retry_after, dropped=why
        )
    if has_endpoints:
        return errors.saturated(model.name, _WHY[why], why, max(1, retry_after))
    return errors.no_endpoint(
        model.name, _when(model.next_replica, now), _WHY[why], why, _retry_after(model.next_replica, now)
    )


def _retry_after(following: NextReplica, now: float) -> int:
    at = following.ready_at or following.starts_at
    if at is None or at <= now:
        return _UNKNOWN_RETRY
    return max(1, min(_LONGEST_RETRY, math.ceil(at - now)))


def _when(following: NextReplica, now: float) -> str:
    match following.stage:
        case Stage.PENDING:
            return (
                f"one waits for its job to start{awaited.within(', about', _until(following.starts_at, now))}"
            )
        case Stage.LOADING:
            return f"one is loading{awaited.within(', ready', _until(following.ready_at, now))}"
        case _:
            return "and none is on its way yet"


def comment(following: NextReplica, queued: int, *, has_endpoints: bool, now: float) -> bytes:
    """A server-sent event's comment, which clients that do not look for it skip."""
    at = following.starts_at if following.stage is Stage.PENDING else following.ready_at
    text = f"queued {queued}" if has_endpoints else awaited.words(following.stage, _until(at, now))
    return b": " + text.encode() + b"\n\n"


def _until(at: float | None, now: float) -> float | None:
    return None if at is None else at - now


def wants_stream(route: Route, body: bytes) -> bool:
    """Whether the answer will be a stream of events."""
    if not route.streams:
        return route.target.partition(b"?")[0] == _EVENT_STREAM
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(request, dict) and request.get("stream") is True


def as_event(status: int, body: bytes, route: Route) -> bytes:
    """An engine's answer that is no stream, for a client whose stream has begun already."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return b"data: " + orjson.dumps(value) + b"\n\n"
    said = body[:500].decode(errors="replace").strip()
    return errors.event(
        Refusal(
            status=502,
            code="upstream_failed",
            message=f"the replica answered with the status {status}: {said}",
        ),
        route.dialect,
    )
