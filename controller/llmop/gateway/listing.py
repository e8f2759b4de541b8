"""What `/v1/models` says of a model: OpenAI's fields, and below `llmop` whether somebody answers, or when. Pure; `now` is in epoch seconds."""

import enum
import math
from typing import Any

from llmop.domain.endpoint import RoutedModel, Stage


class State(enum.StrEnum):
    READY = "ready"  # a request is answered at once, or as soon as there is room
    LOADING = "loading"  # the first replica runs and does not answer yet
    PENDING = "pending"  # the first replica's job waits
    ASLEEP = "asleep"  # there is no replica; a request starts one
    DRAINING = "draining"  # the last replica takes nothing new any more
    NONE = "none"  # there is no replica, and none is on its way


_COMING = frozenset({State.LOADING, State.PENDING})


def describe(model: RoutedModel, *, ready: int, draining: int, now: float) -> dict[str, Any]:
    """`ready` and `draining` are numbers of endpoints; a virtual model has one or none."""
    state = _state(model, ready=ready, draining=draining)
    following = model.next_replica
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at),
        "owned_by": "llmop",
        "llmop": {
            "kind": _kind(model),
            "protocols": list(model.protocols),
            "state": state.value,
            "replicas_ready": None if model.virtual else ready,
            "starts_in_seconds": _ahead(following.starts_at, now) if state is State.PENDING else None,
            "ready_in_seconds": _ahead(following.ready_at, now) if state in _COMING else None,
        },
    }


def _state(model: RoutedModel, *, ready: int, draining: int) -> State:
    if ready:
        return State.READY
    if model.next_replica.stage is Stage.LOADING:
        return State.LOADING
    if model.next_replica.stage is Stage.PENDING:
        return State.PENDING
    if model.wakes:
        return State.ASLEEP
    return State.DRAINING if draining else State.NONE


def _kind(model: RoutedModel) -> str:
    """`deployment`, or what stands before the colon in a virtual model's place in the table, `tribunal` for one."""
    return model.deployment.partition(":")[0] if model.virtual else "deployment"


def _ahead(at: float | None, now: float) -> int | None:
    """None where the time is not known, or is over."""
    return None if at is None or at <= now else math.ceil(at - now)
