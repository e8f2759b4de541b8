"""A List is its items, each with the places of its own fields."""

import pytest

from llmop.manifest import lists, load

LIST = """\
apiVersion: llmop/v1alpha1
kind: List
metadata: {}
items:
  - apiVersion: llmop/v1alpha1
    kind: ResourceProfile
    metadata:
      name: a100
    spec: {gpusPerNode: 4}
  - kind: ModelDeployment
    metadata: {name: "x"}
    spec:
      args: [one, two]
      env: {"a.b": c}
"""


def only(text: str) -> load.Document:
    [document] = load.load(text, "f.yaml")
    return document


def test_the_items_of_a_list_are_documents() -> None:
    first, second = lists.expand(only(LIST))

    assert {"name": "a100"} == first.data["metadata"]
    assert "ModelDeployment" == second.data["kind"]


def test_every_field_of_an_item_keeps_its_place() -> None:
    first, second = lists.expand(only(LIST))

    assert (5, 5) == first.position("")
    assert (8, 7) == first.position("metadata.name")
    assert (13, 19) == second.position("spec.args[1]")
    assert (14, 13) == second.position('spec.env["a.b"]')
    assert (12, 5) == second.position("spec.missing")


def test_a_list_in_json_is_one_too() -> None:
    text = '{"apiVersion": "llmop/v1alpha1", "kind": "List", "items": [{"kind": "Cluster"}]}'

    assert ({"kind": "Cluster"},) == tuple(each.data for each in lists.expand(only(text)))


def test_anything_else_is_itself() -> None:
    document = only("kind: ModelDeployment\nitems: 1\n")

    assert (document,) == lists.expand(document)


def test_a_list_of_nothing_is_nothing() -> None:
    assert () == lists.expand(only("{apiVersion: llmop/v1alpha1, kind: List, items: []}"))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "kind: List\nitem: []\n",
            [
                "f.yaml:1:1: apiVersion: None is not known; write llmop/v1alpha1",
                "f.yaml:2:1: item: unknown field; a List has apiVersion, kind, metadata, items",
                "f.yaml:1:1: items: is required; a list of manifests",
            ],
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n",
            [
                "f.yaml:1:1: apiVersion: 'v1' is not known; write llmop/v1alpha1",
                "f.yaml:3:1: items: is required; a list of manifests",
            ],
        ),
        (
            "apiVersion: llmop/v1alpha1\nkind: List\nitems:\n- text\n- {kind: List, items: []}\n",
            [
                "f.yaml:4:3: items[0]: a manifest is a mapping with apiVersion, kind, metadata and spec",
                "f.yaml:5:3: items[1]: a List within a List; write its items here",
            ],
        ),
    ],
)
def test_everything_that_is_wrong_with_a_list_is_said_at_once(text: str, problems: list[str]) -> None:
    with pytest.raises(load.ManifestError) as refused:
        lists.expand(only(text))

    assert problems == [str(each) for each in refused.value.problems]
