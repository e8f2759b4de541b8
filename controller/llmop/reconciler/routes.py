"""The versioned table of endpoints, and who has acted on which version."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping

from llmop.domain import endpoint

GATEWAY_LIVE_S = 3.0  # gateways report every second


@dataclasses.dataclass(slots=True)
class _Gateway:
    seen_at: float
    version: int


class EndpointBook:
    """Built from the plans of single deployments; read by gateways through the control API.

    `epoch` makes versions rise over restarts; `now` is a monotonic clock. `on_drained(namespace/name)` is called when a gateway has
    acted on a table in which endpoints of that deployment drain.

    After a start nothing is published before every deployment has been looked at once: gateways keep the table of the controller
    before, instead of losing the endpoints that a new one has not come to yet.
    """

    def __init__(self, epoch: int, now: Callable[[], float], on_drained: Callable[[str], None]) -> None:
        self._version = epoch << 32
        self._awaited: set[str] | None = None  # deployments not looked at yet; None = not even known yet
        self._now = now
        self._since = now()
        self._on_drained = on_drained
        self._endpoints: dict[str, tuple[endpoint.Endpoint, ...]] = {}
        self._models: dict[str, endpoint.RoutedModel] = {}
        self._draining: dict[
            str, tuple[int, str]
        ] = {}  # uid -> (version since which no gateway should choose it, deployment)
        self._gateways: dict[str, _Gateway] = {}
        self._changed = asyncio.Event()
        self._table = endpoint.EndpointTable(version=0)

    def expect(self, deployments: Iterable[str]) -> None:
        """The deployments (namespace/name) that there are; the first table waits for them."""
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

    def _publish(self) -> None:
        self._version += 1
        endpoints = tuple(each for _, group in sorted(self._endpoints.items()) for each in group)
        models = tuple(model for _, model in sorted(self._models.items()))
        self._table = endpoint.EndpointTable(version=self._version, endpoints=endpoints, models=models)
        draining = {
            each.uid: each.deployment for each in endpoints if each.state is endpoint.EndpointState.DRAINING
        }
        self._draining = {
            uid: self._draining.get(uid, (self._version, deployment)) for uid, deployment in draining.items()
        }
        self._changed.set()
        self._changed = asyncio.Event()

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
        if before is None or before.version < version:
            for _, deployment in self._draining.values():
                self._on_drained(deployment)

    def gateways(self) -> Mapping[str, tuple[float, int]]:
        """By name: seconds since the last sign of life, and the version of the table it acts on."""
        now = self._now()
        return {name: (now - known.seen_at, known.version) for name, known in sorted(self._gateways.items())}

    def drained(self) -> frozenset[str]:
        """The draining endpoints that no live gateway chooses any more. Without a live gateway that is all of them.

        In the first seconds nobody knows which gateways are alive.
        """
        now = self._now()
        if now - self._since <= GATEWAY_LIVE_S:
            return frozenset()
        live = [known.version for known in self._gateways.values() if now - known.seen_at <= GATEWAY_LIVE_S]
        lowest = min(live, default=None)
        return frozenset(
            uid for uid, (since, _) in self._draining.items() if lowest is None or lowest >= since
        )
