"""How much a key may use: token buckets, and what a request will probably take. Pure; times are seconds of one monotonic clock.

A limit per minute is a bucket that holds a minute's worth and fills up at its rate. It may be overdrawn, by answers that were longer than
expected and by what other processes spent meanwhile; that is paid back before anything new is admitted, so that the average is kept.
"""

import collections
import math
import re
from collections.abc import Mapping
from typing import Any

_MINUTE = 60.0
_BYTES_PER_TOKEN = 4
# Before a model's answers are known, of a request that does not say how long its answer may be.
_UNKNOWN_ANSWER = 256
_BEYOND_BELIEF = 10**9  # tokens of one answer
# Of TGI's dialect, whose bodies are not read. Within a text the quotes are escaped.
_MARK = b'"max_new_tokens"'
_MOST = re.compile(rb'"max_new_tokens"\s*:\s*([0-9]{1,9})\b')


class Bucket:
    """Of a limit per minute. `level` is what was left at `at`, when `spent` had been spent in all; `limit` 0 bounds nothing."""

    __slots__ = ("at", "level", "limit", "spent")

    def __init__(self, limit: int, spent: int, now: float) -> None:
        """A full one."""
        self.limit = limit
        self.level = float(limit)
        self.at = now
        self.spent = spent

    def look(self, spent: int, now: float) -> float:
        """What it holds now, and from then on. `spent` is a count that all processes add to, and take from where a reservation was too high."""
        level = self.level - (spent - self.spent)
        if now > self.at:
            level += self.limit / _MINUTE * (now - self.at)
        if level > self.limit:
            level = float(self.limit)
        self.level = level
        self.at = now
        self.spent = spent
        return level

    def wait(self, wanted: int) -> float:
        """Seconds until `wanted` can be had; 0.0 = now. Whoever wants more than a whole bucket waits for a full one."""
        if wanted <= self.level:
            return 0.0
        return max(0.0, (min(wanted, self.limit) - self.level) * _MINUTE / self.limit)


class Lengths:
    """How long a model's last answers were, in tokens: what nine of ten do not exceed."""

    __slots__ = ("_answers", "_known", "_look_at", "learn")

    LEAST = 20  # answers before anything is said
    _MOST = 1000
    LOOK_S = 0.25

    def __init__(self) -> None:
        self._answers: collections.deque[int] = collections.deque(maxlen=self._MOST)
        self.learn = self._answers.append
        self._known: int | None = None
        self._look_at = -math.inf

    def p90(self, now: float) -> int | None:
        """As it was a moment ago."""
        if now >= self._look_at:
            self._look_at = now + self.LOOK_S
            if len(self._answers) >= self.LEAST:
                self._known = sorted(self._answers)[len(self._answers) * 9 // 10]
        return self._known


def need(body: bytes, asked: Mapping[str, Any] | None, usual_answer: int | None) -> int:
    """Tokens that a request will probably take. `asked` is the body's JSON in OpenAI's dialect, None for TGI's; `usual_answer` is the length
    that nine of ten of the model's answers do not exceed.
    """
    most = (
        _most_of_tgi(body) if asked is None else asked.get("max_completion_tokens") or asked.get("max_tokens")
    )
    if type(most) is not int or not 0 <= most < _BEYOND_BELIEF:
        answer = _UNKNOWN_ANSWER if usual_answer is None else usual_answer
    elif usual_answer is not None and usual_answer < most:
        answer = usual_answer
    else:
        answer = most
    return (len(body) + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN + answer


def _most_of_tgi(body: bytes) -> int | None:
    place = body.find(_MARK)  # nearly nothing beside the pattern, which goes on from there
    found = _MOST.search(body, place) if place >= 0 else None
    return None if found is None else int(found[1])
