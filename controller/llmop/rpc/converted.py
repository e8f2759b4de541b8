"""All objects of a kind as values of the domain, each version converted once: every apply asks for what may be referred to."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from llmop.domain import resources
from llmop.store import interface

T = TypeVar("T")


class Converted(Generic[T]):
    """`convert` makes a value of what is stored; it gives the same for the same uid and resource version."""

    def __init__(self, kind: str, convert: Callable[[resources.Resource], T]) -> None:
        self._kind = kind
        self._convert = convert
        self._known: dict[tuple[str, int], T] = {}

    async def read(self, store: interface.Store) -> Mapping[str, T]:
        """By name, as they are stored now."""
        items = (await store.list(self._kind)).items
        known = self._known
        self._known = {
            version: known[version] if version in known else self._convert(each)
            for each in items
            for version in ((each.uid, each.resource_version),)
        }
        return {each.name: self._known[each.uid, each.resource_version] for each in items}
