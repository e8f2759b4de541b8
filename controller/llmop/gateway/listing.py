"""What `/v1/models` says of a model: OpenAI's fields, and below `llmop` whether somebody answers, or when. Pure; `now` is in epoch seconds."""

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from typing import Any

from llmop.domain.endpoint import RoutedModel, Stage


class State(enum.StrEnum):
    """From the best to the worst: a virtual model is what the worst of those is that it asks."""

    READY = "ready"  # a request is answered at once, or as soon as there is room
    LOADING = "loading"  # the first replica runs and does not answer yet
    PENDING = "pending"  # the first replica's job waits
    ASLEEP = "asleep"  # there is no replica; a request starts one
    DRAINING = "draining"  # the last replica takes nothing new any more
    NONE = "none"  # there is no replica, and none is on its way


_COMING = frozenset({State.LOADING, State.PENDING})
_RANK = {state: rank for rank, state in enumerate(State)}
_WHY = {
    State.LOADING: "waits for {} to load",
    State.PENDING: "waits for the job of {}",
    State.ASLEEP: "{} at zero",
    State.DRAINING: "{} stopping",
    State.NONE: "no replica of {}",
}
WORKLOADS_AWAY = "llmop workloads does not answer"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A model of the endpoint table. `ready` and `draining` are numbers of endpoints; a virtual model has none."""

    model: RoutedModel
    ready: int = 0
    draining: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a virtual model asks: models, and vector stores, of which those in `missing_stores` are not there."""

    models: tuple[str, ...]
    missing_stores: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """Times are seconds from now, None where they are not known; `why` says why a virtual model is not ready."""

    state: State
    starts_in: int | None = None
    ready_in: int | None = None
    why: str | None = None


def describe(served: Served, now: float) -> dict[str, Any]:
    """A model of a deployment."""
    return _entry(served.model, _facts(served, now), served.ready)


def describe_virtual(
    model: RoutedModel, needs: Mapping[str, Needs] | None, served: Mapping[str, Served], now: float
) -> dict[str, Any]:
    """`needs` is what `llmop workloads` says, by the names of virtual models, None while it is away; `served` are all models of the table."""
    return _entry(model, _virtual_facts(model.name, needs, served, now), None)


def _entry(model: RoutedModel, facts: _Facts, replicas_ready: int | None) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at),
        "owned_by": "llmop",
        "llmop": {
            "kind": _kind(model),
            "protocols": list(model.protocols),
            "state": facts.state.value,
            "why": facts.why,
            "replicas_ready": replicas_ready,
            "starts_in_seconds": facts.starts_in,
            "ready_in_seconds": facts.ready_in,
        },
    }


def _facts(served: Served, now: float) -> _Facts:
    state, following = _state(served), served.model.next_replica
    return _Facts(
        state=state,
        starts_in=_ahead(following.starts_at, now) if state is State.PENDING else None,
        ready_in=_ahead(following.ready_at, now) if state in _COMING else None,
    )


def _state(served: Served) -> State:
    if served.ready:
        return State.READY
    if served.model.next_replica.stage is Stage.LOADING:
        return State.LOADING
    if served.model.next_replica.stage is Stage.PENDING:
        return State.PENDING
    if served.model.wakes:
        return State.ASLEEP
    return State.DRAINING if served.draining else State.NONE


def _virtual_facts(
    name: str, needs: Mapping[str, Needs] | None, served: Mapping[str, Served], now: float
) -> _Facts:
    if needs is None:
        return _Facts(state=State.NONE, why=WORKLOADS_AWAY)
    own = needs.get(name)
    if own is None:  # two lines to the controller: it may hear of a new one a moment later
        return _Facts(state=State.NONE, why="llmop workloads does not know it yet")
    if own.missing_stores:
        return _Facts(state=State.NONE, why=f"there is no vector store {', '.join(own.missing_stores)}")
    unserved = [each for each in own.models if each not in served or served[each].model.virtual]
    if unserved:
        return _Facts(state=State.NONE, why=f"no deployment serves {', '.join(unserved)}")
    members = {each: _facts(served[each], now) for each in own.models}
    worst = max((each.state for each in members.values()), key=_RANK.__getitem__, default=State.READY)
    if worst is State.READY:
        return _Facts(state=State.READY)
    waited_for = {each: facts for each, facts in members.items() if facts.state is worst}
    coming = [facts for facts in members.values() if facts.state in _COMING]
    return _Facts(
        state=worst,
        starts_in=_latest(facts.starts_in for facts in waited_for.values()),
        ready_in=_latest(facts.ready_in for facts in coming) if worst in _COMING else None,
        why=_WHY[worst].format(", ".join(waited_for)),
    )


def _latest(times: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    found = list(times)
    known = [each for each in found if each is not None]
    return max(known) if known and len(known) == len(found) else None


def _kind(model: RoutedModel) -> str:
    """`deployment`, or what stands before the colon in a virtual model's place in the table, `tribunal` for one."""
    return model.deployment.partition(":")[0] if model.virtual else "deployment"


def _ahead(at: float | None, now: float) -> int | None:
    """None where the time is not known, or is over."""
    return None if at is None or at <= now else math.ceil(at - now)
