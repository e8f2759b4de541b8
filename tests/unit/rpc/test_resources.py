"""ResourceService through a real channel."""

import asyncio
import dataclasses
import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs
from tests.control import manifests
from tests.control.rig import Rig

from llmop.api.v1 import resources_pb2, rollout_pb2
from llmop.domain import resources
from llmop.store import interface

VERDICTS = resources_pb2.ApplyResponse
TYPES = resources_pb2.WatchResponse


async def prepare(rig: Rig) -> None:
    """What the smallest deployment refers to."""
    for document in (manifests.cluster(), manifests.runtime(), manifests.profile()):
        await rig.apply(document)
    rig.hints.clear()


async def refused(call: Any) -> Any:
    """The status that `call` ends with: (code, reason for people, message, error)."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    info = error_details_pb2.ErrorInfo()
    detail(raised.value, info)
    return raised.value.code().name, info.metadata["reason"], raised.value.details(), raised.value


def detail(error: Any, into: Any) -> Any:
    for each in rpc_status.from_call(error).details:
        if each.Is(into.DESCRIPTOR):
            each.Unpack(into)
            return into
    raise AssertionError(f"no {into.DESCRIPTOR.name} in {error}")


def replica(name: str, **spec: Any) -> resources.Resource:
    return resources.Resource(
        kind=resources.REPLICA,
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        created_at=1.0,
        spec={"deployment": "chat", "revision": 1, "cluster": "default", "drain": None, **spec},
        status={"phase": "Ready", "ready": True},
    )


async def test_apply_creates_changes_and_leaves_alone(rig: Rig) -> None:
    await prepare(rig)
    created = await rig.apply(manifests.deployment(replicas=2))
    assert VERDICTS.VERDICT_CREATED == created.verdict
    assert not created.HasField("live")
    assert ["llmop/jobs"] == list(created.object.metadata.finalizers)
    assert (1, True) == (created.object.metadata.generation, bool(created.object.metadata.uid))
    again = await rig.apply(manifests.deployment(replicas=2))
    assert VERDICTS.VERDICT_UNCHANGED == again.verdict
    assert created.object.metadata.resource_version == again.object.metadata.resource_version
    changed = await rig.apply(manifests.deployment(replicas=3))
    assert (VERDICTS.VERDICT_CONFIGURED, ["spec.replicas"]) == (changed.verdict, list(changed.changed_paths))
    assert 2 == json.loads(changed.live.spec_json)["replicas"]
    assert 2 == changed.object.metadata.generation
    assert [("ModelDeployment", "default", "chat")] * 2 == rig.hints


async def test_a_dry_run_stores_nothing_and_wakes_nobody(rig: Rig) -> None:
    await prepare(rig)
    answer = await rig.apply(manifests.deployment(replicas=2), dry_run=True)
    assert VERDICTS.VERDICT_CREATED == answer.verdict
    assert "NOT_FOUND" == (await refused(rig.get("md", "chat", "default")))[0]
    assert [] == rig.hints


async def test_the_namespace_of_the_call_is_used_where_the_document_names_none(rig: Rig) -> None:
    await prepare(rig)
    assert "lab" == (await rig.apply(manifests.deployment("a"), namespace="lab")).object.metadata.namespace
    own = await rig.apply(manifests.deployment("b", namespace="own"), namespace="lab")
    assert "own" == own.object.metadata.namespace


async def test_all_violations_of_a_manifest_come_at_once(rig: Rig) -> None:
    await prepare(rig)
    document = manifests.deployment(replicas=-1, replcas=2)
    code, reason, _, error = await refused(rig.apply(document))
    assert ("INVALID_ARGUMENT", "Invalid") == (code, reason)
    fields = {each.field for each in detail(error, error_details_pb2.BadRequest()).field_violations}
    assert {"spec.replicas", "spec.replcas"} == fields


async def test_violations_reach_the_caller_whatever_they_are_written_in(rig: Rig) -> None:
    """Trailers are bounded, and bytes outside of ASCII grow on the wire."""
    document = manifests.deployment(env={f"{'ключ' * 40}{index}": index for index in range(300)})
    document["metadata"]["name"] = "имя" * 30
    code, _, _, error = await refused(rig.apply(document))
    found = detail(error, error_details_pb2.BadRequest()).field_violations
    assert ("INVALID_ARGUMENT", True) == (
        code,
        found[-1].description.endswith("more; fix these first and apply again"),
    )


async def test_a_reference_to_nothing_is_refused(rig: Rig) -> None:
    _, reason, _, error = await refused(rig.apply(manifests.deployment()))
    found = {
        (each.field, each.reason) for each in detail(error, error_details_pb2.BadRequest()).field_violations
    }
    assert "Invalid" == reason
    assert {("spec.runtime", "NOT_FOUND"), ("spec.resourceProfile", "NOT_FOUND")} == found


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\udfff\ud800"])
async def test_text_that_cannot_be_stored_is_refused_at_apply(rig: Rig, text: str) -> None:
    await prepare(rig)
    for document in (
        manifests.deployment(env={"TEXT": text}),
        manifests.deployment(env={text: "value"}),
        manifests.document("Cluster", text, {}),
        {text: text},
        {**manifests.cluster(), "kind": text},
    ):
        assert "INVALID_ARGUMENT" == (await refused(rig.apply(document)))[0]


@pytest.mark.parametrize(
    "manifest",
    [
        *("", "[]", "{", "[" * 100_000, '{"spec": NaN}'),
        '{"kind": "ModelDeployment", "spec": {"runtime": "tgi", "runtime": "simulator"}}',
    ],
)
async def test_what_is_no_manifest_is_a_bad_request(rig: Rig, manifest: str) -> None:
    request = resources_pb2.ApplyRequest(manifest_json=manifest)
    assert ("INVALID_ARGUMENT", "BadRequest") == (await refused(rig.resources.Apply(request)))[:2]


async def test_kinds_that_the_controller_writes_cannot_be_applied(rig: Rig) -> None:
    document = manifests.document("Replica", "x", {})
    code, _, _, error = await refused(rig.apply(document))
    assert "INVALID_ARGUMENT" == code
    [violation] = detail(error, error_details_pb2.BadRequest()).field_violations
    assert ("kind", "'Replica' is made by the controller and cannot be applied") == (
        violation.field,
        violation.description,
    )


async def test_a_scaled_deployment_keeps_its_number_when_applied_without_one(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    scaled = await rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=5))
    assert (1, 5) == (scaled.previous_replicas, json.loads(scaled.object.spec_json)["replicas"])
    again = await rig.apply(manifests.deployment())
    assert (VERDICTS.VERDICT_UNCHANGED, 5) == (again.verdict, json.loads(again.object.spec_json)["replicas"])


async def test_another_managers_field_is_a_conflict_until_forced(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    await rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=5))
    code, reason, _, error = await refused(rig.apply(manifests.deployment(replicas=2)))
    failure = detail(error, error_details_pb2.PreconditionFailure())
    assert ("ABORTED", "Conflict", "spec.replicas") == (code, reason, failure.violations[0].subject)
    forced = await rig.apply(manifests.deployment(replicas=2), force=True)
    assert 2 == json.loads(forced.object.spec_json)["replicas"]


async def test_scale_checks_what_the_caller_expects(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment(replicas=3))
    wrong = rollout_pb2.ScaleRequest(name="chat", replicas=5, current_replicas=2)
    assert ("ABORTED", "Conflict", 'ModelDeployment "chat" has 3 replicas, not 2') == (
        await refused(rig.rollout.Scale(wrong))
    )[:3]
    old = rollout_pb2.ScaleRequest(name="chat", replicas=5, resource_version=1)
    assert "ABORTED" == (await refused(rig.rollout.Scale(old)))[0]
    negative = rollout_pb2.ScaleRequest(name="chat", replicas=-1)
    assert ("INVALID_ARGUMENT", "Invalid") == (await refused(rig.rollout.Scale(negative)))[:2]
    right = rollout_pb2.ScaleRequest(name="chat", replicas=0, current_replicas=3)
    assert 0 == json.loads((await rig.rollout.Scale(right)).object.spec_json)["replicas"]


async def test_writers_at_the_same_time_all_get_through(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    await asyncio.gather(
        *(rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=count)) for count in (2, 3, 4))
    )
    assert json.loads((await rig.get("md", "chat")).object.spec_json)["replicas"] in (2, 3, 4)


async def test_a_deployment_is_marked_and_stays_until_its_jobs_are_gone(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    first = await rig.delete("md", "chat")
    assert first.object.metadata.HasField("deletion_time")
    second = await rig.delete("md", "chat")
    assert first.object == second.object
    code, _, message, _ = await refused(rig.apply(manifests.deployment(replicas=3)))
    assert ("ABORTED", True) == (code, "is being deleted" in message)
    scale = rollout_pb2.ScaleRequest(name="chat", replicas=3)
    assert "ABORTED" == (await refused(rig.rollout.Scale(scale)))[0]


async def test_a_replica_is_marked_so_that_it_drains_and_is_replaced(rig: Rig) -> None:
    await prepare(rig)
    await rig.store.commit([interface.Create(resource=replica("chat-1"))])
    deleted = await rig.delete("rep", "chat-1")
    assert deleted.object.metadata.HasField("deletion_time")
    assert [("Replica", "default", "chat-1")] == rig.hints
    assert "chat-1" == (await rig.get("rep", "chat-1")).object.metadata.name


@pytest.mark.parametrize("kind", ["rev", "ev"])
async def test_history_cannot_be_deleted(rig: Rig, kind: str) -> None:
    assert ("INVALID_ARGUMENT", "MethodNotAllowed") == (await refused(rig.delete(kind, "x")))[:2]


async def test_what_is_in_use_is_not_deleted(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    for kind, name in (("sr", "simulator"), ("rp", "cpu"), ("cl", "default")):
        code, reason, message, _ = await refused(rig.delete(kind, name))
        assert ("FAILED_PRECONDITION", "InUse") == (code, reason)
        assert "modeldeployment default/chat" in message
    deployment = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", "chat")
    await rig.store.commit(
        [interface.Remove(kind=deployment.kind, namespace="default", name="chat", uid=deployment.uid)]
    )
    for kind, name in (("sr", "simulator"), ("rp", "cpu"), ("cl", "default")):
        await rig.delete(kind, name)
        assert "NOT_FOUND" == (await refused(rig.get(kind, name)))[0]


async def test_a_cluster_with_replicas_is_in_use(rig: Rig) -> None:
    await rig.apply(manifests.cluster())
    await rig.store.commit([interface.Create(resource=replica("chat-1"))])
    assert "replica default/chat-1" in (await refused(rig.delete("cl", "default")))[2]


async def test_delete_checks_its_preconditions_and_a_dry_run_keeps_everything(rig: Rig) -> None:
    await rig.apply(manifests.cluster())
    assert "ABORTED" == (await refused(rig.delete("cl", "default", uid="another")))[0]
    assert "ABORTED" == (await refused(rig.delete("cl", "default", resource_version=99)))[0]
    await rig.delete("cl", "default", dry_run=True)
    live = (await rig.get("cl", "default")).object
    assert not live.metadata.HasField("deletion_time")
    await rig.delete("cl", "default", uid=live.metadata.uid)
    assert "NOT_FOUND" == (await refused(rig.get("cl", "default")))[0]


@pytest.mark.parametrize("word", ["md", "ModelDeployment", "modeldeployments", "modeldeployment.llmop"])
async def test_a_kind_has_several_names(rig: Rig, word: str) -> None:
    assert ("NOT_FOUND", "NotFound", 'ModelDeployment "x" not found') == (await refused(rig.get(word, "x")))[
        :3
    ]


async def test_an_unknown_kind_is_answered_with_those_there_are(rig: Rig) -> None:
    _, _, message, _ = await refused(rig.get("pods", "x"))
    assert message.startswith('the server has no kind "pods"; it has modeldeployments, replicas')


async def pages(rig: Rig, **request: Any) -> list[list[str]]:
    token, found = "", []
    while True:
        page = await rig.resources.List(resources_pb2.ListRequest(page_token=token, **request))
        found.append([row.object.metadata.name for row in page.rows])
        token = page.next_page_token
        if not token:
            return found


async def test_a_list_comes_in_pages_of_one_snapshot(rig: Rig) -> None:
    for name in "abcde":
        await rig.apply(manifests.runtime(name))
    first = await rig.resources.List(resources_pb2.ListRequest(kind="sr", page_size=2))
    await rig.delete("sr", "d")
    second = await rig.resources.List(
        resources_pb2.ListRequest(kind="sr", page_size=2, page_token=first.next_page_token)
    )
    assert (["c", "d"], first.resource_version) == (
        [row.object.metadata.name for row in second.rows],
        second.resource_version,
    )
    assert [["a", "b"], ["c", "e"]] == await pages(rig, kind="sr", page_size=2)


async def test_a_page_is_bounded_in_bytes(rig: Rig) -> None:
    for name in "abc":
        long = {f"note{index}": "x" * 60_000 for index in range(4)}
        await rig.store.commit(
            [
                interface.Create(
                    resource=dataclasses.replace(replica(name), spec=long | {"big": "y" * 900_000})
                )
            ]
        )
    assert [["a"], ["b"], ["c"]] == await pages(rig, kind="rep")


async def test_an_old_or_foreign_page_token_says_so(rig: Rig) -> None:
    for name in "ab":
        await rig.apply(manifests.runtime(name))
    first = await rig.resources.List(resources_pb2.ListRequest(kind="sr", page_size=1))
    rig.clock.advance(121)
    old = resources_pb2.ListRequest(kind="sr", page_token=first.next_page_token)
    assert ("OUT_OF_RANGE", "Expired") == (await refused(rig.resources.List(old)))[:2]
    foreign = resources_pb2.ListRequest(kind="sr", page_token="x")
    assert "INVALID_ARGUMENT" == (await refused(rig.resources.List(foreign)))[0]


async def test_a_list_takes_a_label_selector(rig: Rig) -> None:
    await prepare(rig)
    for name, team in (("a", "nlp"), ("b", "cv")):
        document = manifests.deployment(name)
        document["metadata"]["labels"] = {"team": team}
        await rig.apply(document)
    assert [["a"]] == await pages(rig, kind="md", label_selector="team!=cv")
    broken = resources_pb2.ListRequest(kind="md", label_selector="a b")
    assert "INVALID_ARGUMENT" == (await refused(rig.resources.List(broken)))[0]


async def test_a_list_takes_a_field_selector(rig: Rig) -> None:
    pending = dataclasses.replace(replica("chat-2"), status={"phase": "Pending"})
    await rig.store.commit([interface.Create(resource=each) for each in (replica("chat-1"), pending)])
    request = resources_pb2.ListRequest(
        kind="rep", field_selector="status.phase=Pending,spec.deployment=chat"
    )
    assert ["chat-2"] == [row.object.metadata.name for row in (await rig.resources.List(request)).rows]
    code, _, message, _ = await refused(
        rig.resources.List(resources_pb2.ListRequest(kind="rep", field_selector="status.x=1"))
    )
    assert ("INVALID_ARGUMENT", True) == (code, "status.phase" in message)


async def phase(rig: Rig, name: str, word: str) -> None:
    live = await rig.store.get(resources.REPLICA, "default", name)
    status = {"phase": word}
    write = interface.WriteStatus(
        kind=live.kind,
        namespace="default",
        name=name,
        uid=live.uid,
        expected_version=live.resource_version,
        status=status,
    )
    await rig.store.commit([write])


async def steps(watch: Any, count: int) -> list[tuple[str, str]]:
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            answer = await watch.read()
            found.append(
                (TYPES.Type.Name(answer.type).removeprefix("TYPE_"), answer.row.object.metadata.name)
            )
    return found


async def test_a_watch_with_a_selector_shows_who_comes_and_who_goes(rig: Rig) -> None:
    """What matches no more is deleted to the watcher, what begins to match is added, and of the others it hears nothing."""
    await rig.store.commit([interface.Create(resource=replica(name)) for name in ("a", "b")])
    await phase(rig, "b", "Pending")
    watch = rig.resources.Watch(resources_pb2.WatchRequest(kind="rep", field_selector="status.phase=Ready"))
    assert [("ADDED", "a"), ("BOOKMARK", "")] == await steps(watch, 2)
    await phase(rig, "b", "Loading")
    await phase(rig, "a", "Draining")
    await phase(rig, "a", "Ended")
    await phase(rig, "b", "Ready")
    assert [("DELETED", "a"), ("ADDED", "b")] == await steps(watch, 2)


async def test_a_watch_with_a_selector_that_goes_on_leaves_nobody_behind(rig: Rig) -> None:
    """It cannot know what its caller has seen: whatever does not match is said to be gone."""
    await rig.store.commit([interface.Create(resource=replica("a"))])
    revision = (await rig.resources.List(resources_pb2.ListRequest(kind="rep"))).resource_version
    await phase(rig, "a", "Draining")
    await phase(rig, "a", "Ready")
    request = resources_pb2.WatchRequest(
        kind="rep", field_selector="status.phase=Ready", resource_version=revision
    )
    assert [("BOOKMARK", ""), ("DELETED", "a"), ("MODIFIED", "a")] == await steps(
        rig.resources.Watch(request), 3
    )


async def test_an_empty_namespace_lists_all_of_them(rig: Rig) -> None:
    await prepare(rig)
    for namespace in ("one", "two"):
        await rig.apply(manifests.deployment(namespace=namespace))
    listing = await rig.resources.List(resources_pb2.ListRequest(kind="md"))
    assert ["one", "two"] == [row.object.metadata.namespace for row in listing.rows]
    assert [["chat"]] == await pages(rig, kind="md", namespace="two")


class Watcher:
    """Reads a watch step by step."""

    def __init__(self, rig: Rig, **request: Any) -> None:
        self.call = rig.resources.Watch(resources_pb2.WatchRequest(**request))

    async def next(self) -> tuple[int, str]:
        answer = await asyncio.wait_for(self.call.read(), 10)
        self.position, self.columns = answer.resource_version, list(answer.columns)
        return answer.type, answer.row.object.metadata.name


async def test_a_watch_sends_the_state_a_bookmark_and_every_change(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment("a"))
    watch = Watcher(rig, kind="md", namespace="default")
    assert (TYPES.TYPE_ADDED, "a") == await watch.next()
    assert "NAME" == watch.columns[0].name
    assert (TYPES.TYPE_BOOKMARK, "") == await watch.next()
    assert [] == watch.columns
    await rig.apply(manifests.runtime("other"))
    await rig.apply(manifests.deployment("elsewhere", namespace="lab"))
    await rig.apply(manifests.deployment("b"))
    assert (TYPES.TYPE_ADDED, "b") == await watch.next()
    await rig.apply(manifests.deployment("a", replicas=2))
    assert (TYPES.TYPE_MODIFIED, "a") == await watch.next()
    live = await rig.store.get("ModelDeployment", "default", "a")
    await rig.store.commit([interface.Remove(kind=live.kind, namespace="default", name="a", uid=live.uid)])
    assert (TYPES.TYPE_DELETED, "a") == await watch.next()


async def test_a_watch_goes_on_where_another_ended(rig: Rig) -> None:
    await prepare(rig)
    first = Watcher(rig, kind="md")
    await first.next()
    first.call.cancel()
    for name in ("a", "b"):
        await rig.apply(manifests.deployment(name))
    second = Watcher(rig, kind="md", resource_version=first.position)
    assert (TYPES.TYPE_BOOKMARK, "") == await second.next()
    assert [(TYPES.TYPE_ADDED, "a"), (TYPES.TYPE_ADDED, "b")] == [await second.next(), await second.next()]


async def test_a_position_inside_a_transaction_is_never_handed_out(rig: Rig) -> None:
    watch = Watcher(rig, kind="rep")
    await watch.next()
    before = watch.position
    await rig.store.commit([interface.Create(resource=replica(name)) for name in ("a", "b")])
    assert (TYPES.TYPE_ADDED, "a") == await watch.next()
    assert before == watch.position
    assert (TYPES.TYPE_ADDED, "b") == await watch.next()
    assert before + 1 == watch.position


async def test_a_watch_of_one_name_hears_of_that_one_only(rig: Rig) -> None:
    watch = Watcher(rig, kind="rep", namespace="default", name="b")
    assert (TYPES.TYPE_BOOKMARK, "") == await watch.next()
    await rig.store.commit([interface.Create(resource=replica(name)) for name in ("a", "b")])
    assert (TYPES.TYPE_ADDED, "b") == await watch.next()


async def test_a_watch_from_before_the_history_has_to_list_again(rig: Rig) -> None:
    for name in "abc":
        await rig.apply(manifests.runtime(name))
    revision = await rig.store.revision()
    await rig.store.compact(changes_before=revision + 1, tombstones_before=0, events_before=0)
    await rig.apply(manifests.runtime("d"))
    watch = Watcher(rig, kind="sr", resource_version=revision - 1)
    assert (TYPES.TYPE_BOOKMARK, "") == await watch.next()
    assert "OUT_OF_RANGE" == (await refused(watch.next()))[0]


async def test_a_watcher_that_has_seen_what_the_store_has_lost_has_to_list_again(rig: Rig) -> None:
    await rig.apply(manifests.runtime())
    revision = await rig.store.revision()
    watch = Watcher(rig, kind="sr", resource_version=revision + 1)
    assert (TYPES.TYPE_BOOKMARK, "") == await watch.next()
    assert "OUT_OF_RANGE" == (await refused(watch.next()))[0]
    again = Watcher(rig, kind="sr")
    assert TYPES.TYPE_ADDED == (await again.next())[0]


async def test_an_idle_watcher_is_moved_on_by_bookmarks(rig: Rig) -> None:
    watch = Watcher(rig, kind="md")
    await watch.next()
    rig.clock.advance(31)
    await rig.apply(manifests.runtime())
    assert (TYPES.TYPE_BOOKMARK, "") == await watch.next()
    assert await rig.store.revision() == watch.position


async def test_kinds_says_what_there_is(rig: Rig) -> None:
    answer = await rig.resources.Kinds(resources_pb2.KindsRequest())
    assert list(resources.KINDS) == [each.name for each in answer.kinds]
    assert await rig.store.installation() == answer.installation


async def test_every_write_leaves_one_audit_line_without_values(rig: Rig) -> None:
    await prepare(rig)
    with capture_logs() as lines:
        await rig.apply(manifests.deployment(env={"SECRET": "hunter2"}), field_manager="ci")
        await rig.apply(manifests.deployment(env={"SECRET": "hunter2"}), field_manager="ci")
        await rig.apply(manifests.deployment(replicas=7), field_manager="x", dry_run=True)
        await rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=2))
        await rig.delete("md", "chat")
    assert [("apply", "ci", "created"), ("scale", "scale", "configured"), ("delete", "llmctl", "marked")] == [
        (line["verb"], line["manager"], line["result"]) for line in lines
    ]
    assert "hunter2" not in str(lines)


async def test_a_broken_store_is_internal_and_is_logged(rig: Rig) -> None:
    await rig.store.commit(
        [interface.Create(resource=dataclasses.replace(replica("a"), created_at=1e300))]  # no time
    )
    with capture_logs() as lines:
        assert ("INTERNAL", "InternalError") == (await refused(rig.get("rep", "a")))[:2]
    assert ["call failed"] == [line["event"] for line in lines]
