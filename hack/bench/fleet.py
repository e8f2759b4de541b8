"""A fleet of 100 simulators on 64 nodes through its life: up, to 10, to 100, deleted. Prints a time line.

The yardstick is what Slurm and this machine need for the same number of engines without an operator: as many bare `sbatch`, two at a
time as llmop has them, of a script that becomes the same engine, until every engine listens. Needs root on Debian or Ubuntu, and
50 MB of memory for each replica.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable

import bench
from fleets import place, usage
from fleets.place import Installation, Look
from gateways.processes import answers
from tests.e2e.installation import LIVE, simulator
from tests.rigs.processes import tail

REPLICAS = 100
FEW = 10
NEEDED_MB = 60 * REPLICAS
PATIENCE_S = 200.0
PERIOD_S = 1.0
REST_S = 20.0
NAME = "fleet"


class Line:
    """The time line: one row a period while something is waited for."""

    def __init__(self, here: Installation) -> None:
        self._here = here
        self._began = time.monotonic()
        self._first = Look.at_now(here)
        self.rows: list[dict[str, float | str]] = []
        print(
            f"{'s':>6}  {'phase':8} {'ready':>5} {'replicas':>8} {'CPU s':>6} {'MB':>6} {'requests':>8} {'load':>5}"
        )

    def note(self, phase: str) -> dict[str, object]:
        """Adds a row; returns the deployment's status."""
        here = self._here
        status = here.status("ModelDeployment", NAME)
        look = Look.at_now(here)
        used = look.used(self._first, here.rig.user)
        row: dict[str, float | str] = {
            "s": round(look.at - self._began, 1),
            "phase": phase,
            "ready": int(status.get("readyReplicas") or 0),
            "replicas": int(status.get("replicas") or 0),
            "cpu_s": used["cpu_s"],
            "mb": look.resident_mb,
            "requests": used["requests"],
            "load": round(os.getloadavg()[0], 1),
        }
        self.rows.append(row)
        print(
            f"{row['s']:6}  {phase:8} {row['ready']:5} {row['replicas']:8} {row['cpu_s']:6} {row['mb']:6}"
            f" {row['requests']:8} {row['load']:5}",
            flush=True,
        )
        return status

    def until(self, phase: str, reached: Callable[[dict[str, object]], bool]) -> dict[str, float]:
        """What the phase used until its end. Raises RuntimeError when that does not come."""
        before = Look.at_now(self._here)
        limit = before.at + PATIENCE_S
        while True:
            began = time.monotonic()
            if reached(self.note(phase)):
                return Look.at_now(self._here).used(before, self._here.rig.user)
            if began > limit:
                raise RuntimeError(f"{phase}: not within {PATIENCE_S:g} s\n{self._here.report()}")
            time.sleep(max(0.0, began + PERIOD_S - time.monotonic()))


def run() -> bench.Result:
    conditions = bench.machine()
    if usage.available_mb() < NEEDED_MB:
        raise RuntimeError(
            f"{REPLICAS} replicas need about {NEEDED_MB} MB of memory, {usage.available_mb()} MB are available"
        )
    with place.installation("fleet") as here:
        bare = _bare(here)
        line = Line(here)
        phases: dict[str, dict[str, float]] = {}
        here.apply(simulator(NAME, replicas=REPLICAS, probes={"startup": {"timeout": "300s"}}))
        phases["up"] = line.until("up", lambda status: status.get("readyReplicas") == REPLICAS)
        phases["rest"], roles = _rest(here)
        here.scale(NAME, FEW)
        phases["to 10"] = line.until(
            "to 10", lambda status: status.get("replicas") == FEW and len(here.jobs()) == FEW
        )
        here.scale(NAME, REPLICAS)
        phases["to 100"] = line.until("to 100", lambda status: status.get("readyReplicas") == REPLICAS)
        here.delete(NAME)
        phases["deleted"] = line.until("deleted", lambda status: not here.exists(NAME) and not here.jobs())
        here.assert_nothing_left()
        print(json.dumps(phases, indent=1), json.dumps(roles, indent=1))
    return bench.Result(
        name="fleet",
        unit=f"s from apply until {REPLICAS} replicas are ready",
        ours=phases["up"]["seconds"],
        peers={"bare sbatch of the same engines": bare},
        higher_is_better=False,
        more={
            "phases": phases,
            "submissions_per_s": round(REPLICAS / phases["up"]["seconds"], 1),
            "at_rest": roles,
            "line": line.rows,
        },
        conditions={
            **conditions,
            "load_average_after": round(os.getloadavg()[0], 2),
            "nodes": place.NODES,
            "store": "sqlite",
        },
    )


def _rest(here: Installation) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What a fleet costs in which nothing happens: the controller, and all processes by what they are."""
    before, roles_before = Look.at_now(here), usage.by_role()
    time.sleep(REST_S)
    after, roles = Look.at_now(here), usage.by_role()
    used = after.used(before, here.rig.user)
    shown = {
        name: {
            "processes": len(role.cpu_s),
            "memory_mb": role.memory_mb,
            "cpu_percent": round(100 * role.cpu_since(roles_before[name]) / used["seconds"], 1),
        }
        for name, role in roles.items()
        if name in roles_before
    }
    return used, shown


def _bare(here: Installation) -> float:
    """Seconds until as many engines listen that nobody operates."""
    rig = here.rig
    here.wait("the shared directory to be filled", (here.shared / "simulator").exists, timeout=30)
    python = here.venv / "bin/python"

    def submit(port: int) -> None:
        engine = f"exec {python} -I {here.shared}/simulator --hostname=127.0.0.1 --port={port}"
        argv = [
            "sbatch",
            "--parsable",
            "--job-name=bare",
            f"--output={here.directory}/bare-%j.log",
            "--mem=200M",
            "--cpus-per-task=1",
            f"--wrap={engine}",
        ]
        done = rig.run_as_user(argv)
        if done.returncode != 0:
            raise RuntimeError(f"sbatch ended with {done.returncode}: {done.stderr}")

    ports = _free_ports()
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as two:
        list(two.map(submit, ports))
    left = set(ports)
    while left:
        left = {port for port in left if not answers(port)}
        if time.monotonic() - began > PATIENCE_S:
            said = "\n".join(filter(None, (tail(path) for path in here.directory.glob("bare-*.log"))))
            raise RuntimeError(f"bare engines do not listen on {sorted(left)}\n{rig.squeue()}\n{said}")
        time.sleep(0.2 if left else 0)
    took = time.monotonic() - began
    print(f"{took:6.1f} s for {REPLICAS} bare engines")
    rig.run_as_root(["scancel", "--name=bare"])
    here.wait(
        "the bare engines to be gone", lambda: not any(job.state in LIVE for job in rig.squeue()), timeout=60
    )
    return took


def _free_ports() -> list[int]:
    """As many as there are replicas, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(REPLICAS)]
        return [int(probe.getsockname()[1]) for probe in probes]
