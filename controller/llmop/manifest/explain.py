"""What the fields mean, out of the schema itself: text for one field, JSON Schema for editors, the reference page."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pydantic
import pydantic.json_schema
from pydantic.fields import FieldInfo

from llmop.domain import errors, resources
from llmop.manifest import suggest
from llmop.manifest.schema_v1alpha1 import SPECS, Fields, InstallationMetadata, Metadata


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FieldHelp:
    """One field. `type` is a word for people, `default` "" where there is none; `children` are the fields below it."""

    name: str
    path: str  # `[]` stands behind the name of a list of mappings
    type: str
    required: bool
    default: str
    description: str
    children: tuple["FieldHelp", ...] = ()
    unsupported: tuple[str, ...] = ()  # fields below it that a later version will know


def fields(kind: str) -> tuple[FieldHelp, ...]:
    """`metadata` and `spec` of a kind that can be applied. Raises errors.NotFound."""
    if kind not in SPECS:
        raise errors.NotFound("kind", kind)
    return (
        _branch("metadata", "metadata", _metadata(kind), "Name and labels of the object."),
        _branch("spec", "spec", SPECS[kind], inspect.cleandoc(SPECS[kind].__doc__ or "")),
    )


def explain(path: str, *, recursive: bool = False) -> str:
    """The text of `llmctl explain`: `path` is a kind in any of its words, and fields: `md.spec.model.uri`. `recursive` names all
    fields below, without their descriptions.

    Raises errors.NotFound for a kind, errors.Invalid for a field that is not there.
    """
    word, _, rest = path.partition(".")
    info = resources.find_kind(word)
    if info is None:
        raise errors.NotFound("kind", word)
    head = f"KIND:     {info.name}\nVERSION:  {resources.API_VERSION}\n"
    if info.name not in SPECS:
        return f"{head}\nDESCRIPTION:\n  {info.description}. It is made by the controller and cannot be applied.\n"
    table = _tree if recursive else _table
    if not rest:
        return f"{head}\nDESCRIPTION:\n  {info.description}\n\nFIELDS:\n{table(fields(info.name))}"
    found = _find(info.name, rest)
    text = f"{head}FIELD:    {found.path} <{found.type}>{' (required)' if found.required else ''}\n"
    if found.default:
        text += f"DEFAULT:  {found.default}\n"
    text += f"\nDESCRIPTION:\n  {found.description}\n"
    if found.children:
        text += f"\nFIELDS:\n{table(found.children)}"
    if found.unsupported:
        text += f"\nNOT IN THIS VERSION:\n  {', '.join(found.unsupported)}\n"
    return text


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind that can be applied. Raises errors.NotFound."""
    if kind not in SPECS:
        raise errors.NotFound("kind", kind)
    shapes, shared = _schemas([kind])
    return {"$schema": _DIALECT, **shapes[kind], **shared}


