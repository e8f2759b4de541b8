"""What clients are told of a model: whether somebody answers, or when."""

from __future__ import annotations

from typing import Any

import pytest

from llmop.domain.endpoint import NextReplica, RoutedModel, Stage
from llmop.gateway import listing
from llmop.gateway.listing import Needs, Served

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
    whole = listing.describe(Served(model=model, ready=ready, draining=draining), NOW)
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


PANEL = RoutedModel(
    name="panel", deployment="tribunal:default/panel", protocols=("openai",), created_at=0.0, virtual=True
)


def member(name: str, ready: int = 0, draining: int = 0, **fields: Any) -> Served:
    model = RoutedModel(name=name, deployment=f"d/{name}", protocols=("openai",), created_at=0.0, **fields)
    return Served(model=model, ready=ready, draining=draining)


SERVED = {
    each.model.name: each
    for each in (
        member("up", 2),
        member("up-too", 1),
        member("loading", next_replica=LOADING),
        member("slow", next_replica=NextReplica(stage=Stage.LOADING, ready_at=NOW + 500)),
        member("unclear", next_replica=NextReplica(stage=Stage.LOADING)),
        member("waiting", next_replica=PENDING),
        member("asleep", wakes=True),
        member("going", 0, 1),
        member("stopped"),
        Served(model=PANEL),
    )
}


def panel(*models: str, missing: tuple[str, ...] = ()) -> tuple[str, str | None, int | None, int | None]:
    """State, why it is not ready, seconds until it starts and until it is ready, where it asks these."""
    needs = {"panel": Needs(models=models, missing_stores=missing)}
    return facts_of(listing.describe_virtual(PANEL, needs, SERVED, NOW))


def facts_of(entry: dict[str, Any]) -> tuple[str, str | None, int | None, int | None]:
    told = entry["llmop"]
    return told["state"], told["why"], told["starts_in_seconds"], told["ready_in_seconds"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(panel("up", "up-too"), ("ready", None, None, None), id="all answer"),
        pytest.param(panel(), ("ready", None, None, None), id="it asks nobody"),
        pytest.param(
            panel("up", "loading"), ("loading", "waits for loading to load", None, 40), id="one loads"
        ),
        pytest.param(
            panel("loading", "slow"),
            ("loading", "waits for loading, slow to load", None, 500),
            id="the slowest counts",
        ),
        pytest.param(
            panel("loading", "unclear"),
            ("loading", "waits for loading, unclear to load", None, None),
            id="one is not known",
        ),
        pytest.param(
            panel("loading", "waiting", "up"),
            ("pending", "waits for the job of waiting", 100, 191),
            id="one waits",
        ),
        pytest.param(
            panel("slow", "waiting"),
            ("pending", "waits for the job of waiting", 100, 500),
            id="one loads longer",
        ),
        pytest.param(
            panel("asleep", "waiting"), ("asleep", "asleep at zero", None, None), id="one is at zero"
        ),
        pytest.param(panel("going", "asleep"), ("draining", "going stopping", None, None), id="one goes"),
        pytest.param(
            panel("up", "stopped", "going"), ("none", "no replica of stopped", None, None), id="nobody comes"
        ),
        pytest.param(
            panel("stopped", "gone", "lost", "up"),
            ("none", "no deployment serves gone, lost", None, None),
            id="two are not there",
        ),
        pytest.param(
            panel("panel"),
            ("none", "no deployment serves panel", None, None),
            id="a virtual model is no member",
        ),
        pytest.param(
            panel("up", missing=("vs_1",)),
            ("none", "there is no vector store vs_1", None, None),
            id="no store",
        ),
        pytest.param(
            facts_of(listing.describe_virtual(PANEL, None, SERVED, NOW)),
            ("none", "llmop workloads does not answer", None, None),
            id="workloads is away",
        ),
        pytest.param(
            facts_of(listing.describe_virtual(PANEL, {}, SERVED, NOW)),
            ("none", "llmop workloads does not know it yet", None, None),
            id="workloads has not heard of it",
        ),
    ],
)
def test_a_virtual_model_is_what_the_worst_is_that_it_asks(
    found: tuple[str, str | None, int | None, int | None],
    expected: tuple[str, str | None, int | None, int | None],
) -> None:
    assert expected == found


def test_a_virtual_model_says_what_it_is_and_has_no_replicas() -> None:
    needs = {"panel": Needs(models=("up",))}
    assert {
        "kind": "tribunal",
        "protocols": ["openai"],
        "state": "ready",
        "why": None,
        "replicas_ready": None,
        "starts_in_seconds": None,
        "ready_in_seconds": None,
    } == listing.describe_virtual(PANEL, needs, SERVED, NOW)["llmop"]
