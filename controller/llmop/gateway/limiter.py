"""Limits of keys at work: what a request is to take is reserved when it is admitted, and settled when it ends.

What a key has used is counted in memory that the processes of a gateway share, by numbers with one writer each, as requests at endpoints
are (`cells`). So every process sees what all have spent, and nobody has to be asked.
"""

import math
import struct
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from llmop.domain.client import ClientKey, Limits
from llmop.gateway.cells import ACCOUNT_NUMBERS, NO_SLOT, SLOTS, Cells
from llmop.gateway.limits import Bucket

# Requests and tokens since the start, requests under way.
_NUMBERS: Final = struct.Struct(f"@{ACCOUNT_NUMBERS}q")
_REQUESTS, _TOKENS, _IN_FLIGHT = range(ACCOUNT_NUMBERS)
_ROW: Final = SLOTS * _NUMBERS.size
# Seconds for which it is known how much may be spent at least. A full bucket may thereby get what comes in in that time on top.
_SURE: Final = 0.02
_UNLIMITED: Final = sys.maxsize


class Account(NamedTuple):
    """Where the numbers of a key are: this process's, and the others'. Places are in bytes."""

    view: memoryview
    own: int
    others: tuple[int, ...]


class Board:
    """The accounts of all keys in shared memory: a row of `SLOTS` per process."""

    def __init__(self, cells: Cells) -> None:
        self._view = cells.accounts
        self._workers = range(
            self._view.nbytes // _ROW - 1
        )  # the last row is the parent's, which asks for nothing

    def account(self, row: int, slot: int) -> Account:
        place = slot * _NUMBERS.size
        others = tuple(other * _ROW + place for other in self._workers if other != row)
        return Account(self._view, row * _ROW + place, others)

    def in_flight(self, slot: int) -> int:
        return sum(self._view[slot * ACCOUNT_NUMBERS + _IN_FLIGHT :: SLOTS * ACCOUNT_NUMBERS])

    def clear(self, row: int) -> None:
        """The process is dead: its requests are gone. What they spent stays spent."""
        start = row * SLOTS * ACCOUNT_NUMBERS
        for place in range(start + _IN_FLIGHT, start + SLOTS * ACCOUNT_NUMBERS, ACCOUNT_NUMBERS):
            self._view[place] = 0


class Exceeded(NamedTuple):
    """`limit` is one of `metrics.LIMITS`, `wait` is in seconds; with `shadow` the request is admitted all the same, and not counted: one that
    were refused would use nothing.
    """

    limit: str
    wait: float
    shadow: bool


