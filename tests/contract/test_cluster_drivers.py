"""What every cluster driver does, held against all of them: the virtual Slurm, the local driver and a real Slurm.

The real one runs as an ordinary account, in a process of its own. Jobs do one of a few things (`DOES`); the virtual Slurm,
which runs no scripts, is told what they do.
"""

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.contract.as_user import AsUser
from tests.rigs.fixtures import slurm_rig
from tests.rigs.slurm import SlurmRig

from llmop.clock import SystemClock
from llmop.cluster.driver import Cluster
from llmop.cluster.local import LocalCluster
from llmop.domain.job import (
    Capabilities,
    JobRequest,
    JobState,
    ObservedJob,
    PendingClass,
    RejectClass,
    Rejected,
    Submitted,
    SubmitUnknown,
)
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.jobs import VirtualJob
from llmop.testing.virtual_slurm.shape import Shape, constant
from llmop.testing.virtual_slurm.state import Signal

__all__ = ["slurm_rig"]

KILL_WAIT_S = 5
DOES = {
    "waits": "exec sleep 600",
    "succeeds": "exit 0",
    "fails with 3": "exit 3",
    "is killed": "kill -9 $$",
    "leaves on TERM": "trap 'exit 0' TERM\nwhile :; do sleep 0.1; done",
    "ignores TERM": "trap '' TERM\nwhile :; do sleep 0.1; done",
    "exits with 42 on USR1": "trap 'exit 42' USR1\necho listens\nwhile :; do sleep 0.1; done",
}


class World(Protocol):
    """A driver, and what a test needs around it."""

    cluster: Cluster
    directory: Path

    async def pass_time(self) -> None:
        """Lets a moment pass; a virtual one where there is a virtual clock."""
        ...

    def end(self) -> None: ...


class Virtual:
    """Hooks of the virtual Slurm that do what the script of a job does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        shape = Shape(queue_wait=constant(2), kill_wait_s=KILL_WAIT_S)
        self.slurm = VirtualSlurm(self.clock, shape=shape, hooks=self)
        self.cluster: Cluster = self.slurm

    async def pass_time(self) -> None:
        self.slurm.advance(self.clock.now() + 1)

    def on_start(self, job: VirtualJob) -> None:
        if job.request.script.endswith("exit 0\n"):
            self.slurm.finish(job, 0)
        elif job.request.script.endswith("exit 3\n"):
            self.slurm.finish(job, 3)
        elif job.request.script.endswith("kill -9 $$\n"):
            self.slurm.finish(job, 0, signal=9)

    def on_signal(self, job: VirtualJob, signal: Signal) -> None:
        text = job.request.script
        if signal is Signal.USR1:
            if "USR1" in text:
                self.slurm.finish(job, 42)
            else:
                self.slurm.finish(job, 0, signal=10)
        elif signal is Signal.TERM and "trap 'exit 0' TERM" in text:
            self.slurm.finish(job, 0)
        elif signal is Signal.TERM and "trap '' TERM" not in text:
            self.slurm.finish(job, 0, signal=15)

    def on_end(self, job: VirtualJob) -> None:
        pass

    def end(self) -> None:
        pass


class Local:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cluster: Cluster = LocalCluster(
            directory / "jobs", SystemClock(), environ=os.environ, kill_wait_s=KILL_WAIT_S
        )

    async def pass_time(self) -> None:
        await asyncio.sleep(0.05)

    def end(self) -> None:
        pass


class Real:
    def __init__(self, rig: SlurmRig) -> None:
        self.directory = rig.shared / SystemClock().suffix(8)
        self.directory.mkdir()
        os.chown(self.directory, rig.uid, rig.gid)
        self.rig = rig
        self._driver = AsUser(rig)
        self.cluster: Cluster = self._driver

    async def pass_time(self) -> None:
        await asyncio.sleep(0.3)

    def end(self) -> None:
        self._driver.end()
        self.rig.cancel_all()
        shutil.rmtree(self.directory)


class Jobs:
    """Makes and watches jobs in a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._prefix = SystemClock().suffix(8)  # one Slurm serves all tests

    def request(self, name: str, does: str, *options: tuple[str, str], **more: int) -> JobRequest:
        directory = self.world.directory / name
        directory.mkdir(exist_ok=True)
        stat = self.world.directory.stat()
        os.chown(directory, stat.st_uid, stat.st_gid)
        script = f"#!/bin/bash\n{DOES[does]}\n"
        return JobRequest(
            name=f"{self._prefix}-{name}",
            options=options,
            script=script,
            directory=str(directory),
            **{"time_limit_s": 600, **more},
        )

    async def submit(self, name: str, does: str, *options: tuple[str, str], **more: int) -> str:
        outcome = await self.world.cluster.submit(self.request(name, does, *options, **more))
        assert isinstance(outcome, Submitted), outcome
        return outcome.job_id

    async def observe(self) -> dict[str, ObservedJob]:
        """The jobs of this test by id."""
        snapshot = await self.world.cluster.snapshot()
        assert snapshot.is_complete, snapshot.problem
        return {job.job_id: job for job in snapshot.jobs if job.name.startswith(self._prefix)}

    async def until(self, job_id: str, condition: Callable[[ObservedJob], bool]) -> ObservedJob:
        """The job as soon as the condition holds."""
        for _ in range(400):
            job = (await self.observe()).get(job_id)
            if job is not None and condition(job):
                return job
            await self.world.pass_time()
        raise AssertionError(f"it never came to that: {await self.observe()}")

    async def until_state(self, job_id: str, state: JobState) -> ObservedJob:
        return await self.until(job_id, lambda job: job.state is state)

    async def until_it_listens(self, name: str) -> None:
        """Until the script has set its traps; a virtual one has none."""
        log = self.world.directory / name / "job.log"
        for _ in range(400):
            if isinstance(self.world, Virtual) or (log.exists() and "listens" in log.read_text()):
                return
            await self.world.pass_time()
        raise AssertionError(f"{log} never said so")


