"""Which objects a caller wants to see, and what a change means to somebody who sees only those."""

import dataclasses

from llmop.domain import field_selectors, resources, selectors
from llmop.rpc.errors import BadRequest
from llmop.store import interface


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    labels: selectors.Selector
    fields: field_selectors.FieldSelector

    @property
    def takes_all(self) -> bool:
        return not self.labels.requirements and not self.fields.requirements

    def matches(self, resource: resources.Resource) -> bool:
        return self.labels.matches(resource.labels) and self.fields.matches(resource)


def parse(kind: str, labels: str, fields: str) -> Selection:
    """Raises BadRequest for a selector that cannot be read."""
    try:
        return Selection(labels=selectors.parse(labels), fields=field_selectors.parse(fields, kind))
    except ValueError as error:
        raise BadRequest(str(error)) from error


class View:
    """What one watcher has seen. Without `knows_all` it began before this watch, and nobody knows with what."""

    def __init__(self, selection: Selection, *, knows_all: bool) -> None:
        self._selection = selection
        self._shown: set[str] | None = set() if knows_all and not selection.takes_all else None

    def begins_with(self, resource: resources.Resource) -> bool:
        """Whether an object of the first state is shown."""
        matches = self._selection.matches(resource)
        if matches and self._shown is not None:
            self._shown.add(resource.uid)
        return matches

    def change(self, change: interface.Change) -> interface.ChangeType | None:
        """What the watcher is told, None = nothing: to it an object that matches no more is deleted."""
        uid = change.resource.uid
        was_shown = self._shown is None or uid in self._shown
        if change.type is interface.ChangeType.DELETED or not self._selection.matches(change.resource):
            if self._shown is not None:
                self._shown.discard(uid)
            return interface.ChangeType.DELETED if was_shown else None
        if self._shown is not None:
            self._shown.add(uid)
        return change.type if was_shown else interface.ChangeType.ADDED
