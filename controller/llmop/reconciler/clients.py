"""Stored APIKeys as the gateways get them."""

from collections.abc import Iterable

import structlog

from llmop.domain import client, errors, resources
from llmop.manifest import convert

_log = structlog.get_logger()


def keys(stored: Iterable[resources.Resource]) -> tuple[client.ClientKey, ...]:
    """Sorted by name. Of two objects that claim the same hash the older one has it."""
    found: dict[str, client.ClientKey] = {}
    for resource in sorted(stored, key=lambda each: (each.created_at, each.uid)):
        try:
            key = convert.client_key(resource)
        except errors.Invalid as error:  # whatever stands there, it opens nothing
            _log.error(
                "an APIKey is refused", namespace=resource.namespace, name=resource.name, error=str(error)
            )
            continue
        found.setdefault(key.digest, key)
    return tuple(sorted(found.values(), key=lambda each: each.name))
