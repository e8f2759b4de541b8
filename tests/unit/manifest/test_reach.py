"""No option that nobody reads: every field of a manifest changes what the planner reads."""

import copy
from typing import Any

import pytest
from tests.unit.manifest.pairs import CONVERT, PAIRS, at, leaves

from llmop.domain.resources import Resource
from llmop.manifest import admit, explain
from llmop.manifest.schema_v1alpha1 import SPECS

# It takes one value only, so there is nothing to tell the planner.
ONE_VALUE = {"spec.rolloutStrategy.type"}
# It tells people something, in `llmctl get`.
FOR_PEOPLE = {"spec.owner"}


def fields(kind: str) -> set[str]:
    return (
        {path for path in leaves(explain.fields(kind)) if path.startswith("spec.")} - ONE_VALUE - FOR_PEOPLE
    )


def read(kind: str, spec: dict[str, Any]) -> object:
    document = {"apiVersion": "llmop/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    resource: Resource = admit.admit(document, namespace="")
    return CONVERT[kind](resource)


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_of_a_manifest_changes_what_the_planner_reads(kind: str) -> None:
    reached = set()
    for _, one, other in (pair for pair in PAIRS if pair[0] == kind):
        for path in fields(kind):
            changed = copy.deepcopy(one)
            here, there = at(changed, path), at(other, path)
            if here is None or there is None:
                continue
            (place, name), (source, _) = here, there
            place[name] = source[name]
            if read(kind, changed) != read(kind, one):
                reached.add(path)

    assert fields(kind) == reached