def json_schema_of_all() -> dict[str, Any]:
    """One schema for every kind that can be applied: what an editor checks a manifest with."""
    shapes, shared = _schemas(list(SPECS))
    choices = [
        {
            "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
            "then": {"$ref": f"#/$defs/{kind}"},
        }
        for kind in SPECS
    ]
    return {
        "$schema": _DIALECT,
        "title": "llmop",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"apiVersion": {"const": resources.API_VERSION}, "kind": {"enum": list(SPECS)}},
        "allOf": choices,
        "$defs": {**shared.get("$defs", {}), **shapes},
    }


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _schemas(kinds: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The shape of each kind, and the definitions that they refer to."""
    models = [(model, "validation") for kind in kinds for model in (_metadata(kind), SPECS[kind])]
    references, shared = pydantic.json_schema.models_json_schema(models, by_alias=True)  # type: ignore[arg-type]
    shapes = {
        kind: {
            "title": kind,
            "description": resources.KINDS[kind].description,
            "type": "object",
            "additionalProperties": False,
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "properties": {
                "apiVersion": {"const": resources.API_VERSION},
                "kind": {"const": kind},
                "metadata": references[(_metadata(kind), "validation")],
                "spec": references[(SPECS[kind], "validation")],
            },
        }
        for kind in kinds
    }
    return shapes, shared


def _metadata(kind: str) -> type[Fields]:
    return Metadata if resources.KINDS[kind].namespaced else InstallationMetadata


def markdown() -> str:
    """The reference page of all kinds."""
    lines = [
        "# Kinds",
        "",
        "<!-- Generated from controller/llmop/manifest/schema_v1alpha1 by hack/update-docs.sh; do not edit. -->",
        "",
        f"`apiVersion: {resources.API_VERSION}`. An object has `apiVersion`, `kind`, `metadata` and `spec`; the controller adds `status`.",
        "Fields that are not listed here are refused. Durations are text: `500ms`, `90s`, `10m`, `1h30m`; where a walltime is meant, Slurm's",
        "`HH:MM:SS` and `D-HH:MM:SS` too. Memory is text: `512Mi`, `64Gi`.",
        "",
        "| kind | short | lives in | made by | what it is |",
        "|---|---|---|---|---|",
    ]
    for info in resources.KINDS.values():
        place = "namespace" if info.namespaced else "installation"
        maker = "controller" if info.read_only else "you"
        lines.append(
            f"| {info.name} | {', '.join(info.short_names)} | {place} | {maker} | {info.description} |"
        )
    for kind in SPECS:
        lines += ["", f"## {kind}", ""]
        lines += [inspect.cleandoc(SPECS[kind].__doc__ or ""), ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for found in _flat(fields(kind)):
            default = "required" if found.required else (f"`{found.default}`" if found.default else "")
            lines.append(f"| `{found.path}` | {_cell(found.type)} | {default} | {_cell(found.description)} |")
        later = list(_later(fields(kind)))
        if later:
            lines += ["", "Not in this version: " + ", ".join(f"`{path}`" for path in later) + "."]
    return "\n".join(lines) + "\n"


def names(word: str, path: str) -> list[str]:
    """The names of the fields below `path` of the kind that `word` names; [] for what does not exist."""
    info = resources.find_kind(word)
    if info is None or info.name not in SPECS:
        return []
    try:
        found = _find(info.name, path).children if path else fields(info.name)
    except errors.Invalid:
        return []
    return [each.name for each in found]


def _branch(name: str, path: str, model: type[Fields], description: str) -> FieldHelp:
    children = tuple(_leaf(path, field_name, field) for field_name, field in model.model_fields.items())
    return FieldHelp(
        name=name,
        path=path,
        type="mapping",
        required=True,
        default="",
        description=description,
        children=children,
        unsupported=tuple(sorted(model.unsupported)),
    )


def _leaf(parent: str, name: str, field: FieldInfo) -> FieldHelp:
    alias = field.alias or name
    path = f"{parent}.{alias}"
    annotation = _without_none(field.annotation)
    model, repeated = _model_of(annotation)
    description = field.description or ""
    if model is None:
        return FieldHelp(
            name=alias,
            path=path,
            type=_type_name(annotation),
            required=field.is_required(),
            default=_default(field),
            description=description,
        )
    below = _branch(alias, f"{path}[]" if repeated else path, model, description)
    return dataclasses.replace(
        below,
        path=path,
        type="list of mappings" if repeated else "mapping",
        required=field.is_required(),
    )


def _without_none(annotation: Any) -> Any:
    options = [option for option in get_args(annotation) if option is not type(None)]
    if type(None) in get_args(annotation) and len(options) == 1:
        return options[0]
    return annotation


def _model_of(annotation: Any) -> tuple[type[Fields] | None, bool]:
    """The model that `annotation` is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, Fields):
        return annotation, False
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        if isinstance(item, type) and issubclass(item, Fields):
            return item, True
    return None, False


def _type_name(annotation: Any) -> str:
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _type_name(get_args(annotation)[0])
    origin = get_origin(annotation)
    if origin is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is dict:
        return f"mapping of text to {_type_name(get_args(annotation)[1])}"
    if origin is Literal:
        return " | ".join(str(option) for option in get_args(annotation))
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _find(kind: str, path: str) -> FieldHelp:
    options = fields(kind)
    found: FieldHelp | None = None
    for step in path.split("."):
        names = {option.name: option for option in options}
        if step not in names:
            hint = suggest.hint(step, names)
            violation = errors.Violation(
                path=path, reason="Unknown", message=f'there is no field "{step}"{hint}'
            )
            raise errors.Invalid(kind, path, (violation,))
        found = names[step]
        options = found.children
    assert found is not None
    return found


def _table(options: tuple[FieldHelp, ...]) -> str:
    names = [f"{option.name} <{option.type}>" for option in options]
    width = max(map(len, names), default=0)
    return "".join(
        f"  {name:<{width}}  {option.description}{_suffix(option)}\n"
        for name, option in zip(names, options, strict=True)
    )


def _tree(options: tuple[FieldHelp, ...], depth: int = 1) -> str:
    lines = []
    for option in options:
        required = " (required)" if option.required and not option.children else ""
        lines.append(f"{'  ' * depth}{option.name} <{option.type}>{required}\n")
        lines.append(_tree(option.children, depth + 1))
    return "".join(lines)


def _suffix(option: FieldHelp) -> str:
    if option.required and option.type != "mapping":
        return " (required)"
    return f" (default {option.default})" if option.default else ""


def _flat(options: tuple[FieldHelp, ...]) -> Iterator[FieldHelp]:
    for option in options:
        if option.children:
            yield from _flat(option.children)
        else:
            yield option


def _later(options: tuple[FieldHelp, ...]) -> Iterator[str]:
    for option in options:
        yield from (f"{option.path}.{name}" for name in option.unsupported)
        yield from _later(option.children)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
