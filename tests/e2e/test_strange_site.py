"""A site with habits: it forgets jobs after two seconds, hides everybody's from everybody, lets nobody ask often, and talks."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import Installation, simulator
from tests.e2e.traffic import BROKEN
from tests.rigs.release import PATH, RELEASE
from tests.rigs.slurm import SlurmRig

# Sites wrap the commands to advise people. What is printed before sbatch's answer and on stderr is not an answer.
WRAPPER = """#!/bin/sh
echo "{name}: the cluster will be down on Monday (see the wiki)" >&2
{banner}
exec {program} "$@"
"""
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")

SETTINGS = {
    "MinJobAge": "2",
    "PrivateData": "accounts,events,jobs,nodes,reservations,usage,users",
}
# slurm.conf(5), from 23.02 on: each account has a bucket of requests; who has none left is told to come again.
RATE_LIMIT = {"SlurmctldParameters": "rl_enable,rl_bucket_size=10,rl_refill_rate=2,rl_refill_period=1"}


@pytest.fixture(scope="module")
def strange(llmop_venv: Path) -> Iterator[Installation]:
    with SlurmRig(nodes=2, overrides=SETTINGS | (RATE_LIMIT if RELEASE else {})) as rig:
        wrappers = rig.directory / "wrappers"
        wrappers.mkdir()
        for name in COMMANDS:
            program = shutil.which(name, path=PATH)
            banner = 'echo "Your job will be charged to nobody."' if name == "sbatch" else ""
            (wrappers / name).write_text(WRAPPER.format(name=name, program=program, banner=banner))
            (wrappers / name).chmod(0o755)
        site = Installation(rig, llmop_venv, name="strange", path_first=wrappers).start()
        try:
            yield site
        finally:
            site.stop()


def test_replicas_live_and_die_as_elsewhere(strange: Installation) -> None:
    site = strange
    others = ["sbatch", "--parsable", "--output=/dev/null", "--chdir=/", "--wrap=sleep 300"]
    foreign = int(site.rig.run_as_user(others, user="nobody", check=True).stdout)
    site.apply(simulator(replicas=2))
    site.wait_ready("sim", 2)
    with site.flowing() as traffic:
        before = {job.id for job in site.wait_settled(2)} - {foreign}
        site.hold("nothing is submitted again", lambda: before <= {job.id for job in site.jobs()}, seconds=8)
        # Slurm has forgotten the job before anybody can ask how it ended: what is not seen twice is over.
        traffic.phase("killed", allowed=BROKEN)
        victim = site.ready("sim")[0]
        os.kill(site.agent_of(victim), signal.SIGKILL)
        site.wait(
            "another one in its place",
            lambda: (
                {victim.name} & {one.name for one in site.ready("sim")} == set()
                and 2 == len(site.ready("sim"))
            ),
            timeout=90,
        )
        traffic.phase("replaced")
        site.wait("both to answer", lambda: 2 == len(traffic.replicas), timeout=20)
        site.scale("sim", 1)
        site.wait_ready("sim", 1)
    assert site.status("ModelDeployment", "sim")["lastFailure"]["reason"]
    for kind in ("Reachable", "SharedDirectory"):
        assert "True" == site.condition("Cluster", "default", kind)["status"]
    site.delete("sim")
    site.wait_gone("sim")
    assert "RUNNING" == site.rig.wait_for_state(foreign, "RUNNING")
    site.rig.run_as_root(["scancel", str(foreign)])
    site.assert_nothing_left()
