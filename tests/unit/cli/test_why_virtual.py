"""Why a tribunal or an assistant is as it is, in words."""

from __future__ import annotations

from typing import Any

import pytest

from llmop.cli import advice, causes, virtual_causes
from llmop.domain import conditions
from llmop.domain.assistant import Assistant
from llmop.domain.tribunal import Drafter, Member, Tribunal
from llmop.planner import virtual
from llmop.planner.virtual import Public

PANEL = Tribunal(
    name="panel",
    namespace="default",
    drafters=(Drafter(model="a"), Drafter(model="b")),
    critics=(Member(model="b"),),
    judge=Member(model="c"),
)
LIBRARIAN = Assistant(name="librarian", namespace="default", model="a", vector_stores=("vs_1",))


def shown(found: conditions.Condition | None) -> dict[str, Any]:
    """A status with what the planner says."""
    if found is None:
        return {}
    return {
        "conditions": [
            {"type": "Ready", "status": found.status.value, "reason": found.reason, "message": found.message}
        ]
    }


def tribunal(public: Public, conflict: str = "") -> dict[str, Any]:
    spec = {
        "drafters": [{"model": each.model} for each in PANEL.drafters],
        "critics": [{"model": each.model} for each in PANEL.critics],
        "judge": {"model": PANEL.judge.model},
    }
    status = shown(virtual.ready(PANEL, public, conflict))
    return {"metadata": {"name": "panel"}, "spec": spec, "status": status}


def deployment(name: str, model: str = "", reason: str = "", **metadata: Any) -> dict[str, Any]:
    ready = conditions.Condition(
        type="Ready",
        status=conditions.Status.FALSE if reason else conditions.Status.TRUE,
        reason=reason or "ReplicasAvailable",
        message="its words" if reason else "",
    )
    return {
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"model": {"name": model or name}},
        "status": shown(ready),
    }


def why(found: dict[str, Any], *deployments: dict[str, Any]) -> str:
    return "\n".join(causes.lines(virtual_causes.explain(found, deployments), 0.0))


ALL = Public(deployments=frozenset("abc"), virtual=frozenset())


def test_all_is_well() -> None:
    members = (deployment("a"), deployment("x", "b"), deployment("c"))
    assert "panel answers: all of its models are served." == why(tribunal(ALL), *members)


def test_the_one_that_serves_counts_of_two_that_claim_a_name() -> None:
    members = [deployment("a"), deployment("b"), deployment("c"), deployment("y", "b", "NameConflict")]
    for order in (members, members[::-1]):
        assert "all of its models" in why(tribunal(ALL), *order)


def test_a_member_that_is_not_ready_is_named_with_its_parts_and_where_to_go_on() -> None:
    found = why(
        tribunal(ALL),
        deployment("a"),
        deployment("x", "b", "WaitingForReplicas", namespace="lab"),
        deployment("c"),
    )
    assert (
        """\
panel answers with those that are left, where they are enough: 1 of its 3 models is not served.

Because:
    b (drafter-2, critic-1): deployment x is not ready: WaitingForReplicas: its words

What to do:
  - See llmctl why md/x -n lab."""
        == found
    )


def test_a_member_that_is_gone() -> None:
    found = why(
        tribunal(Public(deployments=frozenset("ab"), virtual=frozenset())), deployment("a"), deployment("b")
    )
    assert (
        """\
panel answers with those that are left, where they are enough: 1 of its 3 models is not served.

Because:
  Ready is False: MemberMissing: no deployment serves c
    c (judge): no deployment serves it

What to do:
  - Apply a deployment that serves what is missing, or take it out of the manifest and apply that."""
        == found
    )


def test_nobody_is_left() -> None:
    found = why(tribunal(Public(deployments=(), virtual=())))
    assert found.startswith("panel does not answer: 3 of its 3 models are not served.")


def test_another_has_its_name() -> None:
    found = why(tribunal(ALL, "the name is held by the Tribunal lab/panel"), *map(deployment, "abc"))
    assert found.startswith("panel is not asked by anybody: another object has its name.")
    assert "Delete one of the two" in found


def test_it_was_just_made() -> None:
    found = tribunal(ALL) | {"status": {}}
    assert "panel has not been looked at by the controller yet." == why(found, *map(deployment, "abc"))


@pytest.mark.parametrize(
    "public, conflict",
    [
        (ALL, "held"),
        (Public(deployments=(), virtual=()), ""),
        (Public(deployments=frozenset("ab"), virtual=frozenset("c")), ""),
    ],
)
def test_every_reason_has_advice(public: Public, conflict: str) -> None:
    assert virtual.ready(PANEL, public, conflict).reason in advice.OF_VIRTUAL


def assistant(public: Public) -> dict[str, Any]:
    spec = {"model": "a", "retrieval": {"vectorStores": ["vs_1"]}}
    return {
        "metadata": {"name": "librarian"},
        "spec": spec,
        "status": shown(virtual.ready(LIBRARIAN, public, "")),
    }


def test_an_assistant_whose_model_is_served() -> None:
    found = why(assistant(ALL), deployment("a"))
    assert found.startswith(
        "librarian: its model is served; whether its vector stores are there is not known here."
    )
    assert "llmop.why of librarian says which vector store" in found


def test_ready_of_an_assistant_does_not_speak_for_its_stores() -> None:
    found = virtual.ready(LIBRARIAN, ALL, "")
    assert (conditions.Status.TRUE, "MembersExist") == (found.status, found.reason)
    assert "whether its vector stores do, the controller does not know" in found.message
    assert "llmop.why of librarian" in found.message
    assert "" == virtual.ready(PANEL, ALL, "").message


def test_an_assistant_whose_model_waits() -> None:
    found = why(assistant(ALL), deployment("x", "a", "WaitingForReplicas"))
    assert found.startswith("librarian does not answer: its model is not served.")
    assert "a (writer): deployment x is not ready: WaitingForReplicas: its words" in found
    assert "See llmctl why md/x -n default." in found
