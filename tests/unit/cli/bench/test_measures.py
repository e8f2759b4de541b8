"""Figures of what was seen."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.bench.figures_made import CLIENT, LENGTHS, answered, figures, level

from llmop.cli.bench import measures
from llmop.cli.bench.loads import Cell, Mode
from llmop.cli.bench.measures import Failures, Sample


def test_percentiles_are_values_that_were_seen() -> None:
    found = measures.spread([float(number) for number in range(100, 0, -1)])
    assert (100, 1.0, 100.0, 50.5) == (found.count, found.min, found.max, found.mean)
    assert (50.0, 95.0, 99.0) == (found.p50, found.p95, found.p99)


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1), st.floats(min_value=0.001, max_value=100))
def test_so_many_percent_do_not_exceed_a_percentile_and_fewer_any_smaller_value(
    values: list[float], percent: float
) -> None:
    ordered = sorted(values)
    found = measures.percentile(ordered, percent)
    share = percent / 100 * len(ordered)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share - 1e-6
    assert sum(value < found for value in ordered) < share + 1e-6


def test_latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    """This is what "coordinated omission" is about."""
    found = figures([answered(5.0, 2.5, 0.1, sent_at=7.0)])
    assert 2.5 == found.ttft.p50
    assert pytest.approx(2.7) == found.e2e.p50
    assert pytest.approx(0.1) == found.itl.p50


def test_failed_requests_are_counted_by_class_and_are_in_no_latency() -> None:
    busy = Sample(due_at=0.0, ended_at=9.0, error="status 429", message="too many")
    cut = Sample(due_at=0.0, first_at=0.1, ended_at=9.0, pieces=1, error="cut off", message="lost")
    found = figures([answered(0.0, 1.0, 0.1), busy, cut, dataclasses.replace(busy, message="again")])
    assert (4, 1, 3) == (found.requests, found.answered, found.failed)
    assert {
        "status 429": Failures(count=2, example="too many"),
        "cut off": Failures(count=1, example="lost"),
    } == found.errors
    assert (1, 1.0) == (found.ttft.count, found.ttft.max)


def test_rates_are_what_came_within_the_window() -> None:
    found = figures([answered(0.0, 1.0, 0.1)], pieces=300, answers=40, seconds=20)
    assert (15.0, 2.0) == (found.tokens_per_second, found.requests_per_second)


def test_tokens_are_the_servers_where_its_events_hold_several() -> None:
    """Engines that guess ahead send more than one token in an event."""
    found = figures([answered(0.0, 1.0, 0.1, output_tokens=6)], pieces=300, seconds=20)
    assert ("server", 6.0, 30.0) == (found.tokens_counted_by, found.output_tokens, found.tokens_per_second)


def test_tokens_are_events_where_any_answer_came_without_a_count() -> None:
    silent = answered(0.0, 1.0, 0.1, output_tokens=None, prompt_tokens=None)
    found = figures([answered(0.0, 1.0, 0.1, output_tokens=6), silent])
    assert ("events", 3.0, 130.0) == (found.tokens_counted_by, found.output_tokens, found.prompt_tokens)
    assert "the server does not count tokens: each event with text is taken for one" in found.warnings


def test_a_cell_in_which_nothing_was_answered_has_no_latencies() -> None:
    found = figures([Sample(due_at=0.0, ended_at=1.0, error="connect", message="refused")])
    assert (0, 0, 0.0) == (found.ttft.count, found.e2e.count, found.tokens_per_second)


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (dataclasses.replace(CLIENT, cpu_share=0.93), "the client itself used 93% of a core"),
        (dataclasses.replace(CLIENT, lag_s=0.05), "the client was late by 50 ms"),
        (
            dataclasses.replace(CLIENT, held_back=7, most_open=100),
            "7 requests waited in the client because 100 were open",
        ),
    ],
)
def test_a_client_that_is_the_bottleneck_says_so(client: measures.Client, words: str) -> None:
    samples = [answered(each, 1.0, 0.1) for each in range(120)]
    assert () == figures(samples).warnings
    assert [words] == [words for warning in figures(samples, client=client).warnings if words in warning]


def test_requests_that_an_open_loop_sent_late_are_told() -> None:
    cell = Cell(model="m", mode=Mode.CONSTANT, level=10, lengths=LENGTHS)
    samples = [answered(each, 1.0, 0.1, sent_at=each + 0.05 * (each < 6)) for each in range(120)]
    (warning,) = figures(samples, cell=cell).warnings
    assert warning.startswith("6 of 120 requests were sent more than 10 ms late")


def test_answers_that_end_too_soon_and_samples_that_are_few_are_told() -> None:
    found = figures([answered(0.0, 1.0, 0.1, output_tokens=2)])
    assert [
        "answers have 2 tokens on average, 3 were asked for: the model ends sooner by itself",
        "fewer than 100 answers: their 99th percentile is the longest of them",
    ] == list(found.warnings)


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        pytest.param([10, 20, 40, 80], None, id="still growing"),
        pytest.param([10, 20, 39, 40], 4, id="the first that is near the most"),
        pytest.param([10, 40, 20, 10], 2, id="it gets worse"),
        pytest.param([0, 0], None, id="nothing came"),
        pytest.param([], None, id="nothing was measured"),
    ],
)
def test_saturation_is_the_lightest_load_that_has_nearly_everything(
    rates: list[float], wanted: float | None
) -> None:
    found = measures.saturation([level(2**number, rate) for number, rate in enumerate(rates)])
    assert wanted == (found.cell.level if found else None)


def test_a_window_that_is_too_short_for_its_answers_is_told() -> None:
    words = "the window is less than 5 times as long as an answer"
    samples = [answered(each, 2.0, 0.1) for each in range(120)]
    assert [True] == [warning.startswith(words) for warning in figures(samples, seconds=10).warnings]
    assert () == figures(samples, seconds=12).warnings


def test_figures_of_a_slowed_server_are_shown_in_the_time_of_what_it_stands_for() -> None:
    slow = figures([answered(0.0, 2.0, 0.4)], seconds=20, pieces=300, answers=40)
    found = measures.unscaled(slow, 4)
    assert (0.5, pytest.approx(0.7), 5.0) == (found.ttft.p50, found.e2e.max, found.seconds)
    assert (0.5, pytest.approx(0.1)) == (found.ttft.curve[-1], found.itl.p99)
    assert (60.0, 8.0) == (found.tokens_per_second, found.requests_per_second)
    assert (slow.client, slow.cell, 3.0) == (found.client, found.cell, found.output_tokens)
    assert slow == measures.unscaled(slow, 1)
