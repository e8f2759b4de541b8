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
        Ready=("False", "CrashLoopBackOff", "3 replicas of this template ended although they were wanted"),
        Stalled=("True", "CrashLoopBackOff", "3 replicas of this template ended although they were wanted"),
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


def test_what_this_version_refuses(transcript: Transcript) -> None:
    """A deployment whose stored spec is no JSON, an assistant that a new rule refuses, and a cluster, which has no reasons otherwise."""
    world = transcript.world
    world.base()
    world.add(manifests.deployment(), uid="uid-chat")
    docs = {"model": "chat", "vectorStores": ["vs_a"]}
    world.add(manifests.document("Assistant", "docs", docs), uid="uid-docs")
    world.spec("ModelDeployment", "chat", {"storedText": '{"runtime": '})
    world.spec("Assistant", "docs", {**docs, "vectorStores": ["vs_a", "vs_a"]})
    words = ("False", "SpecRefused", "this version refuses what is stored: spec.x: y")
    world.status(
        MD, "chat", conditions=conditions(Ready=words, SpecAccepted=words, Stalled=("True", *words[1:]))
    )
    world.status("Assistant", "docs", conditions=conditions(Ready=words, SpecAccepted=words))
    world.status("ServingRuntime", "simulator", conditions=conditions(SpecAccepted=words))
    transcript.run("get", "md")
    transcript.run("get", "as", "-o", "wide")
    transcript.run("get", "md/chat", "-o", "yaml")
    transcript.run("describe", "md/chat")
    transcript.run("why", "md/chat")
    transcript.run("why", "as/docs")
    transcript.run("why", "sr/simulator")
    transcript.run("scale", "md/chat", "--replicas=2")
    transcript.run("delete", "as/docs")
    transcript.run("delete", "md/chat", "--no-wait")
