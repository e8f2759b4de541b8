"""Every field says what it is: to people, to editors, and on the reference page."""

from pathlib import Path

import pytest

from llmop.domain import errors, resources
from llmop.manifest import explain
from llmop.manifest.schema_v1alpha1 import SPECS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "kinds.md"


def below(options: tuple[explain.FieldHelp, ...]) -> list[explain.FieldHelp]:
    return [each for option in options for each in (option, *below(option.children))]


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_has_a_description_that_is_a_sentence(kind: str) -> None:
    assert [] == [
        field.path for field in below(explain.fields(kind)) if not field.description.rstrip().endswith(".")
    ]


def test_a_field_is_explained_with_type_default_and_what_is_below() -> None:
    assert (
        "KIND:     ModelDeployment\n"
        "VERSION:  llmop/v1alpha1\n"
        "FIELD:    spec.rolloutStrategy <mapping>\n"
        "\n"
        "DESCRIPTION:\n"
        "  How replicas are replaced when the template changes.\n"
        "\n"
        "FIELDS:\n"
        "  type <RollingUpdate>           The only way in this version. (default RollingUpdate)\n"
        "  maxSurge <whole number>        Replicas that may run beyond `replicas` during a rollout. (default 1)\n"
        "  maxUnavailable <whole number>  Replicas that may be missing from `replicas` during a rollout. (default 0)\n"
    ) == explain.explain("md.spec.rolloutStrategy")


def test_a_list_of_mappings_is_explained_like_a_mapping() -> None:
    assert "FIELD:    spec.envFrom[].secretFile <text> (required)\n" in explain.explain(
        "md.spec.envFrom.secretFile"
    )


def test_fields_of_later_versions_are_named() -> None:
    assert "NOT IN THIS VERSION:\n  adapters, expose\n" in explain.explain("modeldeployments.spec.model")


def test_a_kind_of_the_controller_says_so() -> None:
    assert "It is made by the controller and cannot be applied." in explain.explain("rep")


def test_unknown_words_are_refused_with_what_was_meant() -> None:
    with pytest.raises(errors.NotFound, match='kind "mdd" not found'):
        explain.explain("mdd.spec")
    with pytest.raises(errors.Invalid, match='there is no field "replcas"; did you mean "replicas"'):
        explain.explain("md.spec.replcas")
    with pytest.raises(errors.NotFound):
        explain.json_schema(resources.REPLICA)


@pytest.mark.parametrize("kind", SPECS)
def test_the_json_schema_refuses_unknown_fields_everywhere(kind: str) -> None:
    schema = explain.json_schema(kind)
    objects = [schema, *schema["$defs"].values()]

    assert [] == [each for each in objects if each.get("additionalProperties") is not False]
    assert ["apiVersion", "kind", "metadata", "spec"] == schema["required"]
    described = {f"#/$defs/{name}" for name, each in schema["$defs"].items() if "description" in each}
    fields = {
        (name, field): value
        for name, each in schema["$defs"].items()
        for field, value in each["properties"].items()
    }
    assert [] == [
        place
        for place, value in fields.items()
        if "description" not in value and value.get("$ref") not in described
    ]


def test_the_reference_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == explain.markdown()
