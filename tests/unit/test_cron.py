"""Times of cron."""

import datetime

import pytest

from llmop import cron


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("days", ["0", "7", "sun", "6-7", "sat-sun", "5-0", "*/6", "0,3"])
def test_sunday_is_a_day_of_cron(days: str) -> None:
    """`*/6` steps through APScheduler's days, of which the sixth is Sunday."""
    found = cron.last_fired(cron.trigger(f"0 9 * * {days}", "UTC"), at("2026-11-29T10:00:00+00:00"))
    assert at("2026-11-29T09:00:00+00:00") == found


@pytest.mark.parametrize(
    ("text", "timezone", "word"),
    [
        ("0 8 * *", "UTC", "4 fields"),
        ("60 8 * * *", "UTC", "60 8 * * *"),
        ("0 8 * * 8", "UTC", "not a day of the week"),
        ("0 8 * * x", "UTC", "0 8 * * x"),
        ("a b c d e", "UTC", "a b c d e"),
        ("0 8 * * 1-5", "Mars/Olympus", "time zone"),
        ("0 8 * * 1-5", "../etc/passwd", "time zone"),
        ("0 8 * * 1-5", "", "time zone"),
    ],
)
def test_what_is_no_time_is_refused_in_words(text: str, timezone: str, word: str) -> None:
    with pytest.raises(ValueError, match=r"not|fields") as caught:
        cron.trigger(text, timezone)
    assert word in str(caught.value)
