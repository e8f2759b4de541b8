"""How many requests a fleet costs slurmctld, as sdiag counts them for our account: 10 and 500 replicas on 64 nodes.

At rest (observation), and for each replica that comes and goes. The yardstick beside it, in the same seconds and on the same Slurm, is
a person's loop of another account: `squeue` for its own jobs every 5 s, the shortest interval that a Cluster has by default.
500 replicas are 500 real jobs; their agents share a few processes (fleets/crowd.py) and have no engines. Needs root on Debian or Ubuntu.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator

import bench
from fleets import crowds, place
from fleets.place import Installation, Look
from tests.e2e.installation import simulator

SIZES = (10, 500)
REST_S = 60.0
SETTLE_S = 5.0
LOOP_S = 5.0
PATIENCE_S = 150.0
OTHER = "llmoptest2"  # an account of the rigs'
NAME = "budget"
BUDGET = 0.5  # requests a second


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What `replicas` cost: while they came, at rest beside the loop, and while they went."""

    replicas: int
    up: dict[str, float]
    rest: dict[str, float]
    loop_requests: int
    down: dict[str, float]

    @property
    def rest_per_s(self) -> float:
        return self.rest["requests"] / self.rest["seconds"]

    @property
    def loop_per_s(self) -> float:
        return self.loop_requests / self.rest["seconds"]

    def shown(self) -> dict[str, object]:
        return {
            "up": self.up,
            "requests_per_replica_up": round(self.up["requests"] / self.replicas, 2),
            "rest": self.rest,
            "rest_requests_per_s": round(self.rest_per_s, 3),
            "down": self.down,
            "requests_per_replica_down": round(self.down["requests"] / self.replicas, 2),
        }


def run() -> bench.Result:
    conditions = bench.machine()
    with crowds.installation("budget", replicas=max(SIZES)) as here:
        costs = [_cost(here, replicas) for replicas in SIZES]
    most = costs[-1]
    return bench.Result(
        name="rpc_budget",
        unit=f"requests/s of slurmctld at rest with {most.replicas} replicas",
        ours=most.rest_per_s,
        peers={"squeue every 5 s": most.loop_per_s},
        higher_is_better=False,
        more={
            f"budget (at most {BUDGET} a second) kept": all(each.rest_per_s <= BUDGET for each in costs),
            **{f"{each.replicas} replicas": each.shown() for each in costs},
        },
        conditions={
            **conditions,
            "load_average_after": round(os.getloadavg()[0], 2),
            "nodes": place.NODES,
            "store": "sqlite",
            "rest_s": REST_S,
        },
    )


def _cost(here: Installation, replicas: int) -> Cost:
    user = here.rig.user
    begin = Look.at_now(here)
    here.apply(simulator(NAME, replicas=replicas, resources={"cpus": 1, "memory": "50Mi"}))
    here.wait_ready(NAME, replicas, timeout=PATIENCE_S)
    ready = Look.at_now(here)
    time.sleep(SETTLE_S)
    before = Look.at_now(here)
    with _loop(here):
        time.sleep(REST_S)
    after = Look.at_now(here)
    here.delete(NAME)
    here.wait_gone(NAME, timeout=PATIENCE_S)
    gone = Look.at_now(here)
    return Cost(
        replicas=replicas,
        up=ready.used(begin, user),
        rest=after.used(before, user),
        loop_requests=after.requests[OTHER] - before.requests.get(OTHER, 0),
        down=gone.used(after, user),
    )


@contextlib.contextmanager
def _loop(here: Installation) -> Iterator[None]:
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            here.rig.run_as_user(["squeue", "--noheader", f"--user={OTHER}"], user=OTHER, check=True)
            over.wait(max(0.0, began + LOOP_S - time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
