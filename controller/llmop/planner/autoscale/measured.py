"""What the load says: averages over windows, a rise, and how many replicas each metric asks for."""

import bisect
import math
import operator
from collections.abc import Callable, Sequence

from llmop.domain import scaling
from llmop.planner import engine_load
from llmop.planner.autoscale import values

ENOUGH = 20  # samples for the average of a long time
LONGEST_HORIZON_S = 600.0  # what lies further ahead is the business of schedules
SHORTEST_SIGHT_S = 1200.0  # what rose for less than this may be chance
MEMORY_S = 3600.0  # samples that are older say nothing about now
CROWD = 0.5  # requests that wait, on average: more often than not there is one
QUEUED_PER_SERVED = 2  # of what waits while replicas are on their way

Pick = Callable[[Sequence[values.Load]], Sequence[float] | None]  # None when one of them does not know

_Type = scaling.MetricType
_AT = operator.attrgetter("at")


def kept_s(wanted: scaling.Scaling) -> float:
    """For how long samples are of use."""
    return max(wanted.stable_s, min(MEMORY_S, _span_s(wanted, LONGEST_HORIZON_S) + wanted.stable_s))


def is_seen(samples: Sequence[values.Load], now: float, window_s: float) -> bool:
    """Whether the whole window was seen, by all gateways and without a gap."""
    later = now
    for each in reversed(samples):
        if later - each.at >= values.FRESH_S or not each.is_whole:
            return False
        later = each.at
        if later <= now - window_s:
            return True
    return later - (now - window_s) < values.FRESH_S if samples else False


def are_engines_seen(wanted: scaling.Scaling, samples: Sequence[values.Load], now: float) -> bool:
    """Whether what waits in engines was seen in the whole stable window, where it counts."""
    if all(each.type is not _Type.QUEUE_DEPTH for each in wanted.metrics):
        return True
    heard = [each for each in samples if engine_load.is_heard(each.engines)]
    return is_seen(heard, now, wanted.stable_s)


def hold(
    wanted: scaling.Scaling, samples: Sequence[values.Load], desired: int, now: float
) -> engine_load.Hold:
    """What the caches need, by the fullest moment of the stable window. The last replica goes by its own rule."""
    if desired <= 1 or not samples or samples[-1].engines is None:
        return engine_load.Hold()
    engines = [each.engines for each in samples]
    recent = bisect.bisect_right(samples, now - wanted.stable_s, key=_AT)
    newest = bisect.bisect_right(samples, now - values.FRESH_S, key=_AT)
    return engine_load.hold(engines, engines[recent:], engines[newest:], desired)


def read(
    wanted: scaling.Scaling,
    metric: scaling.Metric,
    desired: int,
    samples: Sequence[values.Load],
    memory: values.Memory,
    fleet: values.Fleet,
    now: float,
) -> values.Reading:
    pick = _picker(wanted, metric.type, memory, now)
    stable = average(samples, pick, now - wanted.stable_s, now)
    panic = average(samples, pick, now - wanted.panic_s, now)
    forecast = None if stable is None else stable + _rise(wanted, samples, pick, fleet, now)
    replicas = None if forecast is None or stable is None else _replicas(wanted, metric, desired, forecast)
    if metric.type is _Type.QUEUE_DEPTH and replicas is not None and replicas < desired:
        # An empty queue does not say how many of the replicas are needed to keep it empty: they go one by one. What is bounded because
        # replicas are on their way waits all the same: they are not given up for it. One that waits for a moment now and then is no queue.
        waits = average(samples, _all_queued, now - wanted.stable_s, now) or 0.0
        replicas = desired - 1 if waits < CROWD else desired
    return values.Reading(
        type=metric.type,
        target=metric.target,
        stable=stable,
        panic=panic,
        forecast=forecast,
        replicas=replicas,
    )


