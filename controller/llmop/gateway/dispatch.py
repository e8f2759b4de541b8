"""Who of those that wait goes where, and who is sent away: the queues of all deployments, and the room at their endpoints.

One of these stands for a whole gateway: in its only process, or in the parent of its workers. Times are arguments, seconds of one monotonic
clock; nothing is awaited here.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Hashable, Mapping

from llmop.domain.endpoint import QueueBounds
from llmop.gateway.queue import Queue, Ticket

# How many of those that wait a new endpoint gets at first, twice as many every second: with their first requests engines compile kernels and
# fill caches.
FIRST_WINDOW = 8
DOUBTFUL_PAUSE = 1.0  # seconds for which one that could not be reached gets nothing; then one request at a time, until that reaches it
_LONGEST_RAMP = 20.0  # seconds after which there is no such bound
_SMOOTHING = 0.1
_LONGEST_RETRY = 60


class Dropped(enum.StrEnum):
    """Why a request was sent away, in the metrics and in the header `x-llmop-dropped-reason`."""

    NO_ENDPOINT = "no_endpoint"  # there is none, and such requests do not wait
    SATURATED = "saturated"  # all are full, and such requests do not wait
    QUEUE_FULL = "queue_full"
    TTL_EXPIRED = "ttl_expired"
    SHUTTING_DOWN = "shutting_down"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A deployment as the table has it. `loads` gives the requests at each endpoint, by the endpoint's uid."""

    bounds: QueueBounds
    max_in_flight: int
    loads: Mapping[str, Callable[[], int]]


class _Seat:
    """An endpoint. `granted` counts requests that were released to it and do not show in its load yet; `since` is when its ramp begins."""

    __slots__ = ("granted", "is_doubtful", "load", "since")

    def __init__(self, load: Callable[[], int], since: float = -math.inf) -> None:
        self.load = load
        self.granted = 0
        self.since = since
        self.is_doubtful = False

    def room(self, most: int, now: float) -> float:
        """How many more it takes; 0 or less is none."""
        return min(most or math.inf, self._ramp(now)) - self.load() - self.granted

    def _ramp(self, now: float) -> float:
        age = now - self.since
        if age < 0:
            return 0
        if self.is_doubtful:
            return 1
        return math.inf if age > _LONGEST_RAMP else math.floor(FIRST_WINDOW * 2.0**age)


