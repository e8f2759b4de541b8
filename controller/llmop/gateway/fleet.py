"""What the gateway knows of models and endpoints while it runs: the table in force, load and health of each endpoint."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmop.domain.client import ClientKey
from llmop.domain.endpoint import Endpoint, EndpointState, QueueBounds, RoutedModel
from llmop.gateway import routing
from llmop.gateway.bill import Bill
from llmop.gateway.cells import NO_SLOT, Row
from llmop.gateway.limits import Lengths
from llmop.gateway.metrics import Counts, ModelCounts
from llmop.gateway.pool import Closing, Pool
from llmop.gateway.table import ReceivedTable, replaces

LOG = logging.getLogger(__name__)

EndpointKey = tuple[str, str, int, str]

# What answers for all virtual models. It is not in the table: a gateway knows the way by itself.
_WORKLOADS = Endpoint(
    replica="workloads",
    uid="workloads",
    host="workloads",
    port=80,
    api_key="",
    state=EndpointState.READY,
    deployment="workloads",
)


class Upstream:
    """An endpoint at work. `head` holds the lines of a request's head that are the endpoint's own, `tail` ends the head of an answer, from
    the value of the request's id on.
    """

    __slots__ = ("_row", "_slot", "breaker", "endpoint", "head", "in_flight", "pool", "tail")

    def __init__(self, endpoint: Endpoint, pool: Pool, row: Row | None = None, slot: int = NO_SLOT) -> None:
        """With a row of shared memory, other processes' requests count too. Raises ValueError for values that cannot stand in a head."""
        self.endpoint = endpoint
        self.pool = pool
        self._row = None if slot == NO_SLOT else row
        self._slot = slot
        self.in_flight = 0
        self.breaker = routing.CLOSED
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        lines = f"host: {host}:{endpoint.port}\r\n"
        if endpoint.api_key:
            lines += f"authorization: Bearer {endpoint.api_key}\r\n"
        if not all(value.isprintable() for value in (endpoint.host, endpoint.api_key, endpoint.replica)):
            raise ValueError(f'endpoint of replica "{endpoint.replica!a}" holds control characters')
        self.head = lines.encode("latin-1")
        self.tail = b"\r\nx-llmop-replica: " + endpoint.replica.encode("latin-1") + b"\r\n\r\n"

    def begin(self) -> None:
        self.in_flight += 1
        if self._row is not None:
            self._row.put(self._slot, self.in_flight)

    def end(self) -> None:
        self.in_flight -= 1
        if self._row is not None:
            self._row.put(self._slot, self.in_flight)

    def load(self) -> int:
        """Requests in flight, of all processes of this gateway."""
        return self.in_flight if self._row is None else self._row.total(self._slot)


