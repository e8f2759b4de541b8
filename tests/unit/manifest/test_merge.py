"""Apply: ownership, sharing, conflicts, and what happens to fields that are left out."""

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmop.domain import errors, resources
from llmop.manifest import admit, merge

EXAMPLES = settings(max_examples=60)


def manifest(labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "llama"}
    if labels is not None:
        metadata["labels"] = labels
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": {"runtime": "simulator", **spec},
    }


def applied(
    live: resources.Resource | None, intent: dict[str, Any], manager: str = "me", **how: Any
) -> resources.Resource:
    return merge.apply(live, intent, manager=manager, **how).resource


def test_the_first_apply_creates_with_defaults_and_owns_what_was_written() -> None:
    result = merge.apply(None, manifest(labels={"team": "a"}, args=["x"]), manager="me", namespace="nlp")

    assert merge.Verdict.CREATED == result.verdict
    assert "nlp" == result.resource.namespace
    assert 1 == result.resource.spec["replicas"]
    assert {"me": ("metadata.labels.team", "spec.args", "spec.runtime")} == result.resource.owned_fields
    assert {"metadata.labels.team", "spec.args", "spec.replicas", "spec.probes.startup.timeout"} <= set(
        result.changed_paths
    )


def test_the_same_manifest_again_changes_nothing() -> None:
    first = applied(None, manifest(args=["x"]))

    again = merge.apply(first, manifest(args=["x"]), manager="me")

    assert merge.Verdict.UNCHANGED == again.verdict
    assert () == again.changed_paths
    assert first == again.resource


def test_a_change_names_its_paths_and_leaves_what_is_not_spec_alone() -> None:
    live = applied(None, manifest(env={"A": "1", "B": "2"}, args=["x"]))
    live = dataclasses.replace(live, uid="u", resource_version=7, status={"replicas": 1})

    result = merge.apply(live, manifest(env={"A": "1", "C": "3"}, args=["x", "y"]), manager="me")

    assert merge.Verdict.CONFIGURED == result.verdict
    assert ("spec.args", "spec.env.B", "spec.env.C") == result.changed_paths
    assert {"A": "1", "C": "3"} == result.resource.spec["env"]
    assert ("u", 7, {"replicas": 1}) == (
        result.resource.uid,
        result.resource.resource_version,
        result.resource.status,
    )


def test_another_managers_value_is_a_conflict_that_says_what_to_do() -> None:
    live = applied(None, manifest(replicas=2, args=["x"]), "me")

    with pytest.raises(errors.Conflict) as caught:
        merge.apply(live, manifest(replicas=3, args=["y"]), manager="you")

    assert ("spec.args", "spec.replicas") == caught.value.paths
    assert (
        'ModelDeployment "llama": apply failed with 2 conflicts: spec.args belongs to "me"; spec.replicas belongs to "me".'
        " Leave the field out of the manifest to keep its value, write the value it has to share it,"
        " or apply with --force to take it over"
    ) == str(caught.value)


def test_force_takes_the_field_from_all_others() -> None:
    live = applied(applied(None, manifest(replicas=2), "me"), manifest(replicas=2), "you")

    forced = applied(live, manifest(replicas=3), "they", force=True)

    assert 3 == forced.spec["replicas"]
    assert {
        "me": ("spec.runtime",),
        "they": ("spec.replicas", "spec.runtime"),
        "you": ("spec.runtime",),
    } == forced.owned_fields


def test_the_same_value_is_shared_and_outlives_one_of_its_owners() -> None:
    live = applied(applied(None, manifest(args=["x"]), "me"), manifest(args=["x"]), "you")

    left = applied(live, manifest(), "me")
    assert ["x"] == left.spec["args"]

    gone = merge.apply(left, manifest(), manager="you")
    assert "args" not in gone.resource.spec
    assert ("spec.args",) == gone.changed_paths


def test_a_field_left_out_falls_back_to_its_default() -> None:
    live = applied(
        None, manifest(replicas=5, slurm={"partition": "gpu"}, probes={"startup": {"timeout": "1h"}})
    )

    result = merge.apply(live, manifest(), manager="me")

    assert ("spec.probes.startup.timeout", "spec.replicas", "spec.slurm.partition") == result.changed_paths
    assert applied(None, manifest()).spec == result.resource.spec


def test_a_field_that_nobody_owns_can_be_set_by_anyone() -> None:
    live = applied(None, manifest(), "me")

    assert 4 == applied(live, manifest(replicas=4), "you").spec["replicas"]


