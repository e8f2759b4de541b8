"""Which endpoint takes a request, and which ones are left alone for a while. Pure: values in, choice out.

Times are seconds of one monotonic clock; `random` is a number in [0, 1).
"""

import dataclasses
from collections.abc import Sequence

CONNECT_FAILURES = 3
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """`failures` counts connect failures in a row; `ejected_until` is 0 while nothing is wrong; `probing` says that the one
    request which may try an ejected endpoint after its pause is under way.
    """

    failures: int = 0
    ejections: int = 0
    ejected_until: float = 0.0
    probing: bool = False


CLOSED = Breaker()


def after_connect_failure(breaker: Breaker, now: float, random: float) -> Breaker:
    """The third failure in a row ejects; each failed probe doubles the pause, between half and all of it by chance."""
    failures = breaker.failures + 1
    if failures < CONNECT_FAILURES and not breaker.probing:
        return dataclasses.replace(breaker, failures=failures)
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**breaker.ejections) * (0.5 + random / 2)
    return Breaker(failures=failures, ejections=breaker.ejections + 1, ejected_until=now + pause)


def probe_started(breaker: Breaker) -> Breaker:
    return dataclasses.replace(breaker, probing=True)


def probe_abandoned(breaker: Breaker) -> Breaker:
    """The request that probed ended without telling anything about the endpoint."""
    return dataclasses.replace(breaker, probing=False)


def is_ejected(breaker: Breaker, now: float) -> bool:
    return breaker.probing or breaker.ejected_until > now


def eligible(breakers: Sequence[Breaker], now: float) -> list[int]:
    """Indexes of the endpoints of one deployment that may be chosen.

    Never more than half of them are left out: where more are ejected, those whose pause ends first come back early, because
    a fault that hits most endpoints is rarely theirs.
    """
    ejected = [index for index, breaker in enumerate(breakers) if is_ejected(breaker, now)]
    allowed = len(breakers) // 2
    if len(ejected) > allowed:
        ejected.sort(key=lambda index: (breakers[index].ejected_until, index), reverse=True)
        ejected = ejected[:allowed]
    left_out = frozenset(ejected)
    return [index for index in range(len(breakers)) if index not in left_out]


def least_outstanding(loads: Sequence[int], random: float) -> int:
    """Index of the endpoint with the fewest requests in flight; chance decides between equals. `loads` is not empty."""
    lowest = min(loads)
    equals = loads.count(lowest)
    if equals == 1:
        return loads.index(lowest)
    place = int(random * equals)
    index = -1
    for _ in range(place + 1):
        index = loads.index(lowest, index + 1)
    return index
