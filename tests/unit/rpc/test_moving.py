"""A cluster stays where it is as long as replicas run on it, also when the replica comes at the last moment."""

import json
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.control import manifests
from tests.control.rig import Rig

from llmop.domain import replica, resources
from llmop.domain.errors import Invalid
from llmop.rpc.writing import Writer
from llmop.store import interface


def made(name: str = "chat-a", *, cluster: str = "default", **status: Any) -> interface.Create:
    resource = resources.Resource(
        kind=resources.REPLICA,
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        spec={"cluster": cluster},
        status=status,
    )
    ledger = interface.Ledger(
        replica_uid=resource.uid,
        namespace="default",
        replica_name=name,
        cluster=cluster,
        submission=replica.Submission(
            state=replica.SubmissionState.SUBMITTING, job_name=f"llmop-abcdef-{name}"
        ),
        secrets=interface.Secrets(api_key="k", agent_token="t"),
    )
    return interface.Create(resource=resource, ledger=ledger)


async def problems(call: Any) -> dict[str, str]:
    """The violations that `call` is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    request = error_details_pb2.BadRequest()
    for each in rpc_status.from_call(refused.value).details:
        if each.Is(request.DESCRIPTOR):
            each.Unpack(request)
    return {each.field: each.description for each in request.field_violations}


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_cluster_with_replicas_is_not_moved(rig: Rig, dry_run: bool) -> None:
    await rig.apply(manifests.cluster())
    # The first has a job, the second one's submission is unresolved: it may have one.
    await rig.store.commit([made("chat-a", phase="Ready", jobId="7"), made("chat-b")])

    moved = manifests.cluster(shared_dir="/elsewhere")
    moved["spec"]["driver"] = "slurm"

    assert {
        "spec.driver": "cannot be changed from 'local' to 'slurm' while replicas default/chat-a, default/chat-b are on this"
        " cluster: scale the deployments there to 0 or delete them first, or describe the other place as another Cluster",
        "spec.sharedDir": "cannot be changed from '/shared/llmop' to '/elsewhere' while replicas default/chat-a,"
        " default/chat-b are on this cluster: scale the deployments there to 0 or delete them first, or describe the other"
        " place as another Cluster",
    } == await problems(rig.apply(moved, dry_run=dry_run))
    stored = await rig.store.get(resources.CLUSTER, "", "default")
    assert "/shared/llmop" == stored.spec["sharedDir"]


async def test_anything_else_of_it_may_change(rig: Rig) -> None:
    await rig.apply(manifests.cluster())
    await rig.store.commit([made()])
    changed = manifests.cluster(shared_dir="/shared/llmop/")  # the same place
    changed["spec"]["python"] = "/usr/bin/python3"

    await rig.apply(changed)

    assert "/usr/bin/python3" == (await rig.store.get(resources.CLUSTER, "", "default")).spec["python"]


async def test_replicas_that_are_over_or_elsewhere_hold_nothing(rig: Rig) -> None:
    await rig.apply(manifests.cluster())
    await rig.store.commit(
        [made("chat-a", phase="Ended", end={"reason": "Drained"}), made("chat-b", cluster="other")]
    )

    await rig.apply(manifests.cluster(shared_dir="/elsewhere"))

    assert "/elsewhere" == (await rig.store.get(resources.CLUSTER, "", "default")).spec["sharedDir"]


async def test_many_replicas_are_counted_and_five_are_named(rig: Rig) -> None:
    await rig.apply(manifests.cluster())
    await rig.store.commit([made(f"chat-{letter}") for letter in "abcdefg"])

    found = await problems(rig.apply(manifests.cluster(shared_dir="/elsewhere")))

    assert "default/chat-e and 2 more are on this cluster" in found["spec.sharedDir"]


async def test_a_replica_that_comes_between_the_check_and_the_write_is_seen(rig: Rig) -> None:
    """The reconciler stores its intent at the last moment: the change is judged again, on what is there then."""
    await rig.apply(manifests.cluster())
    store = LateReplica(rig.store)
    writer = Writer(store, rig.clock, hint=lambda *_: None)  # type: ignore[arg-type]
    moved = json.dumps(manifests.cluster(shared_dir="/elsewhere"))

    with pytest.raises(Invalid, match="replica default/chat-late is on this cluster"):
        await writer.apply(moved, namespace="", manager="llmctl", force=False, dry_run=False)

    assert "/shared/llmop" == (await rig.store.get(resources.CLUSTER, "", "default")).spec["sharedDir"]


class LateReplica:
    """A store in which a replica comes just before the first write that is not its own."""

    def __init__(self, store: interface.Store) -> None:
        self._store = store
        self._came = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, writes: Sequence[interface.Write], **options: Any) -> interface.Committed:
        if not self._came:
            self._came = True
            await self._store.commit([made("chat-late")])
        return await self._store.commit(writes, **options)
