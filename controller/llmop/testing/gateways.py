"""The gateways of a simulation, and how tables of endpoints come to them."""

import functools
import random
from collections.abc import Callable

from llmop.domain import endpoint
from llmop.testing import leaders

GATEWAYS = 2


class Gateway:
    """Routes by the last table that it has seen. Cut off, it goes on with that one and is not heard."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = endpoint.EndpointTable(version=0)
        self.is_cut = False
        self.is_pulling = False

    def is_behind(self, leader: "leaders.Leader | None") -> bool:
        """There is a newer table, which it has not got yet: after a cut it takes a moment."""
        return leader is not None and leader.reconciler.book.table().version > self.table.version

    def routed(self) -> dict[str, endpoint.Endpoint]:
        """By replica uid: what it chooses for new requests."""
        return {
            each.uid: each
            for each in self.table.endpoints
            if each.state is not endpoint.EndpointState.DRAINING
        }


class Tables:
    """Brings tables to `gateways` from the controller that `leading` says leads now. `after` is virtual time; `routes` hears of a gateway that has
    a new table, and of what it chose from before.
    """

    def __init__(
        self,
        source: random.Random,
        leading: Callable[[], leaders.Leader | None],
        after: Callable[[float, Callable[[], None]], None],
        routes: Callable[[Gateway, dict[str, endpoint.Endpoint]], None],
    ) -> None:
        self.gateways = [Gateway(f"gateway-{number}") for number in range(GATEWAYS)]
        self._source = source
        self._after = after
        self._routes = routes
        self._leading = leading

    def acknowledge(self, leader: leaders.Leader) -> None:
        """Every gateway that can be heard has reported within the last second."""
        for gateway in self.gateways:
            if not gateway.is_cut:
                leader.reconciler.book.acknowledge(gateway.name, gateway.table.version)

    def move(self) -> None:
        leader = self._leading()
        if leader is None:
            return
        version = leader.reconciler.book.table().version
        self._pull(self.gateways[0])  # the quickest one sees every version
        for gateway in self.gateways[1:]:
            if version != gateway.table.version and not gateway.is_pulling and not gateway.is_cut:
                gateway.is_pulling = True
                self._after(self._source.uniform(0.01, 0.8), functools.partial(self._pull, gateway))

    def _pull(self, gateway: Gateway) -> None:
        gateway.is_pulling = False
        leader = self._leading()
        if leader is None or gateway.is_cut:
            return
        table = leader.reconciler.book.table()
        if table.version <= gateway.table.version:
            return
        before, gateway.table = gateway.routed(), table
        self._routes(gateway, before)
        leader.reconciler.book.acknowledge(gateway.name, table.version)
