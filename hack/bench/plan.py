"""How much CPU time one planning pass over everything takes when nothing has changed, and whether that grows linearly.

The planner alone: gathering its input and writing down what it says are not in it. The yardstick is json.loads of the statuses of
the same replicas, which is the least that a controller without a mirror in memory would pay to know how things are.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time

import bench

from llmop.planner import compute, values
from llmop.reconciler import codec
from llmop.testing import builders

ROUNDS = 9
REPLICAS = 10  # of each deployment

Case = tuple[values.Desired, values.Observed]


def no_names() -> values.FreshName:
    raise AssertionError("an unchanged world needs no new names")


def cases(deployments: int) -> list[Case]:
    """Each deployment has its replicas, all ready, with their jobs and heartbeats."""
    result = []
    for number in range(deployments):
        replicas = [builders.a_replica(number * REPLICAS + index) for index in range(1, REPLICAS + 1)]
        desired = builders.desired(replicas)
        owner = desired.deployment
        owner = dataclasses.replace(owner, spec=dataclasses.replace(owner.spec, replicas=REPLICAS))
        desired = dataclasses.replace(desired, deployment=owner)
        observed = builders.observed(
            [builders.a_job(each) for each in replicas],
            [builders.a_heartbeat(each) for each in replicas],
            api_keys={each.uid: "key" for each in replicas},
        )
        result.append((desired, observed))
    return result


def one_pass(work: list[Case]) -> float:
    began = time.process_time()
    for desired, observed in work:
        plan = compute.plan(desired, observed, no_names)
        assert not plan.actions, plan.actions
    return (time.process_time() - began) * 1000


def statuses(work: list[Case]) -> list[str]:
    return [
        json.dumps(codec.replica_status(shown))
        for desired, observed in work
        for shown in compute.plan(desired, observed, no_names).replicas
    ]


def read_all(texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        json.loads(text)
    return (time.process_time() - began) * 1000


def run() -> bench.Result:
    conditions = bench.machine()
    small, large = cases(100), cases(1000)
    texts = statuses(small)
    values_of = bench.interleave(
        ROUNDS, {"ours": lambda: one_pass(small), "json.loads": lambda: read_all(texts)}
    )
    middle = bench.medians(values_of)
    big = statistics.median(one_pass(large) for _ in range(3))
    return bench.Result(
        name="plan",
        unit="CPU ms for 100 deployments, 1,000 replicas, nothing changed",
        ours=middle["ours"],
        peers={"json.loads of the statuses": middle["json.loads"]},
        higher_is_better=False,
        more={
            "10,000 replicas": round(big, 1),
            "growth for 10 times as many": round(big / middle["ours"], 2),
        },
        conditions={**conditions, "rounds": ROUNDS},
    )
