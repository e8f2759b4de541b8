"""Field selectors: objects by their name, their namespace and a few fields of each kind. `=`, `==` and `!=`, joined by commas."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from llmop.domain import resources

# What can be selected by, beside metadata.name and metadata.namespace.
FIELDS: Mapping[str, tuple[str, ...]] = {
    resources.MODEL_DEPLOYMENT: (
        "spec.model.name",
        "spec.runtime",
        "spec.resourceProfile",
        "spec.cluster",
    ),
    resources.REPLICA: (
        "spec.deployment",
        "spec.revision",
        "spec.cluster",
        "status.phase",
        "status.ready",
        "status.reason",
        "status.jobId",
        "status.node",
    ),
    resources.REVISION: ("spec.revision", "spec.hash"),
    resources.SERVING_RUNTIME: ("spec.engine", "spec.container"),
    resources.RESOURCE_PROFILE: ("spec.cluster", "spec.partition"),
    resources.CLUSTER: ("spec.driver",),
    resources.API_KEY: ("spec.priority", "spec.owner"),
    resources.TRIBUNAL: ("spec.judge.model",),
    resources.ASSISTANT: ("spec.model",),
    resources.EVENT: ("spec.type", "spec.reason", "spec.regarding.kind", "spec.regarding.name"),
}
_TERM = re.compile(r"\s*(?P<field>[A-Za-z][A-Za-z0-9.]*)\s*(?P<operator>==|=|!=)\s*(?P<value>[^,=!]*?)\s*")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One term: the text of `field` is, or is not, `value`. A field that an object lacks has the text ""."""

    field: str
    value: str
    is_equal: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FieldSelector:
    """All requirements have to match; without any, everything does."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, resource: resources.Resource) -> bool:
        return all((_text(resource, each.field) == each.value) is each.is_equal for each in self.requirements)


def selectable(kind: str) -> tuple[str, ...]:
    """The fields that objects of `kind` can be selected by."""
    namespace = ("metadata.namespace",) if resources.KINDS[kind].namespaced else ()
    return ("metadata.name", *namespace, *FIELDS[kind])


def parse(text: str, kind: str) -> FieldSelector:
    """Reads `status.phase=Ready,metadata.name!=chat`. Raises ValueError with a sentence for people."""
    if not text.strip():
        return FieldSelector()
    return FieldSelector(requirements=tuple(_requirement(term, text, kind) for term in text.split(",")))


def _requirement(term: str, text: str, kind: str) -> Requirement:
    found = _TERM.fullmatch(term)
    if found is None:
        raise ValueError(f'field selector "{text}": cannot read "{term}"; write field=value or field!=value')
    known = selectable(kind)
    if found["field"] not in known:
        raise ValueError(
            f'field selector "{text}": {resources.KINDS[kind].plural} cannot be selected by "{found["field"]}";'
            f" only by {', '.join(known)}"
        )
    return Requirement(field=found["field"], value=found["value"], is_equal=found["operator"] != "!=")


def _text(resource: resources.Resource, field: str) -> str:
    root, *steps = field.split(".")
    if root == "metadata":
        return str(getattr(resource, steps[0]))
    value: Any = getattr(resource, root)
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
