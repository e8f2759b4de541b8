"""ArtifactService: what lies in the shared directories, and removing what no revision uses."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from llmop.api.v1 import artifacts_pb2, artifacts_pb2_grpc
from llmop.artifacts import inventory
from llmop.cluster import file_threads
from llmop.domain import os_errors, resources
from llmop.manifest import convert
from llmop.manifest import stored as manifests
from llmop.store.interface import Store

PATIENCE_S = 30.0  # for looking at a shared directory, which may hang
_Result = TypeVar("_Result")


class ArtifactServicer(artifacts_pb2_grpc.ArtifactServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def List(  # noqa: N802  # named by the proto
        self, request: artifacts_pb2.ListArtifactsRequest, context: Any
    ) -> artifacts_pb2.ListArtifactsResponse:
        answer = artifacts_pb2.ListArtifactsResponse()
        for cluster, shared_dir in await self._places(request.cluster):
            try:
                found = await _patiently(inventory.look, shared_dir)
            except (OSError, TimeoutError) as error:
                answer.problems.append(_problem(cluster, shared_dir, error))
                continue
            listed = inventory.items(found, await self._uses())
            answer.artifacts.extend(_message(cluster, each) for each in listed)
        return answer

    async def Prune(  # noqa: N802  # named by the proto
        self, request: artifacts_pb2.PruneArtifactsRequest, context: Any
    ) -> artifacts_pb2.PruneArtifactsResponse:
        answer = artifacts_pb2.PruneArtifactsResponse()
        for cluster, shared_dir in await self._places(request.cluster):
            try:
                found = await _patiently(inventory.look, shared_dir)
                for each in inventory.spare(inventory.items(found, await self._uses())):
                    if request.dry_run or await self._remove(cluster, shared_dir, each.found.entry, answer):
                        answer.removed.append(_message(cluster, each))
            except (OSError, TimeoutError) as error:
                answer.problems.append(_problem(cluster, shared_dir, error))
        return answer

    async def _remove(
        self, cluster: str, shared_dir: Path, entry: str, answer: artifacts_pb2.PruneArtifactsResponse
    ) -> bool:
        why_not = await _patiently(inventory.set_aside, shared_dir, entry)
        if why_not:
            answer.problems.append(f"{cluster}: {entry} stays: {why_not}")
            return False
        if entry in await self._uses():  # a revision has named it in the meantime
            await _patiently(inventory.put_back, shared_dir, entry)
            answer.problems.append(f"{cluster}: {entry} stays: a revision needs it now")
            return False
        await file_threads.FileThreads("artifacts").run_long(inventory.delete, shared_dir, entry)
        return True

    async def _places(self, cluster: str) -> list[tuple[str, Path]]:
        """Clusters with their shared directories; of several with one directory the first. Raises NotFound."""
        if cluster:
            stored = [await self._store.get(resources.CLUSTER, "", cluster)]
        else:
            stored = list((await self._store.list(resources.CLUSTER)).items)
        places: dict[Path, str] = {}
        for each in sorted(stored, key=lambda one: one.name):
            if (site := manifests.read(each, convert.site).value) is not None:
                places.setdefault(Path(site.shared_dir), each.name)
        return [(name, path) for path, name in places.items()]

    async def _uses(self) -> Mapping[str, tuple[str, ...]]:
        stored = (await self._store.list(resources.REVISION)).items
        return inventory.uses((_name(each), convert.pins(each)) for each in stored)


def _name(revision: resources.Resource) -> str:
    owner = revision.owner.name if revision.owner is not None else revision.name
    return f"{revision.namespace}/{owner}:{revision.spec.get('revision', '?')}"


def _message(cluster: str, item: inventory.Item) -> artifacts_pb2.Artifact:
    found = item.found
    return artifacts_pb2.Artifact(
        cluster=cluster,
        kind=str(found.kind),
        reference=found.reference,
        digest=found.digest,
        path=found.entry,
        size_bytes=found.size,
        staged_at=found.staged_at,
        used_by=item.used_by,
        unfinished=not found.is_finished,
    )


def _problem(cluster: str, shared_dir: Path, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{cluster}: {shared_dir} does not answer within {PATIENCE_S:.0f} s"
    if isinstance(error, OSError):
        return f"{cluster}: {os_errors.sentence(error, shared_dir)}"
    return f"{cluster}: {shared_dir}: {error}"


async def _patiently(call: Callable[..., _Result], *arguments: object) -> _Result:
    async with asyncio.timeout(PATIENCE_S):
        return await file_threads.FileThreads("artifacts").run_long(call, *arguments)
