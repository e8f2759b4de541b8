"""Rows that this version refuses, in a real store: each object is held and says so, and all others go on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.rigs import rows
from tests.unit.reconciler.reconciler_rig import CHAT, Rig

from llmop.domain import resources
from llmop.rpc.writing import Writer
from llmop.store import interface
from llmop.store.sql import open_store
from llmop.testing import builders
from llmop.testing.virtual_slurm.jobs import Phase

SAME = {"name": "a", "timezone": "UTC", "start": "0 8 * * *", "end": "0 8 * * *", "minReplicas": 1}
CHAT_SPEC = {"model": {"name": "chat"}, "runtime": "toy", "resourceProfile": "small"}
REFUSED: dict[str, Any] = {
    "a rule that is new": {**CHAT_SPEC, "scaling": {"maxReplicas": 3, "schedules": [SAME]}},
    "no JSON": rows.GARBAGE,
    "no mapping": "[1, 2]",
    "other types": {"model": "chat", "runtime": 7, "scaling": "much", "replicas": "two", "args": {"a": 1}},
    "nothing": {},
}
TRIO = {
    "drafters": [{"model": "chat", "n": 2}],
    "critics": [{"model": "chat"}],
    "judge": {"model": "chat"},
}
LIVE = (Phase.PENDING, Phase.RUNNING)
KEY_HASH = "sha256:" + 64 * "1"
OTHERS = (
    ("APIKey", "alice", {"keyHash": KEY_HASH}),
    ("Tribunal", "trio", TRIO),
    ("Assistant", "docs", {"model": "chat", "vectorStores": ["vs_a"]}),
    ("ModelDeployment", "other", {**CHAT_SPEC, "model": {"name": "other"}}),
)


class Refusing(Rig):
    """With a store in a file, a deployment of two replicas that have jobs, and an object of every other kind."""

    def __init__(self, store: interface.Store, file: Path) -> None:
        super().__init__()
        self.store = store  # type: ignore[assignment]
        self.file = file
        self.writer = Writer(store, self.clock, lambda *_: None)

    async def begin(self) -> None:
        await self.start()
        await self.apply(builders.deployment_manifest(replicas=2))
        for each in OTHERS:
            await self.apply(builders.manifest(*each, namespace="default"))

    async def go_on(self) -> None:
        for _ in range(3):
            await self.reconciler.refresh()
            await self.poll()
            await self.settle()
            self.slurm.advance(self.clock.now() + 6)

    async def damage(self, kind: str, name: str, spec: Any) -> None:
        """Stored beneath all rules; the next controller finds it."""
        rows.put(self.file, kind, name, spec)
        await self.restart()
        await self.go_on()

    async def refusal(self, kind: str, name: str, namespace: str = "default") -> tuple[str, str]:
        found = await self.condition(kind, name, namespace, "SpecAccepted")
        return str(found["reason"]), str(found["message"])

    def jobs(self) -> set[str]:
        return {
            each.request.name for each in self.slurm.jobs() if each.phase in LIVE and not each.request.held
        }

    async def apply(self, document: dict[str, Any]) -> None:
        await self.writer.apply(
            json.dumps(document), namespace="default", manager="test", force=False, dry_run=False
        )
        await self.go_on()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Refusing]:
    file = tmp_path / "llmop.db"
    store = await open_store(f"sqlite:///{file}")
    try:
        rig = Refusing(store, file)
        await rig.begin()
        yield rig
    finally:
        await store.close()


@pytest.mark.parametrize("spec", REFUSED.values(), ids=REFUSED.keys())
async def test_a_deployment_is_held_until_its_manifest_is_mended(rig: Refusing, spec: Any) -> None:
    before = rig.jobs()
    assert len(before) == 3
    await rig.damage("ModelDeployment", CHAT.name, spec)
    reason, message = await rig.refusal("ModelDeployment", CHAT.name)
    assert reason == "SpecRefused"
    assert "spec" in message
    stalled = await rig.condition("ModelDeployment", CHAT.name, "default", "Stalled")
    assert ("True", message) == (stalled["status"], stalled["message"])
    assert before == rig.jobs()
    assert {} == rig.reconciler.failing

    await rig.apply(builders.deployment_manifest("late", replicas=1))
    assert len(rig.jobs() - before) == 1  # all others go on

    await rig.apply(builders.deployment_manifest(replicas=3))
    assert len(rig.jobs() - before) == 2
    assert before <= rig.jobs()
    conditions = (await rig.store.get("ModelDeployment", "default", CHAT.name)).status["conditions"]
    assert "SpecAccepted" not in [each["type"] for each in conditions]


@pytest.mark.parametrize("spec", REFUSED.values(), ids=REFUSED.keys())
async def test_a_deployment_that_is_held_can_be_deleted(rig: Refusing, spec: Any) -> None:
    before = rig.jobs()
    await rig.damage("ModelDeployment", CHAT.name, spec)
    await rig.writer.delete(
        "ModelDeployment", "default", CHAT.name, uid="", resource_version=0, dry_run=False
    )
    for _ in range(100):
        await rig.go_on()
        listed = (await rig.store.list(resources.MODEL_DEPLOYMENT)).items
        if CHAT.name not in [each.name for each in listed]:
            break
        rig.slurm.advance(rig.clock.now() + 30)
    assert ["other"] == [each.name for each in listed]
    assert len(rig.jobs() & before) == 1


@pytest.mark.parametrize(
    ("kind", "name", "spec"),
    [
        ("ServingRuntime", "toy", {"engine": "toy", "command": ["toy"], "later": 1}),
        ("ServingRuntime", "toy", rows.GARBAGE),
        ("ResourceProfile", "small", {"cluster": builders.CLUSTER, "cpus": "many"}),
        ("ResourceProfile", "small", rows.GARBAGE),
        ("Cluster", builders.CLUSTER, {"driver": "slurm", "sharedDir": "/shared/llmop", "later": 1}),
        ("Cluster", builders.CLUSTER, rows.GARBAGE),
    ],
)
async def test_what_deployments_need_is_held_and_their_replicas_stay(
    rig: Refusing, kind: str, name: str, spec: Any
) -> None:
    before = rig.jobs()
    good = (await rig.store.get(kind, "", name)).spec
    rows.put(rig.file, kind, name, spec)
    await rig.restart()
    for _ in range(3):
        await rig.settle()
        rig.slurm.advance(rig.clock.now() + 6)
    assert "SpecRefused" == (await rig.refusal(kind, name, ""))[0]
    stalled = await rig.condition("ModelDeployment", CHAT.name, "default", "Stalled")
    assert "InvalidReference" == stalled["reason"]
    assert f'{kind} "{name}": this version refuses what is stored' in stalled["message"]
    assert before == rig.jobs()
    assert {} == rig.reconciler.failing

    await rig.apply(builders.manifest(kind, name, good))
    found = await rig.store.get(kind, "", name)
    assert "SpecAccepted" not in [each["type"] for each in found.status.get("conditions", ())]
    stalled = await rig.condition("ModelDeployment", CHAT.name, "default", "Stalled")
    assert "False" == stalled["status"]
    assert before == rig.jobs()


@pytest.mark.parametrize(
    ("kind", "name", "spec", "is_published"),
    [
        ("Assistant", "docs", {"model": "chat", "vectorStores": ["vs_a", "vs_a"]}, True),
        ("Assistant", "docs", rows.GARBAGE, False),
        ("Tribunal", "trio", {**TRIO, "later": 1}, True),
        ("Tribunal", "trio", {"drafters": [1, 2], "judge": 3}, False),
    ],
)
async def test_a_virtual_model_answers_as_far_as_it_can_be_read(
    rig: Refusing, kind: str, name: str, spec: Any, is_published: bool
) -> None:
    await rig.damage(kind, name, spec)
    assert "SpecRefused" == (await rig.refusal(kind, name))[0]
    ready = await rig.condition(kind, name, "default", "Ready")
    assert ("False", "SpecRefused") == (ready["status"], ready["reason"])
    published = {each.name for each in rig.reconciler.book.table().models}
    assert is_published is (name in published)
    assert {"chat", "other"} <= published
    await rig.apply(next(builders.manifest(*each, namespace="default") for each in OTHERS if each[1] == name))
    assert "True" == (await rig.condition(kind, name, "default", "Ready"))["status"]


@pytest.mark.parametrize("spec", [{"keyHash": KEY_HASH, "later": 1}, {"keyHash": "plain"}, rows.GARBAGE])
async def test_a_key_opens_nothing_and_the_others_do(rig: Refusing, spec: Any) -> None:
    other = builders.manifest("APIKey", "bob", {"keyHash": "sha256:" + 64 * "2"}, namespace="default")
    await rig.apply(other)
    await rig.damage("APIKey", "alice", spec)
    assert "SpecRefused" == (await rig.refusal("APIKey", "alice"))[0]
    assert ["default/bob"] == [each.name for each in rig.reconciler.book.table().keys]
    await rig.apply(builders.manifest("APIKey", "alice", {"keyHash": KEY_HASH}, namespace="default"))
    assert {} == (await rig.store.get("APIKey", "default", "alice")).status
    assert ["default/alice", "default/bob"] == [each.name for each in rig.reconciler.book.table().keys]


@pytest.mark.parametrize(
    "spec", [rows.GARBAGE, {}, {"revision": 1}, {"template": {"runtime": 9}, "revision": 1}]
)
async def test_a_revision_that_cannot_be_read_replaces_no_replica(rig: Refusing, spec: Any) -> None:
    before = rig.jobs()
    stored = (await rig.store.list(resources.REVISION)).items
    mine = next(each for each in stored if each.owner is not None and each.owner.name == CHAT.name)
    await rig.damage("Revision", mine.name, spec)
    assert before == rig.jobs()
    assert {} == rig.reconciler.failing


async def test_a_replica_that_cannot_be_read_holds_its_deployment_until_it_is_deleted(rig: Refusing) -> None:
    before = rig.jobs()
    stored = (await rig.store.list(resources.REPLICA)).items
    mine = next(each for each in stored if each.owner is not None and each.owner.name == CHAT.name)
    await rig.damage("Replica", mine.name, rows.GARBAGE)
    reason, message = await rig.refusal("ModelDeployment", CHAT.name)
    assert "SpecRefused" == reason
    assert f"llmctl delete replica {mine.name}" in message
    assert before == rig.jobs()
    await rig.writer.delete("Replica", "default", mine.name, uid="", resource_version=0, dry_run=False)
    for _ in range(100):
        await rig.go_on()
        if mine.name not in [each.name for each in (await rig.store.list(resources.REPLICA)).items]:
            break
        rig.slurm.advance(rig.clock.now() + 30)
    await rig.go_on()
    stalled = await rig.condition("ModelDeployment", CHAT.name, "default", "Stalled")
    assert ("False", "") == (stalled["status"], stalled["message"])
    assert len(rig.jobs()) == 3
