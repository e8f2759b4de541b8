"""RolloutService through a real channel."""

import json
from typing import Any

import pytest
from tests.control import manifests
from tests.control.rig import Rig
from tests.unit.rpc.test_resources import prepare, refused

from llmop.api.v1 import rollout_pb2
from llmop.domain import resources, times
from llmop.manifest import convert
from llmop.store import interface

STATES = rollout_pb2.StatusResponse


async def revised(rig: Rig, number: int) -> None:
    """The controller has made revision `number` of what chat's template is now."""
    owner = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", "chat")
    template = convert.template_json(owner)
    revision = resources.Resource(
        kind=resources.REVISION,
        name=f"chat-{number}",
        namespace="default",
        uid=f"rev-{number}",
        created_at=rig.clock.now(),
        owner=resources.Owner(kind=owner.kind, name=owner.name, uid=owner.uid),
        spec={"revision": number, "hash": f"h{number}", "template": template},
    )
    await rig.store.commit([interface.Create(resource=revision)])


async def two_revisions(rig: Rig) -> None:
    await prepare(rig)
    for number, args in ((1, ["--old"]), (2, ["--new"])):
        await rig.apply(manifests.deployment(args=args, replicas=3))
        await revised(rig, number)
    other = resources.Resource(
        kind=resources.REVISION,
        name="other-9",
        namespace="default",
        uid="rev-other",
        owner=resources.Owner(kind="ModelDeployment", name="chat", uid="an older chat"),
        spec={"revision": 9, "hash": "h", "template": {}},
    )
    await rig.store.commit([interface.Create(resource=other)])
    rig.hints.clear()


def spec(answer: Any) -> dict[str, Any]:
    return dict(json.loads(answer.object.spec_json))


async def test_undo_brings_the_revision_before_back(rig: Rig) -> None:
    await two_revisions(rig)
    answer = await rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat"))
    assert (1, ["spec.args"], ["--old"]) == (
        answer.revision,
        list(answer.changed_paths),
        spec(answer)["args"],
    )
    assert 3 == spec(answer)["replicas"]
    assert [("ModelDeployment", "default", "chat")] == rig.hints
    code, reason, message, _ = await refused(rig.apply(manifests.deployment(args=["--new"], replicas=3)))
    assert ("ABORTED", "Conflict", True) == (code, reason, 'spec.args belongs to "rollout"' in message)


async def test_undo_and_undo_again_is_where_one_was(rig: Rig) -> None:
    await two_revisions(rig)
    await rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat"))
    await revised(rig, 3)
    answer = await rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat"))
    assert (2, ["--new"]) == (answer.revision, spec(answer)["args"])


async def test_undo_to_what_is_there_changes_nothing(rig: Rig) -> None:
    await two_revisions(rig)
    before = await rig.get("md", "chat")
    answer = await rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat", to_revision=2))
    assert (2, [], before.object) == (answer.revision, list(answer.changed_paths), answer.object)


@pytest.mark.parametrize(
    ("request_", "reason", "words"),
    [
        (
            {"to_revision": 9},
            "NoSuchRevision",
            'unable to find revision 9 of ModelDeployment "chat"; there are 1, 2',
        ),
        ({"to_revision": -1}, "BadRequest", "to_revision: must be 0"),
        ({"name": ""}, "BadRequest", "name: must not be empty"),
    ],
)
async def test_undo_of_nonsense_is_refused(
    rig: Rig, request_: dict[str, Any], reason: str, words: str
) -> None:
    await two_revisions(rig)
    answer = await refused(rig.rollout.Undo(rollout_pb2.UndoRequest(**{"name": "chat", **request_})))
    assert ("INVALID_ARGUMENT", reason, True) == (answer[0], answer[1], words in answer[2])


