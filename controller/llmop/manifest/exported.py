"""What `get -o yaml` prints can be applied again: what the controller sets is taken off a manifest before it is judged.

As in Kubernetes, where a write to an object ignores its status (sig-architecture's api-conventions.md, "Spec and Status"). A whole
export says by its uid and resource version that nobody typed it, so nothing is said about it; anything else is named.
"""

from collections.abc import Mapping
from typing import Any

from llmop.manifest import paths

METADATA = (
    "uid",
    "generation",
    "resourceVersion",
    "creationTime",
    "deletionTime",
    "finalizers",
    "owner",
    "ownedFields",
)
_MARKS = ("uid", "resourceVersion")


def strip(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`data` without status and without metadata that only the controller sets, and a warning for each of them that was typed by hand."""
    kept = {key: value for key, value in data.items() if key != "status"}
    found = ["status"] if "status" in data else []
    metadata = data.get("metadata")
    is_export = False
    if isinstance(metadata, Mapping):
        is_export = all(name in metadata for name in _MARKS)
        kept["metadata"] = {key: value for key, value in metadata.items() if key not in METADATA}
        found += [paths.join("metadata", name) for name in METADATA if name in metadata]
    warnings = () if is_export else tuple(f"{path} is set by the controller and is ignored" for path in found)
    return kept, warnings