class Waiters:
    """How many requests wait for a deployment: while there are any, a new one does not pass them."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class SharedWaiters:
    """The same, as the parent process tells it to all of its workers."""

    __slots__ = ("_row", "_slot")

    def __init__(self, row: Row, slot: int) -> None:
        self._row = row
        self._slot = slot

    @property
    def number(self) -> int:
        return self._row.parents(self._slot)


class Deployment:
    """`upstreams` are those that may get something new; `troubled` says that the breaker of one of them is not closed."""

    __slots__ = ("bounds", "max_in_flight", "name", "troubled", "upstreams", "waiters")

    def __init__(self, name: str, waiters: Waiters | SharedWaiters) -> None:
        self.name = name
        self.waiters = waiters
        self.upstreams: list[Upstream] = []
        self.troubled = False
        self.max_in_flight = 0
        self.bounds = QueueBounds()

    def choose(self, tried: Sequence[Upstream], now: float, random: Callable[[], float]) -> Upstream | None:
        """Takes the choice of `routing` among those not tried yet; None where there is none, or all are full. `random` gives a number in [0, 1)."""
        candidates = self.upstreams
        if self.troubled:
            breakers = [upstream.breaker for upstream in candidates]
            candidates = [candidates[index] for index in routing.eligible(breakers, now)]
        if tried:
            candidates = [upstream for upstream in candidates if upstream not in tried]
        if not candidates:
            return None
        most = self.max_in_flight
        if len(candidates) == 1:
            chosen = candidates[0]
            if most and chosen.load() >= most:
                return None
            if chosen.breaker is routing.CLOSED:
                return chosen
        else:
            loads = [upstream.load() for upstream in candidates]
            index = routing.least_outstanding(loads, random())
            if most and loads[index] >= most:
                return None
            chosen = candidates[index]
        return _taken(chosen)

    def named(
        self, uid: str, tried: Sequence[Upstream], now: float, random: Callable[[], float]
    ) -> Upstream | None:
        """The endpoint that whoever dispatches has named; another one where it was tried already and there is one with room."""
        found = next((upstream for upstream in self.upstreams if upstream.endpoint.uid == uid), None)
        if found is None:
            return None
        return (self.choose(tried, now, random) if found in tried else None) or _taken(found)

    def is_full(self, tried: Sequence[Upstream]) -> bool:
        """Whether there are endpoints not tried yet: after `choose` found none, they are full."""
        return any(upstream not in tried for upstream in self.upstreams)

    def has_other(self, tried: Sequence[Upstream], now: float) -> bool:
        breakers = [upstream.breaker for upstream in self.upstreams]
        return any(self.upstreams[index] not in tried for index in routing.eligible(breakers, now))

    def look_again(self) -> None:
        self.troubled = any(upstream.breaker is not routing.CLOSED for upstream in self.upstreams)


def _taken(upstream: Upstream) -> Upstream:
    if upstream.breaker.ejected_until and not upstream.breaker.probing:
        upstream.breaker = routing.probe_started(upstream.breaker)
    return upstream


class ModelRoute:
    """`bills` has one for each client's key, by its name, once it has asked for this model."""

    __slots__ = ("bills", "counts", "deployment", "lengths", "model")

    def __init__(
        self, model: RoutedModel, deployment: Deployment, counts: ModelCounts, lengths: Lengths
    ) -> None:
        self.model = model
        self.deployment = deployment
        self.counts = counts
        self.lengths = lengths
        self.bills: dict[str, Bill] = {}


