"""How many requests slurmctld has had from whom, by sdiag(1)."""

from __future__ import annotations

import re

_BY_USER = "statistics by user"
_LINE = re.compile(r"^\s+(?P<account>\S+)\s+\(\s*(?P<uid>\d+)\)\s+count:(?P<count>\d+)\s", re.MULTILINE)


def by_account(text: str) -> dict[str, int]:
    """Requests by account since slurmctld began, of what sdiag prints. Raises ValueError where that section is missing."""
    _, found, rest = text.partition(_BY_USER)
    if not found:
        raise ValueError(f"sdiag printed no section {_BY_USER!r}: {text[:200]!r}")
    section, _, _ = rest.partition("\n\n")
    return {match["account"]: int(match["count"]) for match in _LINE.finditer(section)}
