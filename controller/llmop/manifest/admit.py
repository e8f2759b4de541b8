"""The gate: a manifest as data becomes an object that can be stored, or is refused with everything that is wrong with it."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, get_args

import pydantic
from pydantic_core import ErrorDetails

from llmop.domain import errors, resources
from llmop.manifest import exported, limits, paths, suggest
from llmop.manifest.schema_v1alpha1 import (
    ATOMIC,
    SPECS,
    Fields,
    InstallationMetadata,
    Metadata,
)

DEFAULT_NAMESPACE = "default"
MAX_VIOLATIONS = 100
MAX_MESSAGE_CHARACTERS = 500

_TOP = ("apiVersion", "kind", "metadata", "spec")
_JSON_NAMES = {bool: "truth value", int: "number", float: "number"}
# By pydantic's error types (https://docs.pydantic.dev/latest/errors/validation_errors/).
_MESSAGES = {
    "string_type": "{shown} is not text",
    "string_too_long": "{shown} is too long; at most {max_length} characters are allowed",
    "int_type": "{shown} is not a whole number",
    "float_type": "{shown} is not a number",
    "bool_type": "{shown} is neither true nor false",
    "list_type": "{shown} is not a list; write it as [...] or with - in front of each item",
    "dict_type": "{shown} is not a mapping; write it as name: value",
    "model_type": "{shown} is not a mapping; write it as name: value",
    "literal_error": "{shown} is not allowed here; write {expected}",
    "greater_than": "{shown} is too small; it must be more than {gt}",
    "greater_than_equal": "{shown} is too small; it must be {ge} or more",
    "less_than_equal": "{shown} is too large; it must be {le} or less",
    "too_long": "has {actual_length} items; at most {max_length} are allowed",
    "too_short": "is an empty list; give at least one item",
}


def admit(data: Mapping[str, Any], *, namespace: str) -> resources.Resource:
    """The object that `data` asks for: its words as they were written, every default filled in,
    empty mappings left out.

    `namespace` is used where `data` names none ("" = default). Raises errors.Invalid with every violation (the first hundred, and
    how many more). Reasons are Required, Unknown, InvalidValue, Unsupported (in this version), Forbidden and TooLong.
    """
    kind = data.get("kind")
    info = resources.KINDS.get(kind) if isinstance(kind, str) else None
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    label = (str(kind or "object")[:64], str(name or "")[:64])

    found = list(limits.violations(data))
    if found:
        _refuse(label, found)
    found += _top_violations(data)
    if info is None or info.read_only:
        found.append(_kind_violation(kind))
        _refuse(label, found)
    found += _null_violations(data)
    model = Metadata if info.namespaced else InstallationMetadata
    parsed_metadata = _parse(model, data.get("metadata", {}), "metadata", found)
    parsed_spec = _parse(SPECS[info.name], data.get("spec", {}), "spec", found)
    if found or parsed_metadata is None or parsed_spec is None:
        _refuse(label, found)

    meta = _dump(parsed_metadata, "metadata")
    spec = _dump(parsed_spec, "spec")
    if info.name == resources.MODEL_DEPLOYMENT:
        spec = {"model": {"name": meta["name"], **spec.pop("model", {})}, **spec}
        if "scaling" in spec:
            del spec["replicas"]  # a default that means nothing here
    return resources.Resource(
        kind=info.name,
        name=meta["name"],
        namespace=(meta.get("namespace") or namespace or DEFAULT_NAMESPACE) if info.namespaced else "",
        labels=meta.get("labels", {}),
        annotations=meta.get("annotations", {}),
        spec=spec,
    )


def read(kind: str, name: str, spec: Mapping[str, Any]) -> Fields:
    """The spec of an object of `kind` called `name`. Raises errors.Invalid with everything that is wrong with it."""
    if resources.STORED_TEXT in spec:
        shown = _shown(spec[resources.STORED_TEXT])
        message = (
            f"what is stored is no mapping in JSON, but {shown}; apply the manifest of this object again"
        )
        _refuse((kind, name), [_violation("spec", "InvalidValue", message)])
    found: list[errors.Violation] = []
    parsed = _parse(SPECS[kind], spec, "spec", found)
    if parsed is None:
        _refuse((kind, name), found)
    return parsed


def document(resource: resources.Resource) -> dict[str, Any]:
    """The manifest that `admit` turns into `resource`: what a user would have written, with all defaults."""
    metadata: dict[str, Any] = {"name": resource.name}
    if resource.namespace:
        metadata["namespace"] = resource.namespace
    if resource.labels:
        metadata["labels"] = dict(resource.labels)
    if resource.annotations:
        metadata["annotations"] = dict(resource.annotations)
    return {
        "apiVersion": resources.API_VERSION,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": dict(resource.spec),
    }


def _refuse(label: tuple[str, str], found: list[errors.Violation]) -> NoReturn:
    unique = list(dict.fromkeys(found))
    if len(unique) > MAX_VIOLATIONS:
        more = f"{len(unique) - MAX_VIOLATIONS} more problems are not shown"
        unique = [*unique[:MAX_VIOLATIONS], _violation("", "InvalidValue", more)]
    raise errors.Invalid(*label, tuple(unique))


def _violation(path: str, reason: str, message: str) -> errors.Violation:
    if len(message) > MAX_MESSAGE_CHARACTERS:  # a long value stands in front, the fix at the end
        message = f"{message[:200]} ... {message[-250:]}"
    return errors.Violation(path=path, reason=reason, message=message)


def _top_violations(data: Mapping[str, Any]) -> Iterator[errors.Violation]:
    version = data.get("apiVersion")
    if version is None:
        yield _violation("apiVersion", "Required", f"is required; write {resources.API_VERSION}")
    elif version != resources.API_VERSION:
        yield _violation(
            "apiVersion", "InvalidValue", f"{version!r} is not known; write {resources.API_VERSION}"
        )
    for key in data:
        if key == "status":
            yield _violation("status", "Forbidden", "is written by the controller; remove it")
        elif key not in _TOP:
            yield _violation(paths.join("", key), "Unknown", f"unknown field{suggest.hint(key, _TOP)}")
    if "metadata" not in data:
        yield _violation("metadata", "Required", "is required; give the object a name: metadata: {name: ...}")
    if "spec" not in data:
        yield _violation("spec", "Required", "is required")


def _kind_violation(kind: Any) -> errors.Violation:
    writable = [info.name for info in resources.KINDS.values() if not info.read_only]
    if kind is None:
        return _violation("kind", "Required", "is required; one of " + ", ".join(writable))
    if isinstance(kind, str) and kind in resources.LATER_KINDS:
        return _violation("kind", "Unsupported", f"{kind!r} is not supported in this version")
    if isinstance(kind, str) and kind in resources.KINDS:
        return _violation("kind", "Forbidden", f"{kind!r} is made by the controller and cannot be applied")
    return _violation("kind", "InvalidValue", f"{kind!r} is not a kind{suggest.hint(str(kind), writable)}")


def _null_violations(data: Any, path: str = "") -> Iterator[errors.Violation]:
    if path in ATOMIC:
        return
    if data is None:
        yield _violation(path, "InvalidValue", "has no value; give one, or remove the field")
    elif isinstance(data, Mapping):
        for key, item in data.items():
            yield from _null_violations(item, paths.join(path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _null_violations(item, paths.join(path, index))


def _parse(model: type[Fields], data: Any, root: str, found: list[errors.Violation]) -> Fields | None:
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        known = {violation.path for violation in found}
        for detail in error.errors(include_url=False):
            found += [each for each in _translate(detail, model, root) if each.path not in known]
        return None


def _dump(value: Fields, path: str) -> dict[str, Any]:
    dumped = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _without_empty(dumped, path)


def _without_empty(value: dict[str, Any], path: str) -> dict[str, Any]:
    """An empty mapping says nothing: with it and without it are the same object."""
    kept = {}
    for key, item in value.items():
        below = paths.join(path, key)
        if isinstance(item, dict) and below not in ATOMIC:
            item = _without_empty(item, below)
            if not item:
                continue
        kept[key] = item
    return kept


def _translate(detail: ErrorDetails, root_model: type[Fields], root: str) -> list[errors.Violation]:
    steps = tuple(step for step in detail["loc"] if step != "[key]")
    path = paths.build((root, *steps))
    kind = detail["type"]
    if kind in ("InvalidValue", "Unsupported"):
        problems = detail.get("ctx", {}).get("problems", (("", detail["msg"]),))
        return [
            _violation(f"{path}.{below}" if below else path, kind, message) for below, message in problems
        ]
    if kind == "missing":
        return [_violation(path, "Required", f"is required: {_description(root_model, steps)}")]
    if kind == "extra_forbidden":
        return [_unknown(path, root_model, steps)]
    return [_violation(path, "InvalidValue", _type_message(detail))]


def _unknown(path: str, root_model: type[Fields], steps: tuple[paths.Step, ...]) -> errors.Violation:
    name = str(steps[-1])
    if issubclass(root_model, InstallationMetadata) and name in exported.METADATA:
        return _violation(path, "Forbidden", "is written by the controller; remove it")
    if root_model is InstallationMetadata and name == "namespace":
        return _violation(path, "Forbidden", "this kind belongs to no namespace; remove it")
    model = model_at(root_model, steps[:-1])
    assert model is not None  # pydantic found the unknown field in one
    if name in model.unsupported:
        return _violation(path, "Unsupported", "is not supported in this version; remove it")
    names = field_names(model)
    elsewhere = [
        found
        for found in _places(root_model, str(paths.split(path)[0]))
        if suggest.fold(found[1]) == suggest.fold(name)
    ]
    if elsewhere and not suggest.closest(name, names):
        return _violation(
            path, "Unknown", f'unknown field; did you mean "{elsewhere[0][0]}.{elsewhere[0][1]}"?'
        )
    return _violation(path, "Unknown", f"unknown field{suggest.hint(name, names)}")


def _places(model: type[Fields], path: str) -> Iterator[tuple[str, str]]:
    """(path of the mapping, name) of every field below `model`."""
    for name, field in model.model_fields.items():
        yield path, field.alias or name
        below = _model_in(field.annotation)
        if below is not None:
            yield from _places(below, paths.join(path, field.alias or name))


def field_names(model: type[Fields]) -> tuple[str, ...]:
    """The names of `model`'s fields as manifests write them."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def model_at(model: type[Fields], steps: tuple[paths.Step, ...]) -> type[Fields] | None:
    """The model of the mapping that `steps` lead to from `model`; None where there is none."""
    current: type[Fields] | None = model
    for step in steps:
        if isinstance(step, int):
            continue
        if current is None:
            return None
        annotation = next(
            (
                field.annotation
                for name, field in current.model_fields.items()
                if (field.alias or name) == step
            ),
            None,
        )
        current = _model_in(annotation)
    return current


def _model_in(annotation: Any) -> type[Fields] | None:
    if isinstance(annotation, type) and issubclass(annotation, Fields):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _description(model: type[Fields], steps: tuple[paths.Step, ...]) -> str:
    parent = model_at(model, steps[:-1])
    if parent is None:
        return "it has no default"
    fields = {field.alias or name: field for name, field in parent.model_fields.items()}
    field = fields.get(str(steps[-1]))
    return (field.description if field is not None else None) or "it has no default"


def _type_message(detail: ErrorDetails) -> str:
    value, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    shown = _shown(value)
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        # Not "put it in quotes": of 0123456, say, `shown` is not what was written.
        return f"is read as the {_JSON_NAMES[type(value)]} {shown}, and this field takes text; put what was written in quotes"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return f"{shown} is text, and this field takes a number; write it without quotes and letters"
    template = _MESSAGES.get(kind)
    return f"{shown}: {detail['msg']}" if template is None else template.format(shown=shown, **context)


def _shown(value: Any) -> str:
    """A value as a YAML author knows it, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