class Fleet:
    """`models` is what requests are checked against; `routes` has the same names."""

    def __init__(
        self,
        counts: Counts,
        loop: asyncio.AbstractEventLoop,
        row: Row | None = None,
        workloads: Path | None = None,
    ) -> None:
        """`row` is this process's part of the memory that it shares with the gateway's other processes; `workloads` is the socket of
        what answers for virtual models.
        """
        self._counts = counts
        self._loop = loop
        self._row = row
        self._upstreams: dict[EndpointKey, Upstream] = {}
        self._workloads = workloads
        self._closing = Closing()
        self.received: ReceivedTable | None = None
        self.models: dict[str, RoutedModel] = {}
        self.routes: dict[str, ModelRoute] = {}
        self.deployments: dict[str, Deployment] = {}
        self._waiters: dict[str, Waiters] = {}
        self.followers: list[
            Callable[[ReceivedTable], None]
        ] = []  # told of every table that comes into force
        self._views: dict[tuple[str, ...], dict[str, RoutedModel]] = {}
        self._known_lengths: dict[str, Lengths] = {}

    def models_for(self, key: ClientKey) -> dict[str, RoutedModel]:
        """Those that exist for a client: a key that names models knows no others."""
        if not key.models:
            return self.models
        view = self._views.get(key.models)
        if view is None:
            view = {name: self.models[name] for name in key.models if name in self.models}
            self._views[key.models] = view
        return view

    def _lengths(self, model: str) -> Lengths:
        return self._known_lengths.get(model) or Lengths()

    def apply(
        self, received: ReceivedTable, slots: Sequence[int] = (), queues: Mapping[str, int] | None = None
    ) -> bool:
        """Puts a table in force, unless it is older than the one that is. Endpoints that may get nothing new lose their idle
        connections here; `settled` says when those are gone. `slots` has a place in shared memory per endpoint, if there is such,
        `queues` one per deployment.
        """
        if not replaces(received, self.received):
            LOG.warning(
                "table version %d ignored: version %d is in force",
                received.table.version,
                self.received.table.version if self.received else -1,
            )
            return False
        self.received = received
        self._counts.keep(model.name for model in received.table.models)
        before = self._upstreams
        self._upstreams = {}
        deployments: dict[str, Deployment] = {}
        for model in received.table.models:
            deployment = deployments.setdefault(
                model.deployment, Deployment(model.deployment, self._waiters_of(model.deployment, queues))
            )
            deployment.max_in_flight = model.max_in_flight
            deployment.bounds = model.queue
            if model.virtual and self._workloads is not None:
                upstream = self._upstream(_WORKLOADS, NO_SLOT, before, self._workloads)
                deployment.upstreams = [] if upstream is None else [upstream]
        for number, endpoint in enumerate(received.table.endpoints):
            upstream = self._upstream(endpoint, slots[number] if slots else NO_SLOT, before)
            if upstream is not None and not upstream.pool.draining:
                name = endpoint.deployment
                deployments.setdefault(name, Deployment(name, self._waiters_of(name, queues)))
                deployments[name].upstreams.append(upstream)
        for upstream in before.values():
            upstream.pool.draining = True
            upstream.pool.close_idle()
        for deployment in deployments.values():
            deployment.look_again()
        for name in self.routes.keys() - {model.name for model in received.table.models}:
            # A request between two attempts has nothing newer to look at; what drains would be connected to again and again.
            self.routes[name].deployment.upstreams = []
        self.deployments = deployments
        self._waiters = {name: one for name, one in self._waiters.items() if name in deployments}
        self.models = {model.name: model for model in received.table.models}
        self.routes = {
            name: ModelRoute(
                model, deployments[model.deployment], self._counts.models[name], self._lengths(name)
            )
            for name, model in self.models.items()
        }
        self._known_lengths = {name: route.lengths for name, route in self.routes.items()}
        self._views.clear()
        for follow in self.followers:
            follow(received)
        return True

    def waiters(self, deployment: str) -> Waiters:
        """Those of this process."""
        return self._waiters.setdefault(deployment, Waiters())

    def _waiters_of(self, deployment: str, queues: Mapping[str, int] | None) -> Waiters | SharedWaiters:
        slot = NO_SLOT if queues is None else queues.get(deployment, NO_SLOT)
        if self._row is None or slot == NO_SLOT:
            return self.waiters(deployment)
        return SharedWaiters(self._row, slot)

    def _upstream(
        self, endpoint: Endpoint, slot: int, before: dict[EndpointKey, Upstream], path: Path | None = None
    ) -> Upstream | None:
        key = (endpoint.uid, endpoint.host, endpoint.port, endpoint.api_key)
        upstream = before.pop(key, None) or self._upstreams.get(key)
        if upstream is None:
            pool = Pool(endpoint.host, endpoint.port, self._loop, self._closing, path)
            try:
                upstream = Upstream(endpoint, pool, self._row, slot)
            except ValueError as error:
                LOG.error("not routed: %s", error)
                return None
        self._upstreams[key] = upstream
        upstream.endpoint = endpoint
        upstream.pool.draining = endpoint.state is EndpointState.DRAINING
        if upstream.pool.draining:
            upstream.pool.close_idle()
        return upstream

    async def settled(self) -> None:
        """Returns once every connection that was told to close is closed."""
        await self._closing.done()

    def states(self, now: float) -> dict[tuple[str, str], int]:
        """Number of endpoints per deployment and state, for people."""
        words = (*(state.value for state in EndpointState), "Ejected")
        states = {(name, word): 0 for name in self.deployments for word in words}
        for upstream in self._upstreams.values():
            word = "Ejected" if routing.is_ejected(upstream.breaker, now) else upstream.endpoint.state.value
            place = (upstream.endpoint.deployment, word)
            states[place] = states.get(place, 0) + 1
        return states

    def loads(self) -> list[tuple[str, str, int]]:
        """Deployment, replica and requests there, of all processes of this gateway, for people."""
        return [
            (upstream.endpoint.deployment, upstream.endpoint.replica, upstream.load())
            for upstream in self._upstreams.values()
        ]

    def close_old_connections(self, before: float) -> None:
        for upstream in self._upstreams.values():
            upstream.pool.close_older(before)

    def close(self) -> None:
        for upstream in self._upstreams.values():
            upstream.pool.draining = True
            upstream.pool.close_idle()
