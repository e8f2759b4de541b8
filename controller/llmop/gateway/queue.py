"""Requests that wait for an endpoint of one deployment, and whose turn it is. Pure: times are arguments, seconds of one monotonic clock.

A higher priority goes first. Within a priority the keys of clients take turns, so that nobody waits behind a thousand requests of somebody else;
requests of one key go in the order of their deadlines.
"""

import enum
import heapq
import itertools
import math
from collections.abc import Hashable, Iterator

from llmop.domain.endpoint import QueueBounds


class Priority(enum.IntEnum):
    """Lower goes first."""

    SYSTEM = 0
    INTERACTIVE = 1
    DEFAULT = 2
    BULK = 3


class Ticket:
    """A request that waits. `number` names it, `owner` is whose key it came with, `size` is in bytes, `patience` are the seconds after its arrival
    for which the client cares to wait.
    """

    __slots__ = ("arrived_at", "number", "owner", "patience", "priority", "rank", "size", "waits")

    def __init__(
        self,
        number: Hashable,
        *,
        owner: str,
        priority: Priority,
        size: int,
        arrived_at: float,
        patience: float = math.inf,
    ) -> None:
        self.number = number
        self.owner = owner
        self.priority = priority
        self.size = size
        self.arrived_at = arrived_at
        self.patience = patience
        self.rank = 0.0
        self.waits = False


_FREE_BYTES = 4096


def cost(ticket: Ticket) -> float:
    """What a request takes of its owner's turn: one, and one more per 4 KiB, for long prompts are more work."""
    return 1.0 + ticket.size / _FREE_BYTES


class _Owner:
    """`served` is the virtual time up to which this key has had its share; `turn` the one at which it stands among the others, or None."""

    __slots__ = ("heap", "number", "served", "turn")

    def __init__(self, served: float) -> None:
        self.served = served
        self.turn: float | None = None
        self.heap: list[tuple[float, int, Ticket]] = []
        self.number = 0


_SPARE = 64  # entries of those that have left which are kept before they are swept out


