"""What only the local driver has to get right: processes that outlive the controller, and never their runner."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import eventually, until

from llmop.clock import SystemClock
from llmop.cluster import file_threads, local_runner
from llmop.cluster.local import LocalCluster
from llmop.domain.job import JobRequest, JobState, ObservedJob, PendingClass, Refused, Submitted
from llmop.testing.clock import FakeClock

WAITS = "exec sleep 600"


class Jobs:
    def __init__(self, directory: Path, **settings: int) -> None:
        self.directory = directory
        environ = {"PATH": os.environ["PATH"], "HF_TOKEN": "secret"}
        self.cluster = LocalCluster(
            directory / "jobs", SystemClock(), environ=environ, **{"kill_wait_s": 1, **settings}
        )

    async def submit(self, name: str, script: str, **more: int) -> str:
        work = self.directory / name
        work.mkdir(exist_ok=True)
        request = JobRequest(
            name=name, options=(), script=f"#!/bin/bash\n{script}\n", directory=str(work), **more
        )
        outcome = await self.cluster.submit(request)
        assert isinstance(outcome, Submitted), outcome
        return outcome.job_id

    async def observe(self, job_id: str) -> ObservedJob | None:
        snapshot = await self.cluster.snapshot()
        assert snapshot.problem == ""
        return next((job for job in snapshot.jobs if job.job_id == job_id), None)

    async def until(self, job_id: str, condition: Callable[[ObservedJob], bool]) -> ObservedJob:
        found = await eventually(lambda: self.observe(job_id), lambda job: job is not None and condition(job))
        assert found is not None
        return found

    async def until_state(self, job_id: str, state: JobState) -> ObservedJob:
        return await self.until(job_id, lambda job: job.state is state)

    def record(self, job_id: str) -> dict[str, dict[str, int]]:
        found = local_runner.read(self.directory / "jobs" / job_id / "state.json")
        assert found is not None
        return found

    async def end(self) -> None:
        snapshot = await self.cluster.snapshot()
        await self.cluster.cancel([job.job_id for job in snapshot.jobs])
        for job in snapshot.jobs:
            await self.until(job.job_id, lambda job: job.state.is_terminal)


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_jobs_outlive_a_controller_that_is_killed(tmp_path: Path) -> None:
    controller = textwrap.dedent("""
        import asyncio, os, sys
        from pathlib import Path
        from llmop.clock import SystemClock
        from llmop.cluster.local import LocalCluster
        from llmop.domain.job import JobRequest
        directory = Path(sys.argv[1])
        cluster = LocalCluster(directory / "jobs", SystemClock(), environ=os.environ)
        request = JobRequest(
            name="x", options=(), script="#!/bin/bash\\nexec sleep 600\\n", directory=str(directory)
        )
        asyncio.run(cluster.submit(request))
        os.killpg(0, 9)
    """)
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", controller, str(tmp_path)], start_new_session=True, check=False
    )
    assert -signal.SIGKILL == died.returncode
    jobs = Jobs(tmp_path)
    assert "x" == (await jobs.until_state("1", JobState.RUNNING)).name
    await jobs.end()


async def test_a_job_dies_with_its_runner_and_the_record_shows_an_end(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", WAITS)
    await until(lambda: "batch" in jobs.record(job_id))
    runner, batch = jobs.record(job_id)["runner"], jobs.record(job_id)["batch"]
    os.kill(runner["pid"], signal.SIGKILL)
    await until(lambda: not local_runner.is_alive(batch))
    job = await jobs.until(job_id, lambda job: job.state.is_terminal)
    assert (JobState.NODE_FAIL, "NodeDown") == (job.state, job.reason)
    twin = await jobs.submit("x", WAITS)  # the dead one does not hold the name
    await jobs.until_state(twin, JobState.RUNNING)
    await jobs.end()


async def test_nothing_that_a_job_started_outlives_it(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", "setsid sleep 600 &\necho $! > pid\n(sleep 600 &)\nexit 0")
    await jobs.until_state(job_id, JobState.COMPLETED)
    left = int(content(tmp_path / "x" / "pid"))
    assert None is local_runner.identity(left)


async def test_a_reused_process_number_is_never_mistaken_for_a_runner(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", "exit 0")
    await jobs.until_state(job_id, JobState.COMPLETED)
    mine = local_runner.identity(os.getpid())
    assert mine is not None
    before = {**mine, "started": mine["started"] - 1}
    local_runner.write(
        tmp_path / "jobs" / job_id / "state.json",
        {**jobs.record(job_id), "state": "RUNNING", "runner": before},
    )
    assert "" == await jobs.cluster.cancel([job_id])  # would have ended this very test
    assert JobState.NODE_FAIL is (await jobs.until(job_id, lambda job: job.state.is_terminal)).state


async def test_the_end_of_the_time_is_announced_and_then_enforced(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    script = "trap 'echo usr1' USR1\ntrap 'echo term' TERM\nwhile :; do sleep 0.05; done"
    job_id = await jobs.submit("x", script, time_limit_s=2, signal_before_end_s=1)
    job = await jobs.until_state(job_id, JobState.TIMEOUT)
    assert ["usr1", "term"] == content(tmp_path / "x" / "job.log").split()
    assert ("TimeLimit", signal.SIGKILL) == (job.reason, job.signal)


async def test_jobs_beyond_the_slots_wait_for_one(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, slots=1)
    first, second = await jobs.submit("a", WAITS), await jobs.submit("b", WAITS)
    await jobs.until_state(first, JobState.RUNNING)
    waiting = await jobs.until(second, lambda job: job.reason == "Resources")
    assert (JobState.PENDING, PendingClass.NORMAL) == (waiting.state, waiting.pending)
    await jobs.cluster.cancel([first])
    await jobs.until_state(second, JobState.RUNNING)
    await jobs.end()


async def test_a_job_sees_an_environment_made_from_nothing(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", "env -0 > env; ls -l /proc/self/fd > open", time_limit_s=600)
    await jobs.until_state(job_id, JobState.COMPLETED)
    seen = dict(line.split("=", 1) for line in content(tmp_path / "x" / "env").split("\0") if line)
    expected = {"PATH", "LANG", "HOME", "USER", "LOGNAME", "SLURMD_NODENAME", "SLURM_JOB_END_TIME"}
    expected |= {"SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_SUBMIT_DIR"}
    assert expected == seen.keys() - {"PWD", "SHLVL", "_"}
    assert job_id == seen["SLURM_JOB_ID"]
    numbers = {line.split()[-3] for line in content(tmp_path / "x" / "open").splitlines()[1:]}
    assert {"0", "1", "2", "3"} == numbers  # 3 is ls reading the folder


async def test_files_of_jobs_are_the_accounts_own(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", "exit 0")
    await jobs.until_state(job_id, JobState.COMPLETED)
    paths = [tmp_path / "jobs", *(tmp_path / "jobs").rglob("*")]
    assert [] == [path for path in paths if path.stat().st_mode & 0o077]


async def test_an_ended_job_is_forgotten_after_its_time_and_its_id_is_not_used_again(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job_id = await jobs.submit("x", "exit 0")
    await jobs.until_state(job_id, JobState.COMPLETED)
    later = FakeClock(start=SystemClock().now() + 301)
    old = LocalCluster(tmp_path / "jobs", later, environ=os.environ)
    assert () == (await old.snapshot()).jobs
    assert "2" == await jobs.submit("x", "exit 0")
    await jobs.until_state("2", JobState.COMPLETED)


async def test_a_job_that_was_never_started_is_not_a_job(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    assert () == (await jobs.cluster.snapshot()).jobs


@pytest.mark.parametrize("content", ["{", ""])
async def test_an_unreadable_record_makes_the_snapshot_incomplete(tmp_path: Path, content: str) -> None:
    jobs = Jobs(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    (tmp_path / "jobs" / "7" / "job.json").write_text("{}")
    (tmp_path / "jobs" / "7" / "state.json").write_text(content)
    snapshot = await jobs.cluster.snapshot()
    assert (False, ()) == (snapshot.is_complete, snapshot.jobs)


async def test_a_job_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    assert (await jobs.cluster.snapshot()).is_complete
    (tmp_path / "jobs").rename(tmp_path / "away")
    request = JobRequest(name="x", options=(), script="", directory=str(tmp_path))
    assert isinstance(await jobs.cluster.submit(request), Refused)


async def test_a_directory_that_hangs_is_a_problem_of_this_cluster_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_threads, "PATIENCE_S", 0.1)
    jobs = Jobs(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    hanging = tmp_path / "jobs" / "7" / "job.json"
    os.mkfifo(hanging)
    try:
        snapshot = await jobs.cluster.snapshot()
        assert "does not answer within 0.1 s" in snapshot.problem
        assert "does not answer within 0.1 s" in await jobs.cluster.cancel(["7"])
        request = JobRequest(name="x", options=(), script="", directory=str(tmp_path))
        refused = await jobs.cluster.submit(request)
        assert isinstance(refused, Refused)
        assert "does not answer within 0.1 s" in refused.message
    finally:
        hanging.open("w").close()  # its reader goes on


@pytest.mark.parametrize("content", ["{", ""])
async def test_an_unreadable_record_makes_a_cancellation_say_so(tmp_path: Path, content: str) -> None:
    jobs = Jobs(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    (tmp_path / "jobs" / "7" / "state.json").write_text(content)
    assert "cannot be read" in await jobs.cluster.cancel(["7"])
