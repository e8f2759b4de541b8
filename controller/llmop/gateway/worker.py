"""What all connections of a gateway process share."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Protocol

from llmop.clock import Clock
from llmop.domain.client import ClientKey
from llmop.gateway.bill import Bill
from llmop.gateway.desk import Desk
from llmop.gateway.faults import Faults
from llmop.gateway.fleet import Fleet, ModelRoute
from llmop.gateway.keys import KeyRing
from llmop.gateway.limiter import Limiter
from llmop.gateway.metrics import Counts
from llmop.gateway.retry import Budget
from llmop.gateway.settings import Timeouts
from llmop.gateway.tally import Accounts


class Swept(Protocol):
    """A client connection, looked at once a second so that no timer has to be set per request."""

    @property
    def is_answering(self) -> bool: ...

    def sweep(self, now: float) -> None: ...

    def abort(self) -> None: ...


@dataclasses.dataclass(kw_only=True, slots=True)
class Worker:
    """`random` gives numbers in [0, 1); `prefix` makes request ids unique over processes and restarts."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    random: Callable[[], float]
    fleet: Fleet
    desk: Desk
    keys: KeyRing
    limiter: Limiter
    accounts: Accounts
    counts: Counts
    faults: Faults
    timeouts: Timeouts
    body_limit: int
    prefix: bytes
    budget: Budget = dataclasses.field(default_factory=Budget)
    connections: set[Swept] = dataclasses.field(default_factory=set)
    requests: int = 0

    def request_id(self) -> bytes:
        self.requests += 1
        return b"%b-%x" % (self.prefix, self.requests)

    def bill(self, key: ClientKey, route: ModelRoute) -> Bill:
        """Made at the first request of this key for this model."""
        bill = route.bills[key.name] = Bill(
            key,
            route.model.name,
            counts=self.counts,
            of_model=route.counts,
            lengths=route.lengths,
            limiter=self.limiter,
            accounts=self.accounts,
        )
        return bill
