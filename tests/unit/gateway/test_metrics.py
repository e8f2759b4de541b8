"""The series that are there before anything happens."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from llmop.gateway.errors import Dialect
from llmop.gateway.metrics import Counts, CountsCollector, Gauges


class Fixed(Gauges):
    def endpoints(self) -> list[tuple[str, str, int]]:
        return [("default/d", "Ready", 2)]

    def loads(self) -> list[tuple[str, str, int]]:
        return [("default/d", "d-x", 3)]

    def table(self) -> tuple[int, float]:
        return 7, 1.5

    def connected(self) -> bool:
        return True


def render(counts: Counts) -> str:
    registry = CollectorRegistry()
    registry.register(CountsCollector(counts, Fixed()))
    return generate_latest(registry).decode()


def test_every_series_of_a_known_model_starts_at_zero() -> None:
    counts = Counts()
    counts.keep(["m"])
    text = render(counts)
    for series in (
        'llmop_gateway_requests_total{code="gone",dialect="tgi",model="m"} 0.0',
        'llmop_gateway_upstream_errors_total{class="stale",model="m"} 0.0',
        'llmop_gateway_retries_total{model="m"} 0.0',
        'llmop_gateway_tokens_total{kind="prompt",model="m",source="reported"} 0.0',
        'llmop_gateway_tokens_total{kind="completion",model="m",source="estimated"} 0.0',
        'llmop_gateway_ejections_total{model="m"} 0.0',
        'llmop_gateway_time_to_first_byte_seconds_bucket{le="+Inf",model="m"} 0.0',
        'llmop_gateway_refused_connections_total{reason="slow_head"} 0.0',
        'llmop_gateway_endpoints{deployment="default/d",state="Ready"} 2.0',
        'llmop_gateway_replica_in_flight{deployment="default/d",replica="d-x"} 3.0',
        "llmop_gateway_table_version 7.0",
    ):
        assert series in text.splitlines()


def test_models_that_are_gone_leave_no_series() -> None:
    counts = Counts()
    counts.keep(["m"])
    counts.models["m"].answered(Dialect.TGI, 200)
    counts.models["m"].first_byte(0.003)
    counts.keep(["m", "n"])
    assert 'llmop_gateway_requests_total{code="2xx",dialect="tgi",model="m"} 1.0' in render(counts)
    counts.keep(["n"])
    assert 'model="m"' not in render(counts)


def test_gauges_that_leave_something_out_cannot_be_made() -> None:
    class Partial(Gauges):
        def endpoints(self) -> list[tuple[str, str, int]]:
            return []

    with pytest.raises(TypeError, match="connected"):
        Partial()  # type: ignore[abstract]
