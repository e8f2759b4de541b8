"""The death record that an agent writes to exit.json and sends with its last heartbeat (docs/reference/agent-channel.md)."""

import re
from collections.abc import Mapping
from typing import Any

from llmop.domain import replica

MESSAGE_LENGTH = 1000
TAIL_LINES, TAIL_COLUMNS = 20, 500
NODE_LENGTH = 100
_TIME_MAX_S = 253_402_300_799.0  # the end of the year 9999: no timestamp tells a later one
# Control sequences (ECMA-48), with which engines colour their logs.
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_UNPRINTABLE = {
    **dict.fromkeys((*range(32), *range(127, 160), *range(0xD800, 0xE000)), "\ufffd"),
    **dict.fromkeys(b"\t\n\r", " "),
}


def end_of(data: Mapping[str, Any]) -> replica.End:
    """Raises KeyError, TypeError or ValueError for anything but such a record; long texts are cut."""
    at = float(data["endedAt"])
    if not 0 <= at <= _TIME_MAX_S:
        raise ValueError(f"endedAt: {at:g} is not a time in seconds since 1970")
    code = data.get("exitCode")
    if code is not None and (not isinstance(code, int) or isinstance(code, bool) or not -255 <= code <= 255):
        raise ValueError("exitCode: must be a whole number from -255 to 255, or null")
    return replica.End(
        reason=replica.EndReason(data["reason"]),
        at=at,
        message=line(data.get("message", ""), MESSAGE_LENGTH),
        exit_code=code,
        node=line(data.get("node", ""), NODE_LENGTH),
        log_tail=tuple(line(each, TAIL_COLUMNS) for each in list(data.get("logTail", ()))[-TAIL_LINES:]),
    )


def line(text: Any, limit: int) -> str:
    """One line of text from outside, cut; what no terminal, database or UTF-8 stream should get is replaced."""
    return _COLOUR.sub("", str(text)[:limit]).translate(_UNPRINTABLE)
