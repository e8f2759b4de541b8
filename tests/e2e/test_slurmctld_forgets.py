"""slurmctld loses its StateSaveLocation and starts from nothing while jobs run: nobody is replaced on one look, nor twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.e2e.installation import Installation, simulator
from tests.e2e.traffic import BROKEN
from tests.rigs.slurm import SlurmRig


@pytest.fixture
def slurm_rig() -> Iterator[SlurmRig]:
    """One of this test's own: whoever else had jobs there would lose them."""
    with SlurmRig(nodes=2) as rig:
        yield rig


def test_a_fleet_that_slurmctld_has_forgotten_serves_on_and_is_replaced_once_it_is_killed(
    install: Callable[..., Installation],
) -> None:
    """Brake, orphans that serve; then the nodes register, Slurm kills what it does not know, and each replica gets one successor.

    The nodes' daemons are dead at first. They would register within seconds and end the part that is to be seen here.
    """
    site = install(cluster={"pollInterval": {"min": "6s", "max": "6s"}})
    site.apply(simulator(replicas=3))
    site.wait_ready("sim", 3)
    before = {job.name: job.id for job in site.wait_settled(3)}
    names = {each.name for each in site.replicas("sim")}

    def phases() -> dict[str, str]:
        return {each.name: each.status["phase"] for each in site.replicas("sim")}

    with site.flowing() as traffic:
        for node in site.rig.nodes:
            site.rig.kill_slurmd(node)
        traffic.phase("forgotten")
        site.rig.lose_state()
        braked = site.wait_condition("Cluster", "default", "Reachable", reason="MassVanish")
        assert "Unknown" == braked["status"]
        assert braked["message"].startswith("3 of 3 running jobs vanished at once without a reason"), braked
        assert dict.fromkeys(names, "Ready") == phases()
        site.wait(
            "a second look to agree", lambda: dict.fromkeys(names, "OrphanAlive") == phases(), timeout=60
        )
        site.hold(
            "all three serve as orphans, and nothing is submitted in their place",
            lambda: dict.fromkeys(names, "OrphanAlive") == phases() and not site.jobs(),
            seconds=10,
        )
        assert "True" == site.condition("ModelDeployment", "sim", "Available")["status"]
        site.wait("all three to answer", lambda: 3 == len(traffic.replicas), timeout=20)

        traffic.phase("killed", allowed=BROKEN)
        for node in site.rig.nodes:
            site.rig.start_node(node)
        site.wait("Slurm to kill what it does not know", lambda: not site.processes(), timeout=60)
        assert "Orphan StepId" in (site.rig.directory / "log/slurmctld.out.log").read_text()
        site.wait("three others to be ready", lambda: 3 == len(fresh(site, names)), timeout=120)
        traffic.phase("replaced")
        site.wait("all three to answer", lambda: 3 == len(traffic.replicas), timeout=20)
    after = {job.name: job.id for job in site.wait_settled(3)}
    assert not before.keys() & after.keys()
    assert {1, 2, 3} == set(after.values()), "a Slurm that starts from nothing counts its jobs anew"
    assert [] == [job for job in site.rig.squeue() if job.name not in after]
    site.delete("sim")
    site.wait_gone("sim")
    site.assert_nothing_left()


def fresh(site: Installation, old: set[str]) -> set[str]:
    return {each.name for each in site.ready("sim")} - old
