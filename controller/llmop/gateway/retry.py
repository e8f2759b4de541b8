"""Whether a failed attempt is made again. Pure, except for the account of the budget, which its owner holds."""

import dataclasses
import enum

SHARE = 0.1  # of the requests may be retries
RESERVE = 10.0  # retries that a quiet gateway may make; earned again at one per second
CEILING = 100.0

RETRYABLE_STATUSES = frozenset((401, 429, 500, 502, 503))
"""401: the replica did not take our key for it; 429 and 503: full or stopping; 500: vLLM while it shuts down; 502: a broken hop."""


class Failure(enum.StrEnum):
    """Classes of upstream errors, as they appear in the metrics."""

    CONNECT = "connect"
    RESET = "reset"  # closed before an answer began
    STALE = "stale"  # the same on a connection that had served before
    GARBAGE = "garbage"  # not HTTP
    STATUS = "status"  # an answer with one of RETRYABLE_STATUSES
    OVERLOADED = "overloaded"  # 200 whose first event is an error
    CUT = "cut"  # closed in the middle of an answer
    IDLE = "idle"  # silent in the middle of an answer


@dataclasses.dataclass(slots=True)
class Budget:
    """Retries that may be made now. Every request adds a tenth of one."""

    tokens: float = RESERVE
    at: float = 0.0

    def earn(self) -> None:
        if self.tokens < CEILING:
            self.tokens += SHARE

    def spend(self, now: float) -> bool:
        """`now` is in seconds of a monotonic clock."""
        if self.tokens < RESERVE:
            self.tokens = min(RESERVE, self.tokens + max(0.0, now - self.at))
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def pause(retries: int, random: float) -> float:
    """Seconds before retry number `retries` (1 is the first): at most 25 ms, doubling, all of it by chance."""
    return float(random * 0.025 * 2 ** (retries - 1))
