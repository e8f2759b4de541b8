"""What every object says about itself."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from llmop.manifest.schema_v1alpha1 import fields

MAX_ANNOTATIONS_BYTES = 256 * 1024

# Keys and values as in Kubernetes' docs/concepts/overview/working-with-objects/labels.md.
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


def _annotations(values: Mapping[str, str]) -> Mapping[str, str]:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in values.items())
    if size > MAX_ANNOTATIONS_BYTES:
        raise fields.invalid(
            f"the annotations have {size} bytes; at most {MAX_ANNOTATIONS_BYTES} are allowed"
        )
    return values


Key = Annotated[
    str, fields.matching(_KEY, "a key: letters, digits and -_. , at most 63, with an optional prefix/")
]
LabelValue = Annotated[
    str, fields.matching(_VALUE, "a label's value: letters, digits and -_. , at most 63 characters")
]


class InstallationMetadata(fields.Fields):
    """Metadata of a kind that exists once per installation."""

    name: fields.Name = Field(description="Name, unique within its kind; it cannot be changed.")
    labels: dict[Key, LabelValue] | None = Field(
        default=None, description="Short values to select by. Keys without a prefix are yours."
    )
    annotations: Annotated[dict[Key, str], AfterValidator(_annotations)] | None = Field(
        default=None, description="Notes for people and tools; nothing is selected by them."
    )


class Metadata(InstallationMetadata):
    """Metadata of a kind that lives in a namespace."""

    namespace: fields.Name | None = Field(
        default=None,
        description="Namespace of the object; without it the caller's, which is `default` unless chosen.",
    )
