"""How many replicas a deployment may have, and what it is measured by: the autoscaler's part of its spec."""

import dataclasses
import enum


class MetricType(enum.StrEnum):
    IN_FLIGHT = "InFlight"  # requests at the replicas and in the gateways' queues
    QUEUE_DEPTH = "QueueDepth"  # requests that wait in the gateways and in the engines
    TOKENS_PER_SECOND = "TokensPerSecond"  # tokens that the replicas generate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """`target` is what one replica is meant to bear."""

    type: MetricType
    target: int


class PolicyType(enum.StrEnum):
    REPLICAS = "Replicas"
    PERCENT = "Percent"


class Select(enum.StrEnum):
    MAX = "Max"  # the policy that allows most
    MIN = "Min"
    DISABLED = "Disabled"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """At most `value` replicas, or percent of them, within `period_s`."""

    type: PolicyType
    value: int
    period_s: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Direction:
    """How fast it goes in one direction; without policies as fast as is wanted.

    `stabilization_s`: of all that was recommended for so long, what changes least counts. None: for as long as it follows from what
    replicas took to come.
    """

    stabilization_s: int | None
    policies: tuple[Policy, ...] = ()
    select: Select = Select.MAX


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Between `start` and `end`, five cron fields each, there are at least `min_replicas`."""

    name: str
    timezone: str
    start: str
    end: str
    min_replicas: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Percentages are whole numbers; `tolerance_percent` 10 lets the load differ by a tenth from what the replicas are meant for."""

    min_replicas: int = 1
    max_replicas: int
    metrics: tuple[Metric, ...] = (Metric(type=MetricType.IN_FLIGHT, target=16),)
    stable_s: int = 60
    panic_s: int = 6
    panic_percent: int = 200
    tolerance_percent: int = 10
    scale_to_zero_after_s: int = 600
    up: Direction = Direction(stabilization_s=0)
    down: Direction = Direction(stabilization_s=None)
    schedules: tuple[Schedule, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """What one gateway has of a deployment. `unserved` are refusals for want of a replica since its report before; `generated_tokens`
    rises from its start on, None where it does not count them.
    """

    in_flight: int = 0
    queued: int = 0
    unserved: int = 0
    generated_tokens: int | None = None