def test_a_scaled_number_stays_when_the_manifest_leaves_replicas_out() -> None:
    scaled = merge.scale(applied(None, manifest(replicas=3)), 5)
    assert {"me": ("spec.runtime",), "scale": ("spec.replicas",)} == scaled.owned_fields

    kept = merge.apply(scaled, manifest(args=["x"]), manager="me")

    assert 5 == kept.resource.spec["replicas"]
    assert ("spec.args",) == kept.changed_paths
    assert ("spec.replicas",) == kept.resource.owned_fields["scale"]


def test_a_manifest_that_names_another_number_than_the_scaled_one_is_a_conflict() -> None:
    scaled = merge.scale(applied(None, manifest(replicas=3)), 5)

    with pytest.raises(errors.Conflict, match=r'spec\.replicas belongs to "scale"'):
        merge.apply(scaled, manifest(replicas=3), manager="me")
    assert 5 == applied(scaled, manifest(replicas=5)).spec["replicas"]
    assert 3 == applied(scaled, manifest(replicas=3), force=True).spec["replicas"]


def test_scaling_checks_its_number() -> None:
    with pytest.raises(errors.Invalid, match=r"spec\.replicas: -1 is too small"):
        merge.scale(applied(None, manifest()), -1)


def decided(live: resources.Resource, number: int) -> resources.Resource:
    return dataclasses.replace(live, status={"scaling": {"desiredReplicas": number}})


def test_scaling_stands_instead_of_a_number() -> None:
    live = applied(None, manifest(scaling={"maxReplicas": 4}))

    assert "replicas" not in live.spec
    assert 1 == live.spec["scaling"]["minReplicas"]
    assert (
        merge.Verdict.UNCHANGED
        == merge.apply(live, manifest(scaling={"maxReplicas": 4}), manager="me").verdict
    )
    with pytest.raises(errors.Invalid, match=r"spec\.replicas: the number follows from scaling"):
        merge.apply(None, manifest(replicas=2, scaling={"maxReplicas": 4}), manager="me")


def test_scaling_takes_the_place_of_a_number_that_nobody_else_owns() -> None:
    for live in (applied(None, manifest()), applied(None, manifest(replicas=3))):
        changed = applied(live, manifest(scaling={"maxReplicas": 4}))

        assert "replicas" not in changed.spec
        assert {"me": ("spec.runtime", "spec.scaling.maxReplicas")} == changed.owned_fields


def test_scaling_against_a_number_of_somebody_else_is_a_conflict() -> None:
    live = merge.scale(applied(None, manifest()), 5)

    with pytest.raises(errors.Conflict, match=r'spec\.replicas belongs to "scale"'):
        merge.apply(live, manifest(scaling={"maxReplicas": 4}), manager="me")
    forced = applied(live, manifest(scaling={"maxReplicas": 4}), force=True)
    assert "replicas" not in forced.spec
    assert ["me"] == list(forced.owned_fields)


def test_a_number_against_the_scaling_of_somebody_else_is_refused() -> None:
    live = applied(None, manifest(scaling={"maxReplicas": 4}))

    with pytest.raises(errors.Invalid, match=r"spec\.replicas: the number follows from scaling"):
        merge.apply(live, manifest(replicas=2), manager="you")
    assert live.spec == applied(live, manifest(), manager="you").spec


def test_without_scaling_the_number_that_it_had_decided_on_stays() -> None:
    live = decided(applied(None, manifest(scaling={"maxReplicas": 4, "tolerancePercent": 5})), 3)

    without = applied(live, manifest())
    assert 3 == without.spec["replicas"] and "scaling" not in without.spec
    assert 2 == applied(live, manifest(replicas=2)).spec["replicas"]


def test_scaling_stays_as_long_as_somebody_wants_it() -> None:
    live = applied(None, manifest(scaling={"maxReplicas": 4}))
    both = applied(live, manifest(scaling={"maxReplicas": 4, "minReplicas": 2}), manager="you")

    assert 2 == applied(both, manifest()).spec["scaling"]["minReplicas"]


def test_lists_are_replaced_as_a_whole() -> None:
    live = applied(None, manifest(args=["a", "b"]))

    assert ["b"] == applied(live, manifest(args=["b"])).spec["args"]


def test_the_body_of_a_warm_up_is_replaced_as_a_whole() -> None:
    def runtime(body: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "llmop/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "x"},
            "spec": {
                "engine": "x",
                "command": ["{port}"],
                "probes": {"warmup": {"path": "/g", "body": body}},
            },
        }

    live = applied(None, runtime({"a": {"b": 1}, "c": None}))
    result = merge.apply(live, runtime({"a": 5}), manager="me")

    assert ("spec.probes.warmup.body",) == result.changed_paths
    assert {"a": 5} == result.resource.spec["probes"]["warmup"]["body"]


