"""Slurm does not answer, answers late, or says nonsense: no job is lost, doubled or cancelled, and people read what is wrong."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import Installation, simulator
from tests.rigs.release import PATH
from tests.rigs.slurm import SlurmRig

SQUEUE = """#!/bin/sh
# A squeue that does not tell the truth when it is told so.
case "$(cat {mode} 2>/dev/null)" in
in-a-record)  {squeue} "$@" | head -c 300; exit 0 ;;
fewer)        {squeue} "$@" | awk '/RUNNING/ && n++ < 3 {{next}} {{print}}'; exit 0 ;;
nothing)      exit 0 ;;
garbage)      head -c 2000 /dev/urandom; exit 0 ;;
words)        echo "slurm_load_jobs: it is a nice day"; exit 0 ;;
error)        echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1 ;;
*)            exec {squeue} "$@" ;;
esac
"""


OUTAGE_S = 61.0  # how long slurmctld is gone


def reachable(site: Installation) -> dict[str, str]:
    return site.condition("Cluster", "default", "Reachable")


def wait_reachable(site: Installation, **wanted: str) -> dict[str, str]:
    return site.wait_condition("Cluster", "default", "Reachable", timeout=90, **wanted)


def assert_no_other_job(site: Installation, jobs: set[int]) -> None:
    """Slurm has not seen any job of this installation but these, and the canary: none doubled, none cancelled. It keeps ended ones for
    MinJobAge."""
    prefix = site.jobs()[0].name[: len("llmop-123456-")]
    ours = [
        job
        for job in site.rig.squeue()
        if job.name.startswith(prefix) and not job.name.startswith(f"{prefix}canary-")
    ]
    assert jobs == {job.id for job in ours}, ours
    assert {"RUNNING"} == {job.state for job in ours}, ours
    assert len(ours) == len({job.name for job in ours}), ours


def test_what_slurmctld_took_while_it_was_paused_becomes_no_second_job(
    install: Callable[..., Installation],
) -> None:
    """sbatch is killed at our timeout; the job lands when slurmctld goes on, and is adopted under its name."""
    site = install(cluster={"submitTimeout": "2s", "settleTime": "12s"})
    site.apply(simulator(replicas=1))
    site.wait_ready("sim", 1)
    with site.flowing():
        site.rig.pause_slurmctld()
        try:
            site.scale("sim", 3)
            site.wait(
                "the submissions to be unresolved",
                lambda: (
                    2
                    == len(
                        [one for one in site.replicas() if one.status.get("reason") == "SubmissionUnresolved"]
                    )
                ),
                timeout=30,
            )
            unreachable = wait_reachable(site, status="False")
            print(f"       {unreachable['message']}")
            assert "squeue" in unreachable["message"] or "slurm" in unreachable["message"].lower()
        finally:
            site.rig.resume_slurmctld()
        site.wait_ready("sim", 3)
        wait_reachable(site, status="True")
        running = {job.id for job in site.wait_settled(3)}
        # Past the settle time: what was submitted again would be here.
        site.hold("no other job comes", lambda: running == {job.id for job in site.jobs()}, seconds=14)
    assert_no_other_job(site, running)
    assert {each.job_id for each in site.replicas()} == running


def test_a_slurmctld_that_is_gone_for_more_than_a_minute_costs_nothing(
    install: Callable[..., Installation],
) -> None:
    site = install()
    site.apply(simulator(replicas=3))
    site.wait_ready("sim", 3)
    before = {job.id for job in site.wait_settled(3)}
    site.rig.save_state()
    with site.flowing():
        site.rig.kill_slurmctld()
        killed_at = time.monotonic()
        unreachable = wait_reachable(site, status="False")
        print(f"       {unreachable['message']}")
        assert "Unable to contact slurm controller" in unreachable["message"]
        site.wait_condition("ModelDeployment", "sim", "CapacityAvailable", reason="ClusterUnreachable")
        site.scale("sim", 4)

        def as_it_was() -> bool:
            capacity = site.condition("ModelDeployment", "sim", "CapacityAvailable")
            return (
                reachable(site) == unreachable
                and capacity.get("reason") == "ClusterUnreachable"
                and before == {each.job_id for each in site.ready("sim")}
            )

        rest = OUTAGE_S - (time.monotonic() - killed_at)
        site.hold("three go on, and the same words say what is wrong", as_it_was, seconds=rest)
        site.rig.start_slurmctld()
        site.wait_ready("sim", 4)
        assert not wait_reachable(site, status="True")["message"]
    after = {job.id for job in site.wait_settled(4)}
    assert before < after
    assert_no_other_job(site, after)


@pytest.fixture
def lying(slurm_rig: SlurmRig) -> Iterator[Path]:
    """A folder with a squeue that lies as its file `mode` says."""
    folder = slurm_rig.shared / "lying"
    folder.mkdir()
    (folder / "mode").touch()
    (folder / "squeue").write_text(
        SQUEUE.format(mode=folder / "mode", squeue=shutil.which("squeue", path=PATH))
    )
    (folder / "squeue").chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_squeue_that_lies_costs_nothing(install: Callable[..., Installation], lying: Path) -> None:
    """Cut in a record, without some records, empty, garbage, an error: the same jobs run on, and stay routed."""
    site = install(path_first=lying)
    mode = lying / "mode"
    site.apply(simulator(replicas=4))
    site.wait_ready("sim", 4)
    before = {job.id for job in site.wait_settled(4)}
    with site.flowing() as traffic:
        for fault in ("in-a-record", "garbage", "words", "error"):
            mode.write_text(fault)
            said = wait_reachable(site, status="False")
            print(f"       {said['message'][:150]!r}")
            assert said["message"]
            mode.write_text("")
            wait_reachable(site, status="True")
        for fault in ("fewer", "nothing"):
            mode.write_text(fault)
            said = wait_reachable(site, reason="MassVanish")
            print(f"       {said['message'][:150]!r}")
            traffic.phase(fault)
            site.hold("all four jobs go on", lambda: before == {job.id for job in site.jobs()}, seconds=8)
            site.wait("all to be asked that send heartbeats", lambda: 4 == len(traffic.replicas), timeout=20)
            mode.write_text("")
            site.wait("all to be Ready again", lambda: 4 == len(site.ready("sim")), timeout=30)
            wait_reachable(site, status="True")
    assert before == {job.id for job in site.wait_settled(4)}
    assert_no_other_job(site, before)
