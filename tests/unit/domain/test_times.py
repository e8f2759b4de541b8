"""Times for people."""

import pytest

from llmop.domain import times


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (310, "5m10s"),
        (600, "10m"),
        (34 * 60, "34m"),
        (4 * 3600 + 12 * 60, "4h12m"),
        (30 * 3600, "30h"),
        (5 * 86_400 + 3 * 3600, "5d3h"),
        (90 * 86_400, "90d"),
        (1200 * 86_400, "3y"),
    ],
)
def test_a_duration_is_shown_in_two_figures_at_most(seconds: float, expected: str) -> None:
    assert expected == times.human(seconds)


def test_rfc_3339_is_read_back_as_written() -> None:
    assert 1_760_000_000.0 == times.from_rfc3339(times.to_rfc3339(1_760_000_000.0))
    assert times.to_rfc3339(1_760_000_000.9) == "2025-10-09T08:53:20Z"


def test_fractions_and_offsets_are_read() -> None:
    assert 1_760_000_000.25 == times.from_rfc3339("2025-10-09T10:53:20.250+02:00")


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        times.from_rfc3339("2025-10-09T08:53:20")
