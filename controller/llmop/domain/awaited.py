"""What a request waits for, in the words that clients read while it does. Pure."""

import math

from llmop.domain.endpoint import Stage


def words(stage: Stage, seconds: float | None) -> str:
    """Of the replica that is ready next: `seconds` until its job starts or, where that runs, until it answers. None = not known."""
    match stage:
        case Stage.PENDING:
            return f"pending{within(', starts', seconds)}"
        case Stage.LOADING:
            return f"loading{within(', ready', seconds)}"
        case _:
            return "waiting for a replica"


def within(verb: str, seconds: float | None) -> str:
    """Nothing where the time is not known, or is over."""
    if seconds is None or seconds <= 0:
        return ""
    whole = math.ceil(seconds)
    shown = f"{whole} s" if whole <= 120 else f"{math.ceil(whole / 60)} min"
    return f"{verb} in ~{shown}"
