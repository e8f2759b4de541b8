"""How many replicas the load asks for.

The skeleton is that of Knative's autoscaler (a stable and a panic window, no shrinking in panic), the words are those of Kubernetes'
HorizontalPodAutoscaler (metrics, tolerance, behavior). What neither has: a replica that was asked for may wait for hours, so what is on
its way counts as if it were there, and what waits for it is no reason to ask again. What is not known is never taken for zero: whoever
does not know the load holds what there is.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmop.domain import scaling, times

TICK_S = 2.0
ENOUGH = 20  # samples for the average of a long time
FRESH_S = 5.0  # gateways report every second
LONGEST_HORIZON_S = 600.0  # what lies further ahead is the business of schedules
MEMORY_S = 3600.0  # samples that are older say nothing about now
LONGEST_WINDOW_S = 3600.0  # of stabilization, as in Kubernetes
# For how long the load must ask for fewer replicas, where nobody says it: for as long as the next one would take to come, within these.
SHORTEST_LEARNED_S = 300.0  # as in Kubernetes
LONGEST_LEARNED_S = 1800.0  # also where no replica was ever ready

_Type = scaling.MetricType


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What all gateways together had of one deployment at one moment.

    `queued` is at least 1 when somebody was refused for want of a replica. `tokens_per_s` is None where it is not known. `is_whole`: every
    gateway that may have requests was heard just now; where not, the last word of the silent ones is in the numbers.
    """

    at: float
    in_flight: int
    queued: int
    tokens_per_s: float | None = None
    is_whole: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """The replicas there are. `lead_s` is how long it took from asking for one until it was ready, the median of the last ones; None where
    none ever was.
    """

    ready: int
    on_the_way: int
    lead_s: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The least number of replicas that a schedule wants now; `schedule` is its name."""

    replicas: int
    schedule: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    at: float
    before: int
    after: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What one decision leaves to the next. It lives in the controller's memory and begins with `remember`.

    `highest` and `lowest` are the recommendations that can still be the largest or smallest of a stabilization window, with their times;
    never empty, the last one is the newest.
    `waiting_since` and `waiting_most`: since when replicas are on their way, and how much waited for them in the first stable window.
    """

    desired: int
    highest: tuple[tuple[float, int], ...]
    lowest: tuple[tuple[float, int], ...]
    changes: tuple[Change, ...] = ()
    panic_until: float | None = None
    idle_since: float | None = None  # no request was there since, as far as all gateways could be heard
    waiting_since: float | None = None
    waiting_most: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One metric, summed over the replicas; averages over the two windows, None = not known."""

    type: scaling.MetricType
    target: int
    stable: float | None
    panic: float | None
    forecast: float | None
    replicas: int | None  # what it asks for


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """`desired` replicas from now on. `message` says why and is the same text as long as the reason is the same. `recommended` is what
    the load alone asks for, None where it is not known.
    """

    desired: int
    reason: str
    message: str
    recommended: int | None
    last: Load | None  # of this moment
    readings: tuple[Reading, ...]
    fleet: Fleet
    is_known: bool
    is_panic: bool
    limit: str  # "TooManyReplicas" or "TooFewReplicas": more or fewer were asked for than there may be, "" where neither
    memory: Memory


def remember(desired: int, now: float, changes: tuple[Change, ...] = ()) -> Memory:
    """Nothing is known of the time before `now`: as if what there is had been recommended."""
    return Memory(desired=desired, highest=((now, desired),), lowest=((now, desired),), changes=changes)


def bounded(wanted: scaling.Scaling, desired: int, floor: Floor | None = None) -> int:
    """`desired` within what the deployment may have now; a schedule cannot ask for more than maxReplicas."""
    return min(wanted.max_replicas, max(desired, wanted.min_replicas, floor.replicas if floor else 0))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A number of replicas, why, and what it was made of, as JSON. The message tells of one moment, with its numbers."""

    desired: int
    reason: str
    message: str
    inputs: Mapping[str, Any]