def _picker(wanted: scaling.Scaling, metric: scaling.MetricType, memory: values.Memory, now: float) -> Pick:
    if metric is _Type.IN_FLIGHT:
        most = math.inf
        if memory.waiting_since is not None and now - memory.waiting_since > wanted.stable_s:
            most = memory.waiting_most
        if math.isinf(most):
            return lambda loads: [load.in_flight + load.queued for load in loads]
        return lambda loads: [
            load.in_flight + min(load.queued, max(most, QUEUED_PER_SERVED * load.in_flight)) for load in loads
        ]
    if metric is _Type.QUEUE_DEPTH:
        queue_most, engines_most = math.inf, math.inf
        if memory.queue_since is not None and now - memory.queue_since > wanted.stable_s:
            queue_most, engines_most = memory.queue_most, memory.engines_most
        return lambda loads: [
            min(load.queued, queue_most) + min(engine_load.waiting(load.engines), engines_most)
            for load in loads
        ]
    return _tokens_per_s


def _tokens_per_s(loads: Sequence[values.Load]) -> list[float] | None:
    known = [load.tokens_per_s for load in loads if load.tokens_per_s is not None]
    return known if len(known) == len(loads) else None


def queued(loads: Sequence[values.Load]) -> list[int]:
    return [load.queued for load in loads]


def queued_in_engines(loads: Sequence[values.Load]) -> list[float]:
    return [engine_load.waiting(load.engines) for load in loads]


def _all_queued(loads: Sequence[values.Load]) -> list[int]:
    return [load.queued + engine_load.waiting(load.engines) for load in loads]


def average(
    samples: Sequence[values.Load],
    pick: Pick,
    since: float,
    until: float,
    enough: int | None = None,
) -> float | None:
    """Over the samples in the window, None without one or when one of them does not know. With `enough` about so many of them are looked at."""
    first = bisect.bisect_right(samples, since, key=_AT)
    last = len(samples)
    if samples and samples[-1].at > until:
        last = bisect.bisect_right(samples, until, lo=first, key=_AT)
    step = max(1, (last - first) // enough) if enough else 1
    amounts = pick(samples[first:last:step])
    return sum(amounts) / len(amounts) if amounts else None


def _span_s(wanted: scaling.Scaling, horizon_s: float) -> float:
    return max(2.0 * horizon_s, 3.0 * wanted.stable_s, SHORTEST_SIGHT_S)


def _rise(
    wanted: scaling.Scaling,
    samples: Sequence[values.Load],
    pick: Pick,
    fleet: values.Fleet,
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
    if not samples or samples[0].at > now - 4 * quarter_s + values.FRESH_S:
        return 0.0
    later, least = math.inf, math.inf
    for part in range(4):
        mean = average(samples, pick, now - quarter_s * (part + 1), now - quarter_s * part, ENOUGH)
        if mean is None or mean >= later:
            return 0.0
        later, least = mean, min(least, later - mean)
    return least * horizon_s / quarter_s


def _replicas(wanted: scaling.Scaling, metric: scaling.Metric, desired: int, amount: float) -> int:
    """`desired` where the load is as they are meant for, give or take the tolerance."""
    if desired and abs(amount / (metric.target * desired) - 1.0) <= wanted.tolerance_percent / 100 + 1e-9:
        return desired
    return _ceil(amount / metric.target)


def _ceil(amount: float) -> int:
    """Sums of floats may lie a hair above a whole number."""
    return math.ceil(amount - 1e-9)


def panic_replicas(readings: Sequence[values.Reading]) -> list[int]:
    return [_ceil(each.panic / each.target) for each in readings if each.panic is not None]


def is_sudden(wanted: scaling.Scaling, readings: Sequence[values.Reading], desired: int) -> bool:
    """The last seconds alone are so many times what the replicas are meant for. What is on its way counts as there."""
    return any(
        each.panic is not None and each.panic * 100 >= wanted.panic_percent * each.target * max(1, desired)
        for each in readings
    )


def is_crowded(
    wanted: scaling.Scaling, samples: Sequence[values.Load], fleet: values.Fleet, now: float
) -> bool:
    """Whether requests wait at replicas that serve. Who has a target for the queue says by it how much may wait."""
    if not fleet.ready or any(each.type is _Type.QUEUE_DEPTH for each in wanted.metrics):
        return False
    return (average(samples, queued, now - wanted.panic_s, now) or 0.0) >= CROWD


def at_once(wanted: scaling.Scaling, last: values.Load) -> list[int]:
    """From zero in one step, by what is there this moment."""
    amounts = {_Type.IN_FLIGHT: last.in_flight + last.queued, _Type.QUEUE_DEPTH: last.queued}
    return [_ceil(amounts[each.type] / each.target) for each in wanted.metrics if each.type in amounts]
