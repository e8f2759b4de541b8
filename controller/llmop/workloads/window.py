"""How many requests go out at once: additive increase, multiplicative decrease, as TCP does (RFC 5681). Pure."""

import dataclasses
import math

_FIRST = 4.0
_CAREFUL = 16  # rounds that it stays just below where it was refused last: a limit of a key stays where it is, and each refusal costs its pause


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """`size` requests may be under way, `most` at the utmost, none before `paused_until` (monotonic seconds). Up to the first refusal
    it doubles per round, afterwards it grows by one, and the last step to `refused_size`, where it was refused last, takes longer.
    """

    most: int
    size: float = _FIRST
    paused_until: float = 0.0
    slowed_at: float = -math.inf
    refused_size: float = math.inf

    def has_room(self, under_way: int, now: float) -> bool:
        return now >= self.paused_until and under_way < min(self.most, int(self.size))


def went_well(window: Window) -> Window:
    growth = 1.0 if window.slowed_at == -math.inf else 1.0 / window.size
    if window.refused_size - 1 <= window.size < window.refused_size:
        growth /= _CAREFUL
    return dataclasses.replace(window, size=min(float(window.most), window.size + growth))


def slowed(window: Window, *, sent_at: float, now: float, after_s: float) -> Window:
    """A request that was sent at `sent_at` was refused. Those that went out before the window was made smaller say nothing new."""
    paused_until = max(window.paused_until, now + after_s)
    if sent_at <= window.slowed_at:
        return dataclasses.replace(window, paused_until=paused_until)
    return dataclasses.replace(
        window,
        size=max(1.0, window.size / 2),
        paused_until=paused_until,
        slowed_at=now,
        refused_size=float(int(window.size)),
    )
