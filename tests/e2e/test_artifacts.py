"""An image of a registry on the way into jobs of a real Slurm: fetched before anything is submitted, once, whatever happens meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import Installation, simulator
from tests.rigs.loopback import Fault
from tests.rigs.registry import RegistryServer

MB = 1024 * 1024


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    registry = RegistryServer()
    with registry.running():
        yield registry


def test_an_image_of_a_registry_is_staged_once_and_runs_in_jobs(
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
    image = f"docker://{registry.address}/team/engine:1.0"
    held = Fault(path=registry.largest_blob(), after=2 * MB, go=threading.Event())
    registry.faults.append(held)
    site = install(cluster={"staging": {"insecureRegistries": [registry.address]}})
    site.apply(simulator(replicas=1) | {"spec": simulator(replicas=1)["spec"] | {"image": image}})

    site.wait("the image to be on its way", held.reached.is_set, timeout=60)
    site.wait_condition("ModelDeployment", "sim", "ArtifactsReady", reason="Downloading")
    assert [] == site.jobs() == site.replicas("sim")
    # The controller dies in the middle and comes back; the tag moves. Neither changes what runs.
    site.kill_controller()
    (tree / "moved").write_text("moved")
    registry.push("team/engine", "1.0", tree)
    assert held.go is not None
    held.go.set()
    site.start_controller()
    site.wait_ready("sim", 1, timeout=120)
    assert "Staged" == site.condition("ModelDeployment", "sim", "ArtifactsReady")["reason"]
    site.scale("sim", 2)
    site.wait_ready("sim", 2)
    with site.flowing() as traffic:
        site.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=20)

    name = f"{digest.removeprefix('sha256:')}.sif"
    assert [name] == [each.name for each in (site.shared / "images").glob("*.sif")]
    assert {str(site.shared / "images" / name)} == _images_of(site)
    assert digest.removeprefix("sha256:")[:12] in site.llmctl("artifacts")
    site.llmctl("artifacts", "prune")
    assert (site.shared / "images" / name).exists()
    site.delete("sim")
    site.wait_gone("sim")
    site.llmctl("artifacts", "prune")
    assert [] == [each for each in (site.shared / "images").rglob("*") if each.is_file()]
    site.assert_nothing_left()


def _images_of(site: Installation) -> set[str]:
    """What the agents were told to run."""
    configs = [site.shared / "replicas" / each.name / "replica.json" for each in site.ready("sim")]
    return {json.loads(each.read_bytes())["engine"]["container"]["image"] for each in configs}
