"""What is stored is read whatever rules this version has for what people send."""

import dataclasses
from typing import Any

import pytest
from tests.unit.manifest.pairs import CONVERT, PAIRS

from llmop.domain import attributes, errors, resources
from llmop.manifest import admit, convert, merge, stored
from llmop.testing import builders

SAME = {"name": "a", "timezone": "UTC", "start": "0 8 * * *", "end": "0 8 * * *", "minReplicas": 2}
OTHER = {**SAME, "name": "b", "end": "0 9 * * *"}


def scaled(*schedules: Any, **more: Any) -> dict[str, Any]:
    return {"runtime": "toy", "scaling": {"maxReplicas": 3, "schedules": list(schedules), **more}}


def resource(spec: Any, kind: str = resources.MODEL_DEPLOYMENT) -> resources.Resource:
    return resources.Resource(kind=kind, name="chat", namespace="default", uid="u", spec=spec)


@pytest.mark.parametrize(
    ("kind", "spec", "rest"),
    [
        ("ModelDeployment", scaled(SAME, OTHER), scaled(OTHER)),
        ("ModelDeployment", scaled(SAME, OTHER, dict(SAME)), scaled(OTHER)),
        ("ModelDeployment", {"runtime": "toy", "later": {"a": 1}}, {"runtime": "toy"}),
        ("ModelDeployment", {"runtime": "toy", "model": "x"}, {"runtime": "toy"}),
        (
            "ModelDeployment",
            {"runtime": "toy", "env": {"A": 1, "B": "b"}},
            {"runtime": "toy", "env": {"B": "b"}},
        ),
        # Scaling without its end cannot be: it goes as a whole.
        ("ModelDeployment", {"runtime": "toy", "scaling": {"minReplicas": 1}}, {"runtime": "toy"}),
        ("ModelDeployment", {"runtime": 5}, None),
        ("ModelDeployment", {}, None),
        ("ModelDeployment", {"storedText": "["}, None),
        (
            "Assistant",
            {"model": "m", "vectorStores": ["vs_a", "vs_a"]},
            {"model": "m", "vectorStores": ["vs_a"]},
        ),
    ],
)
def test_what_is_refused_goes_and_the_rest_stays(kind: str, spec: Any, rest: Any) -> None:
    assert rest == stored.without_refused(kind, spec)


@pytest.mark.parametrize(("kind", "first", "second"), PAIRS)
def test_every_kind_is_read_without_a_field_of_a_later_version(kind: str, first: Any, second: Any) -> None:
    made = admit.admit(builders.manifest(kind, "chat", first), namespace="")
    later = dataclasses.replace(made, spec={**made.spec, "later": {"field": 1}})
    found = stored.read(later, CONVERT[kind])
    assert CONVERT[kind](made) == found.value
    assert "spec.later: unknown field" in found.refusal
    assert found.refusal == stored.refusal(later)
    assert stored.refusal(made) == ""
    broken = stored.read(dataclasses.replace(made, spec={"storedText": "{"}), CONVERT[kind])
    assert broken.value is None
    assert "spec: what is stored is no mapping in JSON, but '{'" in broken.refusal


PUBLIC = {"type": "eq", "key": "public", "value": True}
UNKNOWN = {"type": "contains", "key": "title", "value": "x"}


@pytest.mark.parametrize(
    "refused",
    [
        {"filters": UNKNOWN},
        {"filters": {"type": "and", "filters": [PUBLIC, UNKNOWN]}},
        {"filters": {**PUBLIC, "later": 1}},
        {"filters": "public"},
        {"filters": UNKNOWN, "later": 1},  # which is found first, and the filter only without it
    ],
)
def test_an_assistant_shows_no_document_because_a_filter_is_refused(refused: dict[str, Any]) -> None:
    spec = {"model": "m", "vectorStores": ["vs_a"], **refused}
    found = stored.read(resource(spec, resources.ASSISTANT), convert.assistant)
    assert found.value is None
    assert found.refusal
    other = {"model": "m", "vectorStores": ["vs_a"], "filters": PUBLIC, "later": 1}
    whole = stored.read(resource(other, resources.ASSISTANT), convert.assistant).value
    assert whole is not None
    assert attributes.read(PUBLIC) == whole.filters


def test_the_sentence_names_field_value_and_fix_and_not_a_hundred_of_them() -> None:
    words = stored.refusal(resource(scaled(SAME)))
    assert "spec.scaling.schedules[0].end: '0 8 * * *' is when it begins too; write when it ends" in words
    assert "apply the manifest" in words
    many = stored.refusal(resource({"runtime": "toy", **{f"later{number}": 1 for number in range(9)}}))
    assert "and 6 more" in many
    assert "later8" not in many


