"""How many replicas to make, and which ones go first.

With N wanted, S = maxSurge and U = maxUnavailable:

- jobs that hold or ask for capacity, draining ones included, never exceed N + S;
- a rollout makes at most S replicas of the new revision beyond N, waits until they are available, and drains an old one for each;
- available replicas never fall below N - U because of us.

Each pass looks at the counts as they are: there is no state of a rollout that could be lost.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import replica
from llmop.planner import assess

_Phase = replica.Phase


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """`create` replicas of the newest revision; `drain` these, in this order."""

    create: int = 0
    drain: tuple[assess.Assessment, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    replicas: int
    max_surge: int
    max_unavailable: int
    min_ready_s: int = 0


def is_available(each: assess.Assessment, min_ready_s: float, now: float) -> bool:
    return each.is_routed and each.facts.ready_at is not None and now - each.facts.ready_at >= min_ready_s


def holds_capacity(each: assess.Assessment) -> bool:
    """Its job runs, waits or may land: counts against desired + surge. A job in COMPLETING is over."""
    return not each.is_over and each.phase is not _Phase.ENDED


def is_leaving(each: assess.Assessment) -> bool:
    return (
        each.facts.drain is not None
        or each.facts.deleted_at is not None
        or each.phase in (_Phase.DRAINING, _Phase.ENDED)
    )


def victims(candidates: Sequence[assess.Assessment], newest: int) -> list[assess.Assessment]:
    """The order in which replicas go: what costs least first.

    Not yet submitted, then waiting, then starting, then not routed, then ready; within that old revisions first, then the
    one whose walltime ends first, then the youngest.
    """
    ranks = {
        _Phase.SUBMITTING: 0,
        _Phase.BLOCKED: 1,
        _Phase.PENDING: 2,
        _Phase.UNKNOWN: 3,
        _Phase.UNREACHABLE: 3,
        _Phase.SUSPENDED: 3,
        _Phase.STARTING: 4,
        _Phase.LOADING: 5,
        _Phase.SUSPECT: 6,
    }

    def cost(each: assess.Assessment) -> tuple[int, int, float, float, str]:
        rank = ranks.get(each.phase, 7)
        if each.phase is _Phase.SUBMITTING and each.facts.submission.attempt_at is not None:
            rank = 2  # there may be a job
        ends_at = each.facts.ends_at if each.facts.ends_at is not None else float("inf")
        return (rank, int(each.revision == newest), ends_at, -each.facts.created_at, each.facts.name)

    return sorted(candidates, key=cost)


def paused_step(replicas: Sequence[assess.Assessment], revision: int, bounds: Bounds, now: float) -> Step:
    """The next step of a paused deployment: nobody is replaced, and what is missing or too much is made or drained.

    What is made is of `revision`. Of two revisions side by side as many stay as a rollout may have; those of other revisions go first.
    """
    holding = [each for each in replicas if holds_capacity(each)]
    silent = [each for each in holding if not is_leaving(each) and each.is_replaced]
    staying = [each for each in holding if not is_leaving(each) and not each.is_replaced]
    is_mixed = len({each.revision for each in staying}) > 1
    limit = bounds.replicas + bounds.max_surge
    surplus = len(staying) - (limit if is_mixed else bounds.replicas)
    order = sorted(victims(staying, revision), key=lambda each: is_available(each, bounds.min_ready_s, now))
    create = max(0, min(bounds.replicas - len(staying), limit - len(holding)))
    return Step(create=create, drain=(*silent, *order[: max(0, surplus)]))


def step(replicas: Sequence[assess.Assessment], newest: int, bounds: Bounds, now: float) -> Step:
    """The next step towards `bounds.replicas` replicas of revision `newest`."""
    wanted, limit = bounds.replicas, bounds.replicas + bounds.max_surge
    holding = [each for each in replicas if holds_capacity(each)]
    staying = [each for each in holding if not is_leaving(each)]
    # A silent replica is drained and replaced; it is not counted on any more.
    silent = [each for each in staying if each.is_replaced]
    staying = [each for each in staying if not each.is_replaced]
    current = [each for each in staying if each.revision == newest]
    old = [each for each in staying if each.revision != newest]
    available = {each.facts.uid for each in staying if is_available(each, bounds.min_ready_s, now)}
    floor = max(0, wanted - bounds.max_unavailable)

    def cheapest(candidates: Sequence[assess.Assessment]) -> list[assess.Assessment]:
        return sorted(victims(candidates, newest), key=lambda each: each.facts.uid in available)

    drained: list[assess.Assessment] = list(silent)
    if not old:
        drained += cheapest(current)[: max(0, len(current) - wanted)]
    else:
        # Old replicas that serve nobody cost nothing to lose, unless there would be too few jobs on the way.
        idle_old = [each for each in cheapest(old) if each.facts.uid not in available]
        spare = max(0, len(available) - floor)
        ready_old = [each for each in cheapest(old) if each.facts.uid in available][:spare]
        drained += idle_old[: max(0, len(staying) - floor)]
        drained += ready_old
        surplus = len(staying) - len(drained) + len(silent) - limit
        if surplus > 0:
            idle = [each for each in cheapest(current) if each.facts.uid not in available]
            ready = [each for each in cheapest(current) if each.facts.uid in available]
            drained += (idle + ready[: spare - len(ready_old)])[:surplus]
    dropped = {each.facts.uid for each in drained}
    remaining_current = [each for each in current if each.facts.uid not in dropped]
    create = max(0, min(wanted - len(remaining_current), limit - len(holding)))
    return Step(create=create, drain=tuple(drained))
