"""What people read while they wait."""

from typing import Any

import pytest

from llmop.cli import conditions


def deployment(**status: Any) -> conditions.State:
    return conditions.State(
        kind="ModelDeployment",
        name="chat",
        generation=1,
        deleting=False,
        spec={"replicas": 1},
        status={"observedGeneration": 1, **status},
    )


def ready(reason: str, message: str) -> dict[str, Any]:
    return {
        "type": "Ready",
        "status": "False",
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
    }


@pytest.mark.parametrize(
    ("count", "reason", "message", "line"),
    [
        (0, "Starting", "the engine starts", "0/1 ready: Starting: the engine starts"),
        (1, "AwaitingGateways", "all are", "1/1 ready, gateways are taking over the addresses"),
    ],
)
def test_the_line_of_progress_names_what_holds_a_deployment_up(
    count: int, reason: str, message: str, line: str
) -> None:
    shown = deployment(readyReplicas=count, conditions=[ready(reason, message)])
    assert line == shown.progress()