def step(wanted: scaling.Scaling, before: int, decision: Decision | None) -> Step:
    """From `before` to what was decided last. The limits may have changed since; without a decision there are only they."""
    decided = decision.desired if decision is not None else before
    desired = bounded(wanted, decided)
    if decision is None or desired != decided:
        reason, message = _bound_words(wanted, desired, decided, None)
        return Step(desired=desired, reason=reason, message=message, inputs={})
    if decision.reason == "Woken" and decision.last is not None:
        numbers = f"{decision.last.in_flight + decision.last.queued} now"  # averages do not know of them yet
    else:
        numbers = ", ".join(
            f"{each.type} {_number(each.stable)}, target {each.target}" for each in decision.readings
        )
    return Step(
        desired=desired,
        reason=decision.reason,
        message=f"{decision.message} ({numbers})",
        inputs=_inputs(decision),
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _inputs(decision: Decision) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 1)

    return {
        "metrics": [
            {
                "type": str(each.type),
                "target": each.target,
                "average": rounded(each.stable),
                "peak": rounded(each.panic),
                "forecast": rounded(each.forecast),
                "replicas": each.replicas,
            }
            for each in decision.readings
        ],
        "inFlight": None if decision.last is None else decision.last.in_flight,
        "queued": None if decision.last is None else decision.last.queued,
        "readyReplicas": decision.fleet.ready,
        "comingReplicas": decision.fleet.on_the_way,
        "leadTime": None if decision.fleet.lead_s is None else f"{round(decision.fleet.lead_s)}s",
        "recommended": decision.recommended,
    }


def window_s(direction: scaling.Direction, fleet: Fleet) -> float:
    """For how long the load must ask for the same before it is done: as was written, else by how long replicas took to come.

    A load that comes back sooner than that would find a replica on its way that was given up in between. In whole minutes, for people.
    """
    if direction.stabilization_s is not None:
        return direction.stabilization_s
    if fleet.lead_s is None:
        return LONGEST_LEARNED_S
    return min(LONGEST_LEARNED_S, max(SHORTEST_LEARNED_S, 60.0 * math.ceil(fleet.lead_s / 60)))


def kept_s(wanted: scaling.Scaling) -> float:
    """For how long samples are of use."""
    return max(wanted.stable_s, min(MEMORY_S, _span_s(wanted, LONGEST_HORIZON_S) + wanted.stable_s))


def decide(
    wanted: scaling.Scaling,
    desired: int,
    samples: Sequence[Load],
    memory: Memory,
    fleet: Fleet,
    floor: Floor | None,
    now: float,
) -> Decision:
    """How many replicas there shall be. `desired` is how many are wanted up to now, `samples` are by time, not older than `kept_s`."""
    memory = _after_change(wanted, memory, desired, now)
    memory = _wait(wanted, memory, fleet, samples, now)
    readings = tuple(_read(wanted, each, desired, samples, memory, fleet, now) for each in wanted.metrics)
    asked = [each.replicas for each in readings if each.replicas is not None]
    last = samples[-1] if samples and samples[-1].at > now - FRESH_S else None
    is_known = len(asked) == len(readings) and _is_seen(samples, now, wanted.stable_s)
    memory = _idle(memory, samples, last, now)
    if _is_sudden(wanted, readings, desired):
        memory = dataclasses.replace(memory, panic_until=now + wanted.stable_s)
    is_panic = memory.panic_until is not None and now < memory.panic_until
    recommended = max(asked, default=None)
    if is_panic and recommended is not None:
        recommended = max(recommended, desired, *_panic_replicas(readings))
    if desired == 0:
        # Averages still know of requests that are over.
        is_asked_for = last is not None and last.in_flight + last.queued > 0
        recommended = max(1, recommended or 0, *_at_once(wanted, last)) if is_asked_for and last else 0
    memory = _recommend(wanted, memory, recommended, desired, now, is_known=is_known)
    way = _way(wanted, desired, recommended, memory, fleet, now, is_known=is_known, is_panic=is_panic)
    result = bounded(wanted, way.desired, floor)
    reason, message = way.reason, way.message
    if result != way.desired:
        reason, message = _bound_words(wanted, result, way.desired, floor)
    return Decision(
        desired=result,
        reason=reason,
        message=message,
        recommended=recommended,
        last=last,
        readings=readings,
        fleet=fleet,
        is_known=is_known,
        is_panic=is_panic,
        limit=_limited(wanted, fleet, floor, memory),
        memory=memory,
    )


def _limited(wanted: scaling.Scaling, fleet: Fleet, floor: Floor | None, memory: Memory) -> str:
    """By the most that was recommended for as long as it counts, so that a load at the border does not change it every second."""
    most = _within(memory.highest, window_s(wanted.down, fleet))
    if most > wanted.max_replicas:
        return "TooManyReplicas"
    return "TooFewReplicas" if most < bounded(wanted, 0, floor) else ""


# What the load says


def _is_seen(samples: Sequence[Load], now: float, window_s: float) -> bool:
    """Whether the whole window was seen, by all gateways and without a gap."""
    later = now
    for each in reversed(samples):
        if later - each.at >= FRESH_S or not each.is_whole:
            return False
        later = each.at
        if later <= now - window_s:
            return True
    return later - (now - window_s) < FRESH_S if samples else False


