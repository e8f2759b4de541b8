"""Stored APIKeys as the gateways get them."""

from collections.abc import Iterable

import pydantic
import structlog

from llmop.domain import client, resources
from llmop.manifest import convert

_log = structlog.get_logger()


def keys(stored: Iterable[resources.Resource]) -> tuple[client.ClientKey, ...]:
    """Sorted by name. Of two objects that claim the same hash the older one has it."""
    found: dict[str, client.ClientKey] = {}
    for resource in sorted(stored, key=lambda each: (each.created_at, each.uid)):
        try:
            key = convert.client_key(resource)
        except pydantic.ValidationError:  # whatever stands there, it opens nothing
            _log.exception("an APIKey cannot be read", namespace=resource.namespace, name=resource.name)
            continue
        found.setdefault(key.digest, key)
    return tuple(sorted(found.values(), key=lambda each: each.name))