class Band:
    """The requests of one priority. Every key has a virtual time that grows by the cost of what it was given; the lowest is next. One that comes
    back starts where the others are: what it did not use before is not saved up (start-time fair queueing, Goyal et al. 1996).
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}
        self._turns: list[tuple[float, int, _Owner]] = []
        self._passed = 0.0
        self._numbers = itertools.count()
        self.requests = 0
        self.bytes = 0

    def push(self, ticket: Ticket) -> None:
        owner = self._owners.get(ticket.owner)
        if owner is None:
            owner = self._owners[ticket.owner] = _Owner(self._passed)
        if not owner.number:
            owner.served = max(owner.served, self._passed)
        heapq.heappush(owner.heap, (ticket.rank, next(self._numbers), ticket))
        owner.number += 1
        self._line_up(owner)
        ticket.waits = True
        self.requests += 1
        self.bytes += ticket.size

    def pop(self) -> Ticket | None:
        while self._turns:
            turn, _, owner = heapq.heappop(self._turns)
            if turn != owner.turn:
                continue  # it stands elsewhere by now
            owner.turn = None
            if not owner.number:
                continue  # all of its requests have left
            ticket = self._first(owner)
            self._passed = max(self._passed, owner.served)
            owner.served += cost(ticket)
            self._leave(owner, ticket)
            self._line_up(owner)
            return ticket
        return None

    def remove(self, ticket: Ticket) -> None:
        """It does not wait any longer."""
        owner = self._owners[ticket.owner]
        self._leave(owner, ticket)
        if len(owner.heap) > 2 * owner.number + _SPARE:
            owner.heap = [entry for entry in owner.heap if entry[2].waits]
            heapq.heapify(owner.heap)

    def last_of_most(self, owner: str) -> Ticket | None:
        """The last request of the key with most requests here, where `owner` has at least two fewer: then taking one for the other levels them."""
        if not self._owners:
            return None
        most = max(self._owners.values(), key=lambda each: each.number)
        own = self._owners[owner].number if owner in self._owners else 0
        if most.number - own < 2:
            return None
        return max(entry for entry in most.heap if entry[2].waits)[2]

    def _line_up(self, owner: _Owner) -> None:
        if owner.number and owner.turn != owner.served:
            owner.turn = owner.served
            heapq.heappush(self._turns, (owner.served, next(self._numbers), owner))

    def _first(self, owner: _Owner) -> Ticket:
        while True:
            ticket = heapq.heappop(owner.heap)[2]
            if ticket.waits:
                return ticket

    def _leave(self, owner: _Owner, ticket: Ticket) -> None:
        """An owner without requests stays as long as others wait: it may have had more than its share. There are no more of them than keys."""
        ticket.waits = False
        owner.number -= 1
        self.requests -= 1
        self.bytes -= ticket.size
        if not self.requests:  # nobody is owed anything
            self._owners.clear()
            self._turns.clear()
            self._passed = 0.0


class Queue:
    """All that wait for one deployment."""

    def __init__(self) -> None:
        self._bands = {priority: Band() for priority in Priority}
        self._tickets: dict[Hashable, Ticket] = {}
        self._look_at = math.inf  # nothing expires before

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(tuple(self._tickets.values()))

    @property
    def bytes(self) -> int:
        return sum(band.bytes for band in self._bands.values())

    def takes(self, ticket: Ticket, bounds: QueueBounds) -> bool:
        """Whether the bounds let one more in."""
        band = self._bands[ticket.priority]
        return band.requests < bounds.max_requests and band.bytes + ticket.size <= bounds.max_bytes

    def gives_way(self, ticket: Ticket, bounds: QueueBounds) -> Ticket | None:
        """Whom to send away so that the bounds let this one in: nobody fills a queue for all other keys. None where that is not due."""
        band = self._bands[ticket.priority]
        other = band.last_of_most(ticket.owner)
        if (
            other is None
            or band.requests > bounds.max_requests
            or band.bytes - other.size + ticket.size > bounds.max_bytes
        ):
            return None
        return other

    def push(self, ticket: Ticket, bounds: QueueBounds) -> None:
        # Without the time to live of an empty deployment: who has waited for the first replica does not go behind those that came with it.
        ticket.rank = ticket.arrived_at + min(ticket.patience, bounds.request_ttl_s)
        self._bands[ticket.priority].push(ticket)
        self._tickets[ticket.number] = ticket
        least = min(ticket.patience, bounds.request_ttl_s, bounds.no_endpoint_request_ttl_s)
        self._look_at = min(self._look_at, ticket.arrived_at + least)

    def pop(self) -> Ticket | None:
        """Whose turn it is; it does not wait any longer."""
        for band in self._bands.values():
            ticket = band.pop()
            if ticket is not None:
                del self._tickets[ticket.number]
                return ticket
        return None

    def remove(self, number: Hashable) -> Ticket | None:
        """None where no such request waits."""
        ticket = self._tickets.pop(number, None)
        if ticket is not None:
            self._bands[ticket.priority].remove(ticket)
        return ticket

    def expire(self, bounds: QueueBounds, endpoints_since: float | None, now: float) -> list[Ticket]:
        """Takes out those whose time is over. `endpoints_since` is when the deployment got its first endpoint, None while it has none: who has
        waited for it has `request_ttl_s` from then.
        """
        if now < self._look_at:
            return []
        over = []
        self._look_at = math.inf
        for ticket in self:
            deadline = deadline_of(ticket, bounds, endpoints_since)
            if deadline <= now:
                self.remove(ticket.number)
                over.append(ticket)
            else:
                self._look_at = min(self._look_at, deadline)
        return over

    def look_again(self) -> None:
        """What decides about deadlines has changed."""
        self._look_at = -math.inf


def deadline_of(ticket: Ticket, bounds: QueueBounds, endpoints_since: float | None) -> float:
    until = ticket.arrived_at + ticket.patience
    if endpoints_since is None:
        return min(until, ticket.arrived_at + bounds.no_endpoint_request_ttl_s)
    return min(until, max(ticket.arrived_at, endpoints_since) + bounds.request_ttl_s)
