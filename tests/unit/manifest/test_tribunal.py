"""Tribunals as they are written: what is refused, and what other objects make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmop.domain import conditions, errors
from llmop.domain.tribunal import Tribunal
from llmop.manifest import admit, convert, load, references
from llmop.manifest.references import Served
from llmop.planner import virtual

ROOT = Path(__file__).resolve().parents[3]
USUAL: dict[str, Any] = {
    "drafters": [{"model": "a"}, {"model": "b"}],
    "critics": [{"model": "a"}],
    "judge": {"model": "b"},
}
SERVED = (
    Served(model="a", deployment="a", protocols=("openai",)),
    Served(model="b", deployment="b", protocols=None),
)


def document(name: str = "panel", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": "Tribunal",
        "metadata": {"name": name},
        "spec": USUAL | spec,
    }


def made(name: str = "panel", **spec: Any) -> Tribunal:
    return convert.tribunal(admit.admit(document(name, **spec), namespace="default"))


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"drafters": []}, "spec.drafters", "is an empty list"),
        ({"critics": []}, "spec.critics", "is an empty list"),
        ({"drafters": [{"model": "a", "n": 17}]}, "spec.drafters[0].n", "must be 16 or less"),
        ({"drafters": [{"model": "a", "n": 9}] * 2}, "spec.drafters", "write 18 drafts together"),
        ({"minSuccessful": 3}, "spec.minSuccessful", "more than the 2 drafts"),
        ({"roundTimeout": "5m"}, "spec.roundTimeout", "longer than timeout '4m'"),
        ({"roundMaxTokens": 64_000}, "spec.roundMaxTokens", "more than maxTokens 32000"),
        ({"judge": {}}, "spec.judge.model", "required"),
        ({"rounds": 6}, "spec.rounds", "must be 5 or less"),
        ({"agreement": 11.0}, "spec.agreement", "must be 10.0 or less"),
        ({"judge": {"model": "a", "weight": 2}}, "spec.judge.weight", "unknown field"),
        ({"stream": "Maybe"}, "spec.stream", "write 'Progress' or 'Final'"),
    ],
)
def test_what_cannot_be_is_refused_with_field_and_fix(spec: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(document(**spec), namespace="default")

    found = {each.path: each.message for each in caught.value.violations}
    assert words in found[path]


def test_members_that_exist_are_fine() -> None:
    assert references.check_tribunal(made(), SERVED, []) == ()


def test_every_broken_reference_is_named() -> None:
    other = made("other", judge={"model": "panel"})
    embedder = Served(model="e", deployment="e", protocols=("embeddings",))
    renamed = Served(model="org/x", deployment="x", protocols=("openai",))
    wrong = made(
        drafters=[{"model": "panel"}, {"model": "other"}, {"model": "e"}],
        critics=[{"model": "x"}],
        judge={"model": "aa"},
    )

    found = {
        each.path: (each.reason, each.message)
        for each in references.check_tribunal(wrong, [*SERVED, embedder, renamed], [other])
    }
    assert {path: reason for path, (reason, _) in found.items()} == {
        "spec.drafters[0].model": "Forbidden",
        "spec.drafters[1].model": "Forbidden",
        "spec.drafters[2].model": "InvalidValue",
        "spec.critics[0].model": "InvalidValue",
        "spec.judge.model": "NotFound",
        "metadata.name": "Forbidden",
    }
    assert "write org/x" in found["spec.critics[0].model"][1]
    assert 'there is no ModelDeployment "aa"' in found["spec.judge.model"][1]
    assert "member of the tribunal other" in found["metadata.name"][1]


@pytest.mark.parametrize(
    ("deployments", "others", "conflict", "reason"),
    [
        ({"a", "b"}, set(), "", "MembersExist"),
        ({"a"}, set(), "", "MemberMissing"),
        ({"a"}, {"b"}, "", "MemberIsVirtual"),
        ({"a", "b"}, {"b"}, "", "MembersExist"),
        ({"a", "b"}, set(), "held by x/y", "NameConflict"),
    ],
)
def test_what_people_are_told(deployments: set[str], others: set[str], conflict: str, reason: str) -> None:
    public = virtual.Public(deployments=deployments, virtual=others)
    found = virtual.ready(made(), public, conflict)

    assert found.reason == reason
    assert (found.status is conditions.Status.TRUE) == (reason == "MembersExist")
    published = virtual.model("Tribunal", made(), 1.0, conflict)
    assert (published is None) == bool(conflict)


def test_every_example_is_one_that_llmop_takes() -> None:
    paths = sorted((ROOT / "manifests" / "tribunals").glob("*.yaml"))
    served = [Served(model="simulator", deployment="simulator", protocols=("openai", "tgi"))]
    for path in paths:
        (found,) = load.load(path.read_text(), path.name)
        tribunal = convert.tribunal(admit.admit(found.data, namespace="default"))
        assert references.check_tribunal(tribunal, served, []) == ()
        assert tribunal.name == path.stem
    assert len(paths) == 3
