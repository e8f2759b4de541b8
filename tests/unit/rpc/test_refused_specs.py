"""Rows that this version refuses, in a real store: one of them keeps nobody from reading, mending or deleting anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from tests.control import manifests
from tests.control.rig import Rig, serving
from tests.rigs import rows
from tests.unit.rpc.test_resources import detail, refused
from tests.unit.rpc.test_resources import replica as a_replica

from llmop.api.v1 import gateway_pb2, resources_pb2, rollout_pb2
from llmop.domain import resources
from llmop.store import interface
from llmop.store.sql import open_store

ALICE = {"keyHash": "sha256:" + 64 * "1"}
TRIO = {"drafters": [{"model": "chat", "n": 2}], "critics": [{"model": "chat"}], "judge": {"model": "chat"}}
DOCS = {"model": "chat", "vectorStores": ["vs_a"]}
DOCUMENTS = {
    "Cluster": manifests.cluster(),
    "ServingRuntime": manifests.runtime(),
    "ResourceProfile": manifests.profile(),
    "ModelDeployment": manifests.deployment(),
    "APIKey": manifests.document("APIKey", "alice", ALICE),
    "Tribunal": manifests.document("Tribunal", "trio", TRIO),
    "Assistant": manifests.document("Assistant", "docs", DOCS),
}
BROKEN: dict[str, Any] = {
    "no JSON": rows.GARBAGE,
    "no mapping": "null",
    "other types": {
        "model": 7, "runtime": [1], "scaling": "x", "replicas": {}, "drafters": 3, "judge": 1, "vectorStores": 2,
        "keyHash": 9, "expiresAt": "soon", "limits": [], "models": 5, "cluster": {}, "drain": "x", "regarding": 4,
        "driver": 2, "sharedDir": 1, "lastSeenAt": "x", "revision": "x", "template": 1,
    },
    "nothing": {},
}  # fmt: skip


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = await open_store(f"sqlite:///{tmp_path}/llmop.db")
    try:
        async with serving(store, tmp_path) as running:
            for document in DOCUMENTS.values():
                await running.apply(document)
            yield running
    finally:
        await store.close()


@pytest.mark.parametrize("spec", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_every_kind_is_shown_mended_and_deleted(rig: Rig, tmp_path: Path, kind: str, spec: Any) -> None:
    name = DOCUMENTS[kind]["metadata"]["name"]
    before = json.loads((await rig.get(kind, name)).object.spec_json)
    rows.put(tmp_path / "llmop.db", kind, name, spec)
    shown = json.loads((await rig.get(kind, name)).object.spec_json)
    assert shown == ({resources.STORED_TEXT: spec} if isinstance(spec, str) else spec)
    listed = await rig.resources.List(resources_pb2.ListRequest(kind=kind))
    assert name in [row.object.metadata.name for row in listed.rows]
    assert all(cell for row in listed.rows for cell in row.cells)
    await rig.gateway.Overview(gateway_pb2.OverviewRequest(gateway="g"))
    # All others can be written, whatever they have to do with it.
    for document in DOCUMENTS.values():
        if document["kind"] != kind and document["kind"] != "ModelDeployment":
            await rig.apply({**document, "metadata": {**document["metadata"], "labels": {"a": "b"}}})

    await rig.apply(DOCUMENTS[kind])
    assert before == json.loads((await rig.get(kind, name)).object.spec_json)

    rows.put(tmp_path / "llmop.db", kind, name, spec)
    if kind != "ModelDeployment":
        await rig.delete("md", "chat")
        await rig.store.commit([gone(await rig.store.get("ModelDeployment", "default", "chat"))])
        if kind == "Cluster":
            await rig.delete("rp", "cpu")
    await rig.delete(kind, name)
    found = (await rig.resources.List(resources_pb2.ListRequest(kind=kind))).rows
    assert [] == [row for row in found if not row.object.metadata.HasField("deletion_time")]


def a_revision(owner: resources.Resource) -> resources.Resource:
    return resources.Resource(
        kind="Revision",
        name="chat-1",
        namespace="default",
        uid="revision",
        created_at=1.0,
        owner=resources.Owner(kind=owner.kind, name=owner.name, uid=owner.uid),
        spec={"revision": 1, "hash": "x", "template": {"runtime": "simulator"}},
    )


def gone(each: resources.Resource) -> interface.Remove:
    return interface.Remove(kind=each.kind, namespace=each.namespace, name=each.name, uid=each.uid)


@pytest.mark.parametrize("spec", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("kind", ["Replica", "Revision", "Event"])
async def test_what_the_controller_makes_is_listed_too(
    rig: Rig, tmp_path: Path, kind: str, spec: Any
) -> None:
    owner = await rig.store.get("ModelDeployment", "default", "chat")
    made = {"Replica": a_replica("x"), "Revision": a_revision(owner)}.get(kind)
    event = interface.RecordEvent(
        namespace="default",
        regarding=resources.Owner(kind="ModelDeployment", name="chat", uid=owner.uid),
        type="Normal",
        reason="Ready",
        message="x",
        at=1.0,
    )
    await rig.store.commit([event if made is None else interface.Create(resource=made)])
    (stored,) = (await rig.store.list(kind)).items
    rows.put(tmp_path / "llmop.db", kind, stored.name, spec)
    (row,) = (await rig.resources.List(resources_pb2.ListRequest(kind=kind))).rows
    assert all(row.cells)
    await rig.gateway.Overview(gateway_pb2.OverviewRequest(gateway="g"))
    await rig.rollout.History(rollout_pb2.HistoryRequest(name="chat"))


@pytest.mark.parametrize("kind", ["ServingRuntime", "ResourceProfile", "Cluster"])
async def test_a_deployment_is_not_let_onto_what_is_refused(rig: Rig, tmp_path: Path, kind: str) -> None:
    name = DOCUMENTS[kind]["metadata"]["name"]
    rows.put(tmp_path / "llmop.db", kind, name, {**DOCUMENTS[kind]["spec"], "later": 1})
    (tmp_path / "next").mkdir()
    async with serving(rig.store, tmp_path / "next") as following:
        code, _, _, error = await refused(following.apply(manifests.deployment("new")))
    assert "INVALID_ARGUMENT" == code
    (found,) = detail(error, error_details_pb2.BadRequest()).field_violations
    assert f'the {kind} "{name}": this version refuses what is stored: spec.later' in found.description
