"""How long it takes from an apply until Slurm has accepted the job, against a bare sbatch of the same account on the same Slurm.

Needs root on Debian or Ubuntu: a private Slurm runs the jobs. Ours holds the control API, validation, two durable transactions, the
replica's directory and sbatch; the peer is sbatch alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time

import bench

from llmop.api.v1 import resources_pb2

sys.path.insert(0, str(bench.ROOT))

ROUNDS = 15


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-slurm")], check=True)
    from tests.e2e.installation import Installation
    from tests.rigs.install import user_venv
    from tests.rigs.slurm import SlurmRig

    conditions = bench.machine()
    with SlurmRig(nodes=4) as rig:
        installation = Installation(rig, user_venv(), name="bench").start()
        try:
            values = bench.interleave(
                ROUNDS, {"ours": _Ours(installation).once, "sbatch": lambda: _bare(rig)}
            )
        finally:
            installation.stop()
    middle = bench.medians(values)
    return bench.Result(
        name="submit",
        unit="ms",
        ours=middle["ours"],
        peers={"sbatch": middle["sbatch"]},
        higher_is_better=False,
        more={
            "added_ms": middle["ours"] - middle["sbatch"],
            "ours_p90": statistics.quantiles(values["ours"], n=10)[-1],
            "rounds": {name: [round(value, 1) for value in series] for name, series in values.items()},
        },
        conditions={**conditions, "store": "sqlite", "nodes": 4},
    )


class _Ours:
    """Applies one deployment after the other; the job id of its replica is seen through a watch."""

    def __init__(self, installation) -> None:  # type: ignore[no-untyped-def]
        self._client = installation.client()
        self._number = 0

    def once(self) -> float:
        self._number += 1
        name = f"bench-{self._number}"
        manifest = {
            "apiVersion": "llmop/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {"runtime": "simulator", "slurm": {"partition": "gpu"}, "replicas": 1},
        }
        accepted = threading.Event()

        def follow() -> None:
            for change in self._client.watch("Replica", "default", lost=print):
                if change.row is None:
                    continue
                status = json.loads(change.row.object.status_json or "{}")
                spec = json.loads(change.row.object.spec_json or "{}")
                if spec.get("deployment") == name and status.get("jobId"):
                    accepted.set()
                    return

        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        began = time.perf_counter()
        request = resources_pb2.ApplyRequest(manifest_json=json.dumps(manifest), field_manager="bench")
        self._client.call(self._client.resources.Apply, request)
        if not accepted.wait(60):
            raise RuntimeError(f"{name} was not submitted within 60 s")
        took = (time.perf_counter() - began) * 1000
        gone = resources_pb2.DeleteRequest(kind="ModelDeployment", namespace="default", name=name)
        self._client.call(self._client.resources.Delete, gone)
        return took


def _bare(rig) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    rig.run_as_user(["sbatch", "--parsable", "--output=/dev/null", "--wrap=true"])
    return (time.perf_counter() - began) * 1000
