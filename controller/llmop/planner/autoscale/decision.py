"""One decision, from the load to the number of replicas."""

import dataclasses
from collections.abc import Sequence

from llmop.domain import scaling
from llmop.planner.autoscale import measured, moves, remembered, values


def decide(
    wanted: scaling.Scaling,
    desired: int,
    samples: Sequence[values.Load],
    memory: values.Memory,
    fleet: values.Fleet,
    floor: values.Floor | None,
    now: float,
) -> values.Decision:
    """How many replicas there shall be. `desired` is how many are wanted up to now, `samples` are by time, not older than `kept_s`."""
    memory = remembered.after_change(wanted, memory, desired, now)
    memory = remembered.wait(wanted, memory, fleet, samples, now)
    readings = tuple(
        measured.read(wanted, each, desired, samples, memory, fleet, now) for each in wanted.metrics
    )
    asked = [each.replicas for each in readings if each.replicas is not None]
    last = samples[-1] if samples and samples[-1].at > now - values.FRESH_S else None
    is_known = len(asked) == len(readings) and measured.is_seen(samples, now, wanted.stable_s)
    is_known = is_known and measured.are_engines_seen(wanted, samples, now)
    held = measured.hold(wanted, samples, desired, now)
    memory = remembered.idle(memory, samples, last, now)
    if measured.is_sudden(wanted, readings, desired):
        memory = dataclasses.replace(memory, panic_until=now + wanted.stable_s)
    is_crowded = measured.is_crowded(wanted, samples, fleet, now)
    if is_crowded or not is_known:
        memory = dataclasses.replace(memory, crowded_at=now)
    is_panic = memory.panic_until is not None and now < memory.panic_until
    recommended = max(asked, default=None)
    if is_panic and recommended is not None:
        recommended = max(recommended, desired, *measured.panic_replicas(readings))
    elif is_crowded and recommended is not None and not remembered.is_waiting_long(wanted, memory, now):
        recommended = max(recommended, *measured.panic_replicas(readings))
    if desired == 0:
        # Averages still know of requests that are over.
        is_asked_for = last is not None and last.in_flight + last.queued > 0
        recommended = (
            max(1, recommended or 0, *measured.at_once(wanted, last)) if is_asked_for and last else 0
        )
    memory = remembered.recommend(wanted, memory, recommended, desired, held, now, is_known=is_known)
    way = moves.way(
        wanted, desired, recommended, memory, fleet, held, now, is_known=is_known, is_panic=is_panic
    )
    result = moves.bounded(wanted, way.desired, floor)
    reason, message = way.reason, way.message
    if result != way.desired:
        reason, message = moves.bound_words(wanted, result, way.desired, floor)
    return values.Decision(
        desired=result,
        reason=reason,
        message=message,
        recommended=recommended,
        last=last,
        readings=readings,
        fleet=fleet,
        is_known=is_known,
        is_panic=is_panic,
        limit=_limited(wanted, fleet, floor, memory, now),
        memory=memory,
    )


def _limited(
    wanted: scaling.Scaling,
    fleet: values.Fleet,
    floor: values.Floor | None,
    memory: values.Memory,
    now: float,
) -> str:
    """By the most that was recommended for as long as it counts, so that a load at the border does not change it every second."""
    most = remembered.within(memory.highest, moves.window_s(wanted.down, fleet, memory, now))
    if most > wanted.max_replicas:
        return "TooManyReplicas"
    return "TooFewReplicas" if most < moves.bounded(wanted, 0, floor) else ""
