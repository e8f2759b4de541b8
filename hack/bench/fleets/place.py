"""A private Slurm of many nodes, an installation on it, and its controller under observation. Needs root on Debian or Ubuntu."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench
from gateways.processes import resident_kb

from fleets import sdiag, usage

sys.path.insert(0, str(bench.ROOT))

from tests.e2e.installation import Installation
from tests.rigs.errors import RigError
from tests.rigs.install import user_venv
from tests.rigs.slurm import SlurmRig

NODES = 64
# The defaults of a Cluster but for the rate: nobody waits for one submission a second here.
CLUSTER: Mapping[str, Any] = {
    "submitRate": {"perSecond": 20, "burst": 40},
    "pollInterval": {"min": "5s", "max": "60s"},
}


@contextlib.contextmanager
def installation(
    name: str, *, nodes: int = NODES, cluster: Mapping[str, Any] = CLUSTER, python: Path | None = None
) -> Iterator[Installation]:
    """Started, and nothing of it left afterwards. `python` is what jobs run in the place of the node's Python."""
    subprocess.run([str(bench.ROOT / "hack" / "install-slurm")], check=True)
    venv = user_venv()
    with SlurmRig(nodes=nodes) as rig:
        wanted = dict(cluster) | ({"python": str(python)} if python else {})
        made = Installation(rig, venv, name=name, cluster=wanted)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was used until `at` (monotonic seconds): the controller's CPU time, its memory in MB, and slurmctld's requests by account."""

    at: float
    cpu: usage.Cpu
    resident_mb: float
    requests: Mapping[str, int]

    @classmethod
    def at_now(cls, here: Installation) -> Look:
        pid = here.controllers["first"].daemon.pid
        return cls(
            at=time.monotonic(),
            cpu=usage.cpu_of(pid),
            resident_mb=round(resident_kb(pid) / 1024, 1),
            requests=requests(here.rig),
        )

    def used(self, before: Look, account: str) -> dict[str, float]:
        """Between two looks. `cpu_s` is the controller's own; its children are the commands of Slurm."""
        seconds = self.at - before.at
        cpu = self.cpu.since(before.cpu)
        made = self.requests.get(account, 0) - before.requests.get(account, 0)
        return {
            "seconds": round(seconds, 1),
            "cpu_s": round(cpu.own, 2),
            "children_cpu_s": round(cpu.children, 2),
            "cpu_percent": round(100 * cpu.own / seconds, 1),
            "requests": made,
            "resident_mb": self.resident_mb,
        }


def requests(rig: SlurmRig) -> dict[str, int]:
    """slurmctld's requests so far by account. Asking is a request of root's."""
    return sdiag.by_account(rig.run_as_root(["sdiag"]))


__all__ = ["NODES", "Installation", "Look", "RigError", "SlurmRig", "installation", "requests"]
