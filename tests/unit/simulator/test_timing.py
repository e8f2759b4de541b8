"""Timings by name: calculated from shapes and data sheets, and used where an option is not given."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmop.simulator import timing
from llmop.simulator.options import parse_options


@pytest.mark.parametrize(
    ("name", "parameters", "kv_bytes"),
    [
        ("llama-3.2-1b", 1_235_814_400, 32_768),
        ("llama-3.2-3b", 3_212_749_824, 114_688),
        ("llama-3.1-8b", 8_030_261_248, 131_072),
        ("llama-3.1-70b", 70_553_706_496, 327_680),
    ],
)
def test_shapes_have_the_sizes_that_the_models_have(name: str, parameters: int, kv_bytes: int) -> None:
    """The numbers of parameters are those that the hub shows for the published weights."""
    shape = timing.SHAPES[name]
    assert (parameters, kv_bytes) == (shape.parameters, shape.kv_bytes)


def test_a_step_reads_the_weights_and_every_cache() -> None:
    """By hand: 8B on an A100. 16.06 GB less an embedding of 1.05 GB, at 70 % of 2,039 GB/s; 16.06 G operations at half of 312 T/s."""
    found = timing.named("llama-3.1-8b/a100")
    assert found.decode_base_ms == pytest.approx(1 + 15.010 / 2039 / 0.7 * 1000, rel=1e-3)
    assert found.decode_per_sequence_ms == pytest.approx(
        16.0605 / 156_000 * 1000 + 256 * 131_072 / 1.4273e12 * 1000, rel=1e-3
    )
    assert found.prefill_tokens_per_second == pytest.approx(156e12 / 16.0605e9, rel=1e-3)
    assert found.kv_tokens == pytest.approx((0.9 * 80 * 2**30 - 2e9 - 16.0605e9) / 131_072, rel=1e-3)


def test_gpus_that_share_layers_exchange_what_they_have() -> None:
    two, four = (timing.named(f"llama-3.1-70b/h100x{count}") for count in (2, 4))
    exchange = 1 + 2 * 80 * 0.02
    assert two.decode_base_ms - exchange == pytest.approx(2 * (four.decode_base_ms - exchange))
    assert 2 * two.prefill_tokens_per_second == pytest.approx(four.prefill_tokens_per_second)
    # Twice the memory has room for much more than twice the cache: the weights need theirs once.
    assert four.kv_tokens > 10 * two.kv_tokens


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama-3.1-70b/a100", "'llama-3.1-70b/a100' does not fit: 141 GB of weights; name more GPUs, such as x2"),
        ("llama-3.1-8b", "'llama-3.1-8b' is no timing: write MODEL/GPU"),
        ("llama-9/a100", "of the models llama-3.2-1b, "),
        ("llama-3.1-8b/a100x3", "N of 1, 2, 4, 8"),
        ("llama-3.1-8b/tpu", "the GPUs a100, h100"),
    ],
)  # fmt: skip
def test_what_is_no_timing_is_refused_with_what_would_be(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--timing", name], {})
    said = capsys.readouterr().err
    assert "argument --timing: " in said
    assert words in said


def test_an_option_that_is_given_wins_over_the_timing_and_all_times_are_scaled() -> None:
    by_name = timing.named("llama-3.2-1b/a100")
    options = parse_options(
        ["--timing=llama-3.2-1b/a100", "--kv-tokens=5000", "--decode-base-ms=7", "--time-scale=4"], {}
    )
    assert (5000, 28.0) == (options.kv_tokens, options.decode_base_ms)
    assert 4 * by_name.decode_per_sequence_ms == options.decode_per_sequence_ms
    assert by_name.prefill_tokens_per_second / 4 == options.prefill_tokens_per_second


def test_without_a_timing_nothing_takes_time() -> None:
    options = parse_options([], {})
    assert (0.0, 0.0, 0.0, 1_000_000) == (
        options.prefill_tokens_per_second,
        options.decode_base_ms,
        options.decode_per_sequence_ms,
        options.kv_tokens,
    )


def test_the_page_shows_what_is_calculated() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "runtimes.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `llama-")]
    shown = {name.strip("`"): values for name, *values in rows}
    calculated = {}
    for name in shown:
        found = timing.named(name)
        calculated[name] = [
            f"{found.prefill_tokens_per_second:,.0f}",
            f"{found.decode_base_ms:.2f}",
            f"{found.decode_per_sequence_ms:.4f}",
            f"{found.kv_tokens:,}",
        ]
    assert calculated == shown
    assert set(timing.SHAPES) == {name.split("/")[0] for name in shown}