def test_a_deployment_that_is_refused_has_the_template_that_its_replicas_are_made_of() -> None:
    templates = [{"model": {"name": "public"}, "runtime": "toy"}, {"runtime": "old"}]
    for spec in ({"storedText": "{"}, {"runtime": "tgi", "model": {"name": 7}}):
        held, words = stored.deployment(resource(spec), templates)
        assert (True, "public", "toy") == (
            bool(words),
            held.spec.template.model_name,
            held.spec.template.runtime,
        )
    held, words = stored.deployment(resource({"storedText": "{"}), [{"a": 1}])
    assert ("chat", "") == (held.spec.template.model_name, held.spec.template.runtime)
    as_sent, words = stored.deployment(resource({"runtime": "tgi"}), templates)
    assert ("tgi", "") == (as_sent.spec.template.runtime, words)


def mended(live: resources.Resource, spec: Any) -> resources.Resource:
    document = builders.manifest("ModelDeployment", "chat", spec, namespace="default")
    return merge.apply(live, document, manager="llmctl").resource


def test_a_mended_manifest_takes_the_place_of_what_is_refused() -> None:
    """Also of defaults and of damage that no manager owns."""
    for spec in (
        {"storedText": "{"},
        {"runtime": "toy", "later": 1},
        {**scaled(SAME), "args": 7},
    ):
        after = mended(resource(spec), {"runtime": "toy", "replicas": 2})
        assert {"model": {"name": "chat"}, "runtime": "toy", "replicas": 2}.items() <= after.spec.items()
        assert not {"storedText", "later", "args"} & after.spec.keys()


def test_what_is_not_refused_belongs_to_its_managers_still() -> None:
    live = dataclasses.replace(
        resource({"runtime": "toy", "replicas": 4, "later": 1}),
        owned_fields={"scale": ("spec.replicas",), "llmctl": ("spec.runtime",)},
    )
    assert mended(live, {"runtime": "toy"}).spec["replicas"] == 4


def test_a_manifest_that_says_nothing_of_a_refused_filter_does_not_take_it_away() -> None:
    spec = {"model": "m", "vectorStores": ["vs_a"], "filters": {"type": "and", "filters": [PUBLIC, UNKNOWN]}}
    live = dataclasses.replace(
        resource(spec, resources.ASSISTANT), owned_fields={"other": ("spec.filters.filters",)}
    )

    def applied(**more: Any) -> resources.Resource:
        document = builders.manifest(
            "Assistant", "chat", {"model": "n", "vectorStores": ["vs_a"], **more}, namespace="default"
        )
        return merge.apply(live, document, manager="llmctl", force=True).resource

    with pytest.raises(errors.Invalid) as raised:
        applied()
    assert ["spec.filters.filters[1].type"] == [each.path for each in raised.value.violations]
    said = {"type": "or", "filters": [PUBLIC]}
    assert said == applied(filters=said).spec["filters"]
    assert "n" == applied(filters=said).spec["model"]


def test_what_is_anothers_and_would_go_with_what_is_refused_is_a_conflict() -> None:
    """Scaling cannot be without the field that is refused; without scaling there would be one replica."""
    scaling = {"minReplicas": 4, "maxReplicas": "eight", "metrics": [{"type": "InFlight", "target": 5}]}
    live = dataclasses.replace(
        resource({"runtime": "toy", "scaling": scaling}),
        owned_fields={
            "team": ("spec.scaling.minReplicas", "spec.scaling.maxReplicas", "spec.scaling.metrics")
        },
    )
    with pytest.raises(errors.Conflict, match=r'spec\.scaling\.minReplicas belongs to "team"'):
        mended(live, {"runtime": "toy"})
    document = builders.manifest("ModelDeployment", "chat", {"runtime": "toy"}, namespace="default")
    forced = merge.apply(live, document, manager="llmctl", force=True).resource
    assert ("scaling" not in forced.spec) and "team" not in forced.owned_fields
    own = merge.apply(live, document, manager="team").resource
    assert "scaling" not in own.spec


def test_a_manifest_that_is_refused_itself_says_what_is_wrong_with_it() -> None:
    with pytest.raises(errors.Invalid) as raised:
        mended(resource({"storedText": "{"}), {"runtime": "toy", "replicas": -1})
    assert "spec.replicas" in [each.path for each in raised.value.violations]
