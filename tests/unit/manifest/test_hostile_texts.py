"""Whatever text stands in whatever field: it is refused by the name of that field, or stored as it is."""

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.texts import WRITTEN
from tests.unit.manifest.pairs import PAIRS

from llmop.domain import errors
from llmop.manifest import admit, load, paths

MANIFESTS: dict[str, dict[str, Any]] = {
    f"{kind}-{number}": {
        "apiVersion": "llmop/v1alpha1",
        "kind": kind,
        "metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"a": "b"}},
        "spec": spec,
    }
    for number, (kind, spec, _) in enumerate(PAIRS)
}
# Fields that have no place without the right value of another one.
GOES_WITH = {
    "spec.gres": ("spec.cpusPerGPU", "spec.gpuVendor", "spec.gpusPerNode", "spec.memoryPerGPU"),
    "spec.model.uri": ("spec.model.revision",),
}
LONG, HUGE = 100_000, 5_000_000


def places(value: Any, steps: tuple[paths.Step, ...] = ()) -> Iterator[tuple[paths.Step, ...]]:
    """Where a text stands in `value`."""
    if isinstance(value, str):
        yield steps
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from places(item, (*steps, step))


def put(document: dict[str, Any], steps: tuple[paths.Step, ...], text: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    place: Any = changed
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = text
    return changed


def at(document: dict[str, Any], steps: tuple[paths.Step, ...]) -> Any:
    place: Any = document
    for step in steps:
        place = place[step]
    return place


def places_to_fill(name: str) -> list[tuple[paths.Step, ...]]:
    return [steps for steps in places(MANIFESTS[name]) if steps[0] in ("metadata", "spec")]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_text_is_refused_where_it_stands_or_stored_as_it_is(name: str) -> None:
    stored = 0
    for steps, text in itertools.product(places_to_fill(name), WRITTEN):
        changed = put(MANIFESTS[name], steps, text)
        (document,) = load.load(json.dumps(changed), "m.json")
        try:
            resource = admit.admit(document.data, namespace="")
        except errors.Invalid as invalid:
            path = paths.build(steps)
            for problem in invalid.violations:
                assert path.startswith(problem.path) or problem.path in GOES_WITH.get(path, ()), (path, text)
                assert len(problem.message) <= admit.MAX_MESSAGE_CHARACTERS
                assert problem.message.isprintable(), (path, text)
            continue
        stored += 1
        kept = admit.document(resource)
        assert text == at(kept, steps), (steps, text)
        assert kept == admit.document(admit.admit(kept, namespace=""))
    assert stored


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_long_text_is_refused_where_it_stands(name: str) -> None:
    for steps in places_to_fill(name):
        text = json.dumps(put(MANIFESTS[name], steps, "x" * LONG))
        column = text.index("x" * 100)  # of the text's quotation mark, from 1

        with pytest.raises(load.ManifestError) as raised:
            load.load(text, "m.json")

        assert f"m.json:1:{column}: a text is longer than 65536 bytes; put the text into a file" == str(
            raised.value
        )


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_comes_from_another_client_is_bounded_too(name: str) -> None:
    """The control API takes data, not text."""
    for steps in places_to_fill(name):
        with pytest.raises(errors.Invalid) as raised:
            admit.admit(put(MANIFESTS[name], steps, "x" * LONG), namespace="")

        assert all(len(each.message) <= admit.MAX_MESSAGE_CHARACTERS for each in raised.value.violations)


def test_a_text_of_megabytes_is_refused_where_it_stands() -> None:
    for text in ("a: |\n " + "x" * HUGE, "a: " + "'" * HUGE, '{"a": "' + "x" * HUGE + '"}', "x" * HUGE):
        with pytest.raises(load.ManifestError) as raised:
            load.load(text, "m.yaml")
        (problem,) = raised.value.problems
        assert problem.line == 1 or "a: |" in text
        assert len(problem.message) <= admit.MAX_MESSAGE_CHARACTERS


def test_very_many_documents_are_read_in_order() -> None:
    count = 5_000
    text = "".join(f"---\nkind: K{number}\n# why\n" for number in range(count))
    documents = load.load(text, "m.yaml")

    assert [f"K{number}" for number in range(count)] == [each.data["kind"] for each in documents]
    assert (3 * count - 1, 1) == documents[-1].position("kind")
