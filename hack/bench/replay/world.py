"""What answers: replicas that come after a wait in the queue and a start, take so many requests at a time, and cost while they run."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Sequence

from llmop.planner import autoscale, eta

from .traces import DAY_S, Request

TICK_S = 2
SLOTS = 32  # requests that a replica takes at a time; more wait
TARGET = 16  # requests in flight per replica, what policies aim at
MOST = 24  # replicas
PREFILL_TOKENS_PER_S = 2000.0  # a model of 70B on four GPUs, say
DECODE_S = 0.06  # per token
BOOT_S = 120  # from the start of the job until it serves; costs like serving
DRAIN_S = 20  # from the decision that it goes to its end; costs like serving
SLO_S = 10.0  # longest wait for a slot
PATIENCE_S = 600.0  # then the client leaves
WARM_S = 3600  # the first hour is played and not counted: everybody begins with an empty memory


@dataclasses.dataclass(kw_only=True, slots=True)  # one per tick: freezing them would be a tenth of the replay
class Moment:
    """What a policy sees. `ready` serve, `coming` were asked for and do not serve yet."""

    now: float
    in_flight: int
    queued: int
    ready: int
    coming: int
    desired: int
    lead_s: float | None  # from asking to readiness, the median of the replicas that became ready last


Policy = Callable[[Moment], int]
Wait = Callable[[random.Random], float]
QUEUE_S = 300  # who submits within so long of each other finds the same queue


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    replica_hours: float
    within: float  # share of the requests that got a slot within the SLO
    changes: int  # of the number of replicas wanted


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A day in ticks: when each request comes and for how many ticks it holds a slot, by arrival."""

    arrived: Sequence[int]
    holds: Sequence[int]
    until: Sequence[int]  # by tick: how many have arrived

    @property
    def ticks(self) -> int:
        return len(self.until)


def work(requests: Sequence[Request]) -> Work:
    ticks = DAY_S // TICK_S
    arrived = [min(ticks - 1, int(each.at // TICK_S)) for each in requests]
    holds = [
        max(1, math.ceil((each.prompt / PREFILL_TOKENS_PER_S + each.generated * DECODE_S) / TICK_S))
        for each in requests
    ]
    until, number = [], 0
    for tick in range(ticks):
        while number < len(arrived) and arrived[number] <= tick:
            number += 1
        until.append(number)
    return Work(arrived=arrived, holds=holds, until=until)


def clairvoyant(day: Work) -> float:
    """Replica hours of whoever knows what comes, starts and ends replicas for nothing, and fills every slot: nobody can need less to
    serve everybody at once.
    """
    delta = [0] * (day.ticks + 1)
    for arrived, holds in zip(day.arrived, day.holds, strict=True):
        delta[arrived] += 1
        delta[min(day.ticks, arrived + holds)] -= 1
    busy, total = 0, 0
    for tick, change in enumerate(delta[:-1]):
        busy += change
        if tick >= WARM_S // TICK_S:
            total += max(1, math.ceil(busy / SLOTS))
    return total * TICK_S / 3600


def waits(wait: Wait, draw: str) -> Callable[[int], float]:
    """How long a job waits that is submitted at a second of the day: the same for everybody, so that policies differ by what they do."""
    known = [wait(random.Random(f"{draw}/{part}")) for part in range(-1, DAY_S // QUEUE_S)]
    return lambda now: known[now // QUEUE_S + 1]


def play(day: Work, policy: Policy, wait: Callable[[int], float]) -> Outcome:
    """`wait` says how long a job is in the queue that is submitted at a second of the day; -1 stands for the time before it.

    Replicas that are not needed go pending ones first, which cost nothing, then starting ones, then serving ones.
    """
    first = max(1, math.ceil(day.until[30] / 60 / TARGET * 15))
    ready, desired = first, first
    waiting: list[tuple[float, float]] = []  # (when it starts, when it was asked for)
    starting: list[tuple[float, float]] = []  # (when it serves, when it was asked for)
    draining: list[float] = []
    leads = [wait(-1) + BOOT_S] * first  # theirs, of the time before
    lead_s = leads[0]
    done = [0] * (day.ticks + max(day.holds, default=0) + 1)
    taken = in_flight = within = changes = cost = 0
    slo, patience, warm = int(SLO_S // TICK_S), int(PATIENCE_S // TICK_S), WARM_S // TICK_S
    arrived, holds, until = day.arrived, day.holds, day.until
    for tick in range(day.ticks):
        now = tick * TICK_S
        in_flight -= done[tick]
        if waiting:
            for started, asked in [each for each in waiting if each[0] <= now]:
                waiting.remove((started, asked))
                starting.append((started + BOOT_S, asked))
        if starting:
            for serves, asked in [each for each in starting if each[0] <= now]:
                starting.remove((serves, asked))
                ready += 1
                leads = [*leads, serves - asked][-eta.KEPT :]
                lead_s = statistics.median(leads)
        if draining:
            draining = [each for each in draining if each > now]
        come = until[tick]
        while taken < come and tick - arrived[taken] > patience:
            taken += 1
        take = min(come - taken, ready * SLOTS - in_flight)
        if take > 0:
            for number in range(taken, taken + take):
                done[tick + holds[number]] += 1
                if arrived[number] >= warm and tick - arrived[number] <= slo:
                    within += 1
            taken += take
            in_flight += take
        if tick >= warm:
            cost += ready + len(starting) + len(draining)
        coming = len(waiting) + len(starting)
        wanted = policy(
            Moment(
                now=now,
                in_flight=in_flight,
                queued=come - taken,
                ready=ready,
                coming=coming,
                desired=desired,
                lead_s=lead_s,
            )
        )
        wanted = max(1, min(MOST, wanted))
        if wanted == desired:
            continue
        changes += 1
        desired = wanted
        more = desired - ready - coming
        waiting.extend((now + wait(now), now) for _ in range(more))
        for _ in range(-more):
            if waiting:
                waiting.remove(max(waiting))
            elif starting:
                starting.remove(max(starting))
            else:
                ready -= 1
                draining.append(now + DRAIN_S)
    return Outcome(
        replica_hours=cost * TICK_S / 3600,
        within=within / sum(1 for each in arrived if each >= warm),
        changes=changes,
    )


assert TICK_S == autoscale.TICK_S
