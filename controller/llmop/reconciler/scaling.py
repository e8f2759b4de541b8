"""What gateways say of their load becomes windows, and windows become decisions that passes carry out.

Everything here is in memory and begins anew with each controller: a new one knows nothing of the load before it, and gives nothing up
until it has watched for as long as `behavior.scaleDown` asks for. How many replicas are wanted, and the last steps to there, are stored
with the deployment.
"""

import asyncio
import collections
import dataclasses
import statistics
from collections.abc import Callable, Mapping

import structlog

from llmop.clock import Clock
from llmop.domain import replica, resources, runtime, scaling
from llmop.planner import autoscale, engine_load, schedules
from llmop.reconciler import codec, gather, mirror, ports, queue
from llmop.reconciler.routes import GATEWAY_LIVE_S

_log = structlog.get_logger()

SAMPLE_S = 1.0
FORGOTTEN_S = 60 * GATEWAY_LIVE_S  # a gateway that was silent for so long is gone, and its requests with it
SCHEDULES_S = 10.0  # how often schedules are looked at


@dataclasses.dataclass(slots=True)
class _Gateway:
    """`counted` are the loads at `counted_at`, since which tokens are counted for the next rate."""

    seen_at: float
    loads: Mapping[str, scaling.Reported]
    counted_at: float
    counted: Mapping[str, scaling.Reported]
    tokens_per_s: Mapping[str, float | None]


@dataclasses.dataclass(slots=True)
class _Watched:
    """One deployment. Times are monotonic."""

    memory: autoscale.Memory
    samples: collections.deque[autoscale.Load] = dataclasses.field(default_factory=collections.deque)
    decision: autoscale.Decision | None = None
    decided_at: float | None = None
    floor: autoscale.Floor | None = None
    floor_of: scaling.Scaling | None = None
    floor_at: float = 0.0


