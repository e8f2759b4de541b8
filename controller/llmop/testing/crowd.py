"""Requests for deployments that scale by their load: levels that change now and then, told by gateways every two seconds."""

import dataclasses
import random
from typing import TYPE_CHECKING, Any

from llmop.domain import resources, scaling

if TYPE_CHECKING:
    from llmop.testing.world import World

TICK_S = 2.0
TARGET = 10
LEVELS = (0, 0, 4, 9, 25, 60)
STABILIZATION_S = 180


def bounds(source: random.Random, most: int) -> dict[str, Any]:
    """`spec.scaling` of a deployment in a simulation."""
    return {
        "minReplicas": source.choice((0, 0, 1)),
        "maxReplicas": most,
        "metrics": [
            {"type": "InFlight", "target": TARGET},
            *source.choice(([], [{"type": "QueueDepth", "target": TARGET}])),
        ],
        "stableWindow": "20s",
        "scaleToZeroAfter": "2m",
        # Without it the time that replicas took to come says for how long.
        **source.choice(({"behavior": {"scaleDown": {"stabilizationWindow": f"{STABILIZATION_S}s"}}}, {})),
    }


@dataclasses.dataclass
class Crowd:
    """Every gateway that is not cut off tells its share. Who finds no replica is refused, or waits in the gateway."""

    world: "World"
    every_s: float
    is_over: bool = False
    levels: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._source = random.Random(f"{self.world.seed}/crowd")

    def start(self) -> None:
        self.world.after(TICK_S, self._tick)

    def stop(self) -> None:
        """From now on as many requests come as come now."""
        self.is_over = True

    async def _tick(self) -> None:
        self.world.after(TICK_S, self._tick)
        leader = self.world.leader
        if leader is None or leader.is_paused:
            return
        deployments = (await self.world.store.list(resources.MODEL_DEPLOYMENT)).items
        scaler = leader.reconciler.scaler
        for number, gateway in enumerate(self.world.tables.gateways):
            if gateway.is_cut:
                continue
            loads = {}
            for each in deployments:
                level = self._level(each.name)
                share = level - level // 2 if number == 0 else level // 2
                loads[f"{each.namespace}/{each.name}"] = self._load(share, each.status)
            scaler.report(gateway.name, loads)
        scaler.tick()

    def _level(self, name: str) -> int:
        known = self.levels.get(name)
        # A chance per gateway and tick.
        if known is None or (not self.is_over and self._source.random() < TICK_S / self.every_s / 2):
            self.levels[name] = self._source.choice(LEVELS)
        return self.levels[name]

    def _load(self, share: int, status: Any) -> scaling.Reported:
        if status.get("readyReplicas"):
            return scaling.Reported(in_flight=share)
        if self._source.random() < 0.5:
            return scaling.Reported(queued=share)
        return scaling.Reported(unserved=share)