class _Line:
    """One deployment. `endpoints_since` is None while it has no endpoint."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = Queue()
        self.bounds = QueueBounds()
        self.max_in_flight = 0
        self.seats: dict[str, _Seat] = {}
        self.endpoints_since: float | None = None
        self.unserved = 0
        self.is_busy = False  # its requests are being released
        self._released_at: float | None = None
        self._gap = 0.0  # seconds between two releases, of late

    def best(self, now: float) -> str | None:
        """The endpoint with the most room; of those without bounds the one with the fewest requests."""
        chosen, least = None, (0.0, math.inf)
        for uid, seat in self.seats.items():
            room = seat.room(self.max_in_flight, now)
            if room > 0 and (key := (-room, seat.load() + seat.granted)) < least:
                chosen, least = uid, key
        return chosen

    def released(self, now: float) -> None:
        if self._released_at is not None:
            self._gap += _SMOOTHING * (now - self._released_at - self._gap)
        self._released_at = now

    def retry_after(self) -> int:
        """Seconds until those that wait now will be through, at the pace of late."""
        return max(1, min(_LONGEST_RETRY, math.ceil(len(self.queue) * self._gap)))


class Dispatcher:
    """`release` and `refuse` are told what became of a ticket (`refuse` with the seconds after which it may go better), `publish` how many wait for a
    deployment now, `wake` that the controller should hear at once of somebody who waits where there is nobody.
    """

    def __init__(
        self,
        *,
        release: Callable[[Ticket, str], None],
        refuse: Callable[[Ticket, Dropped, int], None],
        publish: Callable[[str, int], None],
        wake: Callable[[], None],
    ) -> None:
        self._release = release
        self._refuse = refuse
        self._publish = publish
        self._wake = wake
        self._lines: dict[str, _Line] = {}
        self._where: dict[Hashable, _Line] = {}  # who waits
        self._granted: dict[Hashable, tuple[_Line, _Seat]] = {}

    @property
    def is_empty(self) -> bool:
        """Nobody waits."""
        return not self._where

    def apply(self, places: Mapping[str, Place], now: float) -> None:
        """Another table is in force."""
        gone = [name for name in self._lines if name not in places]
        for name in gone:
            line = self._lines.pop(name)
            for ticket in line.queue:
                line.queue.remove(ticket.number)
                self._drop(line, ticket, Dropped.NO_ENDPOINT)
            self._publish(name, 0)
        for name, place in places.items():
            line = self._lines.setdefault(name, _Line(name))
            line.bounds = place.bounds
            line.max_in_flight = place.max_in_flight
            before = line.seats
            line.seats = {}
            for uid, load in place.loads.items():
                seat = line.seats[uid] = before.get(uid) or (
                    _Seat(load, since=now) if line.queue else _Seat(load)
                )
                seat.load = load
            if not line.seats:
                line.endpoints_since = None
            elif line.endpoints_since is None:
                line.endpoints_since = now
            line.queue.look_again()
            self._dispatch(line, now)

    def enter(self, deployment: str, ticket: Ticket, now: float, *, again: bool = False) -> None:
        """What comes of it is told, at once where that can be. `again`: it was released, and could not be served there."""
        line = self._lines.get(deployment)
        if line is None:
            self._refuse(ticket, Dropped.NO_ENDPOINT, 0)
            return
        if not line.queue and (uid := line.best(now)) is not None:
            self._grant(line, ticket, uid, now)
            return
        dropped = None if again else self._objection(line, ticket)
        if dropped is Dropped.QUEUE_FULL and (other := line.queue.gives_way(ticket, line.bounds)) is not None:
            line.queue.remove(other.number)
            self._drop(line, other, Dropped.QUEUE_FULL)
            dropped = None
        if dropped is None:
            line.queue.push(ticket, line.bounds)
            self._where[ticket.number] = line
            self._publish(deployment, len(line.queue))
            first = len(line.queue) == 1
        else:
            self._drop(line, ticket, dropped)
            first = True
        if first and not line.seats:
            self._wake()

    def _objection(self, line: _Line, ticket: Ticket) -> Dropped | None:
        bounds = line.bounds
        held = bounds.request_ttl_s if line.seats else bounds.no_endpoint_request_ttl_s
        if not held or not bounds.max_requests:
            return Dropped.SATURATED if line.seats else Dropped.NO_ENDPOINT
        return None if line.queue.takes(ticket, bounds) else Dropped.QUEUE_FULL

    def leave(self, number: Hashable, now: float) -> None:
        """Its client is gone."""
        line = self._where.pop(number, None)
        if line is not None:
            line.queue.remove(number)
            self._publish(line.name, len(line.queue))
            return
        granted = self._granted.get(number)
        if granted is not None:
            self.begun(number)
            self._dispatch(granted[0], now)

    def begun(self, number: Hashable) -> None:
        """It was released and shows in the load of an endpoint now, or will never."""
        granted = self._granted.pop(number, None)
        if granted is not None:
            granted[1].granted -= 1

    def failed(self, deployment: str, uid: str, now: float) -> None:
        """An endpoint could not be reached."""
        line = self._lines.get(deployment)
        if line is not None and (seat := line.seats.get(uid)) is not None:
            seat.since = now + DOUBTFUL_PAUSE
            seat.is_doubtful = True

    def reached(self, deployment: str, uid: str, now: float) -> None:
        """It could."""
        line = self._lines.get(deployment)
        if line is not None and (seat := line.seats.get(uid)) is not None and seat.is_doubtful:
            seat.since = now
            seat.is_doubtful = False
            self._dispatch(line, now)

    def freed(self, deployment: str, now: float) -> None:
        """A request has ended at an endpoint of it."""
        line = self._lines.get(deployment)
        if line is not None:
            self._dispatch(line, now)

    def tick(self, now: float) -> None:
        """What time alone changes: due every tenth of a second or so while somebody waits."""
        for name, line in list(self._lines.items()):
            if not line.queue:
                continue
            for ticket in line.queue.expire(line.bounds, line.endpoints_since, now):
                self._drop(line, ticket, Dropped.TTL_EXPIRED)
            self._publish(name, len(line.queue))
            self._dispatch(line, now)

    def queued(self) -> dict[str, int]:
        """Who waits, by deployment."""
        return {name: len(line.queue) for name, line in self._lines.items()}

    def unserved(self) -> dict[str, int]:
        """Who was sent away since `reported`, by deployment."""
        return {name: line.unserved for name, line in self._lines.items()}

    def reported(self, unserved: Mapping[str, int]) -> None:
        """The controller knows of these."""
        for name, number in unserved.items():
            if name in self._lines:
                self._lines[name].unserved -= number

    def _dispatch(self, line: _Line, now: float) -> None:
        if line.is_busy or not line.queue:
            return
        line.is_busy = True
        try:
            while line.queue and (uid := line.best(now)) is not None:
                ticket = line.queue.pop()
                assert ticket is not None
                del self._where[ticket.number]
                self._publish(line.name, len(line.queue))
                self._grant(line, ticket, uid, now)
        finally:
            line.is_busy = False

    def _grant(self, line: _Line, ticket: Ticket, uid: str, now: float) -> None:
        seat = line.seats[uid]
        seat.granted += 1
        self._granted[ticket.number] = (line, seat)
        line.released(now)
        self._release(ticket, uid)

    def _drop(self, line: _Line, ticket: Ticket, why: Dropped) -> None:
        self._where.pop(ticket.number, None)
        line.unserved += 1
        self._refuse(ticket, why, line.retry_after())
