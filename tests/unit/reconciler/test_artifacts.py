"""Stagers are kept at what plans ask for; passes are woken when there is something new to read."""

import asyncio
import dataclasses
import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from llmop.artifacts import order
from llmop.domain import artifact, resources, site, staging
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.domain.staging import Progress, Step
from llmop.planner import artifacts as decisions
from llmop.planner import values
from llmop.reconciler import artifacts, queue
from llmop.testing import builders as make
from llmop.testing.clock import FakeClock

KEY = queue.Key(kind=resources.MODEL_DEPLOYMENT, namespace="default", name="chat")
OTHER = queue.Key(kind=resources.MODEL_DEPLOYMENT, namespace="default", name="other")
COMMIT = "b" * 40
REFERENCE = artifact.parse_model("hf://team/model", "main")


class Runner:
    """Orders under way, ended by the test."""

    def __init__(self) -> None:
        self.orders: list[order.Order] = []
        self.reports: list[Callable[[Progress], None]] = []
        self.ends: list[asyncio.Future[str]] = []
        self.there: set[str] = set()
        self.cancelled = 0
        self.is_broken = False

    async def run(self, wanted: order.Order, report: Callable[[Progress], None]) -> str:
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.orders.append(wanted)
        self.reports.append(report)
        self.ends.append(end)
        try:
            return await end
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def is_there(self, shared_dir: str, entry: str) -> bool:
        if self.is_broken:
            raise OSError(errno.ESTALE, "Stale file handle")
        return entry in self.there


class Jobs:
    """Orders under way in jobs of a cluster, ended by the test."""

    def __init__(self, runner: Runner) -> None:
        self.clusters: list[str] = []
        self.given_up: list[order.Order] = []
        self._runner = runner

    async def run(self, cluster: str, wanted: order.Order, report: Callable[[Progress], None]) -> str:
        self.clusters.append(cluster)
        return await self._runner.run(wanted, report)

    def give_up(self, cluster: str, wanted: order.Order) -> None:
        self.given_up.append(wanted)

    def is_there(self, shared_dir: str, entry: str) -> bool:
        return self._runner.is_there(shared_dir, entry)


