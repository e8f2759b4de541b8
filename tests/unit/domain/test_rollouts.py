"""One sentence for every state of a rollout."""

from typing import Any

import pytest

from llmop.domain import rollouts

WAITING = 'Waiting for deployment "chat" rollout to finish:'


def status(**changes: Any) -> dict[str, Any]:
    """Three of three are new and available."""
    base = {
        "observedGeneration": 2,
        "replicas": 3,
        "updatedReplicas": 3,
        "availableReplicas": 3,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "WaitingForReplicas", "message": "some"}
        ],
    }
    return {**base, **changes}


def condition(kind: str, value: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": value, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("changes", "spec", "state", "message"),
    [
        (
            {"conditions": [condition("Ready", "True", "AllReplicasReady")]},
            {},
            "complete",
            'deployment "chat" successfully rolled out',
        ),
        ({"observedGeneration": 1}, {}, "waiting", "Waiting for deployment spec update to be observed..."),
        ({"updatedReplicas": 1}, {}, "waiting", f"{WAITING} 1 out of 3 new replicas have been updated..."),
        ({"replicas": 5}, {}, "waiting", f"{WAITING} 2 old replicas are pending termination..."),
        ({"availableReplicas": 2}, {}, "waiting", f"{WAITING} 2 of 3 updated replicas are available..."),
        ({}, {}, "waiting", f"{WAITING} WaitingForReplicas: some"),
        (
            {"conditions": [condition("Stalled", "True", "CrashLoopBackOff", "they crash")]},
            {},
            "stuck",
            'deployment "chat" is stalled: CrashLoopBackOff: they crash',
        ),
        (
            {"conditions": [condition("Progressing", "False", "ProgressDeadlineExceeded", "too slow")]},
            {},
            "stuck",
            'deployment "chat" exceeded its progress deadline: too slow',
        ),
        (
            {},
            {"paused": True},
            "stuck",
            'deployment "chat" is paused; llmctl rollout resume md/chat lets it go on',
        ),
        (
            {"availableReplicas": 2},
            {"paused": True},
            "waiting",
            f"{WAITING} 2 of 3 updated replicas are available...",
        ),
        (
            {"observedGeneration": None, "conditions": None},
            {},
            "waiting",
            "Waiting for deployment spec update to be observed...",
        ),
    ],
)
def test_a_state_is_one_sentence(
    changes: dict[str, Any], spec: dict[str, Any], state: str, message: str
) -> None:
    found = rollouts.progress("chat", 2, {"replicas": 3, **spec}, status(**changes), is_deleting=False)
    assert (state, message) == (found.state, found.message)


def test_what_is_being_deleted_is_not_rolled_out() -> None:
    found = rollouts.progress("chat", 2, {}, status(), is_deleting=True)
    assert (rollouts.State.STUCK, 'deployment "chat" is being deleted') == (found.state, found.message)


@pytest.mark.parametrize(
    ("status", "number"),
    [
        ({}, 1),
        ({"replicas": 4}, 4),
        ({"replicas": 9}, 6),
        ({"replicas": 4, "scaling": {"desiredReplicas": 2}}, 2),
        ({"replicas": 4, "scaling": {"desiredReplicas": 0}}, 0),
    ],
)
def test_scaling_that_no_pass_has_looked_at_yet_leaves_what_there_is(
    status: dict[str, Any], number: int
) -> None:
    """`llmctl autoscale --off` fixes this number: replicas that run must not go because it came at once."""
    scaling = {"minReplicas": 1, "maxReplicas": 6}
    assert number == rollouts.wanted({"scaling": scaling}, status)
