"""APIKey: who may call the gateway, and how much."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from llmop.domain import times
from llmop.manifest.schema_v1alpha1 import fields

_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def _hash(value: str) -> str:
    if not _HASH.fullmatch(value):
        # Whoever mistakes the field writes the key itself, which nobody else may read.
        raise fields.invalid(
            "is not sha256: and 64 hex digits (its value is not shown); llmctl key create makes a key and its hash"
        )
    return value


def _moment(value: str) -> str:
    try:
        times.from_rfc3339(value)
    except ValueError as error:
        raise fields.invalid(f"{value!r} is no time that there is; {error}") from error
    return value


Moment = Annotated[fields.Time, AfterValidator(_moment)]
KeyHash = Annotated[str, AfterValidator(_hash)]
_MOST = 1_000_000_000


class Limits(fields.Fields):
    """Counted over all models. What is left out has no limit."""

    requests_per_minute: int | None = Field(
        default=None, ge=1, le=_MOST, description="Requests per minute; as many may come at once."
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=_MOST,
        description="Tokens per minute, prompts and answers together; as many may be spent at once.",
    )
    parallel_requests: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests that may be under way at a time."
    )


class APIKeySpec(fields.Fields):
    """The key itself is nowhere but with its owner: what stands here is its hash, so that a manifest may lie in a repository."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"budget"})

    key_hash: KeyHash = Field(description="SHA-256 of the key, like sha256:0123... .")
    models: list[fields.ModelName] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Public names of the models that it may use, all others do not exist for it. Left out: all models.",
    )
    priority: Literal["System", "Interactive", "Default", "Bulk"] = Field(
        default="Default", description="Whose requests go first where requests wait for a replica."
    )
    limits: Limits | None = Field(default=None, description="How much it may use.")
    shadow: bool = Field(
        default=False, description="Count what the limits would refuse, and refuse nothing for them."
    )
    operations: bool = Field(
        default=False,
        description="It may see the page for operators: deployments, replicas and load of all namespaces.",
    )
    owner: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Whose key it is, for people."
    )
    expires_at: Moment | None = Field(
        default=None, description="When it ends to be valid, like 2026-01-31T08:15:00Z. Left out: never."
    )
