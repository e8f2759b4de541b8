"""Names of replicas."""

import pytest

from llmop.domain import ids


@pytest.mark.parametrize("deployment", ["a", "chat", "chat-aaaaa", "x" * 63, "x" * 50 + "-y"])
def test_a_replica_is_known_by_its_name(deployment: str) -> None:
    name = ids.replica_name(deployment, "k3v9q")
    assert ids.is_replica_name(name, deployment)
    assert name == ids.job_name("inst00", name, "0" * 36).removeprefix("llmop-inst00-").removesuffix(
        "-00000000"
    )


@pytest.mark.parametrize("name", ["chat", "chat-two-k3v9q", "chat-k3v9", "cha-k3v9q", "chat-k3v9qd", "k3v9q"])
def test_what_no_replica_of_the_deployment_is_called(name: str) -> None:
    assert not ids.is_replica_name(name, "chat")
