"""What a virtual cluster is like: its nodes, and how long things take there."""

import dataclasses
import math
import random
from collections.abc import Callable, Mapping

from llmop.domain.job import JobRequest

Draw = Callable[[random.Random], float]  # a random number of seconds


def constant(seconds: float) -> Draw:
    return lambda _: seconds


def lognormal(median: float, sigma: float, at_most: float = math.inf) -> Draw:
    return lambda source: min(source.lognormvariate(math.log(median), sigma), at_most)


def uniform(low: float, high: float) -> Draw:
    return lambda source: source.uniform(low, high)


def unchanged(request: JobRequest) -> JobRequest:
    """What a site without plugins makes of a submission."""
    return request


_TURN, _NOTHING, _EPILOG, _PURGE = lognormal(20, 1.0, 3600), constant(0), constant(1), uniform(0, 60)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the cluster is like. `nodes` is slots (GPUs) by node name; `partitions` are all over all nodes, the first is the default."""

    nodes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {f"n{i}": 4 for i in range(1, 9)})
    partitions: tuple[str, ...] = ("gpu",)
    queue_wait: Draw = _TURN
    configuring: Draw = _NOTHING
    completing: Draw = _EPILOG
    min_job_age_s: int = 300
    purge_lag: Draw = _PURGE
    kill_wait_s: int = 30
    message_timeout_s: int = 10
    node_timeout_s: int = 300  # SlurmdTimeout
    requeue_wait_s: int = 121
    default_time_s: int = 3600
    accounting: bool = False
    accounting_lag_s: float = 5.0
    max_submit: int | None = None  # jobs in the queue; more are refused
    max_running: int | None = None  # more wait with a QOS reason
    plugin: Callable[[JobRequest], JobRequest] = unchanged  # what the site makes of a submission
    skew_s: float = 0.0  # Slurm's clock is that much ahead of the true one
