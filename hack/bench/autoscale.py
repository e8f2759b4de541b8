"""What following the load costs and how well it serves: days of requests, replayed against our autoscaler and those of others.

The plane is replica hours against the share of requests that get a slot within 10 s. Each policy is played at several targets, which
gives it a curve; all see the same days and the same queues. Two ratios are told: what a peer needs, on its own curve, for the share that
ours has at a target, over what ours needs; above 1 is better for us. A peer that never gets there is given the hours of its best share,
so that its ratio is a lower bound.
LLMOP_BENCH_DRAWS is the number of days (2 by default; a day takes about half a minute of CPU), LLMOP_TRACES the folder with the whole trace.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import bench
from replay import picture, policies, traces, world

DRAWS = 2
FACTORS = (1.75, 1.5, 1.25, 1.0)  # of the target that a replica is meant for
# Theirs reach further at both ends, so that whatever share ours has lies on their curves.
PEER_FACTORS = (2.0, *FACTORS, 0.875)
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
Play = tuple[int, str, str, float]  # (draw, wait, policy, factor)


def day(draw: int) -> tuple[float, list[tuple[Play, Point]]]:
    """One day, played by everybody: the clairvoyant's hours, and what came of each play."""
    work = world.work(traces.day(traces.load(), random.Random(draw)))
    played = []
    for wait, name in itertools.product(WAITS, POLICIES):
        for factor in FACTORS if name == "ours" else PEER_FACTORS:
            made = world.play(
                work, POLICIES[name](world.TARGET * factor), world.waits(WAITS[wait], f"{draw}/{wait}")
            )
            played.append(((draw, wait, name, factor), (made.replica_hours, made.within)))
    return world.clairvoyant(work), played


def curves(played: Iterable[tuple[Play, Point]]) -> dict[str, dict[str, list[Point]]]:
    """By wait and policy: one point per factor, means over the draws."""
    found: dict[tuple[str, str, float], list[Point]] = collections.defaultdict(list)
    for (_, wait, name, factor), point in played:
        found[wait, name, factor].append(point)
    made: dict[str, dict[str, list[Point]]] = {wait: {name: [] for name in POLICIES} for wait in WAITS}
    for (wait, name, _), points in found.items():
        hours, shares = zip(*points, strict=True)
        made[wait][name].append((statistics.fmean(hours), statistics.fmean(shares)))
    return made


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


def compared(panel: Mapping[str, Sequence[Point]], factor: float) -> dict[str, tuple[float, bool]]:
    """By peer: its hours at the share that ours has at this factor, over ours, and whether it gets there."""
    hours, share = panel["ours"][FACTORS.index(factor)]
    found = {}
    for name in POLICIES:
        if name != "ours":
            needed, gets_there = hours_at(panel[name], share)
            found[name] = needed / hours, gets_there
    return found


def run() -> bench.Result:
    conditions = bench.machine()
    draws = range(int(os.environ.get("LLMOP_BENCH_DRAWS", DRAWS)))
    bounds, played = [], []
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for bound, plays in pool.map(day, draws):
            bounds.append(bound)
            played.extend(plays)
            print(f"  day {len(bounds)} of {len(draws)}", file=sys.stderr, flush=True)
    return told(curves(played), statistics.fmean(bounds), len(draws), conditions)


def told(
    found: Mapping[str, Mapping[str, Sequence[Point]]],
    bound: float,
    draws: int,
    conditions: Mapping[str, object],
) -> bench.Result:
    peers: dict[str, float] = {}
    more: dict[str, object] = {"clairvoyant replica hours": round(bound, 1)}
    ours_at_zero = found["0"]["ours"][FACTORS.index(1.0)][0]
    for wait, panel in found.items():
        print(f"  queue wait {wait}: clairvoyant {bound:.1f} replica hours, everybody served at once")
        for name, points in panel.items():
            shown = "  ".join(f"{each:6.1f} h {100 * within:7.3f} %" for each, within in points)
            print(f"    {name:12} {shown}")
        for factor in FACTORS:
            ratios = compared(panel, factor)
            shown = "  ".join(
                f"{name} {ratio:.2f}{'' if there else '+'}" for name, (ratio, there) in ratios.items()
            )
            print(f"    hours of others at our share, target x {factor}: {shown}")
        hours, share = panel["ours"][FACTORS.index(1.0)]
        more[f"ours, {wait}"] = {"replica hours": round(hours, 1), "within 10 s": round(share, 5)}
        for name, (ratio, gets_there) in compared(panel, 1.5).items():
            # In our own hours without a wait, so that the ratio is theirs over ours at the same wait.
            peers[f"{name}, {wait}{'' if gets_there else ' (never as good)'}"] = ratio * ours_at_zero
    bench.FOLDER.mkdir(parents=True, exist_ok=True)
    picture.write(bench.FOLDER / "autoscale.svg", found, bound)
    return bench.Result(
        name="autoscale",
        unit="replica hours in 23 h; peers at the share that ours has with a target of 24, scaled to ours",
        ours=ours_at_zero,
        peers=peers,
        higher_is_better=False,
        more=more,
        conditions={
            **conditions,
            "trace": traces.load().name,
            "days": draws,
            "slots": world.SLOTS,
            "target": world.TARGET,
            "boot": f"{world.BOOT_S}s",
        },
    )
