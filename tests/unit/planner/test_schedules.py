"""Schedules: the last start against the last end, in their own time zone."""

import datetime

import pytest

from llmop.domain import scaling
from llmop.planner import schedules

OFFICE = scaling.Schedule(
    name="office", timezone="Europe/Berlin", start="0 8 * * 1-5", end="0 18 * * 1-5", min_replicas=2
)


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def floor(when: str, *which: scaling.Schedule) -> str:
    found = schedules.floor(scaling.Scaling(max_replicas=9, schedules=which), at(when))
    return f"{found.schedule} {found.replicas}" if found else ""


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("2026-11-27T07:59:59+01:00", ""),  # a Friday
        ("2026-11-27T08:00:00+01:00", "office 2"),
        ("2026-11-27T17:59:59+01:00", "office 2"),
        ("2026-11-27T18:00:00+01:00", ""),
        ("2026-11-28T12:00:00+01:00", ""),  # Saturday
        ("2026-11-29T12:00:00+01:00", ""),
        ("2026-11-30T08:00:01+01:00", "office 2"),  # Monday
        ("2026-07-01T06:30:00+00:00", "office 2"),  # summer time
        ("2026-12-01T06:30:00+00:00", ""),
    ],
)
def test_office_hours(when: str, words: str) -> None:
    assert words == floor(when, OFFICE)


def test_the_schedule_that_wants_most_is_in_force() -> None:
    night = scaling.Schedule(
        name="batch", timezone="UTC", start="0 22 * * *", end="0 6 * * *", min_replicas=4
    )
    lunch = scaling.Schedule(
        name="lunch", timezone="UTC", start="0 11 * * *", end="0 13 * * *", min_replicas=3
    )
    assert "batch 4" == floor("2026-11-27T02:00:00+00:00", OFFICE, night, lunch)
    assert "lunch 3" == floor("2026-11-27T12:00:00+00:00", OFFICE, night, lunch)
    assert "office 2" == floor("2026-11-27T14:00:00+00:00", OFFICE, night, lunch)


def test_a_start_that_comes_again_before_the_end_stays_in_force() -> None:
    often = scaling.Schedule(
        name="a", timezone="UTC", start="*/30 * * * *", end="15 18 * * *", min_replicas=1
    )
    assert "a 1" == floor("2026-11-27T12:10:00+00:00", often)
    assert "" == floor("2026-11-27T18:20:00+00:00", often)
    assert "a 1" == floor("2026-11-27T18:30:00+00:00", often)


def test_a_day_that_comes_rarely_is_found() -> None:
    rare = scaling.Schedule(name="a", timezone="UTC", start="0 0 29 2 *", end="0 0 1 1 *", min_replicas=1)
    assert "a 1" == floor("2024-12-31T12:00:00+00:00", rare)
    assert "" == floor("2026-11-27T12:00:00+00:00", rare)
