"""A controller in its own loop: it learns that it is none any more, and what its store has lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.unit.reconciler.reconciler_rig import Rig
from tests.waiting import until

from llmop.domain import errors, resources
from llmop.reconciler import loop
from llmop.store import interface
from llmop.testing import builders as make

SECONDS = 30  # until a test gives up


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    work = asyncio.create_task(rig.reconciler.run())
    try:
        yield work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_look_at_a_cluster_shows_that_another_controller_has_taken_over() -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()
    before = dict(rig.slurm.calls)
    await rig.store.take_over("another", 0.0)
    with pytest.raises(errors.Deposed):
        await rig.poll()
    assert before == dict(rig.slurm.calls), "it leaves the cluster alone"


async def test_an_idle_controller_ends_when_another_one_has_taken_over() -> None:
    rig = Rig()
    await rig.start()
    async with asyncio.timeout(SECONDS), running(rig) as work:
        await until(lambda: rig.slurm.calls["snapshot"] > 0)
        await rig.store.take_over("another", 0.0)
        revision = await rig.store.revision()
        while not work.done():
            rig.clock.advance(1)  # a look is due some time
            await asyncio.sleep(0.01)
        with pytest.raises(errors.Deposed):
            work.result()
        assert revision == await rig.store.revision()


async def test_a_store_that_is_away_just_when_a_controller_begins_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "FOLLOW_AGAIN_S", 0.01)
    rig = Rig()
    await rig.start()
    refresh, failures = rig.reconciler.refresh, iter((errors.Unavailable("the file is gone"),) * 3)

    async def at_first_away() -> None:
        for failure in failures:
            raise failure
        await refresh()

    monkeypatch.setattr(rig.reconciler, "refresh", at_first_away)
    async with asyncio.timeout(SECONDS), running(rig) as work:
        await until(lambda: work.done() or rig.slurm.calls["snapshot"] > 0)
        assert not work.done()


async def test_after_a_failover_that_lost_commits_a_controller_follows_the_store_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "FOLLOW_AGAIN_S", 0.01)
    rig = Rig()
    await rig.start()
    fail_over = rig.store.saved()
    await rig.store.commit([interface.Create(resource=deployment("lost"))])
    async with asyncio.timeout(SECONDS), running(rig):
        await until(lambda: rig.reconciler.book.table().version > 0)
        fail_over()
        await rig.store.commit([interface.Create(resource=deployment("made-since"))])
        while "made-since" not in await reconciled(rig):  # noqa: ASYNC110 (the loop under test says nothing)
            await asyncio.sleep(0.01)


def deployment(name: str) -> resources.Resource:
    manifest = make.deployment_manifest(name)
    return resources.Resource(
        kind=resources.MODEL_DEPLOYMENT,
        namespace="default",
        name=name,
        uid=f"u-{name}",
        spec=manifest["spec"],
    )


async def reconciled(rig: Rig) -> set[str]:
    """The deployments that a pass has made a revision of."""
    listing = await rig.store.list(resources.REVISION)
    return {each.owner.name for each in listing.items if each.owner is not None}
