"""Paths of fields, as people read them: `spec.args[2]`, `spec.env.HOME`, `metadata.labels["llmop/team"]`."""

import json
import re
from collections.abc import Iterable

Step = str | int

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r'\.?(?P<plain>[A-Za-z0-9_-]+)|\[(?P<index>[0-9]+)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]')


def join(path: str, step: Step) -> str:
    """`path` one step further down: a key of a mapping, or the index of an item."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if _PLAIN.fullmatch(step):
        return f"{path}.{step}" if path else step
    return f"{path}[{json.dumps(step)}]"


def build(steps: Iterable[Step]) -> str:
    path = ""
    for step in steps:
        path = join(path, step)
    return path


def split(path: str) -> tuple[Step, ...]:
    """The steps of `path`. Raises ValueError for what `join` does not make."""
    steps: list[Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"{path!r} is not the path of a field")
        if match["plain"] is not None:
            steps.append(match["plain"])
        elif match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(json.loads(match["quoted"]))
        at = match.end()
    return tuple(steps)
