"""How far a batch is: a bar on a terminal, else a line whenever there is something new."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmop.cli import printing, progress
from llmop.cli.session import say

_RATED_S = 30.0  # the rate is that of so long
_SAID_EVERY = 10  # percent, where nobody looks at a terminal


class Rate(NamedTuple):
    """Rows per second of late, and the seconds that the others will take at that rate; None = not known."""

    per_second: float | None
    left_s: float | None


class Meter:
    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int, total: int) -> Rate:
        """`now` is monotonic."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATED_S:
            self._seen.popleft()
        then, before = self._seen[0]
        if now <= then or done <= before:
            return Rate(None, None)
        rate = (done - before) / (now - then)
        return Rate(rate, (total - done) / rate)


def counts(batch: Mapping[str, Any]) -> tuple[int, int, int]:
    """Total, answered and failed."""
    found = batch.get("request_counts") or {}
    return int(found.get("total") or 0), int(found.get("completed") or 0), int(found.get("failed") or 0)


def waiting(batch: Mapping[str, Any]) -> str:
    """Why nothing goes on, "" where it does."""
    return str((batch.get("llmop") or {}).get("waiting") or "")


def words(batch: Mapping[str, Any]) -> str:
    total, completed, failed = counts(batch)
    if not total:
        return str(batch.get("status"))
    rest = f", {failed} failed" if failed else ""
    return f"{batch.get('status')}: {completed + failed}/{total}{rest}"


class Progress:
    """To be used as a context; `show` is called again and again."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._live: Any = None
        self._said: tuple[str, str, int] | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._live = progress.live()
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, batch: Mapping[str, Any]) -> None:
        total, completed, failed = counts(batch)
        done = completed + failed
        rate = self._meter.add(time.monotonic(), done, total)
        if self._live is not None:
            self._live.update(_bar(batch, done, total, rate), refresh=True)
            return
        percent = 100 * done // total if total else 0
        saying = (str(batch.get("status")), waiting(batch), percent // _SAID_EVERY)
        if saying != self._said:
            self._said = saying
            say(words(batch) + _speed(rate) + (f" ({waiting(batch)})" if waiting(batch) else ""))


def _speed(rate: Rate) -> str:
    if rate.per_second is None or rate.left_s is None:
        return ""
    from llmop.domain import times

    return f", {rate.per_second:.1f}/s, {times.human(rate.left_s)} left"


def _bar(batch: Mapping[str, Any], done: int, total: int, rate: Rate) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(total, 1), completed=done, width=40)
    row.add_row(bar, Text(words(batch) + _speed(rate)))
    # What a gateway says may hold anything that a replica has said to it.
    return Group(row, Text(printing.multi_line(waiting(batch)))) if waiting(batch) else row