@pytest.fixture(params=["virtual", "local", "slurm"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made: World
    if request.param == "slurm":
        made = Real(request.getfixturevalue("slurm_rig"))
    else:
        made = Virtual(tmp_path) if request.param == "virtual" else Local(tmp_path)
    yield made
    made.end()


@pytest.fixture
async def jobs(world: World) -> AsyncIterator[Jobs]:
    """Ends with no job alive."""
    made = Jobs(world)
    yield made
    await world.cluster.cancel(list(await made.observe()))
    for job_id in await made.observe():
        await made.until(job_id, lambda job: job.state.is_terminal)


async def test_a_job_runs_on_a_node_with_the_limit_and_the_comment_it_asked_for(jobs: Jobs) -> None:
    before = await jobs.world.cluster.snapshot()
    job_id = await jobs.submit("x", "waits", ("comment", "i=a;u='b' |c|"))
    job = await jobs.until_state(job_id, JobState.RUNNING)
    assert (600, "i=a;u='b' |c|", 0) == (job.time_limit_s, job.comment, job.restart_count)
    assert job.node and job.node == job.node_list
    assert job.submitted_at is not None and job.started_at is not None and job.ends_at is not None
    assert before.started_at - 1 <= job.submitted_at <= job.started_at + 1
    assert 600 == round(job.ends_at - job.started_at)
    assert (None, None) == (job.exit_code, job.signal)


@pytest.mark.parametrize(
    ("does", "state", "exit_code", "signal"),
    [
        ("succeeds", JobState.COMPLETED, 0, 0),
        ("fails with 3", JobState.FAILED, 3, 0),
        ("is killed", JobState.FAILED, 0, 9),
    ],
)
async def test_an_ended_job_shows_how_it_ended(
    jobs: Jobs, does: str, state: JobState, exit_code: int, signal: int
) -> None:
    job = await jobs.until(await jobs.submit("x", does), lambda job: job.state.is_terminal)
    assert (state, exit_code, signal) == (job.state, job.exit_code, job.signal)
    assert job.ends_at is not None and job.started_at is not None
    assert job.started_at <= job.ends_at < job.started_at + 60


async def test_of_two_jobs_of_one_name_the_second_waits_for_the_end_of_the_first(jobs: Jobs) -> None:
    first, second = await jobs.submit("twin", "waits"), await jobs.submit("twin", "waits")
    other = await jobs.submit("other", "waits")
    await jobs.until_state(first, JobState.RUNNING)
    await jobs.until_state(other, JobState.RUNNING)
    waiting = await jobs.until(second, lambda job: job.reason == "Dependency")
    assert (JobState.PENDING, PendingClass.NORMAL, "It waits for another job.") == (
        waiting.state,
        waiting.pending,
        waiting.explanation,
    )
    assert "" == await jobs.world.cluster.cancel([first])
    await jobs.until_state(second, JobState.RUNNING)
    assert JobState.CANCELLED is (await jobs.observe())[first].state


async def test_a_cancelled_job_is_asked_to_leave(jobs: Jobs) -> None:
    job_id = await jobs.submit("x", "leaves on TERM")
    await jobs.until_state(job_id, JobState.RUNNING)
    for _ in range(10):
        await jobs.world.pass_time()  # the script has set its trap
    assert "" == await jobs.world.cluster.cancel([job_id])
    job = await jobs.until(job_id, lambda job: job.state.is_terminal)
    assert JobState.CANCELLED is job.state


async def test_a_cancelled_job_that_does_not_leave_is_killed(jobs: Jobs) -> None:
    job_id = await jobs.submit("x", "ignores TERM")
    await jobs.until_state(job_id, JobState.RUNNING)
    for _ in range(10):
        await jobs.world.pass_time()
    assert "" == await jobs.world.cluster.cancel([job_id])
    await jobs.until_state(job_id, JobState.COMPLETING)
    job = await jobs.until(job_id, lambda job: job.state.is_terminal)
    assert JobState.CANCELLED is job.state


async def test_a_waiting_job_is_cancelled_without_ever_running(jobs: Jobs) -> None:
    await jobs.submit("twin", "waits")
    waiting = await jobs.submit("twin", "waits")
    assert "" == await jobs.world.cluster.cancel([waiting])
    job = await jobs.until(waiting, lambda job: job.state.is_terminal)
    assert (JobState.CANCELLED, "") == (job.state, job.node)


async def test_cancelling_what_is_over_or_never_was_is_no_error(jobs: Jobs) -> None:
    job_id = await jobs.submit("x", "succeeds")
    await jobs.until_state(job_id, JobState.COMPLETED)
    assert "" == await jobs.world.cluster.cancel([job_id, "9999999"])
    assert JobState.COMPLETED is (await jobs.observe())[job_id].state


async def test_the_end_of_the_time_is_announced_when_asked_for(jobs: Jobs) -> None:
    # Slurm may send it up to a minute early, so here it comes soon after the start.
    job_id = await jobs.submit("x", "exits with 42 on USR1", time_limit_s=120, signal_before_end_s=115)
    job = await jobs.until(job_id, lambda job: job.state.is_terminal)
    assert (JobState.FAILED, 42) == (job.state, job.exit_code)


async def test_a_running_job_gets_the_signal_that_is_sent_to_it(jobs: Jobs) -> None:
    job_id = await jobs.submit("x", "exits with 42 on USR1")
    await jobs.until_state(job_id, JobState.RUNNING)
    await jobs.until_it_listens("x")
    assert "" == await jobs.world.cluster.signal(job_id)
    job = await jobs.until(job_id, lambda job: job.state.is_terminal)
    assert (JobState.FAILED, 42) == (job.state, job.exit_code)


async def test_a_signal_to_a_job_that_does_not_run_is_a_problem_in_words(jobs: Jobs) -> None:
    await jobs.submit("twin", "waits")
    waiting = await jobs.submit("twin", "waits")
    with impatient(jobs.world) as cluster:  # scancel tries it again and again for more than a minute
        assert "" != await cluster.signal(waiting)
        assert "" != await cluster.signal("9999999")
    assert JobState.PENDING is (await jobs.observe())[waiting].state


@pytest.mark.parametrize("world", ["local", "slurm"], indirect=True)  # the virtual Slurm has no files
async def test_a_job_that_makes_no_log_has_failed(jobs: Jobs) -> None:
    """Or it makes one: 24.11 and later make the directories that are missing."""
    request = jobs.request("x", "succeeds")
    shutil.rmtree(request.directory)
    outcome = await jobs.world.cluster.submit(request)
    assert isinstance(outcome, Submitted)
    job = await jobs.until(outcome.job_id, lambda job: job.state.is_terminal)
    if (directory := Path(request.directory)).exists():
        assert JobState.COMPLETED is job.state
        assert [path.name for path in directory.iterdir()]
    else:
        assert (JobState.FAILED, 53, "JobLaunchFailure") == (job.state, job.signal, job.reason)


async def test_ids_rise(jobs: Jobs) -> None:
    ids = [int(await jobs.submit(name, "succeeds")) for name in ("a", "b", "c")]
    assert sorted(set(ids)) == ids


async def test_a_cluster_says_what_it_is(jobs: Jobs) -> None:
    capabilities = await jobs.world.cluster.capabilities()
    assert isinstance(capabilities, Capabilities)
    assert KILL_WAIT_S == capabilities.kill_wait_s
    assert capabilities.version and capabilities.partitions and capabilities.min_job_age_s > 0
    assert not capabilities.accounting


async def test_a_cluster_without_accounting_says_so(jobs: Jobs) -> None:
    history = await jobs.world.cluster.history(["x"], 0)
    assert (False, ()) == (history.available, history.jobs)


@pytest.mark.parametrize("world", ["virtual", "slurm"], indirect=True)
async def test_a_held_job_shows_what_it_asked_for_and_never_runs(jobs: Jobs) -> None:
    """What the canary stands on: alone of its name, it still shows its dependency."""
    request = dataclasses.replace(jobs.request("x", "succeeds"), held=True, comment="the name once more")
    outcome = await jobs.world.cluster.submit(request)
    assert isinstance(outcome, Submitted)
    for _ in range(5):
        job = (await jobs.observe())[outcome.job_id]
        assert (JobState.PENDING, "singleton(unfulfilled)") == (job.state, job.dependency)
        assert (request.name, "the name once more") == (job.name, job.comment)
        await jobs.world.pass_time()
    assert "" == await jobs.world.cluster.cancel([outcome.job_id])
    await jobs.until_state(outcome.job_id, JobState.CANCELLED)


@pytest.mark.parametrize("world", ["virtual", "slurm"], indirect=True)
async def test_without_a_singleton_two_jobs_of_one_name_run(jobs: Jobs) -> None:
    request = dataclasses.replace(jobs.request("x", "waits"), singleton=False)
    outcomes = [await jobs.world.cluster.submit(request) for _ in range(2)]
    for outcome in outcomes:
        assert isinstance(outcome, Submitted)
        job = await jobs.until_state(outcome.job_id, JobState.RUNNING)
        assert "" == job.dependency


@pytest.mark.parametrize("world", ["virtual", "slurm"], indirect=True)
async def test_an_unknown_partition_is_final(jobs: Jobs) -> None:
    outcome = await jobs.world.cluster.submit(jobs.request("x", "waits", ("partition", "nowhere")))
    assert isinstance(outcome, Rejected)
    assert RejectClass.INVALID_PARTITION is outcome.reject_class
    assert {} == await jobs.observe()


@pytest.mark.parametrize("world", ["virtual", "slurm"], indirect=True)
async def test_while_slurmctld_is_away_nothing_is_known_and_nothing_lost(jobs: Jobs) -> None:
    job_id = await jobs.submit("x", "waits")
    await jobs.until_state(job_id, JobState.RUNNING)
    with away(jobs.world), impatient(jobs.world) as cluster:
        assert "Unable to contact" in (await cluster.snapshot()).problem
        outcome = await cluster.submit(jobs.request("y", "waits"))
        assert isinstance(outcome, SubmitUnknown)
        assert await cluster.cancel([job_id]) != ""
        assert isinstance(await cluster.capabilities(), str)
    assert {job_id: JobState.RUNNING} == {job.job_id: job.state for job in (await jobs.observe()).values()}


@pytest.mark.parametrize("world", ["virtual", "slurm"], indirect=True)
async def test_what_a_hanging_slurmctld_was_given_becomes_a_job_later(jobs: Jobs) -> None:
    with hanging(jobs.world):
        outcome = await jobs.world.cluster.submit(jobs.request("x", "waits"))
        assert isinstance(outcome, SubmitUnknown)
    for _ in range(100):
        if await jobs.observe():
            break
        await jobs.world.pass_time()
    assert [True] == [job.name.endswith("-x") for job in (await jobs.observe()).values()]


@contextlib.contextmanager
def impatient(world: World) -> Iterator[Cluster]:
    """A driver whose commands wait a second for slurmctld, where the others wait for the rig's five, and are not waited for for long."""
    if not isinstance(world, Real):
        yield world.cluster
        return
    settings = Path(world.rig.env["SLURM_CONF"]).read_text()
    own = world.directory / "slurm.conf"
    own.write_text(re.sub(r"^MessageTimeout=.*$", "MessageTimeout=1", settings, flags=re.MULTILINE))
    driver = AsUser(world.rig, {"SLURM_CONF": str(own)}, query_timeout_s=10)
    yield driver
    driver.end()


@contextlib.contextmanager
def away(world: World) -> Iterator[None]:
    if isinstance(world, Virtual):
        world.slurm.set_down(True)
        yield
        world.slurm.set_down(False)
    else:
        assert isinstance(world, Real)
        world.rig.save_state()  # a kill loses what is not on the disk yet
        world.rig.kill_slurmctld()
        try:
            yield
        finally:
            world.rig.start_slurmctld()


@contextlib.contextmanager
def hanging(world: World) -> Iterator[None]:
    if isinstance(world, Virtual):
        world.slurm.freeze()
        yield
        world.slurm.thaw()
    else:
        assert isinstance(world, Real)
        world.rig.pause_slurmctld()
        try:
            yield
        finally:
            world.rig.resume_slurmctld()
