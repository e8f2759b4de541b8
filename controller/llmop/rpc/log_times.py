"""When which part of an engine's log was written: the agent writes down its length every few seconds, and where an engine begins.

A line of engine.log.times is seconds since 1970, bytes of engine.log, and `start` where an engine begins. All functions block.
"""

import dataclasses
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from llmop.domain.errors import NeedsUser

_LIMIT = 16 * 1024 * 1024  # bytes that are read; a line stands for five seconds, this for a month


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """At `at`, epoch seconds, the log had `size` bytes; `is_start`: an engine began."""

    at: float
    size: int
    is_start: bool


def read(log: Path) -> list[Mark]:
    """The marks of the log at this path. Raises NeedsUser when there are none."""
    path = log.with_name(log.name + ".times")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NeedsUser(
            "UnreadableLog", f"{path}: {error.strerror}: nobody knows when the log was written"
        ) from error
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NeedsUser("UnreadableLog", f"{path}: not a regular file")
        return parse(file.read(_LIMIT))


def parse(content: bytes) -> list[Mark]:
    """What can be read; a torn or foreign line is left out."""
    marks = []
    for line in content.splitlines():
        words = line.split()
        if len(words) in (2, 3) and words[0].isdigit() and words[1].isdigit():
            marks.append(Mark(float(words[0]), int(words[1]), words[2:] == [b"start"]))
    return marks


def offset_since(marks: Sequence[Mark], since: float) -> int:
    """Where what was written after `since` begins, at the latest: the length at the last mark before."""
    return max((mark.size for mark in marks if mark.at <= since), default=0)


def previous_run(marks: Sequence[Mark]) -> tuple[int, int] | None:
    """From where to where the engine before the present one wrote; None when this is the first one that is known."""
    starts = [mark.size for mark in marks if mark.is_start]
    return (starts[-2], starts[-1]) if len(starts) > 1 else None
