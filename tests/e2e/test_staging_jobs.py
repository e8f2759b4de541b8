"""Artifacts that are staged by jobs of a real Slurm: one job each, whatever happens to the controller, and what is wrong in words."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.installation import Installation, document, simulator
from tests.rigs.hub import HubServer
from tests.rigs.loopback import Fault
from tests.rigs.registry import RegistryServer
from tests.rigs.slurm import QueuedJob

MB = 1024 * 1024
WEIGHTS = b"w" * 3 * MB
URI = "hf://team/model"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    hub = HubServer()
    with hub.running():
        hub.commit("team/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
        yield hub


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    registry = RegistryServer()
    with registry.running():
        yield registry


def staged(name: str = "sim") -> dict[str, Any]:
    """It needs no weights, and has them all the same."""
    wanted = simulator(name, replicas=1)
    wanted["spec"]["model"] = {**wanted["spec"].get("model", {}), "uri": URI}
    return wanted


def stagers(site: Installation) -> list[QueuedJob]:
    """All staging jobs that Slurm still knows."""
    return [each for each in site.rig.squeue() if each.name.startswith("llmop-") and "-staging-" in each.name]


def said(site: Installation, name: str = "sim") -> tuple[str, str]:
    found = site.condition("ModelDeployment", name, "ArtifactsReady")
    return str(found.get("reason", "")), str(found.get("message", ""))


def leftovers(site: Installation) -> list[Path]:
    return [*site.shared.glob("*/.staging/*")]


def test_weights_come_by_one_job_although_the_controller_dies(
    install: Callable[..., Installation], hub: HubServer
) -> None:
    held = Fault(path="model.safetensors", after=MB, go=threading.Event())
    hub.faults.append(held)
    site = install(cluster={"staging": {"where": "Job", "hub": hub.endpoint, "partition": "gpu", "cpus": 2}})
    site.apply(staged())

    site.wait("the download to be under way", held.reached.is_set, timeout=60)
    site.wait("the condition to say how far it is", lambda: "% of 3.1 MB" in said(site)[1], timeout=30)
    assert "Downloading" == said(site)[0]
    (job,) = stagers(site)
    shown = site.rig.run_as_root(["scontrol", "show", "job", str(job.id)])
    assert "Partition=gpu" in shown
    assert "NumCPUs=2" in shown
    assert [] == site.replicas("sim")

    site.kill_controller()
    site.start_controller()
    site.hold("one job", lambda: [job.id] == [each.id for each in stagers(site)], seconds=8)
    assert "Downloading" == said(site)[0]
    site.end_controller()  # SIGTERM does not take the job down either
    assert "RUNNING" == site.rig.wait_for_state(job.id, "RUNNING")
    assert held.go is not None
    held.go.set()
    assert "COMPLETED" == site.rig.wait_for_state(job.id, "COMPLETED")
    site.start_controller()
    site.wait_ready("sim", 1)
    assert "Staged" == said(site)[0]
    assert {job.id} >= {each.id for each in stagers(site)}  # Slurm forgets it after a while
    site.wait("what the job has left to go", lambda: not leftovers(site), timeout=90)
    (model,) = [each for each in (site.shared / "models").iterdir() if each.is_dir() and each.name[0] != "."]
    assert WEIGHTS == (model / "model.safetensors").read_bytes()
    site.delete("sim")
    site.wait_gone("sim")
    site.assert_nothing_left()


def test_an_image_is_made_in_a_job(
    install: Callable[..., Installation], engine_sif: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    subprocess.run(
        ["apptainer", "--quiet", "build", "--sandbox", str(tree), str(engine_sif)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    digest = registry.push("team/engine", "1.0", tree)
    staging = {"where": "Job", "insecureRegistries": [registry.address], "memory": "4Gi", "timeLimit": "30m"}
    site = install(cluster={"staging": staging})
    site.apply(
        simulator(replicas=1)
        | {"spec": simulator(replicas=1)["spec"] | {"image": f"docker://{registry.address}/team/engine:1.0"}}
    )
    site.wait_ready("sim", 1, timeout=180)
    assert [f"{digest.removeprefix('sha256:')}.sif"] == [
        each.name for each in (site.shared / "images").glob("*.sif")
    ]
    site.delete("sim")
    site.wait_gone("sim")
    site.assert_nothing_left()


def test_what_keeps_a_job_from_its_work_is_told_and_what_nobody_wants_is_cancelled(
    install: Callable[..., Installation], hub: HubServer
) -> None:
    staging = {"where": "Job", "hub": hub.endpoint, "python": "/nowhere/python3"}
    site = install(cluster={"staging": staging})

    def use(**changes: Any) -> None:
        site.apply(
            document("Cluster", "default", {**site.cluster, "staging": {**staging, **changes}}), force=True
        )

    site.apply(staged())
    site.wait("no Python to be told", lambda: said(site)[0] == "ArtifactNoPython", timeout=60)
    assert "found no /nowhere/python3" in said(site)[1]

    python = str(site.venv / "bin/python")
    use(python=python, account="nobody-knows", partition="nowhere")
    site.wait("a rejection to be told", lambda: said(site)[0] == "ArtifactJobRejected", timeout=60)
    assert "correct spec.staging of the Cluster default" in said(site)[1]
    checked = site.llmctl("preflight", "--skip-node", "md/sim", code=217)
    assert "staging of default: TestOnly" in checked

    hub.is_down = True
    use(python=python)
    site.wait("the hub to be missed", lambda: said(site)[0] == "ArtifactUnavailable", timeout=90)
    assert "(on n" in said(site)[1], "a node's way to the hub is not the controller's"
    hub.is_down = False

    held = Fault(path="model.safetensors", after=MB, go=threading.Event())
    hub.faults.append(held)
    site.rig.run_as_root(["scontrol", "update", "partitionname=gpu", "state=down"])
    try:
        use(python=python, partition="gpu")
        site.wait("the job to wait", lambda: "PartitionDown" in said(site)[1], timeout=60)
        assert "JobPending" == said(site)[0]
        assert "JobPending" in site.llmctl("why", "md/sim")
    finally:
        site.rig.run_as_root(["scontrol", "update", "partitionname=gpu", "state=up"])
    site.wait("the job to fetch", held.reached.is_set, timeout=90)
    (job,) = [each for each in stagers(site) if each.state == "RUNNING"]
    site.delete("sim")
    assert "CANCELLED" == site.rig.wait_for_state(job.id, "CANCELLED")
    site.wait_gone("sim")
    assert held.go is not None
    held.go.set()
    site.assert_nothing_left()
