"""ModelDeployment.spec.scaling: between how many replicas, by which load, how fast."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmop import cron
from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields

MAX_REPLICAS = 10_000


def _duration(least_s: int, most: str) -> AfterValidator:
    def validate(value: str) -> str:
        if not least_s <= quantity.seconds(value) <= quantity.seconds(most):
            raise fields.invalid(f"{value!r} is out of bounds; write {least_s}s to {most}")
        return value

    return AfterValidator(validate)


StableWindow = Annotated[fields.PositiveDuration, _duration(6, "1h")]
Stabilization = Annotated[fields.Duration, _duration(0, "1h")]
Period = Annotated[fields.PositiveDuration, _duration(1, "30m")]


class Metric(fields.Fields):
    type: Literal["InFlight", "QueueDepth", "TokensPerSecond"] = Field(
        description="InFlight: requests at the replicas and in the gateways' queues. QueueDepth: requests that wait in the gateways and "
        "in the engines. "
        "TokensPerSecond: tokens that are generated, as gateways count them.",
    )
    target: int = Field(ge=1, le=1_000_000, description="How much of it one replica is meant to bear.")


class Policy(fields.Fields):
    type: Literal["Replicas", "Percent"] = Field(
        description="What `value` counts: replicas, or percent of those there were at the beginning of the period."
    )
    value: int = Field(ge=1, le=MAX_REPLICAS, description="At most so many within the period.")
    period: Period = Field(description="How long it looks back; 30m at most.")


class _Direction(fields.Fields):
    select_policy: Literal["Max", "Min", "Disabled"] = Field(
        default="Max",
        description="Which of several policies counts: the one that allows most, or least. Disabled: never in this direction.",
    )
    policies: list[Policy] | None = Field(
        default=None, max_length=20, description="How fast it may go. Default: as fast as the load wants."
    )


class ScaleUp(_Direction):
    stabilization_window: Stabilization = Field(
        default="0s", description="The load must ask for more replicas for so long; 1h at most."
    )


class ScaleDown(_Direction):
    stabilization_window: Stabilization | None = Field(
        default=None,
        description="The load must ask for fewer replicas for so long; 1h at most. Default: 5m; where "
        "requests had to wait lately, for as long as replicas took to come, the median, 30m at most and before one was ever ready.",
    )


class Behavior(fields.Fields):
    """How fast the number of replicas changes."""

    scale_up: ScaleUp = Field(default_factory=ScaleUp, description="Towards more replicas.")
    scale_down: ScaleDown = Field(default_factory=ScaleDown, description="Towards fewer replicas.")


class Schedule(fields.Fields):
    name: fields.Name = Field(description="What it is called in events and messages.")
    timezone: str = Field(
        default="UTC", max_length=64, description="The zone of its times, like Europe/Berlin."
    )
    start: str = Field(max_length=200, description="When it begins: five cron fields, like 0 8 * * 1-5.")
    end: str = Field(max_length=200, description="When it ends: five cron fields.")
    min_replicas: int = Field(
        ge=1, le=MAX_REPLICAS, description="The least number of replicas between start and end."
    )

    @model_validator(mode="after")
    def _are_times(self) -> Self:
        problems = {}
        for name, text in (("start", self.start), ("end", self.end)):
            try:
                cron.trigger(text, "UTC")
            except ValueError as error:
                problems[name] = str(error)
        try:
            cron.zone(self.timezone)
        except ValueError as error:
            problems["timezone"] = str(error)
        if not problems and self.start.split() == self.end.split():
            problems["end"] = f"{self.end!r} is when it begins too; write when it ends"
        if problems:
            raise fields.invalid_below(*problems.items())
        return self


def _metrics() -> list[Metric]:
    return [Metric(type="InFlight", target=16)]


class Scaling(fields.Fields):
    """How many replicas there are by the load."""

    min_replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description="The fewest replicas that there may be. 0: the last goes after scaleToZeroAfter without a request; the first request starts one.",
    )
    max_replicas: int = Field(ge=1, le=MAX_REPLICAS, description="The most replicas that there may be.")
    metrics: list[Metric] = Field(
        default_factory=_metrics,
        min_length=1,
        max_length=3,
        description="What is measured, each at most once; the one that asks for most replicas counts.",
    )
    stable_window: StableWindow = Field(
        default="60s", description="The load is averaged over so long; 6s to 1h."
    )
    panic_window: fields.PositiveDuration = Field(
        default="6s",
        description="A shorter average that answers a sudden rise; not longer than stableWindow.",
    )
    panic_threshold_percent: int = Field(
        default=200,
        ge=110,
        le=1000,
        description="When the short average is so much of what the replicas are meant for, it counts alone, and nothing is given up "
        "before it was below for a stableWindow.",
    )
    tolerance_percent: int = Field(
        default=10,
        ge=0,
        le=50,
        description="A load that differs by less from what the replicas are meant for changes nothing.",
    )
    scale_to_zero_after: fields.Duration = Field(
        default="10m",
        description="With minReplicas 0: how long no request may have come before the last replica goes.",
    )
    behavior: Behavior = Field(default_factory=Behavior, description="How fast the number changes.")
    schedules: list[Schedule] | None = Field(
        default=None,
        max_length=20,
        description="Times at which there are more replicas than minReplicas, whatever the load; with the same bounds of maxReplicas.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = []
        if self.min_replicas > self.max_replicas:
            problems.append(
                ("minReplicas", f"{self.min_replicas} is more than maxReplicas {self.max_replicas}")
            )
        if quantity.seconds(self.panic_window) > quantity.seconds(self.stable_window):
            message = f"{self.panic_window!r} is longer than stableWindow {self.stable_window!r}; shorten it"
            problems.append(("panicWindow", message))
        types = [each.type for each in self.metrics]
        for index, kind in enumerate(types):
            if kind in types[:index]:
                problems.append((f"metrics[{index}].type", f"{kind!r} stands there twice; remove one"))
        names: set[str] = set()
        for index, schedule in enumerate(self.schedules or ()):
            place = f"schedules[{index}]"
            if schedule.name in names:
                problems.append(
                    (f"{place}.name", f"{schedule.name!r} stands there twice; choose another name")
                )
            names.add(schedule.name)
            if schedule.min_replicas > self.max_replicas:
                problems.append(
                    (
                        f"{place}.minReplicas",
                        f"{schedule.min_replicas} is more than maxReplicas {self.max_replicas}",
                    )
                )
        if problems:
            raise fields.invalid_below(*problems)
        return self
