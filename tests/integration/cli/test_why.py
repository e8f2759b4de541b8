"""llmctl why over the API; how each situation reads is in tests/golden/why."""

from tests.control import manifests
from tests.integration.cli.conftest import Transcript, conditions
from tests.integration.cli.test_transcripts import FAILURE, MD, running

from llmop.domain import resources


def test_why(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    running(world)
    transcript.run("why", "md/chat")
    crashing = conditions(
        Ready=("False", "CrashLoopBackOff", "replicas end soon after their start"),
        Stalled=("True", "CrashLoopBackOff", "replicas end soon after their start"),
    )
    world.status(MD, "chat", conditions=crashing, lastFailure=FAILURE, retryAt="2025-10-09T08:55:00Z")
    world.event(
        "Replica", "chat-zzzzz", "EngineCrashed", "the engine ended with signal 9", ago=80, warning=True
    )
    transcript.run("why", "md", "chat")
    transcript.run("why", "rep/chat-aaaaa")
    transcript.run("why", "rep/chat-zzzzz")
    transcript.run("why", "rep/nobody")
    transcript.run("why", "md/nobody")
    transcript.run("why", "cl/default")
    transcript.run("why", "chat")
    transcript.run("why")


def test_why_without_a_profile_and_in_another_namespace(transcript: Transcript) -> None:
    world = transcript.world
    world.add(manifests.deployment("rank", "lab"), uid="uid-rank")
    transcript.run("why", "md/rank", "-n", "lab")
    world.event(resources.REPLICA, "chat-x", "Ready", "serves\x1b[31m", ago=5)
    transcript.run("why", "rep/chat-x")
