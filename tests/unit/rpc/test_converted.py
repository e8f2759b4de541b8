"""What deployments may refer to is converted once for each version."""

from __future__ import annotations

import dataclasses

from llmop.domain import resources
from llmop.rpc.converted import Converted
from llmop.store import interface
from llmop.testing.memory_store import MemoryStore


def profile(name: str) -> resources.Resource:
    return resources.Resource(
        kind=resources.RESOURCE_PROFILE,
        name=name,
        namespace="",
        uid=f"uid-{name}",
        created_at=1.0,
        spec={"gpus": 1},
    )


class Counting:
    """A conversion that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, stored: resources.Resource) -> int:
        self.asked.append(stored.name)
        return int(stored.spec["gpus"])


async def test_only_what_is_new_or_has_changed_is_converted() -> None:
    store, convert = MemoryStore("k3v9qd"), Counting()
    await store.commit([interface.Create(resource=profile(name)) for name in ("one", "two")])
    known = Converted(resources.RESOURCE_PROFILE, convert)
    assert {"one": 1, "two": 1} == await known.read(store)
    assert {"one": 1, "two": 1} == await known.read(store)
    assert ["one", "two"] == convert.asked

    live = await store.get(resources.RESOURCE_PROFILE, "", "two")
    changed = dataclasses.replace(live, spec={"gpus": 4})
    await store.commit([interface.Update(resource=changed, expected_version=live.resource_version)])
    assert {"one": 1, "two": 4} == await known.read(store)
    assert ["one", "two", "two"] == convert.asked


async def test_what_was_removed_and_made_anew_is_another_object() -> None:
    store, convert = MemoryStore("k3v9qd"), Counting()
    await store.commit([interface.Create(resource=profile("one"))])
    known = Converted(resources.RESOURCE_PROFILE, convert)
    assert {"one": 1} == await known.read(store)
    gone = interface.Remove(kind=resources.RESOURCE_PROFILE, namespace="", name="one", uid="uid-one")
    await store.commit([gone])
    assert {} == await known.read(store)
    await store.commit(
        [interface.Create(resource=dataclasses.replace(profile("one"), uid="uid-new", spec={"gpus": 2}))]
    )
    assert {"one": 2} == await known.read(store)
