"""A controller that running replicas would not trust does not take them over."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.control import manifests

from llmop.domain import errors, resources
from llmop.manifest import merge
from llmop.reconciler import shared, trust
from llmop.store import interface
from llmop.testing.memory_store import MemoryStore

OURS, OTHERS = "our CA", "another CA"


@pytest.fixture
def place(tmp_path: Path) -> shared.DiskDirectory:
    (tmp_path / "shared").mkdir()
    return shared.DiskDirectory(tmp_path / "shared")


async def stored(place: shared.DiskDirectory, **status: Any) -> MemoryStore:
    """One cluster with one replica."""
    store = MemoryStore()
    applied = merge.apply(None, manifests.cluster(shared_dir=str(place.root)), manager="llmctl")
    replica = resources.Resource(
        kind=resources.REPLICA,
        name="chat-a",
        namespace="default",
        uid="uid-chat-a",
        spec={"cluster": "default"},
        status=status,
    )
    cluster = resources.Resource(
        kind=resources.CLUSTER, name="default", uid="uid-c", spec=applied.resource.spec
    )
    await store.commit([interface.Create(resource=each) for each in (cluster, replica)])
    return store


async def test_replicas_that_trust_another_authority_are_not_taken_over(place: shared.DiskDirectory) -> None:
    place.publish(("https://a:1",), OTHERS)
    with pytest.raises(errors.NeedsUser) as refused:
        await trust.require(await stored(place, phase="Ready"), Path("/state/tls"), OURS)
    assert str(refused.value) == (
        "the replicas on cluster default trust another CA than /state/tls/ca.pem and could not report to this controller:"
        " name the directory of theirs with --tls-dir, or copy its ca.pem and ca.key there; to give these replicas up"
        f" instead, remove {place.root}/controllers.json: they are replaced then"
    )


async def test_the_same_authority_is_taken(place: shared.DiskDirectory) -> None:
    place.publish(("https://a:1",), OURS)
    await trust.require(await stored(place, phase="Ready"), Path("/state/tls"), OURS)


async def test_a_new_authority_is_fine_where_nobody_runs(place: shared.DiskDirectory) -> None:
    place.publish(("https://a:1",), OTHERS)
    over = await stored(place, phase="Ended", end={"reason": "Drained"})
    await trust.require(over, Path("/state/tls"), OURS)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", json.dumps({"version": 1, "urls": []})])
async def test_a_file_that_says_nothing_hinders_nobody(
    place: shared.DiskDirectory, content: str | None
) -> None:
    if content is not None:
        (place.root / "controllers.json").write_text(content)
    await trust.require(await stored(place, phase="Ready"), Path("/state/tls"), OURS)
