"""Ours, and three that others have, each as a function from what is seen to how many replicas there shall be.

Written from their documentation and sources: Knative's pod autoscaler (pkg/autoscaler/scaling/autoscaler.go and config-autoscaler),
Kubernetes' HorizontalPodAutoscaler with an external metric as AverageValue (autoscaling/v2, its defaults), and KubeAI
(internal/modelautoscaler/autoscaler.go). All measure the same: requests in flight and in the queue.
"""

from __future__ import annotations

import collections
import math

from llmop.domain import scaling
from llmop.planner import autoscale

from . import world


class Ours:
    """With the defaults of spec.scaling, but for the bounds."""

    def __init__(self, target: float) -> None:
        self._spec = scaling.Scaling(
            min_replicas=1,
            max_replicas=world.MOST,
            metrics=(scaling.Metric(type=scaling.MetricType.IN_FLIGHT, target=round(target)),),
        )
        self._samples: list[autoscale.Load] = []
        self._kept_s = autoscale.kept_s(self._spec)
        self._memory: autoscale.Memory | None = None

    def __call__(self, seen: world.Moment) -> int:
        now = seen.now
        if self._memory is None:
            self._memory = autoscale.remember(seen.desired, now)
        self._samples.append(autoscale.Load(at=now, in_flight=seen.in_flight, queued=seen.queued))
        if self._samples[0].at <= now - self._kept_s:
            del self._samples[0]
        fleet = autoscale.Fleet(ready=seen.ready, on_the_way=seen.coming, lead_s=seen.lead_s)
        made = autoscale.decide(self._spec, seen.desired, self._samples, self._memory, fleet, None, now)
        self._memory = made.memory
        return made.desired


class Knative:
    """Stable 60 s, panic 6 s at 200 %, at most halved at a time, all by the replicas that are ready."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._window: collections.deque[int] = collections.deque(maxlen=60 // world.TICK_S)
        self._total = 0
        self._panic_since: float | None = None
        self._most = 0

    def __call__(self, seen: world.Moment) -> int:
        if len(self._window) == self._window.maxlen:
            self._total -= self._window[0]
        self._window.append(seen.in_flight + seen.queued)
        self._total += self._window[-1]
        stable = self._total / len(self._window)
        last = [self._window[-number] for number in range(1, min(3, len(self._window)) + 1)]
        panic = sum(last) / len(last)
        ready = max(1, seen.ready)
        up, down = math.ceil(1000 * ready), math.floor(ready / 2)
        by_stable = min(max(math.ceil(stable / self._target), down), up)
        by_panic = min(max(math.ceil(panic / self._target), down), up)
        if math.ceil(panic / self._target) / ready >= 2:
            self._panic_since = seen.now
        elif self._panic_since is not None and seen.now - self._panic_since > 60:
            self._panic_since, self._most = None, 0
        if self._panic_since is None:
            return by_stable
        self._most = max(self._most, by_panic, ready)
        return self._most


class Hpa:
    """Every 15 s: a tenth of tolerance, up by four or twofold per 15 s, down by the most of 5 minutes."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._next = 0.0
        self._recent: collections.deque[int] = collections.deque(maxlen=8)
        self._wanted: collections.deque[tuple[float, int]] = collections.deque()

    def __call__(self, seen: world.Moment) -> int:
        self._recent.append(seen.in_flight + seen.queued)
        if seen.now < self._next:
            return seen.desired
        self._next = seen.now + 15
        amount = sum(self._recent) / len(self._recent)
        wanted = math.ceil(amount / self._target)
        if abs(amount / (self._target * seen.desired) - 1) <= 0.1:
            wanted = seen.desired
        self._wanted.append((seen.now, wanted))
        while self._wanted[0][0] < seen.now - 300:
            self._wanted.popleft()
        if wanted > seen.desired:
            return min(wanted, max(seen.desired + 4, 2 * seen.desired))
        return min(seen.desired, max(each for _, each in self._wanted))


class KubeAI:
    """Every 10 s the mean of 10 minutes, which begins with zeros; down after three lower results in a row."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._next = 0.0
        self._window: collections.deque[int] = collections.deque([0] * 60, maxlen=60)
        self._lower = 0

    def __call__(self, seen: world.Moment) -> int:
        if seen.now < self._next:
            return seen.desired
        self._next = seen.now + 10
        self._window.append(seen.in_flight + seen.queued)
        wanted = math.ceil(sum(self._window) / len(self._window) / self._target)
        if wanted >= seen.desired:
            self._lower = 0
            return wanted
        self._lower += 1
        return wanted if self._lower >= 3 else seen.desired