def _read(
    wanted: scaling.Scaling,
    metric: scaling.Metric,
    desired: int,
    samples: Sequence[Load],
    memory: Memory,
    fleet: Fleet,
    now: float,
) -> Reading:
    pick = _picker(wanted, metric.type, memory, now)
    stable = _average(samples, pick, now - wanted.stable_s, now)
    panic = _average(samples, pick, now - wanted.panic_s, now)
    forecast = None if stable is None else stable + _rise(wanted, samples, pick, fleet, now)
    replicas = None if forecast is None or stable is None else _replicas(wanted, metric, desired, forecast)
    if metric.type is _Type.QUEUE_DEPTH and replicas is not None and replicas < desired:
        # An empty queue does not say how many of the replicas are needed to keep it empty: they go one by one.
        replicas = desired - 1 if not stable and not panic else desired
    return Reading(
        type=metric.type,
        target=metric.target,
        stable=stable,
        panic=panic,
        forecast=forecast,
        replicas=replicas,
    )


def _picker(
    wanted: scaling.Scaling, metric: scaling.MetricType, memory: Memory, now: float
) -> Callable[[Load], float | None]:
    most = math.inf
    if memory.waiting_since is not None and now - memory.waiting_since > wanted.stable_s:
        most = memory.waiting_most
    if metric is _Type.IN_FLIGHT:
        if math.isinf(most):
            return lambda load: load.in_flight + load.queued
        return lambda load: load.in_flight + min(load.queued, max(most, load.in_flight))
    if metric is _Type.QUEUE_DEPTH:
        return lambda load: min(load.queued, most)
    return lambda load: load.tokens_per_s


