"""Times as text: RFC 3339 in objects, short ages for people."""

import datetime

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400


def to_rfc3339(at: float) -> str:
    """Epoch seconds as UTC text with whole seconds: `2026-01-31T08:15:00Z`."""
    return datetime.datetime.fromtimestamp(int(at), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> float:
    """Epoch seconds. Raises ValueError for anything but RFC 3339 with an offset."""
    parsed = datetime.datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f'"{text}" has no offset from UTC')
    return parsed.timestamp()


def human(seconds: float) -> str:
    """A duration in two figures at most, as tables show it: 45s, 5m10s, 34m, 4h12m, 30h, 5d3h, 90d, 3y."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    return f"{whole // _YEAR}y"


def _two(whole: int, big: int, big_unit: str, small: int, small_unit: str) -> str:
    rest = whole % big // small
    return f"{whole // big}{big_unit}{rest}{small_unit}" if rest else f"{whole // big}{big_unit}"
