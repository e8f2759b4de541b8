"""How long a client's connection may take over what it does. Pure; times are seconds of one monotonic clock."""

import dataclasses
import enum

from llmop.gateway.settings import Timeouts

# Where a connection is while nothing is being answered: between requests, in a head, in a body, its last answer written and the rest not
# looked at, closed for writing.
IDLE, HEAD, BODY, LINGER, CLOSING = range(5)

_SLOWEST_BODY = 1024  # bytes per second on average, after the first `body_idle` seconds


class Verdict(enum.Enum):
    FINE = enum.auto()
    OVER = enum.auto()  # nothing is lost with it
    SLOW_HEAD = "slow_head"  # the words of `metrics.REFUSALS`
    SLOW_BODY = "slow_body"
    SLOW_READER = "slow_reader"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Lull:
    """A connection with no request under way: in its phase for `waited` seconds, without a sign for `silent`, with `received` bytes of a body.
    `farewell` says that all is written and only the end of TLS is waited for, in a process that stops.
    """

    phase: int
    waited: float
    silent: float
    received: int
    farewell: bool


def judge(lull: Lull, timeouts: Timeouts) -> Verdict:
    waited = lull.waited
    if lull.phase == LINGER:
        return Verdict.OVER if waited > timeouts.linger else Verdict.FINE
    if lull.phase == CLOSING:
        if waited > timeouts.stream_idle:
            return Verdict.SLOW_READER
        # A client that does not look at its idle connection does not answer the farewell of TLS.
        return Verdict.OVER if lull.farewell and waited > timeouts.linger else Verdict.FINE
    if lull.phase == IDLE:
        return Verdict.OVER if waited > timeouts.keep_alive else Verdict.FINE
    if lull.phase == HEAD:
        return Verdict.SLOW_HEAD if waited > timeouts.head else Verdict.FINE
    if lull.silent > timeouts.body_idle or (
        waited > timeouts.body_idle and lull.received < waited * _SLOWEST_BODY
    ):
        return Verdict.SLOW_BODY
    return Verdict.FINE