class Meter:
    """What one key may use, and what it has used. Nobody else writes the numbers of this process, so they are kept here too and only
    written to the memory that the others read.
    """

    __slots__ = (
        "_in_flight",
        "_others",
        "_own",
        "_parallel",
        "_requests",
        "_requests_left",
        "_requests_to",
        "_shadow",
        "_sure_until",
        "_tokens",
        "_tokens_left",
        "_tokens_to",
        "_view",
        "most_tokens",
        "slot",
    )

    def __init__(self, key: ClientKey, slot: int, account: Account | None, now: float) -> None:
        """Without an account this process is the only one."""
        self.slot = slot
        self._view: memoryview | None = None
        self._own = 0
        self._others: tuple[int, ...] = ()
        if account is not None:
            self._view, self._own, self._others = account
        self._requests, self._tokens, self._in_flight = (
            (0, 0, 0) if self._view is None else _NUMBERS.unpack_from(self._view, self._own)
        )
        requests, tokens, _ = self._totals()
        self._requests_left = Bucket(key.limits.requests_per_minute, requests, now)
        self._tokens_left = Bucket(key.limits.tokens_per_minute, tokens, now)
        self.change(key, now)

    def change(self, key: ClientKey, now: float) -> None:
        """A bucket whose limit is the same stays as it is."""
        requests, tokens, _ = self._totals()
        if key.limits.requests_per_minute != self._requests_left.limit:
            self._requests_left = Bucket(key.limits.requests_per_minute, requests, now)
        if key.limits.tokens_per_minute != self._tokens_left.limit:
            self._tokens_left = Bucket(key.limits.tokens_per_minute, tokens, now)
        # 0: they are not counted. No request holds more than a minute's worth: one that claims to need a billion would lock the others out.
        self.most_tokens = key.limits.tokens_per_minute
        self._parallel = key.limits.parallel_requests or _UNLIMITED
        self._shadow = key.shadow
        self._sure_until = -math.inf

    def _totals(self) -> tuple[int, int, int]:
        """Of all processes."""
        requests, tokens, in_flight = self._requests, self._tokens, self._in_flight
        if self._view is not None:
            for place in self._others:
                numbers = _NUMBERS.unpack_from(self._view, place)
                requests += numbers[_REQUESTS]
                tokens += numbers[_TOKENS]
                in_flight += numbers[_IN_FLIGHT]
        return requests, tokens, in_flight

    def look(self, now: float) -> None:
        requests, tokens, _ = self._totals()
        self._look(requests, tokens, now)

    def _look(self, requests: int, tokens: int, now: float) -> None:
        """Works out how much may be spent before it has to be looked again; that what comes in meanwhile is not counted harms nobody."""
        self._sure_until = now + _SURE
        buckets = self._requests_left, self._tokens_left
        # Whole numbers, for those are what they are compared with at every request: with others that takes three times as long.
        self._requests_to = (
            requests + math.floor(buckets[0].look(requests, now)) if buckets[0].limit else _UNLIMITED
        )
        self._tokens_to = (
            tokens + math.floor(buckets[1].look(tokens, now)) if buckets[1].limit else _UNLIMITED
        )

    def reserve(self, tokens: int, now: float) -> Exceeded | None:
        """None: an admitted request holds this much, until it is settled."""
        if self._others:
            requests, spent, in_flight = self._totals()
        else:
            requests, spent, in_flight = self._requests, self._tokens, self._in_flight
        if (
            now >= self._sure_until
            or requests + 1 > self._requests_to
            or spent + tokens > self._tokens_to
            or in_flight >= self._parallel
        ) and (exceeded := self._exceeded(requests, spent, in_flight, tokens, now)) is not None:
            return exceeded
        self._requests += 1
        self._tokens += tokens
        self._in_flight += 1
        if self._view is not None:
            _NUMBERS.pack_into(self._view, self._own, self._requests, self._tokens, self._in_flight)
        return None

    def settle(self, reserved: int, used: int) -> None:
        """Once for an admitted request: what it held becomes what it took."""
        self._tokens += used - reserved
        self._in_flight -= 1
        if self._view is not None:
            _NUMBERS.pack_into(self._view, self._own, self._requests, self._tokens, self._in_flight)

    def _exceeded(
        self, requests: int, spent: int, in_flight: int, tokens: int, now: float
    ) -> Exceeded | None:
        self._look(requests, spent, now)
        if self._requests_left.limit and (wait := self._requests_left.wait(1)) > 0:
            return Exceeded("requests", wait, self._shadow)
        if self.most_tokens and tokens and (wait := self._tokens_left.wait(tokens)) > 0:
            return Exceeded("tokens", wait, self._shadow)
        if in_flight >= self._parallel:
            return Exceeded("parallel", 1.0, self._shadow)
        return None


class Limiter:
    """Of one process. Keys without limits are not known here."""

    def __init__(self, board: Board | None = None, row: int = 0) -> None:
        """Without a board this process is the only one."""
        self._board = board
        self._row = row
        self._meters: dict[str, Meter] = {}
        self.slots: Mapping[str, int] = {}  # places of keys on the board, from the parent

    def grant(self, keys: tuple[ClientKey, ...], now: float) -> None:
        """Instead of those before. A bucket whose limit is the same stays as it is."""
        before, self._meters = self._meters, {}
        for key in keys:
            if key.limits == Limits():
                continue
            slot = self.slots.get(key.name, NO_SLOT)
            meter = before.get(key.name)
            if meter is None or meter.slot != slot:
                meter = Meter(key, slot, self._account(slot), now)
            else:
                meter.change(key, now)
            self._meters[key.name] = meter

    def _account(self, slot: int) -> Account | None:
        if self._board is None or slot == NO_SLOT:
            return None
        return self._board.account(self._row, slot)

    def keep_up(self, now: float) -> None:
        """About once a second: a bucket is never fuller than a minute's worth, so what came in has to be known before what others spend
        later is taken out.
        """
        if self._board is not None:
            for meter in self._meters.values():
                meter.look(now)

    def meter(self, key: str) -> Meter | None:
        """None for a key without limits. The next `grant` may bring another one; what was reserved from this is settled with it."""
        return self._meters.get(key)
