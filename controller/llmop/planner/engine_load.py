"""What the engines of a deployment say of their own load, and what it forbids.

It is secondary: gateways count every request exactly, engines are looked at every few seconds and answer when they have time. So it
adds to a queue and holds replicas back, and never starts one by itself from a cache. What an engine does not say is not known, and not
known is never 0.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from llmop.domain import replica, runtime

FULL = 0.9  # of a KV cache: beyond it engines put requests off or aside, as vLLM preempts them
STALE_S = 15.0  # besides two heartbeats: agents look every 5 s at least


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    """All engines of the replicas that serve, at one moment.

    `queued` and `running` are sums of what is known. `silent` engines should say how much waits in them and do not: `queued` may be
    too small. `kv_caches` is the sum of how full each cache is, 1 = one full one: who does not say counts as full as the fullest; None
    when nobody says.
    """

    replicas: int
    queued: int | None = None
    running: int | None = None
    silent: int = 0
    kv_caches: float | None = None


def fresh(beat: replica.Heartbeat | None, period_s: float, now: float) -> replica.EngineLoad | None:
    """What an agent that sends a heartbeat every `period_s` said of its engine, with its age now; None when that is too long ago."""
    if beat is None or beat.load is None:
        return None
    age_s = beat.load.age_s + max(0.0, now - beat.received_at)
    if age_s > STALE_S + 2 * period_s:
        return None
    return dataclasses.replace(beat.load, age_s=age_s)


def together(metrics: runtime.Metrics, loads: Sequence[replica.EngineLoad | None]) -> Engines:
    """`loads` has an item for each replica that serves, None where nothing is known of its engine."""
    queues = [each.queue_depth for each in loads if each is not None and each.queue_depth is not None]
    batches = [each.running for each in loads if each is not None and each.running is not None]
    caches = [each.kv_cache_usage for each in loads if each is not None and each.kv_cache_usage is not None]
    return Engines(
        replicas=len(loads),
        queued=sum(queues) if queues else None,
        running=sum(batches) if batches else None,
        silent=len(loads) - len(queues) if metrics.queue_depth else 0,
        kv_caches=sum(caches) + (len(loads) - len(caches)) * max(caches) if caches else None,
    )


def waiting(engines: Engines | None) -> int:
    """Requests in the engines' queues, as far as they are known."""
    return (engines.queued or 0) if engines is not None else 0


def is_heard(engines: Engines | None) -> bool:
    """Whether all say how much waits in them that should."""
    return engines is None or not engines.silent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """At least `replicas` are kept, whatever else the load asks for; 0 and no words where nothing is forbidden."""

    replicas: int = 0
    reason: str = ""
    message: str = ""


def hold(
    engines: Sequence[Engines | None],
    recent: Sequence[Engines | None],
    newest: Sequence[Engines | None],
    desired: int,
) -> Hold:
    """How many of `desired` replicas the KV caches need: with fewer the rest would be fuller than FULL.

    `engines` are all moments that are remembered, by time, `recent` the last ones of them that count, `newest` those of the last
    seconds. Engines that say nothing of a cache forbid nothing, but what was said before and was not for seconds holds what there is,
    for as long as it is remembered.
    """
    if not engines or engines[-1] is None or not _known(engines):
        return Hold()
    known = _known(recent)
    if not _known(newest):
        words = "the engines do not say any more how full their KV caches are: nothing is given up"
        return Hold(replicas=desired, reason="KVCacheUnknown", message=words)
    least = min(desired, math.ceil(max(known) / FULL - 1e-9))  # a sum of floats may lie a hair above
    words = f"with one replica fewer the KV caches would be more than {FULL:.0%} full"
    return Hold(replicas=least, reason="KVCacheFull", message=words)


def _known(engines: Sequence[Engines | None]) -> list[float]:
    return [each.kv_caches for each in engines if each is not None and each.kv_caches is not None]


def inputs(engines: Engines | None) -> dict[str, Any]:
    """As JSON, for the history of steps; nothing where nobody was asked."""
    if engines is None:
        return {}
    caches = engines.kv_caches
    return {
        "engines": {
            "replicas": engines.replicas,
            "queued": engines.queued,
            "running": engines.running,
            "silent": engines.silent,
            "kvCaches": None if caches is None else round(caches, 2),
        }
    }
