"""Limits of keys at work: what a request is to take is reserved when it is admitted, and settled when it ends.

What a key has used is counted in memory that the processes of a gateway share, by numbers with one writer each, as requests at endpoints
are (`cells`). So every process sees what all have spent, and nobody has to be asked.
"""

import dataclasses
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from llmop.domain.client import ClientKey, Limits
from llmop.gateway import limits
from llmop.gateway.cells import ACCOUNT_NUMBERS, NO_SLOT, SLOTS, Cells
from llmop.gateway.limits import Bucket, Lengths

_NUMBER: Final = "q"
REQUESTS, TOKENS, IN_FLIGHT = range(ACCOUNT_NUMBERS)
_STRIDE: Final = SLOTS * ACCOUNT_NUMBERS


class Board:
    """The accounts of all keys in shared memory: a row of `SLOTS` per process."""

    def __init__(self, cells: Cells) -> None:
        self._view = cells.accounts

    def account(self, row: int, slot: int) -> "Account":
        return Account(self._view, slot * ACCOUNT_NUMBERS, row * _STRIDE + slot * ACCOUNT_NUMBERS)

    def in_flight(self, slot: int) -> int:
        return sum(self._view[slot * ACCOUNT_NUMBERS + IN_FLIGHT :: _STRIDE])

    def clear(self, row: int) -> None:
        """The process is dead: its requests are gone. What they spent stays spent."""
        start = row * _STRIDE
        for place in range(start + IN_FLIGHT, start + _STRIDE, ACCOUNT_NUMBERS):
            self._view[place] = 0


class Account:
    """What one key has used: this process's numbers, and everybody's sums."""

    __slots__ = ("_all", "_own", "_view")

    def __init__(self, view: memoryview, everybody: int, own: int) -> None:
        self._view = view
        self._all = everybody
        self._own = own

    @classmethod
    def alone(cls) -> "Account":
        return cls(memoryview(bytearray(ACCOUNT_NUMBERS * struct.calcsize(_NUMBER))).cast(_NUMBER), 0, 0)

    def total(self, field: int) -> int:
        return sum(self._view[self._all + field :: _STRIDE])

    def add(self, field: int, number: int) -> None:
        self._view[self._own + field] += number


@dataclasses.dataclass(slots=True)
class _Meter:
    account: Account
    slot: int
    key: ClientKey
    requests: Bucket
    tokens: Bucket


class Exceeded(NamedTuple):
    """`limit` is one of `metrics.LIMITS`, `wait` is in seconds; with `shadow` the request is admitted all the same, and not counted: one that
    were refused would use nothing.
    """

    limit: str
    wait: float
    shadow: bool


class Reservation:
    """What an admitted request holds of its key's limits, until `settle`."""

    __slots__ = ("_account", "_tokens")

    def __init__(self, account: Account, tokens: int) -> None:
        self._account = account
        self._tokens = tokens
        account.add(REQUESTS, 1)
        account.add(IN_FLIGHT, 1)
        account.add(TOKENS, tokens)

    def settle(self, tokens: int) -> None:
        """Once, with what it took."""
        self._account.add(IN_FLIGHT, -1)
        self._account.add(TOKENS, tokens - self._tokens)


class Limiter:
    """Of one process. Keys without limits are not known here."""

    def __init__(self, board: Board | None = None, row: int = 0) -> None:
        """Without a board this process is the only one."""
        self._board = board
        self._row = row
        self._meters: dict[str, _Meter] = {}
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
                account = self._account(slot)
                meter = _Meter(account, slot, key, *_full(key.limits, account, now))
            else:
                _change(meter, key, now)
            self._meters[key.name] = meter

    def _account(self, slot: int) -> Account:
        if self._board is None or slot == NO_SLOT:
            return Account.alone()
        return self._board.account(self._row, slot)

    def keep_up(self, now: float) -> None:
        """About once a second: a bucket is never fuller than a minute's worth, so what came in has to be known before what others spend
        later is taken out.
        """
        if self._board is not None:
            for meter in self._meters.values():
                _look(meter, now)

    def reserve(
        self, key: ClientKey, body: bytes, lengths: Lengths, now: float, *, generates: bool
    ) -> Reservation | Exceeded | None:
        """None for a request that is not counted."""
        meter = self._meters.get(key.name)
        if meter is None:
            return None
        tokens = limits.need(body, lengths.p90()) if generates and key.limits.tokens_per_minute else 0
        return _exceeded(meter, tokens, now) or Reservation(meter.account, tokens)


def _full(of: Limits, account: Account, now: float) -> tuple[Bucket, Bucket]:
    return (
        limits.full(of.requests_per_minute, account.total(REQUESTS), now),
        limits.full(of.tokens_per_minute, account.total(TOKENS), now),
    )


def _change(meter: _Meter, key: ClientKey, now: float) -> None:
    old, new = meter.key.limits, key.limits
    requests, tokens = _full(new, meter.account, now)
    if new.requests_per_minute != old.requests_per_minute:
        meter.requests = requests
    if new.tokens_per_minute != old.tokens_per_minute:
        meter.tokens = tokens
    meter.key = key


def _look(meter: _Meter, now: float) -> None:
    of, account = meter.key.limits, meter.account
    if of.requests_per_minute:
        meter.requests = limits.look(meter.requests, of.requests_per_minute, account.total(REQUESTS), now)
    if of.tokens_per_minute:
        meter.tokens = limits.look(meter.tokens, of.tokens_per_minute, account.total(TOKENS), now)


def _exceeded(meter: _Meter, tokens: int, now: float) -> Exceeded | None:
    _look(meter, now)
    of, shadow = meter.key.limits, meter.key.shadow
    if of.requests_per_minute and (wait := limits.wait(meter.requests, of.requests_per_minute, 1)) > 0:
        return Exceeded("requests", wait, shadow)
    if of.tokens_per_minute and tokens:
        wait = limits.wait(meter.tokens, of.tokens_per_minute, tokens)
        if wait > 0:
            return Exceeded("tokens", wait, shadow)
    if of.parallel_requests and meter.account.total(IN_FLIGHT) >= of.parallel_requests:
        return Exceeded("parallel", 1.0, shadow)
    return None