async def test_undo_needs_another_revision(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.deployment())
    await revised(rig, 1)
    code, reason, message, _ = await refused(rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat")))
    assert ("INVALID_ARGUMENT", "NoSuchRevision", True) == (code, reason, "there are 1" in message)


async def test_undo_to_a_runtime_that_is_gone_is_refused(rig: Rig) -> None:
    await prepare(rig)
    await rig.apply(manifests.runtime("gone"))
    await rig.apply(manifests.deployment(runtime="gone"))
    await revised(rig, 1)
    await rig.apply(manifests.deployment())
    await rig.delete("sr", "gone")
    answer = await refused(rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat")))
    assert ("INVALID_ARGUMENT", "Invalid") == answer[:2]


async def test_a_pause_stops_undo_and_restart(rig: Rig) -> None:
    await two_revisions(rig)
    answer = await rig.rollout.Pause(rollout_pb2.PauseRequest(name="chat"))
    assert (True, 3) == (spec(answer)["paused"], answer.object.metadata.generation)
    for call in (
        rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat")),
        rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat")),
    ):
        code, reason, message, _ = await refused(call)
        assert ("FAILED_PRECONDITION", "Paused", True) == (code, reason, "rollout resume md/chat" in message)
    again = await refused(rig.rollout.Pause(rollout_pb2.PauseRequest(name="chat")))
    assert ("ABORTED", 'ModelDeployment "chat" is already paused') == (again[0], again[2])
    assert False is spec(await rig.rollout.Resume(rollout_pb2.ResumeRequest(name="chat")))["paused"]
    again = await refused(rig.rollout.Resume(rollout_pb2.ResumeRequest(name="chat")))
    assert ("ABORTED", 'ModelDeployment "chat" is not paused') == (again[0], again[2])
    await rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat"))


async def test_scaling_goes_on_in_a_pause(rig: Rig) -> None:
    await two_revisions(rig)
    await rig.rollout.Pause(rollout_pb2.PauseRequest(name="chat"))
    answer = await rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=7))
    assert (7, True) == (spec(answer)["replicas"], spec(answer)["paused"])


async def test_a_restart_is_a_new_template(rig: Rig) -> None:
    await two_revisions(rig)
    before = convert.template_json(await rig.store.get("ModelDeployment", "default", "chat"))
    answer = await rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat"))
    assert times.to_rfc3339(rig.clock.now()) == spec(answer)["restartedAt"]
    assert before != convert.template_json(await rig.store.get("ModelDeployment", "default", "chat"))
    code, _, message, _ = await refused(rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat")))
    assert ("ABORTED", True) == (code, "within this second" in message)
    rig.clock.advance(1)
    await rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat"))
    assert "UNCHANGED" in str(await rig.apply(manifests.deployment(args=["--new"], replicas=3)))


async def test_a_dry_run_stores_nothing(rig: Rig) -> None:
    await two_revisions(rig)
    before = (await rig.get("md", "chat")).object
    calls: list[Any] = [
        rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat", dry_run=True)),
        rig.rollout.Restart(rollout_pb2.RestartRequest(name="chat", dry_run=True)),
        rig.rollout.Pause(rollout_pb2.PauseRequest(name="chat", dry_run=True)),
        rig.rollout.Scale(rollout_pb2.ScaleRequest(name="chat", replicas=9, dry_run=True)),
    ]
    for call in calls:
        assert before.spec_json != (await call).object.spec_json
    assert (before, []) == ((await rig.get("md", "chat")).object, rig.hints)


async def test_history_is_that_of_the_deployment_of_now(rig: Rig) -> None:
    await two_revisions(rig)
    answer = await rig.rollout.History(rollout_pb2.HistoryRequest(name="chat"))
    assert [(1, "<none>"), (2, "changed args")] == [
        (each.number, each.change_cause) for each in answer.revisions
    ]
    assert ["--new"] == json.loads(answer.revisions[1].template_json)["args"]
    assert "NOT_FOUND" == (await refused(rig.rollout.History(rollout_pb2.HistoryRequest(name="no"))))[0]


async def test_status_is_a_sentence(rig: Rig) -> None:
    await two_revisions(rig)
    live = await rig.store.get("ModelDeployment", "default", "chat")
    status = {"observedGeneration": live.generation, "updateRevision": 2, "updatedReplicas": 1}
    write = interface.WriteStatus(
        kind=live.kind,
        namespace="default",
        name="chat",
        uid=live.uid,
        expected_version=live.resource_version,
        status=status,
    )
    await rig.store.commit([write])
    answer = await rig.rollout.Status(rollout_pb2.StatusRequest(name="chat", revision=2))
    assert (STATES.STATE_WAITING, True) == (answer.state, "1 out of 3 new replicas" in answer.message)
    code, reason, message, _ = await refused(
        rig.rollout.Status(rollout_pb2.StatusRequest(name="chat", revision=1))
    )
    assert ("FAILED_PRECONDITION", "OtherRevision", True) == (
        code,
        reason,
        "(1) is different from" in message,
    )


async def test_what_is_being_deleted_is_left_alone(rig: Rig) -> None:
    await two_revisions(rig)
    await rig.delete("md", "chat")
    for call in (
        rig.rollout.Pause(rollout_pb2.PauseRequest(name="chat")),
        rig.rollout.Undo(rollout_pb2.UndoRequest(name="chat")),
    ):
        assert "ABORTED" == (await refused(call))[0]
