"""How large and how deep a document may be, and which characters its strings may hold, wherever it comes from."""

import math
import re
from collections.abc import Mapping
from typing import Any

from llmop.domain import errors
from llmop.manifest import paths

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_STRING_BYTES = 64 * 1024
MAX_KEY_CHARACTERS = 512
MAX_DEPTH = 32
MAX_COST = 2 * MAX_DOCUMENT_BYTES  # what `cost` of all values may come to, aliases expanded
MAX_INTEGER = 2**63 - 1
MAX_NUMBER_CHARACTERS = 32

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff\ufffe\uffff]")


def cost(characters: int, path: str) -> int:
    """What a value is counted as: itself, its characters, and a share of its path, which is as long as all keys above it."""
    return 1 + characters + len(path) // 8


def violations(data: Mapping[str, Any]) -> tuple[errors.Violation, ...]:
    """Everything in `data` that no manifest may hold, whatever its kind."""
    found: list[errors.Violation] = []
    budget = MAX_COST
    stack: list[tuple[Any, str, int]] = [(data, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        budget -= _own_cost(value, path)
        if budget < 0:
            return (_violation("", "TooLong", "the document is too large; split it"),)
        if depth > MAX_DEPTH:
            return (_violation(path, "TooLong", f"is nested deeper than {MAX_DEPTH} levels"),)
        if isinstance(value, Mapping):
            for key, item in value.items():
                if problem := _key_problem(key):
                    found.append(_violation(path, *problem))
                else:
                    stack.append((item, paths.join(path, key), depth + 1))
        elif isinstance(value, list):
            stack.extend((item, paths.join(path, index), depth + 1) for index, item in enumerate(value))
        elif problem_text := _scalar_problem(value):
            found.append(_violation(path, "InvalidValue", problem_text))
    return tuple(reversed(found))


def string_problem(text: str) -> str:
    """What is wrong with `text` as part of any document, as the end of a sentence; "" if nothing."""
    if len(text) > MAX_STRING_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_STRING_BYTES:
        return f"is longer than {MAX_STRING_BYTES} bytes; put the text into a file"
    control = _CONTROL.search(text)
    if control is not None:
        return f"holds the character U+{ord(control[0]):04X}; remove it"
    return ""


def _own_cost(value: Any, path: str) -> int:
    """A collection is counted with the paths of what it holds: before they are made."""
    if isinstance(value, str):
        return cost(len(value), path)
    if isinstance(value, (Mapping, list)):
        return cost(0, path) * (1 + len(value))
    return cost(0, path)


def _key_problem(key: Any) -> tuple[str, str] | None:
    """Reason and message."""
    if not isinstance(key, str):
        return "InvalidValue", f"the key {key!r} is not text; quote it"
    if len(key) > MAX_KEY_CHARACTERS:
        return "TooLong", f"the key {key[:40]!r}... is longer than {MAX_KEY_CHARACTERS} characters"
    if problem := string_problem(key):
        return "InvalidValue", f"the key {key[:40]!r} {problem}"
    return None


def _scalar_problem(value: Any) -> str:
    if isinstance(value, str):
        problem = string_problem(value)
        return f"{value[:40]!r} {problem}" if problem else ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that can be stored"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "is too large for a number; quote it if it is text"
    if value is None or isinstance(value, (bool, int, float)):
        return ""
    return f"{type(value).__name__} is not a value of a manifest"


def _violation(path: str, reason: str, message: str) -> errors.Violation:
    return errors.Violation(path=path, reason=reason, message=message)
