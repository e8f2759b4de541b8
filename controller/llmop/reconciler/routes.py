"""The versioned table of endpoints, and who has acted on which version."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping

from llmop.domain import client, endpoint

GATEWAY_LIVE_S = 3.0  # gateways report every second
TABLES_BITS = 24  # versions of one epoch; they have 64 bits with a sign, and epochs are seconds


@dataclasses.dataclass(slots=True)
class _Gateway:
    seen_at: float
    version: int


class EndpointBook:
    """Built from the plans of single deployments; read by gateways through the control API.

    `epoch` makes versions rise over restarts, also over a database that was put back (decision 44); `now` is a monotonic clock.
    `on_acknowledged(namespace/name)` is called when a gateway has acted on a table in which an endpoint of that deployment came, or began
    to drain.

    After a start nothing is published before every deployment has been looked at once: gateways keep the table of the controller
    before, instead of losing the endpoints that a new one has not come to yet.
    """

    def __init__(self, epoch: int, now: Callable[[], float], on_acknowledged: Callable[[str], None]) -> None:
        self._version = epoch << TABLES_BITS
        self._awaited: set[str] | None = None  # deployments not looked at yet; None = not even known yet
        self._now = now
        self._started_at = now()
        self._on_acknowledged = on_acknowledged
        self._endpoints: dict[str, tuple[endpoint.Endpoint, ...]] = {}
        self._models: dict[str, endpoint.RoutedModel] = {}
        self._keys: tuple[client.ClientKey, ...] = ()
        # By uid: (version since which no gateway should choose it, or all should, deployment)
        self._draining: dict[str, tuple[int, str]] = {}
        self._routed: dict[str, tuple[int, str]] = {}
        self._gateways: dict[str, _Gateway] = {}
        self._changed = asyncio.Event()
        self._table = endpoint.EndpointTable(version=0)

    def expect(self, deployments: Iterable[str]) -> None:
        """What there is that may have a public model, by its place in the table; the first table waits for it."""
        if self._awaited is None:
            self._awaited = set(deployments)
            if not self._awaited:
                self._publish()

    def skip(self, deployment: str) -> None:
        """Nothing can be said about this one for now: the others do not wait for it."""
        self._looked_at(deployment)

    def _looked_at(self, deployment: str) -> bool:
        """True when nothing was published before and this was the last deployment that the first table waited for."""
        if not self._awaited:
            return False
        self._awaited.discard(deployment)
        if self._awaited:
            return False
        self._publish()
        return True

    def put(
        self, deployment: str, endpoints: tuple[endpoint.Endpoint, ...], model: endpoint.RoutedModel | None
    ) -> None:
        """The routes of one deployment as its last plan has them."""
        if self._endpoints.get(deployment, ()) == endpoints and self._models.get(deployment) == model:
            self._looked_at(deployment)
            return
        self._endpoints[deployment] = endpoints
        if model is None:
            self._models.pop(deployment, None)
        else:
            self._models[deployment] = model
        if not endpoints and model is None:
            self._endpoints.pop(deployment, None)
        if self._awaited is None or self._awaited:
            self._looked_at(deployment)
        else:
            self._publish()

    def grant(self, keys: tuple[client.ClientKey, ...]) -> None:
        """The keys with which gateways let clients in, from now on."""
        if keys == self._keys:
            return
        self._keys = keys
        if self._table.version:
            self._publish()

    def model(self, deployment: str) -> endpoint.RoutedModel | None:
        """The public model as it was last put."""
        return self._models.get(deployment)

    def _publish(self) -> None:
        self._version += 1
        endpoints = tuple(each for _, group in sorted(self._endpoints.items()) for each in group)
        models = tuple(model for _, model in sorted(self._models.items()))
        self._table = endpoint.EndpointTable(
            version=self._version, endpoints=endpoints, models=models, keys=self._keys
        )
        draining = {
            each.uid: each.deployment for each in endpoints if each.state is endpoint.EndpointState.DRAINING
        }
        routed = {each.uid: each.deployment for each in endpoints if each.uid not in draining}
        self._draining = self._since(draining, self._draining)
        self._routed = self._since(routed, self._routed)
        self._changed.set()
        self._changed = asyncio.Event()

    def _since(
        self, uids: Mapping[str, str], before: Mapping[str, tuple[int, str]]
    ) -> dict[str, tuple[int, str]]:
        return {uid: before.get(uid, (self._version, deployment)) for uid, deployment in uids.items()}

    def table(self) -> endpoint.EndpointTable:
        """Version 0 before the first one is complete."""
        return self._table

    async def changed(self, after_version: int) -> endpoint.EndpointTable:
        while self._table.version <= after_version:
            await self._changed.wait()
        return self._table

    def acknowledge(self, gateway: str, version: int) -> None:
        now = self._now()
        before = self._gateways.get(gateway)
        self._gateways[gateway] = _Gateway(seen_at=now, version=version)
        for name in [
            name for name, known in self._gateways.items() if now - known.seen_at > 60 * GATEWAY_LIVE_S
        ]:
            del self._gateways[name]
        known = 0 if before is None else self._acted_on(before)
        acted_on = self._acted_on(self._gateways[gateway])
        news = (*self._draining.values(), *self._routed.values())
        for deployment in sorted({deployment for since, deployment in news if known < since <= acted_on}):
            self._on_acknowledged(deployment)

    def _acted_on(self, gateway: _Gateway) -> int:
        """A version that is ahead of ours is another controller's: this gateway has seen nothing of what we say. Nothing is published for it,
        or whoever reports a high enough number would decide what all the others take.
        """
        return gateway.version if gateway.version <= self._version else 0

    def gateways(self) -> Mapping[str, tuple[float, int]]:
        """By name: seconds since the last sign of life, and the version of the table it acts on."""
        now = self._now()
        return {name: (now - known.seen_at, known.version) for name, known in sorted(self._gateways.items())}

    def drained(self) -> frozenset[str]:
        """The draining endpoints that no live gateway chooses any more. Without a live gateway that is all of them.

        In the first seconds nobody knows which gateways are alive.
        """
        if self._now() - self._started_at <= GATEWAY_LIVE_S:
            return frozenset()
        lowest = self._lowest
        return frozenset(
            uid for uid, (since, _) in self._draining.items() if lowest is None or lowest >= since
        )

    def routed(self) -> frozenset[str] | None:
        """The endpoints that every live gateway chooses from; None when none is known to live."""
        lowest = self._lowest
        if lowest is None:
            return None
        return frozenset(uid for uid, (since, _) in self._routed.items() if lowest >= since)

    @property
    def _lowest(self) -> int | None:
        """The oldest version that a live gateway acts on."""
        now = self._now()
        live = [
            self._acted_on(known)
            for known in self._gateways.values()
            if now - known.seen_at <= GATEWAY_LIVE_S
        ]
        return min(live, default=None)
