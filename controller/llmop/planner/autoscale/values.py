"""What the autoscaler is given, what it answers, and what it leaves to itself for the next time."""

import dataclasses

from llmop.domain import scaling
from llmop.planner import engine_load

TICK_S = 2.0
FRESH_S = 5.0  # gateways report every second


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What all gateways together had of one deployment at one moment.

    `queued` is at least 1 when somebody was refused for want of a replica. `tokens_per_s` is None where it is not known. `is_whole`: every
    gateway that may have requests was heard just now; where not, the last word of the silent ones is in the numbers. `engines` is what
    the replicas' engines say themselves, None where they are not asked.
    """

    at: float
    in_flight: int
    queued: int
    tokens_per_s: float | None = None
    is_whole: bool = True
    engines: engine_load.Engines | None = None


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
    `waiting_since` and `waiting_most`: since when replicas are on their way, and how much waited for them in gateways in the first stable
    window. `queue_since`, `queue_most` and `engines_most`: since when anything has waited for them, and how much of it did in gateways and
    in engines in the stable window from then on.
    """

    desired: int
    highest: tuple[tuple[float, int], ...]
    lowest: tuple[tuple[float, int], ...]
    changes: tuple[Change, ...] = ()
    panic_until: float | None = None
    idle_since: float | None = None  # no request was there since, as far as all gateways could be heard
    waiting_since: float | None = None
    waiting_most: float = 0.0
    queue_since: float | None = None
    queue_most: float = 0.0
    engines_most: float = 0.0
    crowded_at: float | None = (
        None  # when somebody last had to wait at replicas that serve, or nobody could tell
    )


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
