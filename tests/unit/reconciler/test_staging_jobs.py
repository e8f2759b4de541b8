"""One job for each artifact that a cluster stages in jobs, whatever crashes; its log tells how it goes."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llmop.artifacts import layout, order
from llmop.domain import artifact, errors, ids, resources, site
from llmop.domain.staging import Progress, Step
from llmop.planner import staging_jobs as decisions
from llmop.reconciler import observe, shared, staging_jobs
from llmop.testing import builders as make
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.faults import SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.shape import Shape, constant

COMMIT = "b" * 40
REFERENCE = artifact.parse_model("hf://team/model", "main")


class Controller:
    """One life of a controller, as far as staging jobs go."""

    def __init__(self, bench: "Bench") -> None:
        self.bench = bench
        self.watch = observe.ClusterWatch(
            bench.where, bench.slurm, shared.DiskDirectory(bench.shared), bench.clock, make.INSTALLATION
        )
        self.cancels: list[asyncio.Task[str]] = []
        self.is_deposed = False
        self.jobs = staging_jobs.StagingJobs(
            bench.clock, make.INSTALLATION, lambda _name: self.watch, self._confirm, self._cancel
        )
        self.reports: list[Progress] = []
        self.task: asyncio.Task[str] | None = None

    async def _confirm(self) -> None:
        if self.is_deposed:
            raise errors.Deposed(1)

    def _cancel(self, watch: observe.ClusterWatch, job_ids: Any) -> None:
        self.cancels.append(asyncio.ensure_future(watch.cluster.cancel(job_ids)))

    async def begin(self) -> None:
        self.task = asyncio.ensure_future(self.jobs.run(make.CLUSTER, self.bench.order, self.reports.append))
        await self.rest()

    async def die(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def look(self) -> None:
        """Five seconds pass, then the queue is looked at; what follows from it has been done when this returns."""
        self.bench.slurm.advance(self.bench.clock.now() + 5)
        await self.watch.poll([], {}, {}, 30.0)
        await self.watch.prove(resources.Resource(kind="Cluster", name=make.CLUSTER, generation=1), [])
        self.watch.site = self.bench.where
        self.jobs.looked(make.CLUSTER)
        await self.rest()

    async def rest(self) -> None:
        """Until the run waits for the next look, or is over: what it asks of the disk is done in threads."""
        deadline = time.monotonic() + 20
        while self.task is not None and not self.task.done() and not self.jobs._waiting.get(make.CLUSTER):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        await asyncio.gather(*self.cancels)

    async def failure(self) -> Exception:
        assert self.task is not None
        (error,) = await asyncio.gather(self.task, return_exceptions=True)
        assert isinstance(error, Exception)
        return error


class Bench:
    def __init__(self, shared_dir: Path) -> None:
        self.clock = FakeClock()
        self.shared = shared_dir
        shape = Shape(queue_wait=constant(1), completing=constant(0), purge_lag=constant(0))
        self.slurm = VirtualSlurm(self.clock, shape=shape)
        self.where = make.where(
            shared_dir=str(shared_dir),
            prelude=("module load apptainer",),
            staging=site.Staging(
                where=site.StagingPlace.JOB, partition="gpu", python="/opt/llmop/bin/python"
            ),
        )
        self.order = order.Order(reference=REFERENCE.text, digest=COMMIT, shared_dir=str(shared_dir))
        self.place = layout.place(shared_dir, artifact.entry(REFERENCE, COMMIT))

    def mine(self) -> list[VirtualJob]:
        return [each for each in self.slurm.jobs() if ids.is_staging(each.name, make.INSTALLATION)]

    def live(self) -> list[VirtualJob]:
        return [each for each in self.mine() if each.phase is not Phase.ENDED]

    def says(self, *lines: str) -> None:
        with (self.place.job / "job.log").open("a") as log:
            log.writelines(f"{line}\n" for line in lines)

    def stages(self) -> None:
        """The stager in the job has done its work."""
        self.place.final.mkdir(parents=True)
        self.says(order.result_line(COMMIT))


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
async def controller(bench: Bench) -> AsyncIterator[Controller]:
    """It knows the cluster; a test begins the work."""
    made = Controller(bench)
    await made.look()
    yield made
    if made.task is not None:
        await made.die()


async def test_a_job_is_submitted_followed_and_done(bench: Bench, controller: Controller) -> None:
    await controller.begin()
    (job,) = bench.live()
    assert job.request.singleton
    assert ("partition", "gpu") in job.request.options
    assert "exec /opt/llmop/bin/python -I -m llmop.artifacts.worker --job" in job.request.script
    assert "module load apptainer" in job.request.script
    note = json.loads((bench.place.job / "job.json").read_bytes())
    assert (job.name, str(job.id)) == (note["name"], note["job_id"])

    bench.slurm.block(job.id, "AssocGrpCpuLimit")
    await controller.look()
    assert Step.PENDING is controller.reports[-1].step
    assert controller.reports[-1].message.startswith(f"job {job.id}: AssocGrpCpuLimit: ")
    bench.slurm.release(job.id)
    bench.slurm.block(job.id, "")
    bench.slurm.advance(bench.clock.now() + 30)
    await controller.look()
    assert [job] == list(bench.slurm.running_jobs())
    assert Progress(step=Step.DOWNLOADING) == controller.reports[-1]
    bench.says(
        "a warning of some library", order.progress_line(Progress(step=Step.DOWNLOADING, done=5, total=9))
    )
    await controller.look()
    assert Progress(step=Step.DOWNLOADING, done=5, total=9) == controller.reports[-1]
    bench.stages()
    await controller.look()
    assert controller.task is not None
    assert COMMIT == await controller.task
    assert not bench.place.job.exists()
    bench.slurm.finish(job, 0)
    assert [job] == bench.mine()


async def test_nothing_is_submitted_before_the_cluster_is_known(bench: Bench) -> None:
    controller = Controller(bench)
    await controller.begin()
    assert [Progress(step=Step.PENDING, message="the cluster was not looked at yet")] == controller.reports
    await controller.watch.poll([], {}, {}, 30.0)
    controller.jobs.looked(make.CLUSTER)
    await controller.rest()
    assert "waiting for the canary job" in controller.reports[-1].message
    assert [] == bench.mine()
    await controller.look()
    assert 1 == len(bench.mine())
    await controller.die()


async def running(bench: Bench, controller: Controller) -> VirtualJob:
    """Begins, and goes on until the job runs."""
    await controller.begin()
    for _ in range(2):
        await controller.look()
    (job,) = bench.slurm.running_jobs()
    return job


async def test_the_next_controller_finds_the_job_and_makes_no_other(
    bench: Bench, controller: Controller
) -> None:
    job = await running(bench, controller)
    await controller.die()
    follower = Controller(bench)
    await follower.begin()
    for _ in range(20):
        await follower.look()
    assert [job] == bench.mine()
    bench.stages()
    await follower.look()
    assert follower.task is not None
    assert COMMIT == await follower.task


@pytest.mark.parametrize(
    ("fault", "delay", "jobs"),
    [(SubmitFault.ACCEPTED_UNSEEN, 0, 1), (SubmitFault.ACCEPTED_UNSEEN, 40, 1), (SubmitFault.LOST, 0, 1)],
)
@pytest.mark.parametrize("dies", [False, True])
async def test_a_submission_of_which_nobody_knows_is_looked_for_by_its_name(
    bench: Bench, controller: Controller, fault: SubmitFault, delay: float, jobs: int, dies: bool
) -> None:
    bench.slurm.fail_submits(fault, delay_s=delay)
    await controller.begin()
    name = json.loads((bench.place.job / "job.json").read_bytes())["name"]
    if dies:
        await controller.die()
        controller = Controller(bench)
        await controller.begin()
    for _ in range(80):
        await controller.look()
    assert [name] * jobs == [each.name for each in bench.mine()]
    assert 1 == len(bench.slurm.running_jobs())
    await controller.die()


async def test_a_controller_that_died_before_sbatch_leaves_a_note_that_is_waited_for(
    bench: Bench, controller: Controller
) -> None:
    asked = staging_jobs._fingerprint(bench.order, bench.where)
    note = decisions.Note(
        name=ids.staging_name(make.INSTALLATION, "0" * 36), attempt_at=bench.clock.now(), asked=asked
    )
    staging_jobs._begin(Path(bench.order.shared_dir), bench.place.job, note)
    follower = Controller(bench)
    await follower.begin()
    for _ in range(20):
        await follower.look()
    assert [] == bench.mine()
    assert "its submission may still land" == follower.reports[-1].message
    for _ in range(60):
        await follower.look()
    assert [note.name] == [each.name for each in bench.mine()]
    await follower.die()


async def test_a_late_twin_is_cancelled(bench: Bench, controller: Controller) -> None:
    job = await running(bench, controller)
    twin = bench.slurm.submit_by_hand(job.request)
    await controller.look()
    await controller.look()
    assert [job] == bench.live()
    assert Phase.ENDED is twin.phase


async def test_what_nobody_wants_is_cancelled(bench: Bench, controller: Controller) -> None:
    await running(bench, controller)
    controller.jobs.give_up(make.CLUSTER, bench.order)
    await controller.die()
    for _ in range(8):  # it has 30 s to end
        await controller.look()
    assert [] == bench.live()
    await running(bench, controller)
    assert 2 == len({each.name for each in bench.mine()})


async def test_a_job_that_a_dead_controller_left_and_nobody_wants_goes_after_a_while(
    bench: Bench, controller: Controller
) -> None:
    job = await running(bench, controller)
    await controller.die()
    follower = Controller(bench)
    for _ in range(10):
        await follower.look()
    assert [job] == bench.live()
    for _ in range(15):
        await follower.look()
    assert [] == bench.live()


async def test_a_cluster_that_was_changed_meanwhile_gets_another_job(
    bench: Bench, controller: Controller
) -> None:
    old = await running(bench, controller)
    await controller.die()
    bench.where = dataclasses.replace(
        bench.where,
        staging=dataclasses.replace(bench.where.staging, cpus=4, memory_mib=8192, time_limit_s=7200),
    )
    follower = Controller(bench)
    await follower.begin()
    for _ in range(10):
        await follower.look()
    (new,) = bench.live()
    assert old is not new
    assert {("cpus-per-task", "4"), ("mem", "8192M")} <= set(new.request.options)
    assert 7200 == new.request.time_limit_s
    await follower.die()


async def test_a_deposed_controller_submits_nothing(bench: Bench, controller: Controller) -> None:
    controller.is_deposed = True
    await controller.begin()
    assert isinstance(await controller.failure(), errors.Deposed)
    assert [] == bench.mine()
    assert not bench.place.job.exists()


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "JobRejected",
            "correct spec.staging of the Cluster",
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            "",
            "takes no job",
        ),
    ],
)
async def test_what_sbatch_refuses_is_told_and_the_next_try_has_another_name(
    bench: Bench, controller: Controller, words: str, reason: str, message: str
) -> None:
    bench.slurm.fail_submits(SubmitFault.SAYS, text=words)
    await controller.begin()
    error = await controller.failure()
    assert message in str(error)
    assert reason == getattr(error, "reason", "")
    await running(bench, controller)


async def test_what_the_stager_says_is_told_with_its_node(bench: Bench, controller: Controller) -> None:
    job = await running(bench, controller)
    bench.says(order.error_line(errors.Unavailable("hf://team/model: the hub does not answer")))
    bench.slurm.finish(job, 1)
    await controller.look()
    assert f"hf://team/model: the hub does not answer (on {job.node})" == str(await controller.failure())
    assert (bench.place.job / "job.log").exists()
    next_one = await running(bench, controller)
    assert job.name != next_one.name
    assert not (bench.place.job / "job.log").exists()


@pytest.mark.parametrize(
    ("line", "code", "reason", "message"),
    [
        (
            "line 4: /opt/llmop/bin/python: No such file",
            127,
            "NoPython",
            "found no /opt/llmop/bin/python: line 4",
        ),
        ("No module named 'llmop'", 1, "NoPython", "install llmop there"),
        ("Killed", 137, "", "ended with code 137 without a result: Killed"),
    ],
)
async def test_a_stager_that_could_not_say_anything_is_explained(
    bench: Bench, controller: Controller, line: str, code: int, reason: str, message: str
) -> None:
    job = await running(bench, controller)
    bench.says(line)
    bench.slurm.finish(job, code)
    await controller.look()
    error = await controller.failure()
    assert message in str(error)
    assert str(job.id) not in str(error).replace(str(code), "").replace("line 4", ""), (
        "the next try says the same"
    )
    assert reason == getattr(error, "reason", "")


async def test_a_job_whose_work_is_seen_late_is_waited_for(bench: Bench, controller: Controller) -> None:
    """Network file systems show a new name up to a minute later."""
    job = await running(bench, controller)
    bench.says(order.result_line(COMMIT))
    bench.slurm.finish(job, 0)
    for _ in range(5):
        await controller.look()
    bench.place.final.mkdir(parents=True)
    await controller.look()
    assert controller.task is not None
    assert COMMIT == await controller.task


async def test_a_shared_directory_that_refuses_is_told_and_the_job_goes_on(
    bench: Bench, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await running(bench, controller)

    def refuse(_directory: Path) -> staging_jobs.Heard:
        raise PermissionError(13, "Permission denied", str(bench.place.job))

    with monkeypatch.context() as patched:
        patched.setattr(staging_jobs, "_listen", refuse)
        await controller.look()
        assert "Permission denied" in str(await controller.failure())
    for _ in range(30):  # it is tried again after some minutes: until then the job is nobody's, and wanted
        await controller.look()
    await controller.begin()
    await controller.look()
    assert [job] == bench.live()


def read_back(write: Callable[[Path], None], folder: Path) -> decisions.Note | None:
    write(folder / staging_jobs.NOTE)
    return staging_jobs._read_note(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"name": 5, "attempt_at": []}', b"[" * 100_000]
)
def test_a_damaged_note_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert read_back(lambda path: bool(path.write_bytes(content)), tmp_path) is None
