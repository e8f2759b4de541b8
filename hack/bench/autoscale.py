"""What following the load costs and how well it serves: a day of requests, replayed against our autoscaler and those of others.

The plane is replica hours against the share of requests that get a slot within 10 s. Each policy is played at several targets, which
gives it a curve; ours is also played at its default. The ratio is what a peer needs for the share that ours has at its default, over
what ours needs. A peer that never gets there is given the hours of its best share, so that its ratio is a lower bound.
LLMOP_BENCH_DRAWS is the number of days (2 by default), LLMOP_TRACES the folder with the whole trace.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import statistics
from collections.abc import Callable, Sequence

import bench
from replay import picture, policies, traces, world

DRAWS = 2
# Of the target that a replica is meant for. Ours takes a tenth of a millisecond for each of 43,200 decisions a day: fewer points.
FACTORS = (1.5, 1.25, 1.0, 0.75, 0.5, 0.35)
OUR_FACTORS = (1.5, 1.0, 0.75)
POLICIES: dict[str, Callable[[float], world.Policy]] = {
    "ours": policies.Ours,
    "knative-kpa": policies.Knative,
    "hpa-v2": policies.Hpa,
    "kubeai-mean": policies.KubeAI,
}
WAITS: dict[str, world.Wait] = {
    "0": lambda source: 0.0,
    "60s": lambda source: source.expovariate(1 / 60),
    # Median 15 min / e^(s^2/2), mean 15 min, one in a hundred beyond an hour and a half.
    "15m": lambda source: min(6 * 3600.0, source.lognormvariate(math.log(900) - 0.5, 1.0)),
}

Point = tuple[float, float]  # (replica hours, share within the SLO)


def curve(
    days: Sequence[world.Work], make: Callable[[float], world.Policy], wait: str, factors: Sequence[float]
) -> list[Point]:
    """One point per factor, means over the days."""
    points = []
    for factor in factors:
        played = [
            world.play(day, make(world.TARGET * factor), WAITS[wait], random.Random(f"{number}/{wait}"))
            for number, day in enumerate(days)
        ]
        points.append(
            (
                statistics.fmean(each.replica_hours for each in played),
                statistics.fmean(each.within for each in played),
            )
        )
    return points


def hours_at(points: Sequence[Point], share: float) -> tuple[float, bool]:
    """The hours of a policy at a share, between its points; False when it never gets there, with the hours of its best."""
    ordered = sorted(points)
    if ordered[0][1] >= share:
        return ordered[0][0], True
    for (hours, reached), (more, better) in itertools.pairwise(ordered):
        if reached < share <= better:
            return hours + (more - hours) * (share - reached) / (better - reached), True
    best = max(ordered, key=lambda point: point[1])
    return best[0], best[1] >= share


def run() -> bench.Result:
    conditions = bench.machine()
    trace = traces.load()
    draws = int(os.environ.get("LLMOP_BENCH_DRAWS", DRAWS))
    days = [world.work(traces.day(trace, random.Random(number))) for number in range(draws)]
    bound = statistics.fmean(world.clairvoyant(day) for day in days)
    peers: dict[str, float] = {}
    more: dict[str, object] = {"clairvoyant replica hours": round(bound, 1)}
    ours_at_zero = 0.0
    curves: dict[str, dict[str, list[Point]]] = {}
    for wait in WAITS:
        curves[wait] = {
            name: curve(days, make, wait, OUR_FACTORS if name == "ours" else FACTORS)
            for name, make in POLICIES.items()
        }
        hours, share = curves[wait]["ours"][OUR_FACTORS.index(1.0)]
        ours_at_zero = ours_at_zero or hours
        print(f"  queue wait {wait}: clairvoyant {bound:.1f} replica hours, everybody served at once")
        for name, points in curves[wait].items():
            shown = "  ".join(f"{each:6.1f} h {100 * within:6.2f} %" for each, within in points)
            print(f"    {name:12} {shown}")
        more[f"ours, {wait}"] = {"replica hours": round(hours, 1), "within 10 s": round(share, 4)}
        for name in POLICIES:
            if name == "ours":
                continue
            needed, gets_there = hours_at(curves[wait][name], share)
            # In our own hours without a wait, so that the ratio is theirs over ours at the same wait.
            peers[f"{name}, {wait}{'' if gets_there else ' (never as good)'}"] = needed / hours * ours_at_zero
    bench.FOLDER.mkdir(parents=True, exist_ok=True)
    picture.write(bench.FOLDER / "autoscale.svg", curves, bound)
    return bench.Result(
        name="autoscale",
        unit="replica hours in 23 h at our share within 10 s, peers scaled to ours at wait 0",
        ours=ours_at_zero,
        peers=peers,
        higher_is_better=False,
        more=more,
        conditions={
            **conditions,
            "trace": trace.name,
            "days": draws,
            "requests a day": round(statistics.fmean(len(day.arrived) for day in days)),
            "slots": world.SLOTS,
            "target": world.TARGET,
            "boot": f"{world.BOOT_S}s",
        },
    )
