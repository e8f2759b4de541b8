"""The Prometheus text: what is there, when, and how it is written."""

from __future__ import annotations

from llmop.simulator.metrics import Metrics


def test_before_the_first_event_there_are_only_gauges() -> None:
    text = Metrics().render({"tgi_queue_size": 0})
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert ["tgi_queue_size 0"] == samples


def test_counters_are_kept_apart_by_their_label() -> None:
    metrics = Metrics()
    metrics.failed("dropped")
    metrics.failed("overloaded")
    metrics.failed("dropped")
    lines = metrics.render({}).splitlines()
    assert 'tgi_request_failure{err="dropped"} 2' in lines
    assert 'tgi_request_failure{err="overloaded"} 1' in lines
    assert 1 == lines.count("# TYPE tgi_request_failure counter")


def test_the_buckets_of_a_histogram_add_up() -> None:
    metrics = Metrics()
    for tokens in (1, 3, 1_000_000):
        metrics.observe("tgi_request_generated_tokens", tokens)
    lines = metrics.render({}).splitlines()
    for expected in (
        'tgi_request_generated_tokens_bucket{le="1"} 1',
        'tgi_request_generated_tokens_bucket{le="2"} 1',
        'tgi_request_generated_tokens_bucket{le="4"} 2',
        'tgi_request_generated_tokens_bucket{le="65536"} 2',
        'tgi_request_generated_tokens_bucket{le="+Inf"} 3',
        "tgi_request_generated_tokens_sum 1000004.0",
        "tgi_request_generated_tokens_count 3",
    ):
        assert expected in lines


def test_large_gauges_are_written_in_full() -> None:
    assert "tgi_batch_max_total_tokens 12345678\n" in Metrics().render(
        {"tgi_batch_max_total_tokens": 12345678}
    )
