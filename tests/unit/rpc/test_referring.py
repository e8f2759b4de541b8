"""What deployments may refer to is read once, and again when it has changed; a check never rests on what is not there any more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from llmop.domain import resources
from llmop.domain.errors import Conflict, Invalid
from llmop.rpc.referring import References
from llmop.store import interface
from llmop.testing.memory_store import MemoryStore


class Counting(MemoryStore):
    """Remembers what was listed."""

    def __init__(self) -> None:
        super().__init__("k3v9qd")
        self.listed: list[str] = []

    async def list(self, kind: str, namespace: str | None = None) -> interface.Listing:
        self.listed.append(kind)
        return await super().list(kind, namespace)


def stored(kind: str, name: str, spec: dict[str, Any]) -> resources.Resource:
    return resources.Resource(kind=kind, name=name, uid=f"uid-{kind}-{name}", created_at=1.0, spec=spec)


def deployment(profile: str) -> resources.Resource:
    spec = {
        "model": {"name": "chat", "uri": "file:///models/chat"},
        "runtime": "simulator",
        "resourceProfile": profile,
    }
    made = stored(resources.MODEL_DEPLOYMENT, "chat", spec)
    return dataclasses.replace(made, namespace="default")


def profile(name: str, **spec: object) -> resources.Resource:
    return stored(resources.RESOURCE_PROFILE, name, {"cluster": "main", **spec})


@pytest.fixture
async def store() -> Counting:
    store = Counting()
    runtime = stored(
        resources.SERVING_RUNTIME,
        "simulator",
        {
            "protocols": ["tgi"],
            "engine": "simulator",
            "container": "none",
            "gpu": "none",
            "command": ["x", "--port={port}"],
        },
    )
    cluster = stored(resources.CLUSTER, "main", {"driver": "slurm", "sharedDir": "/shared"})
    await store.commit([interface.Create(resource=each) for each in (runtime, cluster, profile("cpu"))])
    return store


async def test_checks_before_writes_share_one_reading(store: Counting) -> None:
    references = References(store)
    for _ in range(3):
        assert await references.check(deployment("cpu"), will_write=True)
    kinds = [resources.SERVING_RUNTIME, resources.RESOURCE_PROFILE, resources.CLUSTER]
    assert kinds == store.listed
    await references.check(deployment("cpu"), will_write=False)
    assert kinds * 2 == store.listed, "what is not written has no commit that would notice"


async def test_nothing_is_refused_for_what_has_come_since(store: Counting) -> None:
    references = References(store)
    await references.check(deployment("cpu"), will_write=True)
    await store.commit([interface.Create(resource=profile("new"))])
    assert await references.check(deployment("new"), will_write=True)
    with pytest.raises(Invalid, match='no ResourceProfile "gone"'):
        await references.check(deployment("gone"), will_write=True)


async def test_what_was_removed_since_fails_the_commit_and_then_the_check(store: Counting) -> None:
    references = References(store)
    await references.check(deployment("cpu"), will_write=True)
    gone = interface.Remove(kind=resources.RESOURCE_PROFILE, namespace="", name="cpu", uid=profile("cpu").uid)
    await store.commit([gone])
    guards = await references.check(deployment("cpu"), will_write=True)
    with pytest.raises(Conflict):
        await store.commit([*guards, interface.Create(resource=deployment("cpu"))])
    references.forget()
    with pytest.raises(Invalid, match='no ResourceProfile "cpu"'):
        await references.check(deployment("cpu"), will_write=True)


async def test_other_kinds_refer_to_nothing(store: Counting) -> None:
    assert () == await References(store).check(profile("any"), will_write=True)
    assert [] == store.listed
