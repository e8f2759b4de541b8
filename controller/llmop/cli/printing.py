"""Tables, YAML and JSON on stdout."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from llmop.domain import times

# Numbers in YAML 1.2 (core schema, section 10.3.2); PyYAML quotes what is one in YAML 1.1, where 1e3 and 0o17 are text.
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # control sequences of ECMA-48, which engines like to log


def table(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Lines of left-aligned columns, three spaces apart, as kubectl prints them; no column is narrower than `widths` says."""
    sizes = column_widths(rows, widths)
    lines = []
    for row in rows:
        cells = [_one_line(cell).ljust(size) for cell, size in zip(row, sizes, strict=True)]
        lines.append("   ".join(cells).rstrip())
    return lines


def column_widths(rows: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    columns = zip(*rows, strict=True)
    sizes = [max(len(_one_line(cell)) for cell in column) for column in columns]
    return [max(size, least[index] if index < len(least) else 0) for index, size in enumerate(sizes)]


def _one_line(text: str) -> str:
    """Control characters in what others wrote must not move the cursor of whoever reads it."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", _COLOURS.sub("", text))


def multi_line(text: str) -> str:
    """`text` without control characters but for line ends and tabs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+", " ", _COLOURS.sub("", text))


def document(item: Any) -> dict[str, Any]:
    """An object of the API in the shape of a manifest, with what the server added."""
    source = item.metadata
    metadata: dict[str, Any] = {"name": source.name}
    if source.namespace:
        metadata["namespace"] = source.namespace
    for key, values in (("labels", source.labels), ("annotations", source.annotations)):
        if values:
            metadata[key] = dict(sorted(values.items()))
    metadata |= {
        "uid": source.uid,
        "generation": source.generation,
        "resourceVersion": source.resource_version,
    }
    for key, field in (("creationTime", "creation_time"), ("deletionTime", "deletion_time")):
        if source.HasField(field):
            metadata[key] = times.to_rfc3339(getattr(source, field).seconds)
    if source.finalizers:
        metadata["finalizers"] = list(source.finalizers)
    if source.HasField("owner"):
        owner = source.owner
        metadata["owner"] = {"kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return {
        "apiVersion": item.api_version,
        "kind": item.kind,
        "metadata": metadata,
        "spec": in_order(json.loads(item.spec_json)),
        "status": in_order(json.loads(item.status_json)),
    }


def in_order(value: Any) -> Any:
    """JSON with the keys of every object sorted, so that two objects differ where their content does."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(each) for each in value] if isinstance(value, list) else value


def manifest(item: Any) -> dict[str, Any]:
    """What a user could have written: `document` without what the server added. `diff` compares these."""
    full = document(item)
    kept = ("name", "namespace", "labels", "annotations")
    full["metadata"] = {key: full["metadata"][key] for key in kept if key in full["metadata"]}
    del full["status"]
    return full


def listing(items: Iterable[Any]) -> dict[str, Any]:
    return {"apiVersion": "llmop/v1alpha1", "kind": "List", "items": [document(item) for item in items]}


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def to_yaml(value: Any) -> str:
    """YAML that readers of YAML 1.1 and of YAML 1.2 understand alike."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = None
        if "\n" in value and re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*", value):
            style = "|"
        elif _NUMBER.fullmatch(value):
            style = "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
