"""What follows: from what is recommended to what is done, with the reason."""

import dataclasses
import math

from llmop.domain import scaling, times
from llmop.planner import engine_load
from llmop.planner.autoscale import remembered, values

# For how long the load must ask for fewer replicas, where nobody says it: five minutes, or for as long as the next one would take.
SHORTEST_LEARNED_S = 300.0  # as in Kubernetes
LONGEST_LEARNED_S = 1800.0  # also where no replica was ever ready


def window_s(direction: scaling.Direction, fleet: values.Fleet, memory: values.Memory, now: float) -> float:
    """For how long the load must ask for the same before it is done: as was written, else by how long replicas took to come.

    A load that comes back sooner than that would find a replica on its way that was given up in between: who had to wait lately shall
    not wait for that again. Where nobody did, what there is suffices. In whole minutes, for people.
    """
    if direction.stabilization_s is not None:
        return direction.stabilization_s
    learned_s = LONGEST_LEARNED_S
    if fleet.lead_s is not None:
        learned_s = min(LONGEST_LEARNED_S, max(SHORTEST_LEARNED_S, 60.0 * math.ceil(fleet.lead_s / 60)))
    was_crowded = memory.crowded_at is not None and now - memory.crowded_at <= learned_s
    return learned_s if was_crowded else SHORTEST_LEARNED_S


def bounded(wanted: scaling.Scaling, desired: int, floor: values.Floor | None = None) -> int:
    """`desired` within what the deployment may have now; a schedule cannot ask for more than maxReplicas."""
    return min(wanted.max_replicas, max(desired, wanted.min_replicas, floor.replicas if floor else 0))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    desired: int
    reason: str
    message: str


def way(
    wanted: scaling.Scaling,
    desired: int,
    recommended: int | None,
    memory: values.Memory,
    fleet: values.Fleet,
    held: engine_load.Hold,
    now: float,
    *,
    is_known: bool,
    is_panic: bool,
) -> Way:
    """Before minReplicas, maxReplicas and schedules."""
    if recommended is not None and recommended > desired:
        return _grow(wanted, desired, recommended, memory, fleet, now)
    if not is_known:
        words = "the load is not known in full: nothing is given up"
        return Way(desired=desired, reason="LoadUnknown", message=words)
    assert recommended is not None  # what is known in full recommends something
    return _shrink(wanted, desired, recommended, memory, fleet, held, now, is_panic=is_panic)


def _grow(
    wanted: scaling.Scaling,
    desired: int,
    recommended: int,
    memory: values.Memory,
    fleet: values.Fleet,
    now: float,
) -> Way:
    if desired == 0:
        if wanted.up.select is scaling.Select.DISABLED:
            return Way(desired=0, reason="ScaleUpDisabled", message=_DISABLED.format("scaleUp"))
        woken = min(recommended, max(1, _limit(wanted.up, 0, memory, now, rises=True)))
        return Way(desired=woken, reason="Woken", message="requests came for a model without replicas")
    held_s = window_s(wanted.up, fleet, memory, now)
    steady = max(desired, remembered.within(memory.lowest, held_s))
    if steady == desired:
        return Way(desired=desired, reason="Stabilizing", message=_window_words(held_s, "more"))
    if wanted.up.select is scaling.Select.DISABLED:
        return Way(desired=desired, reason="ScaleUpDisabled", message=_DISABLED.format("scaleUp"))
    allowed = min(steady, max(desired, _limit(wanted.up, desired, memory, now, rises=True)))
    if allowed == desired:
        words = "behavior.scaleUp lets no more replicas be added for now"
        return Way(desired=desired, reason="ScaleUpLimited", message=words)
    return Way(desired=allowed, reason="LoadRose", message="the load is more than the replicas are meant for")


def _shrink(
    wanted: scaling.Scaling,
    desired: int,
    recommended: int,
    memory: values.Memory,
    fleet: values.Fleet,
    held: engine_load.Hold,
    now: float,
    *,
    is_panic: bool,
) -> Way:
    if desired == 0:
        return Way(desired=0, reason="AtZero", message="no request came; the first one starts a replica")
    if desired == 1 and wanted.min_replicas == 0:
        after_s = wanted.scale_to_zero_after_s
        if memory.idle_since is not None and now - memory.idle_since >= after_s:
            if wanted.down.select is scaling.Select.DISABLED:
                return Way(desired=1, reason="ScaleDownDisabled", message=_DISABLED.format("scaleDown"))
            words = f"no request came for {times.human(after_s)}"
            return Way(desired=0, reason="Idle", message=words)
    if is_panic:
        words = f"the load rose at once: nothing is given up before it was calm for {times.human(wanted.stable_s)}"
        return Way(desired=desired, reason="Panic", message=words)
    if recommended >= desired:
        return Way(desired=desired, reason="Steady", message="the load is what the replicas are meant for")
    if desired == 1:
        words = "the load is less than one replica is meant for"
        if wanted.min_replicas == 0:
            words += (
                f"; the last one goes after {times.human(wanted.scale_to_zero_after_s)} without a request"
            )
        return Way(desired=1, reason="LastReplica", message=words)
    if held.replicas >= desired:
        return Way(desired=desired, reason=held.reason, message=held.message)
    if wanted.down.select is scaling.Select.DISABLED:
        return Way(desired=desired, reason="ScaleDownDisabled", message=_DISABLED.format("scaleDown"))
    # The last replica goes by its own rule.
    held_s = window_s(wanted.down, fleet, memory, now)
    steady = max(1, min(desired, remembered.within(memory.highest, held_s)))
    if steady == desired:
        return Way(desired=desired, reason="Stabilizing", message=_window_words(held_s, "fewer"))
    allowed = max(steady, min(desired, _limit(wanted.down, desired, memory, now, rises=False)))
    if allowed == desired:
        words = "behavior.scaleDown lets no more replicas be given up for now"
        return Way(desired=desired, reason="ScaleDownLimited", message=words)
    return Way(desired=allowed, reason="LoadFell", message=_fell(held_s))


_DISABLED = "behavior.{}.selectPolicy is Disabled"


def _window_words(held_s: float, word: str) -> str:
    return f"the load asks for {word} replicas; it must do so for {times.human(held_s)}"


def _fell(held_s: float) -> str:
    return "the load asks for fewer replicas" + (f" since {times.human(held_s)}" if held_s else "")


def _limit(
    direction: scaling.Direction, desired: int, memory: values.Memory, now: float, *, rises: bool
) -> int:
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


def bound_words(
    wanted: scaling.Scaling, result: int, before: int, floor: values.Floor | None
) -> tuple[str, str]:
    if result < before:
        return "MaxReplicas", f"more than maxReplicas {wanted.max_replicas} would be wanted"
    if floor is not None and floor.replicas > wanted.min_replicas:
        return "Schedule", f'the schedule "{floor.schedule}" wants at least {floor.replicas} replicas'
    return "MinReplicas", f"fewer than minReplicas {wanted.min_replicas} would do"