def test_violations_come_before_conflicts_and_change_nothing() -> None:
    live = applied(None, manifest(replicas=2))
    before = copy.deepcopy(live)

    with pytest.raises(errors.Invalid, match="argz"):
        merge.apply(live, manifest(replicas=3, argz=[]), manager="you")

    assert before == live


@pytest.mark.parametrize(
    "intent",
    [
        {},
        {"spec": 5},
        {"metadata": {"name": "x"}},
        {"metadata": [], "spec": {}},
        {**manifest(), "metadata": {"name": "llama", "labels": 5}},
    ],
)
def test_what_is_no_manifest_is_refused_for_what_it_is(intent: dict[str, Any]) -> None:
    live = applied(None, manifest())

    with pytest.raises(errors.Invalid):
        merge.apply(live, intent, manager="me")


def test_an_intent_is_bounded_before_it_is_merged() -> None:
    live = applied(None, manifest())
    deep: dict[str, Any] = {}
    for _ in range(30):
        deep = {"k" * 500: deep}
    wide: dict[str, Any] = {f"k{index}": 1 for index in range(20_000)}
    inner = deep
    while next(iter(inner.values())):
        inner = next(iter(inner.values()))
    inner["k" * 500] = wide

    with pytest.raises(errors.Invalid, match="the document is too large; split it"):
        merge.apply(live, manifest(model=deep), manager="me")


NAMES = st.sampled_from(["A", "B", "C"])
ENV = st.dictionaries(NAMES, st.sampled_from(["1", "2"]))
LABELS = st.dictionaries(NAMES, st.sampled_from(["1", "2"]))


@st.composite
def intents(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if draw(st.booleans()):
        spec["replicas"] = draw(st.integers(0, 3))
    if draw(st.booleans()):
        spec["args"] = draw(st.lists(st.sampled_from(["x", "y"]), max_size=2))
    if draw(st.booleans()):
        spec["rolloutStrategy"] = {"maxSurge": draw(st.integers(1, 2))}
    return manifest(labels=draw(LABELS), env=draw(ENV), **spec)


@EXAMPLES
@given(intent=intents(), others=st.lists(intents(), max_size=3))
def test_applying_twice_is_applying_once(intent: dict[str, Any], others: list[dict[str, Any]]) -> None:
    live: resources.Resource | None = None
    for index, other in enumerate(others):
        live = applied(live, other, f"m{index}", force=True)
    once = merge.apply(live, intent, manager="me", force=True)

    twice = merge.apply(once.resource, intent, manager="me")

    assert merge.Verdict.UNCHANGED == twice.verdict
    assert once.resource == twice.resource


@EXAMPLES
@given(mine=ENV, yours=ENV)
def test_managers_of_different_fields_commute(mine: dict[str, str], yours: dict[str, str]) -> None:
    base = applied(None, manifest(), "base")
    me, you = manifest(env=mine), manifest(labels=yours)

    assert applied(applied(base, me, "me"), you, "you") == applied(applied(base, you, "you"), me, "me")


@EXAMPLES
@given(before=intents(), after=intents())
def test_one_manager_gets_what_it_wrote_last_whatever_was_before(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert applied(None, after) == applied(applied(None, before), after)


@EXAMPLES
@given(mine=intents(), yours=intents())
def test_without_force_nobody_changes_a_field_of_another(mine: dict[str, Any], yours: dict[str, Any]) -> None:
    live = applied(None, mine, "me")
    owned = merge.leaves(mine)
    try:
        result = merge.apply(live, yours, manager="you")
    except errors.Conflict as conflict:
        assert conflict.paths
        assert all(path in owned for path in conflict.paths)
        return
    after = merge.leaves(admit.document(result.resource))
    assert all(value == after[path] for path, value in owned.items())
    assert not set(result.changed_paths) & set(owned)


@EXAMPLES
@given(mine=intents(), yours=intents())
def test_force_moves_ownership_of_what_differs(mine: dict[str, Any], yours: dict[str, Any]) -> None:
    result = applied(applied(None, mine, "me"), yours, "you", force=True)
    wanted, first = merge.leaves(yours), merge.leaves(mine)
    after = merge.leaves(admit.document(result))

    assert all(value == after[path] for path, value in wanted.items())
    assert tuple(sorted(wanted)) == result.owned_fields["you"]
    assert {path for path, value in first.items() if wanted.get(path, value) == value} == set(
        result.owned_fields.get("me", ())
    )
