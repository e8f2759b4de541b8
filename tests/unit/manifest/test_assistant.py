"""Assistants as they are written: what is refused, and what other objects make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmop.domain import errors
from llmop.domain.assistant import Assistant
from llmop.domain.resources import Resource
from llmop.manifest import admit, convert, load, references
from llmop.manifest.references import Served
from llmop.planner import virtual
from llmop.reconciler import mirror

ROOT = Path(__file__).resolve().parents[3]
USUAL: dict[str, Any] = {"model": "a", "vectorStores": ["vs_x"]}
SERVED = (Served(model="a", deployment="a", protocols=("openai",)),)


def stored(name: str = "librarian", **spec: Any) -> Resource:
    document = {
        "apiVersion": "llmop/v1alpha1",
        "kind": "Assistant",
        "metadata": {"name": name},
        "spec": USUAL | spec,
    }
    return admit.admit(document, namespace="default")


def made(name: str = "librarian", **spec: Any) -> Assistant:
    return convert.assistant(stored(name, **spec))


def tribunal(name: str, member: str) -> Any:
    spec = {"drafters": [{"model": member}], "critics": [{"model": "a"}], "judge": {"model": "a"}}
    document = {"apiVersion": "llmop/v1alpha1", "kind": "Tribunal", "metadata": {"name": name}, "spec": spec}
    return convert.tribunal(admit.admit(document, namespace="default"))


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"model": 3}, "spec.model", "this field takes text"),
        ({"vectorStores": []}, "spec.vectorStores", "is an empty list"),
        ({"vectorStores": ["valley"]}, "spec.vectorStores[0]", "the id of a vector store"),
        ({"vectorStores": ["vs_x"] * 9}, "spec.vectorStores", "at most 8"),
        (
            {"vectorStores": ["vs_x", "vs_y", "vs_x"]},
            "spec.vectorStores[2]",
            "stands there twice; remove one",
        ),
        ({"topK": 0}, "spec.topK", "must be 1 or more"),
        ({"topK": 21}, "spec.topK", "must be 20 or less"),
        ({"minScore": 1.5}, "spec.minScore", "must be 1.0 or less"),
        ({"filters": [1]}, "spec.filters", "mapping"),
        ({"filters": {}}, "spec.filters.type", "one of eq, ne"),
        (
            {"filters": {"type": "and", "filters": [{"type": "gt", "key": "year", "value": True}]}},
            "spec.filters.filters[0].value",
            "must be a number, or a text",
        ),
        ({"systemPrompt": "x"}, "spec.systemPrompt", "unknown field"),
    ],
)
def test_what_cannot_be_is_refused_with_field_and_fix(spec: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        stored(**spec)
    found = {each.path: each.message for each in caught.value.violations}
    assert words in found[path]


def test_it_asks_models_of_deployments_only() -> None:
    other, panel = made("other", model="librarian"), tribunal("panel", "librarian")
    embedder = Served(model="e", deployment="e", protocols=("embeddings",))
    assert references.check_assistant(made(), SERVED, []) == ()
    for model, reason, words in (
        ("nobody", "NotFound", 'no ModelDeployment "nobody"'),
        ("e", "InvalidValue", "does not speak openai, which an assistant asks in"),
        ("librarian", "Forbidden", "is this assistant itself"),
        ("panel", "Forbidden", "is a tribunal, which an assistant cannot ask"),
        ("other", "Forbidden", "is an assistant, which an assistant cannot ask"),
    ):
        first, *more = references.check_assistant(made(model=model), [*SERVED, embedder], [other, panel])
        assert (first.path, first.reason, words in first.message) == ("spec.model", reason, True)
        assert [each.path for each in more] == ["metadata.name"]
        assert "member of the assistant other, tribunal panel" in more[0].message
    (nested,) = references.check_tribunal(tribunal("panel", "librarian"), SERVED, [made()])
    assert "'librarian' is an assistant, which a tribunal cannot ask" in nested.message


def test_its_name_is_its_public_name() -> None:
    assert mirror.public_name(stored()) == "librarian"
    published = virtual.model("Assistant", made(), 1.0, "")
    assert published is not None
    assert (published.name, published.deployment, published.virtual) == (
        "librarian",
        "assistant:default/librarian",
        True,
    )


def test_every_example_is_one_that_llmop_takes() -> None:
    paths = sorted((ROOT / "manifests" / "assistants").glob("*.yaml"))
    served = [Served(model="simulator", deployment="simulator", protocols=("openai", "tgi"))]
    for path in paths:
        (found,) = load.load(path.read_text(), path.name)
        assistant = convert.assistant(admit.admit(found.data, namespace="default"))
        assert references.check_assistant(assistant, served, []) == ()
        assert assistant.name == path.stem
    assert len(paths) == 1