class Scaler:
    """`wake(key, priority)` asks for a pass: a decision has to be carried out or shown. `agents` is the channel as it is now."""

    def __init__(
        self,
        clock: Clock,
        stored: mirror.Mirror,
        gatherer: gather.Gatherer,
        wake: Callable[[queue.Key, int], None],
        agents: Callable[[], ports.Agents],
    ) -> None:
        self._clock = clock
        self._mirror = stored
        self._gatherer = gatherer
        self._wake = wake
        self._agents = agents
        self._gateways: dict[str, _Gateway] = {}
        self._unserved: set[str] = set()  # deployments that refused somebody since the last sample
        self._watched: dict[str, _Watched] = {}  # by uid
        self._unread: dict[str, int] = {}  # generations of those that could not be read, by uid

    def decision(self, uid: str) -> autoscale.Decision | None:
        """The last one about the deployment with this uid, as long as it scales."""
        watched = self._watched.get(uid)
        return watched.decision if watched is not None else None

    def engines(self, owner: resources.Resource) -> dict[str, replica.EngineLoad | None]:
        """What the engines of a deployment's replicas that serve say of themselves, by replica; None where nothing is known. Empty where they
        are not asked.
        """
        if self._metrics(owner) is None:
            return {}
        agents, now = self._agents(), self._clock.now()
        return {
            each.name: engine_load.fresh(agents.heartbeats.get(each.uid), agents.period_s, now)
            for each in self._mirror.children(owner.uid, resources.REPLICA)
            if each.status.get("ready") and not each.spec.get("drain")
        }

    def _metrics(self, owner: resources.Resource) -> runtime.Metrics | None:
        named = self._gatherer.known()[0].get(str(owner.spec.get("runtime")))
        return named.metrics if named is not None else None

    def load(self, deployment: str) -> autoscale.Load | None:
        """What all gateways together have of this deployment (`namespace/name`) now; None while none was heard."""
        return self._of_gateways(deployment, self._clock.monotonic())

    def report(self, gateway: str, loads: Mapping[str, scaling.Reported]) -> None:
        """`loads` has an item for each deployment (`namespace/name`) that the gateway knows. A request for one at zero is answered at once."""
        now = self._clock.monotonic()
        self._gateways[gateway] = _heard(self._gateways.get(gateway), loads, now)
        for name, load in loads.items():
            if load.unserved:
                self._unserved.add(name)
            if load.in_flight or load.queued or load.unserved:
                namespace, _, short = name.partition("/")
                owner = self._mirror.get(resources.MODEL_DEPLOYMENT, namespace, short)
                watched = self._watched.get(owner.uid) if owner is not None else None
                if owner is not None and watched is not None and _desired(owner) == 0:
                    self._look(owner, now, at_once=True)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.tick()
            except Exception:  # noqa: BLE001  (whatever it is, it must not stop all of it for good)
                _log.exception("looking at the load failed")
            await asyncio.sleep(SAMPLE_S)

    def tick(self) -> None:
        """Called every second."""
        now = self._clock.monotonic()
        for name in [name for name, each in self._gateways.items() if now - each.seen_at > FORGOTTEN_S]:
            del self._gateways[name]
        scaled = {}
        for owner in self._mirror.all(resources.MODEL_DEPLOYMENT):
            if _desired(owner) is not None:
                scaled[owner.uid] = owner
        for uid in self._watched.keys() - scaled.keys():
            del self._watched[uid]
        self._unread = {uid: each for uid, each in self._unread.items() if uid in scaled}
        for owner in scaled.values():
            self._look(owner, now)
        self._unserved.clear()

    def _look(self, owner: resources.Resource, now: float, *, at_once: bool = False) -> None:
        """At one deployment. One that cannot be read, as another version may have written it, keeps no other from following its load."""
        try:
            watched = self._watched.get(owner.uid)
            if watched is None:
                watched = self._watched[owner.uid] = self._begin(owner, now)
            self._sample(owner, watched, now)
            is_due = watched.decided_at is None or now - watched.decided_at >= autoscale.TICK_S - SAMPLE_S / 2
            if at_once or is_due:
                self._decide(owner, watched, now)
        except Exception:  # noqa: BLE001  (the passes over it say so too)
            if owner.generation != self._unread.get(owner.uid):
                self._unread[owner.uid] = owner.generation
                _log.exception("its load is not followed", name=owner.name, namespace=owner.namespace)

    def _begin(self, owner: resources.Resource, now: float) -> _Watched:
        record = codec.record_of(owner.status).scaling
        assert record is not None
        offset = now - self._clock.now()
        changes = tuple(
            autoscale.Change(at=each.at + offset, before=each.before, after=each.after)
            for each in record.history
        )
        return _Watched(memory=autoscale.remember(record.desired, now, changes))

    def _bounds(self, owner: resources.Resource) -> scaling.Scaling | None:
        return self._gatherer.deployment(owner).spec.scaling

    def _sample(self, owner: resources.Resource, watched: _Watched, now: float) -> None:
        bounds = self._bounds(owner)
        sample = self._of_gateways(f"{owner.namespace}/{owner.name}", now)
        if bounds is None or sample is None:
            return
        metrics = self._metrics(owner)
        if metrics is not None:
            engines = engine_load.together(metrics, tuple(self.engines(owner).values()))
            if watched.samples and engines == watched.samples[-1].engines:
                engines = watched.samples[-1].engines  # an hour of samples of many deployments is much memory
            sample = dataclasses.replace(sample, engines=engines)
        if watched.samples and watched.samples[-1].at == now:
            watched.samples.pop()
        watched.samples.append(sample)
        oldest = now - autoscale.kept_s(bounds)
        while watched.samples[0].at <= oldest:
            watched.samples.popleft()

    def _of_gateways(self, name: str, now: float) -> autoscale.Load | None:
        if not self._gateways:
            return None
        parts = [
            (each.loads.get(name, scaling.Reported()), each.tokens_per_s.get(name, 0.0))
            for each in self._gateways.values()
        ]
        rates = [rate for _, rate in parts if rate is not None]
        return autoscale.Load(
            at=now,
            in_flight=sum(load.in_flight for load, _ in parts),
            # Whoever was refused is not there any more, but may come again: that says that somebody is there, not how many.
            queued=max(sum(load.queued for load, _ in parts), int(name in self._unserved)),
            tokens_per_s=sum(rates) if len(rates) == len(parts) else None,
            is_whole=all(now - each.seen_at <= GATEWAY_LIVE_S for each in self._gateways.values()),
        )

    def _decide(self, owner: resources.Resource, watched: _Watched, now: float) -> None:
        bounds = self._bounds(owner)
        desired = _desired(owner)
        if bounds is None or desired is None:
            return
        before = watched.decision
        made = autoscale.decide(
            bounds,
            desired,
            tuple(watched.samples),
            watched.memory,
            self._fleet(owner, desired),
            self._floor(watched, bounds),
            now,
        )
        watched.memory, watched.decision, watched.decided_at = made.memory, made, now
        is_shown = before is not None and (before.is_known, before.limit) == (made.is_known, made.limit)
        if made.desired != desired or not is_shown:
            key = queue.Key(kind=owner.kind, namespace=owner.namespace, name=owner.name)
            self._wake(key, queue.URGENT if made.desired > desired else queue.NORMAL)

    def _floor(self, watched: _Watched, bounds: scaling.Scaling) -> autoscale.Floor | None:
        wall = self._clock.now()
        if watched.floor_of != bounds or abs(wall - watched.floor_at) >= SCHEDULES_S:
            watched.floor, watched.floor_of, watched.floor_at = schedules.floor(bounds, wall), bounds, wall
        return watched.floor

    def _fleet(self, owner: resources.Resource, desired: int) -> autoscale.Fleet:
        ready = int(owner.status.get("readyReplicas") or 0)
        leads = [each.wait_s + each.boot_s for each in codec.leads_of(owner.status)]
        return autoscale.Fleet(
            ready=ready,
            on_the_way=max(0, desired - ready),
            lead_s=float(statistics.median(leads)) if leads else None,
        )


def _desired(owner: resources.Resource) -> int | None:
    """What was decided last; None where the load decides nothing, or nothing before the first pass is over."""
    kept = owner.status.get("scaling")
    if not owner.spec.get("scaling") or not kept or owner.deleted_at is not None:
        return None
    return int(kept["desiredReplicas"])


def _heard(before: _Gateway | None, loads: Mapping[str, scaling.Reported], now: float) -> _Gateway:
    """A gateway after its report. Reports in a hurry have the rates of the one before: tokens are counted in lumps, at the end of answers."""
    if before is not None and now - before.counted_at < SAMPLE_S / 2:
        rates = {name: before.tokens_per_s.get(name) for name in loads}
        return dataclasses.replace(before, seen_at=now, loads=loads, tokens_per_s=rates)
    return _Gateway(
        seen_at=now, loads=loads, counted_at=now, counted=loads, tokens_per_s=_rates(before, loads, now)
    )


def _rates(
    before: _Gateway | None, loads: Mapping[str, scaling.Reported], now: float
) -> dict[str, float | None]:
    """Tokens per second since they were counted; None where it is not known, as after a new start of the gateway."""
    rates: dict[str, float | None] = {}
    for name, load in loads.items():
        earlier = before.counted.get(name) if before is not None else None
        counted = earlier.generated_tokens if earlier is not None else None
        rates[name] = None
        if before is None or counted is None or load.generated_tokens is None:
            continue
        if load.generated_tokens >= counted:
            rates[name] = (load.generated_tokens - counted) / (now - before.counted_at)
    return rates
