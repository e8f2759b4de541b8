"""Counts of the hot path, kept as plain numbers there and rendered when somebody scrapes.

Every series exists from second zero, and there are as many as there are models: what a client invents is counted under
the model "unknown".
"""

import abc
import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llmop.domain.endpoint import RoutedModel
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Dialect
from llmop.gateway.queue import Priority, Ticket
from llmop.gateway.retry import Failure

UNKNOWN_MODEL = "unknown"
CODES = ("2xx", "3xx", "4xx", "5xx", "gone")
GONE = 4  # index of the requests whose client left before the end
REFUSALS = ("malformed", "head_too_large", "body_too_large", "slow_head", "slow_body", "slow_reader")
REPORTED, ESTIMATED = "reported", "estimated"
TOKENS = ("prompt", "completion")
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
LIMITS = ("requests", "tokens", "parallel")
REFUSED, SHADOWED = "refused", "shadow"
FIRST_BYTE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ModelCounts:
    """What happened to the requests for one model. `codes` has a row per dialect in the order of `CODES`, `tokens` one per source in
    the order of `TOKENS`; `queued` is how many wait now, in the order of `Priority`.
    """

    __slots__ = (
        "codes",
        "dropped",
        "ejections",
        "failures",
        "first_byte_buckets",
        "first_byte_sum",
        "in_flight",
        "queued",
        "queued_bytes",
        "retries",
        "tokens",
        "wait_buckets",
        "wait_sum",
    )

    def __init__(self) -> None:
        self.codes: dict[Dialect, list[int]] = {dialect: [0] * len(CODES) for dialect in Dialect}
        self.in_flight = 0
        self.retries = 0
        self.ejections = 0
        self.failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self.first_byte_buckets = [0] * (len(FIRST_BYTE_BUCKETS) + 1)
        self.first_byte_sum = 0.0
        self.queued = [0] * len(Priority)
        self.queued_bytes = 0
        self.wait_buckets = [0] * (len(WAIT_BUCKETS) + 1)
        self.wait_sum = 0.0
        self.dropped: dict[Dropped, int] = dict.fromkeys(Dropped, 0)
        self.tokens: dict[str, list[int]] = {source: [0, 0] for source in (REPORTED, ESTIMATED)}

    def answered(self, dialect: Dialect, status: int) -> None:
        self.codes[dialect][status // 100 - 2] += 1

    def answered_whole(
        self, dialect: Dialect, seconds: float, prompt: int, completion: int, estimated: bool
    ) -> None:
        """A good answer, of which the first byte was the last; of its Usage the fields."""
        self.codes[dialect][0] += 1
        self.first_byte_buckets[bisect_left(FIRST_BYTE_BUCKETS, seconds)] += 1
        self.first_byte_sum += seconds
        tokens = self.tokens[ESTIMATED if estimated else REPORTED]
        tokens[0] += prompt
        tokens[1] += completion

    def left(self, dialect: Dialect) -> None:
        self.codes[dialect][GONE] += 1

    def first_byte(self, seconds: float) -> None:
        self.first_byte_buckets[bisect_left(FIRST_BYTE_BUCKETS, seconds)] += 1
        self.first_byte_sum += seconds

    def begins_to_wait(self, ticket: Ticket) -> None:
        self.queued[ticket.priority] += 1
        self.queued_bytes += ticket.size

    def has_waited(self, ticket: Ticket, seconds: float) -> None:
        self.queued[ticket.priority] -= 1
        self.queued_bytes -= ticket.size
        self.wait_buckets[bisect_left(WAIT_BUCKETS, seconds)] += 1
        self.wait_sum += seconds

    def generated(self) -> int:
        """Tokens of answers so far."""
        return sum(completion for _, completion in self.tokens.values())

    def spent(self, prompt: int, completion: int, estimated: bool) -> None:
        """The fields of a Usage."""
        tokens = self.tokens[ESTIMATED if estimated else REPORTED]
        tokens[0] += prompt
        tokens[1] += completion


class Counts:
    def __init__(self) -> None:
        self.models: dict[str, ModelCounts] = {UNKNOWN_MODEL: ModelCounts()}
        self.unknown = self.models[UNKNOWN_MODEL]
        self.refused: dict[str, int] = dict.fromkeys(REFUSALS, 0)
        self.limited: dict[str, dict[str, int]] = {limit: {REFUSED: 0, SHADOWED: 0} for limit in LIMITS}
        self.connections = 0
        self.restarts = 0  # of worker processes
        self.faults = 0

    def generated(self, models: Iterable[RoutedModel]) -> dict[str, int]:
        """Tokens of answers so far, by deployment."""
        found: dict[str, int] = {}
        for model in models:
            counts = self.models.get(model.name)
            so_far = counts.generated() if counts is not None else 0
            found[model.deployment] = found.get(model.deployment, 0) + so_far
        return found

    def keep(self, names: Iterable[str]) -> None:
        """Models that are gone are forgotten, new ones start at zero."""
        self.models = {UNKNOWN_MODEL: self.unknown} | {
            name: self.models.get(name) or ModelCounts() for name in names if name != UNKNOWN_MODEL
        }


class Gauges(abc.ABC):
    """What the collector asks of the process at the moment of a scrape."""

    @abc.abstractmethod
    def endpoints(self) -> Iterable[tuple[str, str, int]]:
        """Deployment, state, number."""

    @abc.abstractmethod
    def loads(self) -> Iterable[tuple[str, str, int]]:
        """Deployment, replica, requests there now."""

    @abc.abstractmethod
    def table(self) -> tuple[int, float]:
        """Version and age in seconds; -1 where there is none."""

    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether the controller answers."""


class CountsCollector(Collector):
    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield self._tokens()
        yield from self._upstream()
        yield from self._queue()
        yield self._first_byte()
        yield from self._process()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "llmop_gateway_requests",
            "Requests on the hot routes, by class of status; 'gone' left before the end.",
            labels=("model", "dialect", "code"),
        )
        in_flight = GaugeMetricFamily(
            "llmop_gateway_in_flight", "Requests at the replicas now.", labels=("model",)
        )
        for name, counts in self._counts.models.items():
            in_flight.add_metric((name,), counts.in_flight)
            for dialect, row in counts.codes.items():
                for code, number in zip(CODES, row, strict=True):
                    requests.add_metric((name, dialect, code), number)
        refused = CounterMetricFamily(
            "llmop_gateway_refused_connections",
            "Client connections closed for what they sent or did not send.",
            labels=("reason",),
        )
        for reason, number in self._counts.refused.items():
            refused.add_metric((reason,), number)
        limited = CounterMetricFamily(
            "llmop_gateway_limited",
            "Requests beyond the limits of their keys; those of keys in shadow mode were answered nevertheless.",
            labels=("limit", "outcome"),
        )
        for limit, outcomes in self._counts.limited.items():
            for outcome, number in outcomes.items():
                limited.add_metric((limit, outcome), number)
        yield from (requests, in_flight, refused, limited)

    def _tokens(self) -> Metric:
        tokens = CounterMetricFamily(
            "llmop_gateway_tokens",
            "Tokens of requests that generate; estimated where the engine did not say how many.",
            labels=("model", "kind", "source"),
        )
        for name, counts in self._counts.models.items():
            for source, numbers in counts.tokens.items():
                for kind, number in zip(TOKENS, numbers, strict=True):
                    tokens.add_metric((name, kind, source), number)
        return tokens

    def _upstream(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "llmop_gateway_upstream_errors", "Failed attempts at a replica.", labels=("model", "class")
        )
        retries = CounterMetricFamily(
            "llmop_gateway_retries", "Attempts made again on another replica.", labels=("model",)
        )
        ejections = CounterMetricFamily(
            "llmop_gateway_ejections", "Replicas left alone after connect failures.", labels=("model",)
        )
        for name, counts in self._counts.models.items():
            for failure, number in counts.failures.items():
                failures.add_metric((name, failure), number)
            retries.add_metric((name,), counts.retries)
            ejections.add_metric((name,), counts.ejections)
        yield from (failures, retries, ejections)

    def _queue(self) -> Iterator[Metric]:
        queued = GaugeMetricFamily(
            "llmop_gateway_queued",
            "Requests that wait for a replica now.",
            labels=("model", "priority"),
        )
        size = GaugeMetricFamily(
            "llmop_gateway_queued_bytes", "What they take of memory, nearly.", labels=("model",)
        )
        dropped = CounterMetricFamily(
            "llmop_gateway_dropped",
            "Requests that were refused because no replica could take them.",
            labels=("model", "reason"),
        )
        waits = HistogramMetricFamily(
            "llmop_gateway_queue_wait_seconds",
            "Time in the queue of requests that had to wait, whatever became of them.",
            labels=("model",),
        )
        for name, counts in self._counts.models.items():
            for priority, number in zip(Priority, counts.queued, strict=True):
                queued.add_metric((name, priority.name.lower()), number)
            size.add_metric((name,), counts.queued_bytes)
            for reason, number in counts.dropped.items():
                dropped.add_metric((name, reason), number)
            waits.add_metric((name,), _cumulated(WAIT_BUCKETS, counts.wait_buckets), counts.wait_sum)
        yield from (queued, size, dropped, waits)

    def _first_byte(self) -> Metric:
        histogram = HistogramMetricFamily(
            "llmop_gateway_time_to_first_byte_seconds",
            "From the complete request to the first bytes of a good answer; for streams the first event.",
            labels=("model",),
        )
        for name, counts in self._counts.models.items():
            buckets = _cumulated(FIRST_BYTE_BUCKETS, counts.first_byte_buckets)
            histogram.add_metric((name,), buckets, counts.first_byte_sum)
        return histogram

    def _process(self) -> Iterator[Metric]:
        endpoints = GaugeMetricFamily(
            "llmop_gateway_endpoints",
            "Replicas in the table; 'Ejected' are those left alone.",
            labels=("deployment", "state"),
        )
        for deployment, state, number in self._gauges.endpoints():
            endpoints.add_metric((deployment, state), number)
        loads = GaugeMetricFamily(
            "llmop_gateway_replica_in_flight",
            "Requests at each replica of the table now.",
            labels=("deployment", "replica"),
        )
        for deployment, replica, number in self._gauges.loads():
            loads.add_metric((deployment, replica), number)
        version, age = self._gauges.table()
        yield endpoints
        yield loads
        yield GaugeMetricFamily(
            "llmop_gateway_table_version", "Version of the endpoint table in force; -1 is none.", version
        )
        yield GaugeMetricFamily(
            "llmop_gateway_table_age_seconds", "Since the controller confirmed the table; -1 is never.", age
        )
        yield GaugeMetricFamily(
            "llmop_gateway_controller_connected",
            "Whether the controller answers.",
            float(self._gauges.connected()),
        )
        yield GaugeMetricFamily(
            "llmop_gateway_connections", "Open client connections.", self._counts.connections
        )
        yield CounterMetricFamily(
            "llmop_gateway_worker_restarts",
            "Worker processes that ended and were replaced.",
            self._counts.restarts,
        )
        yield CounterMetricFamily(
            "llmop_gateway_faults",
            "Exceptions in the gateway that nobody foresaw; its log tells of the first ones.",
            self._counts.faults,
        )


def _cumulated(bounds: Sequence[float], numbers: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them."""
    words = (*map(str, bounds), "+Inf")
    return list(zip(words, map(float, itertools.accumulate(numbers)), strict=True))
