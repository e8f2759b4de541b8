"""The Prometheus text: what is there, when, and how it is written; read back by prometheus_client."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmop.simulator.observer import Load
from llmop.simulator.options import parse_options
from llmop.simulator.physics import Sequence, Work, WorkKind
from llmop.simulator.prometheus import (
    ConstantSummary,
    Counter,
    Gauge,
    Histogram,
    label,
    python_number,
    rust_number,
    text,
)
from llmop.simulator.request import Generation, Timing, ValidRequest
from llmop.simulator.text import answer
from llmop.simulator.tgi_metrics import TgiMetrics
from llmop.simulator.vllm_metrics import tokens_up_to

IDLE = Load(waiting=0, running=0, reserved_tokens=0, kv_tokens=12345678)
BUSY = Load(waiting=3, running=2, reserved_tokens=70, kv_tokens=12345678)
PREFILL = Work(kind=WorkKind.PREFILL, seconds=0.5, tokens=1)
DECODE = Work(kind=WorkKind.DECODE, seconds=0.25, tokens=1)
REQUEST = ValidRequest(
    prompt="a b", prompt_tokens=2, most=3, natural=None, reserved_tokens=5, stop=(), text_seed=""
)


def generation() -> Generation:
    return Generation(
        request=REQUEST,
        answer=answer("a b", seed="", most=3),
        sequence=Sequence(id=1, prompt_tokens=2, new_tokens=3, reserved_tokens=5),
        progress=asyncio.Event(),
        streaming=False,
        queued_at=0.0,
    )


def samples(page: str) -> dict[str, float]:
    """Each series as it is written, and its value."""
    return {
        sample.name
        + (
            "{" + ",".join(f'{name}="{value}"' for name, value in sample.labels.items()) + "}"
            if sample.labels
            else ""
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counters_are_kept_apart_by_their_labels_and_have_one_head() -> None:
    counter = Counter("x_total", "Help", start=('a="0"',))
    counter.add('a="1"')
    counter.add('a="1"', 2)
    counter.add('a="2"')

    page = text([counter])

    assert {'x_total{a="0"}': 0, 'x_total{a="1"}': 3, 'x_total{a="2"}': 1} == samples(page)
    assert (1, 1) == (page.count("# HELP x_total Help\n"), page.count("# TYPE x_total counter\n"))


def test_what_has_no_series_has_no_head() -> None:
    assert "" == text(
        [
            Counter("a", "A"),
            Gauge("b", "B"),
            Histogram("c", "C", (1,), rust_number),
            ConstantSummary("d", "D", (0, 1), 0),
        ]
    )


def test_large_gauges_are_written_in_full() -> None:
    gauge = Gauge("g", "G")
    gauge.set(12345678)
    gauge.set(0.25, 'a="b"')

    assert gauge.lines()[2:] == ["g 12345678", 'g{a="b"} 0.25']


def test_the_buckets_of_a_histogram_add_up() -> None:
    histogram = Histogram("h", "H", (1, 2, 4), rust_number)
    for amount in (1, 3, 1_000_000):
        histogram.observe(amount)
    histogram.observe(2.5, times=2)

    assert {
        'h_bucket{le="1"}': 1,
        'h_bucket{le="2"}': 1,
        'h_bucket{le="4"}': 4,
        'h_bucket{le="+Inf"}': 5,
        "h_sum": 1_000_009,
        "h_count": 5,
    } == samples(text([histogram]))


def test_a_summary_tells_its_quantiles() -> None:
    summary = ConstantSummary("s", "S", (0, 0.5, 1), 2)
    summary.observe(3)

    assert {
        's{quantile="0"}': 2,
        's{quantile="0.5"}': 2,
        's{quantile="1"}': 2,
        "s_sum": 6,
        "s_count": 3,
    } == samples(text([summary]))


@pytest.mark.parametrize(
    ("value", "rust", "python"),
    [
        (1.0, "1", "1.0"),
        (0.3, "0.3", "0.3"),
        (0.000015, "0.000015", "1.5e-05"),
        (7680.0, "7680", "7680.0"),
        (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
    ],
)
def test_bounds_are_written_as_the_engines_library_writes_them(value: float, rust: str, python: str) -> None:
    assert (rust, python) == (rust_number(value), python_number(value))


def test_labels_are_escaped() -> None:
    gauge = Gauge("g", "G")
    gauge.set(1, label(model='a"b\\c\nd'))

    (family,) = text_string_to_metric_families(text([gauge]))

    assert [{"model": 'a"b\\c\nd'}] == [sample.labels for sample in family.samples]


def test_tgi_shows_a_series_when_something_has_happened() -> None:
    metrics = TgiMetrics(parse_options(["--kv-tokens", "12345678"], {}))

    assert {"tgi_batch_max_total_tokens": 12345678} == samples(metrics.render(IDLE))
    metrics.queued(REQUEST)
    metrics.began(PREFILL, 1, 2, joining=False)
    found = samples(metrics.render(BUSY))
    assert (3, 2, 70) == tuple(
        found[f"tgi_{name}"] for name in ("queue_size", "batch_current_size", "batch_current_max_tokens")
    )


def test_tgi_has_all_its_series_with_their_types_and_buckets() -> None:
    """router/src/server.rs: durations grow by half, lengths go in hundredths of their limit, batches one by one."""
    metrics = TgiMetrics(parse_options(["--max-total-tokens", "2000", "--max-input-tokens", "1000"], {}))
    metrics.arrived()
    metrics.queued(REQUEST)
    metrics.began(PREFILL, 1, 2, joining=True)
    metrics.finished(PREFILL, 1)
    metrics.began(DECODE, 2, 0, joining=False)
    metrics.finished(DECODE, 2)
    metrics.broke(WorkKind.DECODE)
    metrics.produced(generation(), 1, 0.0)
    metrics.answered(generation(), Timing(total=4, validation=0, queue=1, inference=3, per_token=1))
    for cause in ("overloaded", "validation", "template", "generation", "incomplete", "dropped"):
        metrics.refused(cause)

    families = {family.name: family for family in text_string_to_metric_families(metrics.render(BUSY))}

    kinds: dict[str, set[str]] = {}
    for name, family in families.items():
        kinds.setdefault(family.type, set()).add(name.removeprefix("tgi_"))
    assert {
        "counter": {
            "request_count", "request_success", "request_failure", "batch_inference_count", "batch_inference_success",
            "batch_inference_failure", "batch_concat",
        },
        "gauge": {
            "queue_size", "batch_current_size", "batch_current_max_tokens", "batch_max_total_tokens",
        },
        "summary": {"request_skipped_tokens"},
        "histogram": {
            "request_duration", "request_validation_duration", "request_queue_duration", "request_inference_duration",
            "request_mean_time_per_token_duration", "request_generated_tokens", "request_input_length",
            "request_max_new_tokens", "batch_next_size", "batch_forward_duration", "batch_decode_duration",
            "batch_filter_duration", "batch_inference_duration", "batch_concat_duration",
        },
    } == kinds  # fmt: skip

    def bounds(name: str) -> list[str]:
        first = families[name].samples[0].labels
        return [
            sample.labels["le"]
            for sample in families[name].samples
            if "le" in sample.labels and sample.labels.get("method") == first.get("method")
        ]

    for name in sorted(kinds["histogram"]):
        if name.endswith("duration"):
            assert (36, "0.00015000000000000001", "0.000225") == (
                len(bounds(f"tgi_{name}")),
                bounds(f"tgi_{name}")[0],
                bounds(f"tgi_{name}")[1][:8],
            )
    assert (101, "10", "20", "1000", "+Inf") == (
        len(bounds("tgi_request_input_length")),
        *(bounds("tgi_request_input_length")[index] for index in (0, 1, 99, 100)),
    )
    for name in ("tgi_request_generated_tokens", "tgi_request_max_new_tokens"):
        assert ("20", "40", "2000") == tuple(bounds(name)[index] for index in (0, 1, 99))
    assert [*map(str, range(1, 1025)), "+Inf"] == bounds("tgi_batch_next_size")
    assert {"prefill", "decode"} == {
        sample.labels["method"] for sample in families["tgi_batch_forward_duration"].samples
    }
    assert {"overloaded", "validation", "template", "generation", "incomplete", "dropped"} == {
        sample.labels["err"] for sample in families["tgi_request_failure"].samples
    }


def test_vllm_counts_tokens_in_1_2_5_up_to_the_context() -> None:
    assert (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) == tokens_up_to(1024)
    assert (1, 2, 5, 10) == tokens_up_to(10)
