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
        ("0 8 30 2 *", "UTC", "ever comes"),
        ("0 8 31 4,6,9,11 *", "UTC", "ever comes"),
        ("0 8 * * 1-5", "Mars/Olympus", "time zone"),
        ("0 8 * * 1-5", "../etc/passwd", "time zone"),
        ("0 8 * * 1-5", "", "time zone"),
    ],
)
def test_what_is_no_time_is_refused_in_words(text: str, timezone: str, word: str) -> None:
    with pytest.raises(ValueError, match=r"not|fields") as caught:
        cron.trigger(text, timezone)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("zone", "night"),
    [
        ("Europe/Berlin", "2026-10-25T01:00:00+00:00"),
        ("America/New_York", "2026-11-01T06:00:00+00:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00+00:00"),
        ("Europe/Berlin", "2026-03-29T01:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("text", ["30 2 * * *", "0 1 * * *", "*/20 * * * *", "45 1 * * 0"])
def test_the_night_in_which_clocks_change_comes_to_an_end(zone: str, night: str, text: str) -> None:
    """Looked at every ten minutes: what was found before is never forgotten again."""
    when = cron.trigger(text, zone)
    found = [cron.last_fired(when, at(night) + 600 * number) for number in range(-12, 12)]
    assert None not in found
    assert sorted(found) == found


def test_a_time_in_the_hour_that_comes_twice_comes_twice() -> None:
    when = cron.trigger("30 2 * * *", "Europe/Berlin")
    for now, last in (("00:31", "00:30"), ("01:29", "00:30"), ("01:31", "01:30"), ("23:00", "01:30")):
        assert at(f"2026-10-25T{last}:00+00:00") == cron.last_fired(when, at(f"2026-10-25T{now}:00+00:00"))


@pytest.mark.parametrize("text", ["0 8 29 2 *", "0 8 31 12 *", "0 8 last * *"])
def test_rare_days_are_times_too(text: str) -> None:
    assert cron.last_fired(cron.trigger(text, "UTC"), at("2026-11-29T10:00:00+00:00")) is not None
