"""What a controller puts into an empty store, and what it leaves alone in one that people have used."""

import asyncio
import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llmop import daemon
from llmop.domain import resources
from llmop.manifest import load, merge
from llmop.runtimes import builtin
from llmop.settings import ControllerSettings
from llmop.store import interface
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

NAME = "tgi"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(seed=1_000_000)


async def start(store: MemoryStore, *, local: bool = False) -> None:
    settings = ControllerSettings(state_dir=Path("/state"), local_cluster=local)
    await daemon.bootstrap(store, FakeClock(seed=await store.revision()), settings)


def shipped(name: str = NAME) -> dict[str, Any]:
    documents = [
        document.data for file, text in builtin.runtimes().items() for document in load.load(text, file)
    ]
    return copy.deepcopy(dict(next(one for one in documents if one["metadata"]["name"] == name)))


async def apply(store: MemoryStore, manifest: dict[str, Any], *, manager: str = "llmctl") -> None:
    live = await store.get(manifest["kind"], "", manifest["metadata"]["name"])
    applied = merge.apply(live, manifest, manager=manager, force=True)
    await store.commit([interface.Update(resource=applied.resource, expected_version=live.resource_version)])


async def runtime(store: MemoryStore, name: str = NAME) -> resources.Resource:
    return await store.get(resources.SERVING_RUNTIME, "", name)


def next_version() -> dict[str, Any]:
    """The built-in runtime as a later llmop may ship it."""
    manifest = shipped()
    manifest["spec"]["gpu"] = "amd"
    return manifest


async def test_everything_that_ships_is_there_after_the_first_start(store: MemoryStore) -> None:
    await start(store)
    for kind, texts in (
        (resources.SERVING_RUNTIME, builtin.runtimes()),
        (resources.RESOURCE_PROFILE, builtin.profiles()),
    ):
        names = {
            document.data["metadata"]["name"]
            for file, text in texts.items()
            for document in load.load(text, file)
        }
        assert names == {item.name for item in (await store.list(kind)).items}


async def test_the_second_start_changes_nothing(store: MemoryStore) -> None:
    await start(store)
    revision = await store.revision()
    await start(store)
    assert revision == await store.revision()


async def test_a_new_version_updates_what_nobody_has_changed(store: MemoryStore, clock: FakeClock) -> None:
    await start(store)
    await daemon._apply_builtin(store, clock, next_version())
    assert "amd" == (await runtime(store)).spec["gpu"]
    # So it is when the older version starts again.
    await start(store)
    assert "nvidia" == (await runtime(store)).spec["gpu"]


async def test_what_was_changed_by_hand_stays_as_it_is(store: MemoryStore, clock: FakeClock) -> None:
    await start(store)
    mine = {key: value for key, value in shipped().items() if key != "spec"}
    await apply(store, {**mine, "spec": {"gpu": "none"}})
    before = await runtime(store)
    await start(store)
    await daemon._apply_builtin(store, clock, next_version())
    assert before == await runtime(store)
    assert "none" == before.spec["gpu"]


async def test_what_was_added_by_hand_is_kept_over_an_update(store: MemoryStore, clock: FakeClock) -> None:
    await start(store)
    added = {key: value for key, value in shipped().items() if key != "spec"}
    added["metadata"] = {**added["metadata"], "annotations": {"team": "speech"}}
    await apply(store, {**added, "spec": {}})
    await daemon._apply_builtin(store, clock, next_version())
    after = await runtime(store)
    assert ("amd", "speech") == (after.spec["gpu"], after.annotations["team"])


async def test_a_built_in_that_does_not_fit_what_people_added_does_not_stop_the_start(
    store: MemoryStore, clock: FakeClock
) -> None:
    await start(store)
    before = await runtime(store)
    broken = shipped()
    broken["spec"]["engine"] = ""
    await daemon._apply_builtin(store, clock, broken)
    assert before == await runtime(store)


async def test_a_built_in_that_was_deleted_is_back_after_the_next_start(store: MemoryStore) -> None:
    await start(store)
    gone = await runtime(store)
    await store.commit([interface.Remove(kind=gone.kind, namespace="", name=gone.name, uid=gone.uid)])
    await start(store)
    assert gone.spec == (await runtime(store)).spec


async def test_this_machine_becomes_the_cluster_only_when_asked_and_only_where_there_is_none(
    store: MemoryStore, clock: FakeClock
) -> None:
    await start(store)
    assert () == (await store.list(resources.CLUSTER)).items
    await start(store, local=True)
    (made,) = (await store.list(resources.CLUSTER)).items
    assert ("default", "local", "/state/shared") == (made.name, made.spec["driver"], made.spec["sharedDir"])
    mine = dataclasses.replace(made, name="main", uid=clock.uid())
    await store.commit(
        [
            interface.Create(resource=mine),
            interface.Remove(kind=made.kind, namespace="", name=made.name, uid=made.uid),
        ]
    )
    await start(store, local=True)
    assert ["main"] == [item.name for item in (await store.list(resources.CLUSTER)).items]


async def test_a_controller_that_waits_for_its_store_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for the lease of another one, two minutes."""
    begun, given_up, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits(_url: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    monkeypatch.setattr(daemon.sql, "open_store", waits)
    running = asyncio.create_task(daemon.run(ControllerSettings(state_dir=tmp_path / "state"), stop=stop))
    await asyncio.wait_for(begun.wait(), 30)
    stop.set()
    await asyncio.wait_for(running, 30)
    assert given_up.is_set()
