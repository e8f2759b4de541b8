"""The schema that editors get, judged by a validator: it takes what is stored and marks what is refused for its shape."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmop.manifest import explain, load
from llmop.manifest.schema_v1alpha1 import SPECS

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "manifests").rglob("*.yaml"))
SMALLEST: dict[str, Any] = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "chat"},
    "spec": {"runtime": "simulator"},
}


def problems(document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(explain.json_schema_of_all())
    return sorted("/".join(map(str, error.absolute_path)) for error in validator.iter_errors(document))


@pytest.mark.parametrize("kind", [*SPECS, ""])
def test_it_is_a_schema(kind: str) -> None:
    schema = explain.json_schema(kind) if kind else explain.json_schema_of_all()
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_shipped_fits(path: Path) -> None:
    """Read as YAML 1.2 is, by editors and by llmctl: 24:00:00 is text."""
    for document in load.load(path.read_text(), path.name):
        assert [] == problems(document.data)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"kind": "ModelDeploymnt"}, "kind"),
        ({"apiVersion": "v1"}, "apiVersion"),
        ({"status": {}}, ""),
        ({"metadata": {}}, "metadata"),
        ({"metadata": {"name": "chat", "label": {}}}, "metadata"),
        ({"spec": {"runtime": "simulator", "replcas": 2}}, "spec"),
        ({"spec": {"runtime": "simulator", "replicas": "2"}}, "spec/replicas"),
        ({"spec": {"runtime": "simulator", "replicas": -1}}, "spec/replicas"),
        ({"spec": {}}, "spec"),
        ({"spec": {"runtime": "simulator", "slurm": {"partitions": "x"}}}, "spec/slurm"),
        (
            {"spec": {"runtime": "simulator", "rolloutStrategy": {"type": "Recreate"}}},
            "spec/rolloutStrategy/type",
        ),
    ],
)
def test_what_is_wrong_is_marked_where_it_stands(changes: dict[str, Any], place: str) -> None:
    assert [] == problems(SMALLEST)
    found = problems({**SMALLEST, **changes})
    assert any(each == place or each.startswith(f"{place}/") for each in found), found
