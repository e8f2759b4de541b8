"""What is remembered from one decision to the next."""

import dataclasses
import itertools
from collections.abc import Sequence

from llmop.domain import scaling
from llmop.planner import engine_load
from llmop.planner.autoscale import measured, values

LONGEST_WINDOW_S = 3600.0  # of stabilization, as in Kubernetes


def remember(desired: int, now: float, changes: tuple[values.Change, ...] = ()) -> values.Memory:
    """Nothing is known of the time before `now`: as if what there is had been recommended."""
    return values.Memory(
        desired=desired, highest=((now, desired),), lowest=((now, desired),), changes=changes
    )


def after_change(wanted: scaling.Scaling, memory: values.Memory, desired: int, now: float) -> values.Memory:
    """`memory` when `desired` is what came of the last decision, or of somebody's new limits."""
    longest = max((each.period_s for way in (wanted.up, wanted.down) for each in way.policies), default=0)
    changes = tuple(each for each in memory.changes if each.at > now - longest)
    if desired == memory.desired and len(changes) == len(memory.changes):
        return memory
    if desired != memory.desired:
        changes = (*changes, values.Change(at=now, before=memory.desired, after=desired))
    return dataclasses.replace(memory, desired=desired, changes=changes)


def wait(
    wanted: scaling.Scaling,
    memory: values.Memory,
    fleet: values.Fleet,
    samples: Sequence[values.Load],
    now: float,
) -> values.Memory:
    if not fleet.on_the_way:
        if memory.waiting_since is None:
            return memory
        return dataclasses.replace(
            memory, waiting_since=None, waiting_most=0.0, queue_since=None, queue_most=0.0, engines_most=0.0
        )
    begin = now - wanted.panic_s
    queued = measured.average(samples, measured.queued, begin, now) or 0.0
    in_engines = measured.average(samples, measured.queued_in_engines, begin, now) or 0.0
    since = memory.waiting_since if memory.waiting_since is not None else now
    memory = dataclasses.replace(memory, waiting_since=since)
    if now - since <= wanted.stable_s:
        memory = dataclasses.replace(memory, waiting_most=max(memory.waiting_most, queued))
    # Where a replica is lost while nothing waits, what comes later is no queue that it was asked for.
    if memory.queue_since is None and queued + in_engines >= measured.CROWD:
        memory = dataclasses.replace(memory, queue_since=now)
    if memory.queue_since is not None and now - memory.queue_since <= wanted.stable_s:
        memory = dataclasses.replace(
            memory,
            queue_most=max(memory.queue_most, queued),
            engines_most=max(memory.engines_most, in_engines),
        )
    return memory


def is_waiting_long(wanted: scaling.Scaling, memory: values.Memory, now: float) -> bool:
    """Whether what waits now waits for replicas that were asked for."""
    return memory.waiting_since is not None and now - memory.waiting_since > wanted.stable_s


def idle(
    memory: values.Memory, samples: Sequence[values.Load], last: values.Load | None, now: float
) -> values.Memory:
    """Idle is only who is seen to be."""
    recent = itertools.takewhile(lambda each: each.at > now - values.FRESH_S, reversed(samples))
    is_idle = last is not None and all(
        each.is_whole and not each.in_flight and not each.queued for each in recent
    )
    if not is_idle:
        return dataclasses.replace(memory, idle_since=None) if memory.idle_since is not None else memory
    return memory if memory.idle_since is not None else dataclasses.replace(memory, idle_since=now)


def recommend(
    wanted: scaling.Scaling,
    memory: values.Memory,
    recommended: int | None,
    desired: int,
    held: engine_load.Hold,
    now: float,
    *,
    is_known: bool,
) -> values.Memory:
    """A time of which nothing is known, between two decisions too, counts as if what there is had been recommended."""
    value = desired if recommended is None else recommended
    had_gap = now - memory.highest[-1][0] >= values.FRESH_S
    most = max(value, held.replicas if is_known and not had_gap else desired)
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


def within(history: tuple[tuple[float, int], ...], window_s: float) -> int:
    """The one of the window that outdoes the others: its first."""
    until = history[-1][0]
    return next(value for at, value in history if at >= until - window_s)