def _average(
    samples: Sequence[Load],
    pick: Callable[[Load], float | None],
    since: float,
    until: float,
    enough: int | None = None,
) -> float | None:
    """Over the samples in the window, None without one or when one of them does not know. With `enough` about so many of them are looked at."""
    first = bisect.bisect_right(samples, since, key=_at)
    last = bisect.bisect_right(samples, until, lo=first, key=_at)
    step = max(1, (last - first) // enough) if enough else 1
    known: list[float] = []
    for value in map(pick, samples[first:last:step]):
        if value is None:
            return None
        known.append(value)
    return sum(known) / len(known) if known else None


def _at(load: Load) -> float:
    return load.at


def _span_s(wanted: scaling.Scaling, horizon_s: float) -> float:
    return max(2.0 * horizon_s, 3.0 * wanted.stable_s)


def _rise(
    wanted: scaling.Scaling,
    samples: Sequence[Load],
    pick: Callable[[Load], float | None],
    fleet: Fleet,
    now: float,
) -> float:
    """What will have been added by the time a replica that is asked for now is ready.

    A rise is believed as far as it shows from each quarter of the time behind us to the next: a step shows twice at most, noise seldom
    three times.
    """
    horizon_s = min(fleet.lead_s or 0.0, LONGEST_HORIZON_S)
    if not horizon_s:
        return 0.0
    quarter_s = _span_s(wanted, horizon_s) / 4
    if not samples or samples[0].at > now - 4 * quarter_s + FRESH_S:
        return 0.0
    later, least = math.inf, math.inf
    for part in range(4):
        average = _average(samples, pick, now - quarter_s * (part + 1), now - quarter_s * part, ENOUGH)
        if average is None or average >= later:
            return 0.0
        later, least = average, min(least, later - average)
    return least * horizon_s / quarter_s


def _replicas(wanted: scaling.Scaling, metric: scaling.Metric, desired: int, amount: float) -> int:
    """`desired` where the load is as they are meant for, give or take the tolerance."""
    if desired and abs(amount / (metric.target * desired) - 1.0) <= wanted.tolerance_percent / 100 + 1e-9:
        return desired
    return _ceil(amount / metric.target)


def _ceil(amount: float) -> int:
    """Sums of floats may lie a hair above a whole number."""
    return math.ceil(amount - 1e-9)


def _panic_replicas(readings: Sequence[Reading]) -> list[int]:
    return [_ceil(each.panic / each.target) for each in readings if each.panic is not None]


def _is_sudden(wanted: scaling.Scaling, readings: Sequence[Reading], desired: int) -> bool:
    """The last seconds alone are so many times what the replicas are meant for. What is on its way counts as there."""
    return any(
        each.panic is not None and each.panic * 100 >= wanted.panic_percent * each.target * max(1, desired)
        for each in readings
    )


def _at_once(wanted: scaling.Scaling, last: Load) -> list[int]:
    """From zero in one step, by what is there this moment."""
    amounts = {_Type.IN_FLIGHT: last.in_flight + last.queued, _Type.QUEUE_DEPTH: last.queued}
    return [_ceil(amounts[each.type] / each.target) for each in wanted.metrics if each.type in amounts]


# What is remembered


def _after_change(wanted: scaling.Scaling, memory: Memory, desired: int, now: float) -> Memory:
    """`memory` when `desired` is what came of the last decision, or of somebody's new limits."""
    longest = max((each.period_s for way in (wanted.up, wanted.down) for each in way.policies), default=0)
    changes = tuple(each for each in memory.changes if each.at > now - longest)
    if desired == memory.desired and len(changes) == len(memory.changes):
        return memory
    if desired != memory.desired:
        changes = (*changes, Change(at=now, before=memory.desired, after=desired))
    return dataclasses.replace(memory, desired=desired, changes=changes)


def _wait(
    wanted: scaling.Scaling, memory: Memory, fleet: Fleet, samples: Sequence[Load], now: float
) -> Memory:
    if not fleet.on_the_way:
        if memory.waiting_since is None:
            return memory
        return dataclasses.replace(memory, waiting_since=None, waiting_most=0.0)
    since = memory.waiting_since if memory.waiting_since is not None else now
    most = memory.waiting_most
    if now - since <= wanted.stable_s:
        most = max(most, _average(samples, lambda load: load.queued, now - wanted.panic_s, now) or 0.0)
    return dataclasses.replace(memory, waiting_since=since, waiting_most=most)


def _idle(memory: Memory, samples: Sequence[Load], last: Load | None, now: float) -> Memory:
    """Idle is only who is seen to be."""
    recent = itertools.takewhile(lambda each: each.at > now - FRESH_S, reversed(samples))
    is_idle = last is not None and all(
        each.is_whole and not each.in_flight and not each.queued for each in recent
    )
    if not is_idle:
        return dataclasses.replace(memory, idle_since=None) if memory.idle_since is not None else memory
    return memory if memory.idle_since is not None else dataclasses.replace(memory, idle_since=now)


def _recommend(
    wanted: scaling.Scaling,
    memory: Memory,
    recommended: int | None,
    desired: int,
    now: float,
    *,
    is_known: bool,
) -> Memory:
    """A time of which nothing is known, between two decisions too, counts as if what there is had been recommended."""
    value = desired if recommended is None else recommended
    had_gap = now - memory.highest[-1][0] >= FRESH_S
    most = value if is_known and not had_gap else max(value, desired)
    return dataclasses.replace(
        memory,
        highest=_kept(memory.highest, most, now, falls=True),
        lowest=_kept(memory.lowest, value, now, falls=False),
    )


def _kept(
    history: tuple[tuple[float, int], ...], value: int, now: float, *, falls: bool
) -> tuple[tuple[float, int], ...]:
    """Times are when a recommendation was last made; those that a later one outdoes are dropped."""
    kept = [
        (at, known)
        for at, known in history
        if at >= now - LONGEST_WINDOW_S and (known > value if falls else known < value)
    ]
    return (*kept, (now, value))


def _within(history: tuple[tuple[float, int], ...], window_s: float) -> int:
    """The one of the window that outdoes the others: its first."""
    until = history[-1][0]
    return next(value for at, value in history if at >= until - window_s)


# What follows


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    desired: int
    reason: str
    message: str


def _way(
    wanted: scaling.Scaling,
    desired: int,
    recommended: int | None,
    memory: Memory,
    fleet: Fleet,
    now: float,
    *,
    is_known: bool,
    is_panic: bool,
) -> _Way:
    """Before minReplicas, maxReplicas and schedules."""
    if recommended is not None and recommended > desired:
        return _grow(wanted, desired, recommended, memory, fleet, now)
    if not is_known:
        words = "the load is not known in full: nothing is given up"
        return _Way(desired=desired, reason="LoadUnknown", message=words)
    assert recommended is not None  # what is known in full recommends something
    return _shrink(wanted, desired, recommended, memory, fleet, now, is_panic=is_panic)


def _grow(
    wanted: scaling.Scaling, desired: int, recommended: int, memory: Memory, fleet: Fleet, now: float
) -> _Way:
    if desired == 0:
        if wanted.up.select is scaling.Select.DISABLED:
            return _Way(desired=0, reason="ScaleUpDisabled", message=_DISABLED.format("scaleUp"))
        woken = min(recommended, max(1, _limit(wanted.up, 0, memory, now, rises=True)))
        return _Way(desired=woken, reason="Woken", message="requests came for a model without replicas")
    held_s = window_s(wanted.up, fleet)
    steady = max(desired, _within(memory.lowest, held_s))
    if steady == desired:
        return _Way(desired=desired, reason="Stabilizing", message=_window_words(held_s, "more"))
    if wanted.up.select is scaling.Select.DISABLED:
        return _Way(desired=desired, reason="ScaleUpDisabled", message=_DISABLED.format("scaleUp"))
    allowed = min(steady, max(desired, _limit(wanted.up, desired, memory, now, rises=True)))
    if allowed == desired:
        words = "behavior.scaleUp lets no more replicas be added for now"
        return _Way(desired=desired, reason="ScaleUpLimited", message=words)
    return _Way(
        desired=allowed, reason="LoadRose", message="the load is more than the replicas are meant for"
    )


def _shrink(
    wanted: scaling.Scaling,
    desired: int,
    recommended: int,
    memory: Memory,
    fleet: Fleet,
    now: float,
    *,
    is_panic: bool,
) -> _Way:
    if desired == 0:
        return _Way(desired=0, reason="AtZero", message="no request came; the first one starts a replica")
    if desired == 1 and wanted.min_replicas == 0:
        after_s = wanted.scale_to_zero_after_s
        if memory.idle_since is not None and now - memory.idle_since >= after_s:
            if wanted.down.select is scaling.Select.DISABLED:
                return _Way(desired=1, reason="ScaleDownDisabled", message=_DISABLED.format("scaleDown"))
            words = f"no request came for {times.human(after_s)}"
            return _Way(desired=0, reason="Idle", message=words)
    if is_panic:
        words = f"the load rose at once: nothing is given up before it was calm for {times.human(wanted.stable_s)}"
        return _Way(desired=desired, reason="Panic", message=words)
    if recommended >= desired:
        return _Way(desired=desired, reason="Steady", message="the load is what the replicas are meant for")
    if desired == 1:
        words = "the load is less than one replica is meant for"
        if wanted.min_replicas == 0:
            words += (
                f"; the last one goes after {times.human(wanted.scale_to_zero_after_s)} without a request"
            )
        return _Way(desired=1, reason="LastReplica", message=words)
    if wanted.down.select is scaling.Select.DISABLED:
        return _Way(desired=desired, reason="ScaleDownDisabled", message=_DISABLED.format("scaleDown"))
    # The last replica goes by its own rule.
    held_s = window_s(wanted.down, fleet)
    steady = max(1, min(desired, _within(memory.highest, held_s)))
    if steady == desired:
        return _Way(desired=desired, reason="Stabilizing", message=_window_words(held_s, "fewer"))
    allowed = max(steady, min(desired, _limit(wanted.down, desired, memory, now, rises=False)))
    if allowed == desired:
        words = "behavior.scaleDown lets no more replicas be given up for now"
        return _Way(desired=desired, reason="ScaleDownLimited", message=words)
    return _Way(desired=allowed, reason="LoadFell", message=_fell(held_s))


_DISABLED = "behavior.{}.selectPolicy is Disabled"


def _window_words(held_s: float, word: str) -> str:
    return f"the load asks for {word} replicas; it must do so for {times.human(held_s)}"


def _fell(held_s: float) -> str:
    return "the load asks for fewer replicas" + (f" since {times.human(held_s)}" if held_s else "")


def _limit(direction: scaling.Direction, desired: int, memory: Memory, now: float, *, rises: bool) -> int:
    """The number that policies allow to go to, as in the HorizontalPodAutoscaler: counted from the beginning of each period."""
    if not direction.policies:
        return desired + 1_000_000 if rises else 0
    allowed = []
    for policy in direction.policies:
        done = sum(
            max(0, each.after - each.before if rises else each.before - each.after)
            for each in memory.changes
            if each.at > now - policy.period_s
        )
        base = desired - done if rises else desired + done
        if policy.type is scaling.PolicyType.REPLICAS:
            allowed.append(base + policy.value if rises else base - policy.value)
        elif rises:
            allowed.append(math.ceil(base * (100 + policy.value) / 100))
        else:
            allowed.append(math.floor(base * (100 - policy.value) / 100))
    furthest = max if rises == (direction.select is scaling.Select.MAX) else min
    return max(0, furthest(allowed))


def _bound_words(wanted: scaling.Scaling, result: int, before: int, floor: Floor | None) -> tuple[str, str]:
    if result < before:
        return "MaxReplicas", f"more than maxReplicas {wanted.max_replicas} would be wanted"
    if floor is not None and floor.replicas > wanted.min_replicas:
        return "Schedule", f'the schedule "{floor.schedule}" wants at least {floor.replicas} replicas'
    return "MinReplicas", f"fewer than minReplicas {wanted.min_replicas} would do"
