"""What happened, as lines that a person can read."""

import collections

Film = collections.deque[tuple[float, str]]

LINES = 4000


def new() -> Film:
    return collections.deque(maxlen=20_000)


def show(film: Film, start: float, *, about: str = "", lines: int = LINES) -> str:
    """The last `lines` scenes, with hours, minutes and seconds since `start`; only those that mention `about`."""
    scenes = [(at, text) for at, text in film if about in text][-lines:]
    return "\n".join(f"{_stamp(at - start)}  {text}" for at, text in scenes)


def _stamp(seconds: float) -> str:
    whole, rest = divmod(max(0.0, seconds), 60)
    hours, minutes = divmod(int(whole), 60)
    return f"{hours:3}:{minutes:02}:{rest:06.3f}"
