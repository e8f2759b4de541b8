"""Every way in which a replica ends or never begins: people read why, and another one takes its place, not too fast."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import Installation, Replica, document, simulator
from tests.rigs.slurm import SlurmRig


@pytest.fixture(scope="module")
def site(slurm_rig: SlurmRig, llmop_venv: Path) -> Iterator[Installation]:
    made = Installation(slurm_rig, llmop_venv, name="ends").start()
    yield made
    made.stop()


@pytest.fixture
def one(site: Installation, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Applies a deployment of the test's own and gives its name; it is deleted afterwards."""
    name = request.node.name.split("_")[1]

    def apply(**options: object) -> str:
        site.apply(simulator(name, **options))  # type: ignore[arg-type]
        return name

    yield apply
    if site.exists(name):
        site.delete(name)
        site.wait_gone(name)


def jobs_of(site: Installation, name: str) -> list[int]:
    """All jobs that the deployment ever had and that Slurm still remembers."""
    return [job.id for job in site.rig.squeue() if f"-{name}-" in job.name]


def ready_one(site: Installation, name: str) -> Replica:
    site.wait_ready(name, 1)
    (found,) = site.ready(name)
    return found


def wait_replaced(site: Installation, name: str, before: Replica, *, timeout: float = 90) -> Replica:
    (after, *_) = site.wait(
        f"{before.name} to be replaced",
        lambda: [each for each in site.ready(name) if each.name != before.name],
        timeout=timeout,
    )
    site.wait_ready(name, 1)
    return after


def failure_of(site: Installation, name: str) -> dict[str, object]:
    return dict(site.status("ModelDeployment", name).get("lastFailure") or {})


def wait_failure(site: Installation, name: str, reason: str = "") -> dict[str, object]:
    """Why it failed, once it is written down; `reason` "" = any."""

    def written() -> dict[str, object]:
        found = failure_of(site, name)
        return found if found and reason in ("", found["reason"]) else {}

    return site.wait(f"the reason {reason}", written, timeout=60)


def test_crash_at_start(site: Installation, one: Callable[..., str]) -> None:
    """CrashLoopBackOff with exit code, node and the engine's last words; few jobs, not a storm."""
    name = one(args=["--fault=crash@load", "--fault=exit-code:3"])
    site.wait_condition("ModelDeployment", name, "Progressing", reason="CrashLoopBackOff")
    failure = wait_failure(site, name, "EngineCrashed")
    assert 70 == failure["exitCode"]
    assert failure["node"] in site.rig.nodes
    assert "status 3" in str(failure["message"])
    assert failure["logTail"], "the engine's last words"
    assert "False" == site.condition("ModelDeployment", name, "Ready")["status"]
    site.hold("few jobs", lambda: len(jobs_of(site, name)) <= 3, seconds=20)
    # What people do about it: a better manifest is taken at once, whatever the back-off.
    site.apply(simulator(name))
    site.wait_ready(name, 1)


def test_nowhere_is_no_partition(site: Installation, one: Callable[..., str]) -> None:
    name = one(slurm={"partition": "nowhere"})
    stalled = site.wait_condition("ModelDeployment", name, "Stalled", status="True")
    assert "SubmissionRejected" == stalled["reason"]
    assert "invalid partition" in str(stalled["message"]).lower()
    site.hold(
        "it is not tried over and over",
        lambda: [] == jobs_of(site, name) and 1 == len(site.replicas(name)),
        seconds=5,
    )
    site.apply(simulator(name, slurm={"partition": "gpu"}))
    site.wait_ready(name, 1)


def test_down_partition(site: Installation, one: Callable[..., str]) -> None:
    name = one(slurm={"partition": "closed"})
    waiting = site.wait_condition("ModelDeployment", name, "CapacityAvailable", reason="PartitionDown")
    assert "False" == waiting["status"]
    assert len(waiting["message"]) > len("PartitionDown"), waiting["message"]
    assert 1 == len(jobs_of(site, name))


def test_hopeless_time_limit(site: Installation, one: Callable[..., str]) -> None:
    """A time limit above the partition's: Slurm lets it wait for ever, people read why within seconds."""
    name = one(slurm={"partition": "short", "timeLimit": "1h"})
    waiting = site.wait_condition("ModelDeployment", name, "CapacityAvailable", reason="PartitionTimeLimit")
    assert "False" == waiting["status"]
    assert "time limit" in waiting["message"], waiting["message"]
    site.wait(
        "its replica to be blocked",
        lambda: ["Blocked"] == [each.status.get("phase") for each in site.replicas(name)],
        timeout=20,
    )
    assert 1 == len(jobs_of(site, name))


def test_agent_killed(site: Installation, one: Callable[..., str]) -> None:
    """The engine dies with its agent, and another replica takes its place."""
    name = one()
    before = ready_one(site, name)
    os.kill(site.agent_of(before), signal.SIGKILL)
    wait_replaced(site, name, before)
    site.wait(
        "nothing of it to run",
        lambda: not [line for line in site.processes() if f"/{before.name}/" in line],
        timeout=60,
    )
    wait_failure(site, name)


def test_node_lost(site: Installation, one: Callable[..., str]) -> None:
    name = one()
    before = ready_one(site, name)
    node = str(before.status["node"])
    site.rig.kill_node(node)
    try:
        after = wait_replaced(site, name, before, timeout=120)
    finally:
        site.rig.start_node(node)
    wait_failure(site, name, "NodeFail")
    assert node != after.status["node"]


def test_walltime(site: Installation, one: Callable[..., str]) -> None:
    """The job ends because its time is over: nobody's fault, replaced at once."""
    name = one(slurm={"timeLimit": "10m"})
    before = ready_one(site, name)
    site.rig.run_as_root(["scontrol", "update", f"JobId={before.job_id}", "TimeLimit=1"])
    wait_replaced(site, name, before, timeout=150)
    site.hold("it counts as no failure", lambda: {} == failure_of(site, name), seconds=3)


def test_foreign_scancel(site: Installation, one: Callable[..., str]) -> None:
    """Somebody cancels the job: it is replaced, and each time later, because somebody may be fighting us."""
    name = one()
    before = ready_one(site, name)
    site.rig.run_as_root(["scancel", str(before.job_id)])
    after = wait_replaced(site, name, before)
    failure = wait_failure(site, name, "CancelledByOther")
    assert before.status["node"] == failure["node"]
    site.rig.run_as_root(["scancel", str(after.job_id)])
    site.wait_condition("ModelDeployment", name, "Progressing", reason="CrashLoopBackOff")
    wait_replaced(site, name, after)


def test_gpus_of_a_profile(site: Installation, one: Callable[..., str]) -> None:
    """The engine gets the GPUs that its profile asks Slurm for."""
    site.apply(document("ResourceProfile", "a100", {"cluster": "default", "gres": "gpu:a100"}))
    name = one(resourceProfile="a100:2")
    each = ready_one(site, name)
    shown = site.rig.run_as_root(["scontrol", "show", "job", str(each.job_id)])
    assert "gres:gpu:a100:2" in shown or "gres/gpu:a100=2" in shown or "gres/gpu=2" in shown, shown


def test_the_longest_name_in_a_container(site: Installation, engine_sif: Path) -> None:
    """Nothing that is made of the name (job, directories, sockets) grows beyond what the node takes."""
    name = "x" * 63
    site.apply(simulator(name, image=engine_sif))
    try:
        site.wait_ready(name, 1)
    finally:
        site.delete(name)
        site.wait_gone(name)