class Bench:
    def __init__(self) -> None:
        self.runner = Runner()
        self.jobs = Jobs(self.runner)
        self.clock = FakeClock(start=make.NOW)
        self.woken: list[queue.Key] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.stagers = artifacts.Stagers(self.runner, self.jobs, self.clock, self._spawn, self.woken.append)
        self.where = make.where()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def keep(self, *digests: str, key: queue.Key = KEY, secrets: tuple[str, ...] = ()) -> None:
        wanted = [
            values.StageArtifact(reference=REFERENCE, digest=each, cluster=make.CLUSTER, secret_files=secrets)
            for each in digests
        ]
        self.stagers.keep(key, [(each, self.where) for each in wanted])
        await self.rest()

    async def rest(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def view(self, digest: str = "") -> staging.View:
        base = make.desired(template=make.template(model_uri="hf://team/model"))
        pins = (staging.Pin(reference=REFERENCE.text, digest=digest),) if digest else ()
        newest = dataclasses.replace(base.revisions[-1], pins=pins)
        views = await self.stagers.views(dataclasses.replace(base, revisions=(newest,)), self.where)
        return views[REFERENCE.text]


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    for task in bench.tasks:
        task.cancel()
    await asyncio.gather(*bench.tasks, return_exceptions=True)


async def test_a_reference_is_resolved_then_staged_then_there(bench: Bench) -> None:
    await bench.keep("")
    await bench.keep("")
    assert [""] == [each.digest for each in bench.runner.orders]
    bench.runner.ends[0].set_result(COMMIT)
    await bench.rest()
    assert [KEY] == bench.woken
    assert staging.View(digest=COMMIT, progress=Progress(step=Step.RESOLVING)) == await bench.view()

    await bench.keep(COMMIT)
    assert ["", COMMIT] == [each.digest for each in bench.runner.orders]
    assert (
        staging.View(progress=Progress(step=Step.RESOLVING)) == await bench.view()
    )  # forgotten: it may move
    bench.runner.there.add(artifact.entry(REFERENCE, COMMIT))
    bench.runner.ends[1].set_result(COMMIT)
    await bench.rest()
    assert [KEY, KEY] == bench.woken
    assert staging.View(digest=COMMIT, progress=Progress(step=Step.READY)) == await bench.view(COMMIT)


async def test_an_order_holds_paths_of_secrets_only(bench: Bench) -> None:
    bench.where = make.where(
        allowed=dataclasses.replace(make.where().allowed, secret_root="/secrets"),
        staging=dataclasses.replace(make.where().staging, hub="https://mirror", tmp_dir="/local"),
    )
    await bench.keep(COMMIT, secrets=("a/hf.env",))
    (wanted,) = bench.runner.orders
    assert ("/shared/llmop", "https://mirror", "/local", ("/secrets/a/hf.env",)) == (
        wanted.shared_dir,
        wanted.endpoint,
        wanted.tmp_dir,
        wanted.secret_files,
    )
    assert wanted == order.load(wanted.dump())


async def test_passes_are_woken_when_people_would_read_something_else(bench: Bench) -> None:
    await bench.keep(COMMIT)
    for done in range(0, 1001, 1):
        bench.runner.reports[0](Progress(step=Step.DOWNLOADING, done=done, total=1000))
    assert 11 == len(bench.woken)
    assert 1000 == ((await bench.view(COMMIT)).progress or Progress(step=Step.FAILED)).done


async def test_two_deployments_share_one_stager_and_the_last_one_takes_it_down(bench: Bench) -> None:
    await bench.keep(COMMIT)
    await bench.keep(COMMIT, key=OTHER)
    assert 1 == len(bench.runner.orders)
    await bench.keep()
    assert 0 == bench.runner.cancelled
    await bench.keep(key=OTHER)
    assert 1 == bench.runner.cancelled


async def test_a_few_are_staged_at_a_time(bench: Bench) -> None:
    digests = [character * 40 for character in "abc"]
    await bench.keep(*digests)
    assert artifacts.CONCURRENT == len(bench.runner.orders)
    assert Progress(step=Step.QUEUED) == (await bench.view(digests[2])).progress
    bench.runner.ends[0].set_result(digests[0])
    await bench.rest()
    assert digests == [each.digest for each in bench.runner.orders]


async def test_a_failure_is_shown_until_the_next_try_gets_further(bench: Bench) -> None:
    await bench.keep(COMMIT)
    bench.runner.ends[0].set_exception(NeedsUser("NoSpace", "full"))
    await bench.rest()
    failed = (await bench.view(COMMIT)).progress
    assert failed is not None
    assert (Step.FAILED, "ArtifactNoSpace", True, make.NOW + artifacts.ASK_AGAIN_S) == (
        failed.step,
        failed.reason,
        failed.needs_user,
        failed.retry_at,
    )
    assert "full; it is tried again every 10 minutes" == failed.message
    await bench.keep(COMMIT)
    assert 1 == len(bench.runner.orders)

    bench.clock.advance(artifacts.ASK_AGAIN_S)
    await bench.keep(COMMIT)
    assert 2 == len(bench.runner.orders)
    bench.runner.reports[1](Progress(step=Step.DOWNLOADING, done=0, total=10))
    assert failed == (await bench.view(COMMIT)).progress
    bench.runner.reports[1](Progress(step=Step.DOWNLOADING, done=1, total=10))
    assert Progress(step=Step.DOWNLOADING, done=1, total=10) == (await bench.view(COMMIT)).progress


async def test_what_may_pass_by_itself_is_tried_again_at_growing_intervals(bench: Bench) -> None:
    waits = []
    for attempt in range(9):
        await bench.keep("")
        bench.runner.ends[attempt].set_exception(Unavailable("away"))
        await bench.rest()
        failed = (await bench.view()).progress
        assert failed is not None
        assert ("ArtifactUnavailable", "away", False) == (failed.reason, failed.message, failed.needs_user)
        assert failed.retry_at is not None
        waits.append(failed.retry_at - bench.clock.now())
        bench.clock.move_to(failed.retry_at)
    assert [5, 10, 20, 40, 80, 160, 300, 300, 300] == [round(each) for each in waits]


async def test_a_cluster_with_other_settings_is_tried_at_once(bench: Bench) -> None:
    await bench.keep(COMMIT)
    bench.runner.ends[0].set_exception(NeedsUser("NotFound", "nothing there"))
    await bench.rest()
    bench.where = make.where(staging=dataclasses.replace(make.where().staging, hub="https://mirror"))
    await bench.keep(COMMIT)
    assert 2 == len(bench.runner.orders)


async def test_what_was_there_is_looked_for_again_after_a_while(bench: Bench) -> None:
    entry = artifact.entry(REFERENCE, COMMIT)
    bench.runner.there.add(entry)
    assert Progress(step=Step.READY) == (await bench.view(COMMIT)).progress
    bench.runner.there.remove(entry)
    assert Progress(step=Step.READY) == (await bench.view(COMMIT)).progress
    bench.clock.advance(artifacts.LOOK_AGAIN_S)
    assert Progress(step=Step.DOWNLOADING) == (await bench.view(COMMIT)).progress


async def test_a_directory_that_cannot_be_read_is_not_known(bench: Bench) -> None:
    bench.runner.is_broken = True
    assert staging.View(digest=COMMIT) == await bench.view(COMMIT)


BY_JOB = site.Staging(where=site.StagingPlace.JOB)


async def test_a_cluster_that_asks_for_jobs_gets_them_for_all_but_the_question_what_a_reference_is(
    bench: Bench,
) -> None:
    bench.where = make.where(staging=BY_JOB)
    await bench.keep("")
    assert [] == bench.jobs.clusters
    bench.runner.ends[0].set_result(COMMIT)
    await bench.rest()
    for digest in ("c" * 40, "d" * 40, COMMIT):
        await bench.keep(digest, key=queue.Key(kind=KEY.kind, namespace="default", name=digest))
    assert [make.CLUSTER] * 3 == bench.jobs.clusters  # Slurm says how many at a time
    bench.runner.reports[-1](Progress(step=Step.PENDING, message="job 7: Resources: all nodes are busy"))
    seen = (await bench.view(COMMIT)).progress
    assert seen is not None
    words = f"the job that stages {REFERENCE.text} waits: job 7: Resources: all nodes are busy"
    assert words == decisions.words(REFERENCE.text, seen)


async def test_a_job_is_given_up_only_when_nobody_wants_it(bench: Bench) -> None:
    bench.where = make.where(staging=BY_JOB)
    await bench.keep(COMMIT)
    await bench.keep(COMMIT, key=OTHER)
    await bench.keep()
    assert [] == bench.jobs.given_up
    await bench.keep(key=OTHER)
    assert [COMMIT] == [each.digest for each in bench.jobs.given_up]


async def test_a_controller_that_ends_gives_up_no_job(bench: Bench) -> None:
    bench.where = make.where(staging=BY_JOB)
    await bench.keep(COMMIT)
    for task in bench.tasks:
        task.cancel()
    await asyncio.gather(*bench.tasks, return_exceptions=True)
    assert 1 == bench.runner.cancelled
    assert [] == bench.jobs.given_up
