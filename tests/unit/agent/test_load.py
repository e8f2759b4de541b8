"""What the agent reads in an engine's metrics: every engine's own form, and nothing that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.agent.replica_json import replica_json

from llmop.agent.agent import LOAD_LIMIT, Config, Load, MetricsConfig, gauge, load_of
from llmop.manifest import admit, convert, load
from llmop.runtimes import builtin

ENGINES = Path(__file__).parents[2] / "data/engines"
# As in sglang/srt/observability/metrics_collector.py of SGLang: one series for each rank of a pipeline.
SGLANG = """
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="org/m} 5",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 12.0
sglang:num_running_reqs{engine_type="unified",model_name="org/m} 5",moe_ep_rank="0",pp_rank="1",tp_rank="0"} 11.0
# HELP sglang:num_running_reqs_offline_batch The number of running low-priority offline batch requests.
# TYPE sglang:num_running_reqs_offline_batch gauge
sglang:num_running_reqs_offline_batch{engine_type="unified",model_name="org/m} 5",pp_rank="0",tp_rank="0"} 99.0
sglang:token_usage{engine_type="unified",model_name="org/m} 5",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.28
sglang:num_queue_reqs{engine_type="unified",model_name="org/m} 5",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 3.0
"""
TGI = """
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 2

# TYPE tgi_batch_current_max_tokens gauge
tgi_batch_current_max_tokens 300

# TYPE tgi_batch_max_total_tokens gauge
tgi_batch_max_total_tokens 1200

# TYPE tgi_queue_size gauge
tgi_queue_size 7
"""
LLAMACPP = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 4\n"  # seen on llama.cpp with two slots and six requests
TEI = 'te_queue_size 5\nte_request_count{method="single"} 3\n'


def metrics(**names: str) -> MetricsConfig:
    found = Config(replica_json(metrics={"path": "/metrics", **names}), "/here").engine.metrics
    assert found is not None
    return found


def built_in(name: str) -> MetricsConfig:
    """What the agent is told about the engine of a built-in runtime."""
    (document,) = load.load(builtin.runtimes()[f"{name}.yaml"], "runtime.yaml")
    named = convert.runtime(admit.admit(document.data, namespace="")).metrics
    assert named is not None
    return metrics(
        queueDepth=named.queue_depth,
        running=named.running,
        kvCacheUsage=named.kv_cache_usage,
        path=named.path,
    )


@pytest.mark.parametrize(
    ("runtime", "text", "expected"),
    [
        pytest.param("sglang", SGLANG, (3, 12, 0.28), id="sglang"),
        pytest.param("tgi", TGI, (7, 2, 0.25), id="tgi"),
        pytest.param("simulator", TGI, (7, 2, 0.25), id="simulator"),
        pytest.param("llamacpp", LLAMACPP, (4, 2, None), id="llama.cpp"),
        pytest.param("llamacpp-embeddings", LLAMACPP, (4, 2, None), id="llama.cpp for embeddings"),
        pytest.param("tei", TEI, (5, None, None), id="tei"),
    ],
)
def test_each_built_in_runtime_names_the_metrics_of_its_engine(
    runtime: str, text: str, expected: tuple[int | None, int | None, float | None]
) -> None:
    assert Load(*expected, 5.0) == load_of(text, built_in(runtime), 5.0)


def test_what_a_real_vllm_showed_is_read() -> None:
    text = (ENGINES / "vllm-0.32.0.metrics").read_text(encoding="utf-8")

    assert Load(0, 0, 0.0, 5.0) == load_of(text, built_in("vllm"), 5.0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "xy 3",
        "x",
        "x ",
        "x NaN",
        "x +Inf",
        "x -1",
        "x 1e999",
        "x 0x10",
        "x 1_0",
        "x ٣",
        "x{a 3",
        "x three",
        "# x 3",
    ],
)
def test_what_is_no_number_from_0_on_is_not_known(line: str) -> None:
    assert gauge(f"y 1\n{line}\n", "x") is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("end", ["", "x", ".", ".5e", "e"])
def test_a_number_that_is_as_long_as_an_answer_may_be_is_soon_seen_to_be_none(end: str) -> None:
    assert gauge("x " + "1" * (LOAD_LIMIT - 10) + end, "x") is None


def test_one_lie_among_several_series_makes_all_of_them_unknown() -> None:
    assert gauge('x{a="0"} 3\nx{a="1"} NaN\n', "x") is None
    assert 4.0 == gauge('x{a="0"} 3\nx{a="} 9"} 4 1760000000\n', "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q 2.5\nr 1e12\nu 1\nt 4", (None, None, 0.25)),
        ("q 2\nr 3\nu 5\nt 4", (2, 3, None)),
        ("q 2\nr 3\nu 5\nt 0", (2, 3, None)),
        ("q 2\nr 3\nu 5", (2, 3, None)),
        ("q 2e0\nr 3.0\nu 0\nt 4", (2, 3, 0.0)),
    ],
)
def test_values_that_cannot_be_are_not_known(
    text: str, expected: tuple[int | None, int | None, float | None]
) -> None:
    """Parts of requests, more of them than there can be, a cache that is fuller than full or has no size."""
    assert Load(*expected, 5.0) == load_of(
        text, metrics(queueDepth="q", running="r", kvCacheUsage="u / t"), 5.0
    )


def test_what_the_runtime_does_not_name_is_not_known() -> None:
    assert Load(None, None, 0.5, 5.0) == load_of("q 1\nu 0.5", metrics(kvCacheUsage="u"), 5.0)
