"""What clients are told of a model: whether somebody answers, or when."""

from __future__ import annotations

from typing import Any

import pytest

from llmop.domain.endpoint import NextReplica, RoutedModel, Stage
from llmop.gateway import listing

NOW = 1000.0
NONE = NextReplica()
PENDING = NextReplica(stage=Stage.PENDING, starts_at=1100.0, ready_at=1190.5)
LOADING = NextReplica(stage=Stage.LOADING, ready_at=1040.0)


def told(
    ready: int = 0, draining: int = 0, following: NextReplica = NONE, *, wakes: bool = False
) -> dict[str, Any]:
    model = RoutedModel(
        name="m",
        deployment="default/d",
        protocols=("openai", "tgi"),
        created_at=12.9,
        next_replica=following,
        wakes=wakes,
    )
    whole = listing.describe(model, ready=ready, draining=draining, now=NOW)
    facts: dict[str, Any] = whole.pop("llmop")
    assert {"id": "m", "object": "model", "created": 12, "owned_by": "llmop"} == whole
    assert ("deployment", ["openai", "tgi"], ready) == (
        facts["kind"],
        facts["protocols"],
        facts["replicas_ready"],
    )
    return facts


@pytest.mark.parametrize(
    ("facts", "state", "starts", "ready"),
    [
        pytest.param(told(2, 1, LOADING), "ready", None, None, id="somebody answers, whatever else comes"),
        pytest.param(told(0, 1, LOADING), "loading", None, 40, id="its job runs"),
        pytest.param(told(0, 1, PENDING, wakes=True), "pending", 100, 191, id="its job waits"),
        pytest.param(told(0, 1, wakes=True), "asleep", None, None, id="a request starts one"),
        pytest.param(told(0, 1), "draining", None, None, id="the last one goes"),
        pytest.param(told(), "none", None, None, id="nobody comes"),
        pytest.param(
            told(following=NextReplica(stage=Stage.LOADING, ready_at=NOW)), "loading", None, None, id="late"
        ),
        pytest.param(told(following=NextReplica(stage=Stage.PENDING)), "pending", None, None, id="not known"),
    ],
)
def test_states(facts: dict[str, Any], state: str, starts: int | None, ready: int | None) -> None:
    assert (state, starts, ready) == (facts["state"], facts["starts_in_seconds"], facts["ready_in_seconds"])


def test_a_virtual_model_says_what_it_is_and_has_no_replicas() -> None:
    model = RoutedModel(
        name="panel",
        deployment="tribunal:default/panel",
        protocols=("openai",),
        created_at=0.0,
        virtual=True,
    )
    assert {
        "kind": "tribunal",
        "protocols": ["openai"],
        "state": "ready",
        "replicas_ready": None,
        "starts_in_seconds": None,
        "ready_in_seconds": None,
    } == listing.describe(model, ready=1, draining=0, now=NOW)["llmop"]
    assert "none" == listing.describe(model, ready=0, draining=0, now=NOW)["llmop"]["state"]
