"""Times of cron, as APScheduler's triggers know them. Pure: the moment is an argument.

Five fields (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/crontab.html), here with a time zone.
"""

import datetime
import functools
import zoneinfo
from collections.abc import Iterator

from apscheduler.triggers.cron import CronTrigger

# How far back a trigger is looked for, in ever longer steps: most fire within a day, a 29th of February may be eight years away.
_BACK_S = (120.0, 7_200.0, 90_000.0, 700_000.0, 2_800_000.0, 32_000_000.0, 260_000_000.0)


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Raises ValueError with a sentence where it is not known."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is not a time zone that is known here; write it like Europe/Berlin"
        ) from error


@functools.lru_cache(maxsize=1024)
def trigger(text: str, timezone: str) -> CronTrigger:
    """Five cron fields; days of the week are 0 = Sunday to 6 as in crontab(5), or names. Raises ValueError with a sentence."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(
            f"{text!r} has {len(fields)} fields; write minute, hour, day, month and day of the week"
        )
    minute, hour, day, month, weekday = fields
    where = zone(timezone)
    try:
        found = CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=where
        )
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time of cron: {error}") from error
    if not _comes(found):
        raise ValueError(f"{text!r} is not a time that ever comes: no month that it names has such a day")
    return found


def _comes(when: CronTrigger) -> bool:
    """Whether a leap year has such a day. To find out by looking for one would take seconds: up to the year 9999."""
    fields = {field.name: field for field in when.fields}
    first = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    days = (first + datetime.timedelta(days=number) for number in range(366))
    return any(
        day.month == fields["month"].get_next_value(day) and day.day == fields["day"].get_next_value(day)
        for day in days
    )


def _weekdays(field: str) -> str:
    """APScheduler counts days from Monday, cron from Sunday; names mean the same in both."""
    names = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
    parts = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        if span == "*":
            parts.append(part)
            continue
        first, _, last = span.partition("-")
        days = [names.index(day) if day in names else int(day) % 7 for day in (first, last) if day]
        if any(not day.isdigit() or int(day) > 7 for day in (first, last) if day and day not in names):
            raise ValueError(f"{part!r} is not a day of the week")
        begin, end = days[0], days[-1]
        if last and end < begin:  # fri-mon, or 5-7 where 7 is Sunday
            end += 7
        parts += [names[day % 7] for day in range(begin, end + 1, int(step) if step else 1)]
    return ",".join(parts)


def last_fired(when: CronTrigger, now: float) -> float | None:
    """Epoch seconds of the last time up to `now`; None when there was none in eight years."""
    for back_s in _BACK_S:
        last = None
        for at in _fires(when, now - back_s):
            if at > now:
                break
            last = at
        if last is not None:
            return last
    return None


def _fires(when: CronTrigger, since: float) -> Iterator[float]:
    """In the hour that comes twice when summer ends, both times."""
    # By epoch seconds: local times that are added to forget which of the two hours they are in, and would come again for ever.
    while (fired := when.get_next_fire_time(None, _local(when, since))) is not None:
        at = fired.timestamp()
        if at >= since:
            yield at
        since = max(since, at) + 1


def _local(when: CronTrigger, at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, when.timezone)
