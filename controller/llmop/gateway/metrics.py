"""Counts of the hot path, kept as plain numbers there and rendered when somebody scrapes.

Every series exists from second zero, and there are as many as there are models: what a client invents is counted under
the model "unknown".
"""

import bisect
from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llmop.gateway.errors import Dialect
from llmop.gateway.retry import Failure
from llmop.gateway.usage import Usage

UNKNOWN_MODEL = "unknown"
CODES = ("2xx", "3xx", "4xx", "5xx", "gone")
GONE = 4  # index of the requests whose client left before the end
REFUSALS = ("malformed", "head_too_large", "body_too_large", "slow_head", "slow_body", "slow_reader")
REPORTED, ESTIMATED = "reported", "estimated"
TOKENS = ("prompt", "completion")
FIRST_BYTE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ModelCounts:
    """What happened to the requests for one model. `codes` has a row per dialect in the order of `CODES`, `tokens` one per source in
    the order of `TOKENS`.
    """

    __slots__ = (
        "codes",
        "ejections",
        "failures",
        "first_byte_buckets",
        "first_byte_sum",
        "in_flight",
        "retries",
        "tokens",
        "unserved",
    )

    def __init__(self) -> None:
        self.codes: dict[Dialect, list[int]] = {dialect: [0] * len(CODES) for dialect in Dialect}
        self.in_flight = 0
        self.unserved = 0  # refused because there was no endpoint to take them
        self.retries = 0
        self.ejections = 0
        self.failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self.first_byte_buckets = [0] * (len(FIRST_BYTE_BUCKETS) + 1)
        self.first_byte_sum = 0.0
        self.tokens: dict[str, list[int]] = {source: [0, 0] for source in (REPORTED, ESTIMATED)}

    def answered(self, dialect: Dialect, status: int) -> None:
        self.codes[dialect][status // 100 - 2] += 1

    def left(self, dialect: Dialect) -> None:
        self.codes[dialect][GONE] += 1

    def first_byte(self, seconds: float) -> None:
        self.first_byte_buckets[bisect.bisect_left(FIRST_BYTE_BUCKETS, seconds)] += 1
        self.first_byte_sum += seconds

    def spent(self, usage: Usage) -> None:
        tokens = self.tokens[ESTIMATED if usage.estimated else REPORTED]
        tokens[0] += usage.prompt
        tokens[1] += usage.completion


class Counts:
    def __init__(self) -> None:
        self.models: dict[str, ModelCounts] = {UNKNOWN_MODEL: ModelCounts()}
        self.unknown = self.models[UNKNOWN_MODEL]
        self.refused: dict[str, int] = dict.fromkeys(REFUSALS, 0)
        self.connections = 0
        self.restarts = 0  # of worker processes

    def keep(self, names: Iterable[str]) -> None:
        """Models that are gone are forgotten, new ones start at zero."""
        self.models = {UNKNOWN_MODEL: self.unknown} | {
            name: self.models.get(name) or ModelCounts() for name in names if name != UNKNOWN_MODEL
        }


class Gauges:
    """What the collector asks of the process at the moment of a scrape."""

    def endpoints(self) -> Iterable[tuple[str, str, int]]:
        """Deployment, state, number."""
        raise NotImplementedError

    def loads(self) -> Iterable[tuple[str, str, int]]:
        """Deployment, replica, requests there now."""
        raise NotImplementedError

    def table(self) -> tuple[int, float]:
        """Version and age in seconds; -1 where there is none."""
        raise NotImplementedError

    def connected(self) -> bool:
        raise NotImplementedError


class CountsCollector(Collector):
    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield self._tokens()
        yield from self._upstream()
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
        yield from (requests, in_flight, refused)

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

    def _first_byte(self) -> Metric:
        histogram = HistogramMetricFamily(
            "llmop_gateway_time_to_first_byte_seconds",
            "From the complete request to the first bytes of a good answer; for streams the first event.",
            labels=("model",),
        )
        for name, counts in self._counts.models.items():
            total = 0
            buckets = []
            for bound, number in zip(
                (*map(str, FIRST_BYTE_BUCKETS), "+Inf"), counts.first_byte_buckets, strict=True
            ):
                total += number
                buckets.append((bound, total))
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
