"""The death record that an agent writes to exit.json and sends with its last heartbeat (docs/reference/agent-channel.md)."""

from collections.abc import Mapping
from typing import Any

from llmop.domain import replica

MESSAGE_LENGTH = 1000
TAIL_LINES, TAIL_COLUMNS = 20, 500


def end_of(data: Mapping[str, Any]) -> replica.End:
    """Raises KeyError, TypeError or ValueError for anything but such a record; long texts are cut."""
    return replica.End(
        reason=replica.EndReason(data["reason"]),
        at=float(data["endedAt"]),
        message=str(data.get("message", ""))[:MESSAGE_LENGTH],
        exit_code=data.get("exitCode"),
        node=str(data.get("node", ""))[:100],
        log_tail=tuple(str(line)[:TAIL_COLUMNS] for line in list(data.get("logTail", ()))[-TAIL_LINES:]),
    )
