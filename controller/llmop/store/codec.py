"""Objects as canonical JSON text: the same on every database, and what "nothing has changed" is decided by."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import orjson

from llmop.domain import errors, replica, resources


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def encode(value: object) -> bytes:
    """`value` with sorted keys and no spaces. Equal texts are equal values (1, 1.0 and true differ, unlike in Python).

    Raises TypeError for what JSON cannot hold, integers beyond 64 bits among it.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS)


def decode(text: str | bytes) -> Any:
    return orjson.loads(text)


def mapping(text: str | bytes, otherwise: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON mapping that `text` is. What is none is `otherwise`: one broken row must not keep all others from being read."""
    try:
        found = decode(text)
    except ValueError:
        return otherwise
    return found if isinstance(found, dict) else otherwise


def part(resource: resources.Resource, name: str, value: object) -> bytes:
    """`value`, the part of `resource` called `name`, as text. Raises Invalid where it has none."""
    try:
        return encode(value)
    except TypeError as error:
        violation = errors.Violation(
            path=name, reason="NotStorable", message=f"cannot be written as JSON: {error}"
        )
        raise errors.Invalid(resource.kind, resource.name, (violation,)) from error


def settle(resource: resources.Resource) -> resources.Resource:
    """`resource` as it will be read back: plain JSON values that share nothing with what the caller holds."""
    return dataclasses.replace(
        resource,
        labels=decode(part(resource, "metadata.labels", resource.labels)),
        annotations=decode(part(resource, "metadata.annotations", resource.annotations)),
        finalizers=tuple(resource.finalizers),
        created_at=float(resource.created_at),
        deleted_at=None if resource.deleted_at is None else float(resource.deleted_at),
        owned_fields={manager: tuple(paths) for manager, paths in sorted(resource.owned_fields.items())},
        spec=decode(part(resource, "spec", resource.spec)),
        status=decode(part(resource, "status", resource.status)),
    )


def resource_text(resource: resources.Resource) -> str:
    """A whole object, for the change log."""
    return encode(
        {
            "kind": resource.kind,
            "name": resource.name,
            "namespace": resource.namespace,
            "uid": resource.uid,
            "generation": resource.generation,
            "resource_version": resource.resource_version,
            "labels": resource.labels,
            "annotations": resource.annotations,
            "finalizers": resource.finalizers,
            "owner": owner_fields(resource.owner),
            "created_at": resource.created_at,
            "deleted_at": resource.deleted_at,
            "owned_fields": resource.owned_fields,
            "spec": resource.spec,
            "status": resource.status,
        }
    ).decode()


def resource_from_text(text: str) -> resources.Resource:
    fields = decode(text)
    fields["finalizers"] = tuple(fields["finalizers"])
    fields["owner"] = owner_from_fields(fields["owner"])
    fields["owned_fields"] = {manager: tuple(paths) for manager, paths in fields["owned_fields"].items()}
    return resources.Resource(**fields)


def owner_fields(owner: resources.Owner | None) -> dict[str, str] | None:
    return None if owner is None else {"kind": owner.kind, "name": owner.name, "uid": owner.uid}


def owner_from_fields(fields: Mapping[str, str] | None) -> resources.Owner | None:
    return None if fields is None else resources.Owner(**fields)


def submission_text(submission: replica.Submission) -> str:
    return encode(
        {field.name: getattr(submission, field.name) for field in dataclasses.fields(submission)}
    ).decode()


_SUBMISSION_FIELDS = frozenset(field.name for field in dataclasses.fields(replica.Submission))


@functools.lru_cache(
    maxsize=20_000
)  # every pass reads those of all its replicas again, and hardly any has changed
def submission_from_text(text: str) -> replica.Submission:
    """Fields that a later version wrote and this one does not know are left out."""
    fields = {name: value for name, value in decode(text).items() if name in _SUBMISSION_FIELDS}
    fields["state"] = replica.SubmissionState(fields["state"])
    return replica.Submission(**fields)
