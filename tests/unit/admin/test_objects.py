"""What a preflight is about: what is stored, with what the request brings over it."""

import json
from typing import Any

import pytest

from llmop.admin import objects
from llmop.domain import errors, resources
from llmop.domain.checks import PreflightQuestion
from llmop.manifest import merge
from llmop.store import interface
from llmop.testing import builders
from llmop.testing.memory_store import MemoryStore


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore(builders.INSTALLATION)
    for number, document in enumerate(
        (
            builders.cluster_manifest(),
            builders.runtime_manifest(),
            builders.profile_manifest(),
            builders.deployment_manifest(),
        )
    ):
        admitted = merge.apply(None, document, manager="test").resource
        resource = resources.Resource(
            kind=admitted.kind,
            namespace=admitted.namespace,
            name=admitted.name,
            uid=f"uid-{number}",
            spec=admitted.spec,
        )
        await made.commit([interface.Create(resource=resource)])
    return made


def manifest(kind: str, name: str, **spec: Any) -> str:
    return json.dumps(
        {"apiVersion": "llmop/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    )


async def test_a_stored_deployment_is_looked_at_on_its_cluster(store: MemoryStore) -> None:
    scope = await objects.scope(store, PreflightQuestion(deployment=builders.DEPLOYMENT))
    ((cluster, subjects),) = scope.subjects.items()
    assert cluster == builders.CLUSTER
    assert [each.name for each in subjects] == [f"md default/{builders.DEPLOYMENT}"]


async def test_without_a_deployment_the_profiles_of_the_cluster_are(store: MemoryStore) -> None:
    scope = await objects.scope(store, PreflightQuestion(cluster=builders.CLUSTER))
    (subjects,) = scope.subjects.values()
    assert [each.deployment for each in subjects] == [None]
    assert all(each.name.startswith("rp ") for each in subjects)


async def test_what_is_given_stands_over_what_is_stored_and_nothing_is_written(store: MemoryStore) -> None:
    before = await store.revision()
    given = (
        manifest("Cluster", "hpc", driver="slurm", sharedDir="/new"),
        manifest("Cluster", builders.CLUSTER, driver="slurm", sharedDir="/moved"),
        manifest("ResourceProfile", "gpu-a100", cluster="hpc", partition="gpu", gres="gpu:a100"),
    )
    scope = await objects.scope(store, PreflightQuestion(manifests_json=given))
    assert set(scope.subjects) == {"hpc", builders.CLUSTER}
    assert scope.sites[builders.CLUSTER].shared_dir == "/moved"
    (subject,) = scope.subjects["hpc"]
    assert (subject.template.gpus, subject.profile.partition) == (1, "gpu")
    assert await store.revision() == before


async def test_what_is_wrong_is_an_error_with_a_name(store: MemoryStore) -> None:
    with pytest.raises(errors.NotFound, match='Cluster "nowhere" not found'):
        await objects.scope(store, PreflightQuestion(cluster="nowhere"))
    with pytest.raises(errors.NotFound, match="ModelDeployment"):
        await objects.scope(store, PreflightQuestion(deployment="nobody"))
    for text in ("[", "[]", '"x"', manifest("Cluster", "x", driver="pbs", sharedDir="/x")):
        with pytest.raises(errors.Invalid):
            await objects.scope(store, PreflightQuestion(manifests_json=(text,)))
