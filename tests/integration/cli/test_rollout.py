"""llmctl rollout, word for word; the files are in tests/golden/cli."""

import json
from typing import Any

from tests.control import manifests
from tests.integration.cli.conftest import NOW, Transcript, World, conditions
from tests.integration.cli.test_transcripts import FAILURE, MD, READY, STALLED, later

from llmop.domain import resources
from llmop.manifest import convert
from llmop.store import interface

COUNTS: dict[str, Any] = {
    "replicas": 3,
    "readyReplicas": 3,
    "updatedReplicas": 3,
    "availableReplicas": 3,
    "updateRevision": 2,
    "currentRevision": 2,
}


def rolled_out(world: World) -> None:
    """chat with two revisions; the second one serves."""
    world.base()
    world.add(manifests.deployment(replicas=3, args=["--old"]), uid="uid-chat")
    revised(world, 1, NOW - 500)
    world.llmctl("apply", "-f", "-", stdin=json.dumps(manifests.deployment(replicas=3, args=["--new"])))
    revised(world, 2, NOW - 100)
    world.status(MD, "chat", conditions=READY, **COUNTS)


def revised(world: World, number: int, at: float) -> None:
    owner = world.get(MD, "chat")
    revision = resources.Resource(
        kind=resources.REVISION,
        name=f"chat-{number}",
        namespace="default",
        uid=f"rev-{number}",
        created_at=at,
        owner=resources.Owner(kind=MD, name="chat", uid=owner.uid),
        spec={"revision": number, "hash": f"h{number}", "template": convert.template_json(owner)},
    )
    world.commit(interface.Create(resource=revision))


def test_rollout_history(transcript: Transcript) -> None:
    rolled_out(transcript.world)
    transcript.run("rollout", "history", "md/chat")
    transcript.run("rollout", "history", "md", "chat", "--revision=1")
    transcript.run("rollout", "history", "md/chat", "--revision=7")
    transcript.run("rollout", "history", "md/nobody")
    transcript.run("rollout", "history", "rep/chat-aaaaa")
    transcript.run("get", "rev")


def test_rollout_undo(transcript: Transcript) -> None:
    world = transcript.world
    rolled_out(world)
    transcript.run("rollout", "undo", "md/chat", "--dry-run=server")
    transcript.run("rollout", "undo", "md/chat")
    transcript.run("rollout", "undo", "md/chat", "--to-revision=1")
    revised(world, 3, NOW - 1)
    transcript.run("rollout", "history", "md/chat")
    newer = json.dumps(manifests.deployment(replicas=3, args=["--new"]))
    transcript.run("apply", "-f", "-", stdin=newer)
    transcript.run("apply", "-f", "-", "--force-conflicts", stdin=newer)
    transcript.run("rollout", "undo", "md/chat", "--to-revision=7")
    transcript.run("rollout", "undo", "md")
    transcript.run("rollout", "undo", "md/chat", "md/code")


def test_rollout_restart_pause_and_resume(transcript: Transcript) -> None:
    rolled_out(transcript.world)
    transcript.run("rollout", "restart", "md/chat")
    transcript.run("rollout", "restart", "md/chat")
    transcript.run("get", "md", "chat", "-o", "jsonpath={.spec.restartedAt}")
    transcript.run("rollout", "pause", "md/chat", "--dry-run=server")
    transcript.run("rollout", "pause", "md/chat", "md/nobody")
    transcript.run("rollout", "pause", "md/chat")
    transcript.run("rollout", "undo", "md/chat")
    transcript.run("rollout", "restart", "md/chat")
    transcript.run("scale", "md/chat", "--replicas=5", "--dry-run=server")
    transcript.run("scale", "md/chat", "--replicas=4")
    transcript.run("rollout", "resume", "md/chat")
    transcript.run("rollout", "resume", "md/chat")
    transcript.run("apply", "-f", "-", stdin=json.dumps(manifests.deployment(args=["--new"], paused=True)))
    transcript.run("rollout", "forward", "md/chat")


def test_rollout_status(transcript: Transcript) -> None:
    world = transcript.world
    rolled_out(world)
    transcript.run("rollout", "status", "md/chat")
    transcript.run("rollout", "status", "md/chat", "--revision=1")
    progressing = conditions(Ready=("False", "CreatingReplicas", "1 of 3 replicas were made"))
    world.status(MD, "chat", conditions=progressing, **{**COUNTS, "updatedReplicas": 1})
    transcript.run("rollout", "status", "md/chat", "--no-watch")
    transcript.run("rollout", "status", "md/chat", "--timeout=0")
    world.status(MD, "chat", conditions=STALLED, lastFailure=FAILURE, **COUNTS)
    transcript.run("rollout", "status", "md/chat")
    world.llmctl("rollout", "pause", "md/chat")
    world.status(MD, "chat", conditions=progressing, **COUNTS)
    transcript.run("rollout", "status", "md/chat")
    transcript.run("rollout", "status", "md/nobody")
    transcript.run("rollout", "status", "md/chat", "--timeout=soon")


def test_rollout_status_goes_on_until_it_is_complete(world: World) -> None:
    rolled_out(world)
    waiting = conditions(Ready=("False", "CreatingReplicas"))
    world.status(MD, "chat", conditions=waiting, **{**COUNTS, "updatedReplicas": 1})
    steps = iter(({"updatedReplicas": 2}, {"replicas": 4}, {"availableReplicas": 2}, None))

    def go_on() -> None:
        for changes in steps:
            if changes is None:
                world.status(MD, "chat", conditions=READY, **COUNTS)
            else:
                world.status(MD, "chat", conditions=waiting, **{**COUNTS, **changes})

    thread = later(go_on, lambda: True)
    outcome = world.llmctl("rollout", "status", "md/chat", "--timeout=60s")
    thread.join()
    assert (0, 'deployment "chat" successfully rolled out') == (outcome.code, outcome.stdout.splitlines()[-1])
