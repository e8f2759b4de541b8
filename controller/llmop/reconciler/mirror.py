"""A copy in memory of what the store holds, brought up to date by the change log before every pass.

Passes would otherwise read every object again each time. The copy is never ahead of the store and, after `refresh`, not behind
what was committed before the call; both guards of `record` catch what happens in between.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from llmop.domain import errors, resources
from llmop.reconciler import queue, refusals
from llmop.store import interface

PAGE = 1000  # changes that are read at once
PUBLIC = (resources.MODEL_DEPLOYMENT, *resources.VIRTUAL)  # the kinds that have a public name
_MIRRORED = (
    resources.MODEL_DEPLOYMENT,
    resources.REPLICA,
    resources.REVISION,
    resources.SERVING_RUNTIME,
    resources.RESOURCE_PROFILE,
    resources.CLUSTER,
    resources.API_KEY,
    *resources.VIRTUAL,
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """The keys that a change concerns; `everything` when the references of all deployments may have changed, `clients` when the keys of
    the gateways' clients have.
    """

    keys: frozenset[queue.Key]
    everything: bool = False
    clients: bool = False


class Mirror:
    def __init__(self, store: interface.Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._objects: dict[tuple[str, str, str], resources.Resource] = {}
        self._of_kind: dict[str, dict[tuple[str, str], resources.Resource]] = {kind: {} for kind in _MIRRORED}
        self._children: dict[tuple[str, str], dict[str, resources.Resource]] = collections.defaultdict(dict)
        self._of_model: dict[str, dict[str, resources.Resource]] = collections.defaultdict(dict)
        self.revision = -1
        self._is_doubtful = True

    async def refresh(self) -> Refreshed:
        """Applies what was committed since the last call.

        Everything is read anew when the store was away in between: it may have lost commits that are in the copy, and have made others
        under their numbers since.
        """
        async with self._lock:
            return await self._refresh()

    async def take(self, after: int, changes: Sequence[interface.Change]) -> Refreshed:
        """Applies what a watch brings, so that it need not be read again: `changes` are all of their revision, the first one that has any
        after revision `after`.
        """
        async with self._lock:
            if (
                self._is_doubtful or self.revision < after
            ):  # a copy that was read anew meanwhile may be of another history
                return await self._refresh()
            if changes[-1].revision <= self.revision:
                return _concerned(())
            return _concerned(self._apply_all(changes))

    async def _refresh(self) -> Refreshed:
        if self._is_doubtful:
            return await self._reload()
        touched: list[resources.Resource] = []
        while True:
            try:
                page = await self._store.changes(self.revision, PAGE)
            except errors.Expired:
                return await self._reload()
            except errors.Unavailable:
                self._is_doubtful = True
                raise
            except asyncio.CancelledError:
                self._is_doubtful = bool(touched)  # nobody was told of the pages before this one
                raise
            touched += self._apply_all(page)
            if len(page) < PAGE:
                return _concerned(touched)

    def _apply_all(self, changes: Sequence[interface.Change]) -> list[resources.Resource]:
        """The objects that are copied and have changed."""
        touched = []
        for change in changes:
            if change.resource.kind in self._of_kind:
                self._apply(change)
                touched.append(change.resource)
            self.revision = change.revision
        return touched

    async def _reload(self) -> Refreshed:
        # Listed one kind after the other: the oldest revision is where the change log has to go on.
        listings = [await self._store.list(kind) for kind in _MIRRORED]
        self._objects.clear()
        self._children.clear()
        self._of_model.clear()
        for kind in _MIRRORED:
            self._of_kind[kind].clear()
        for listing in listings:
            for item in listing.items:
                self._put(item)
        self.revision = min(listing.revision for listing in listings)
        self._is_doubtful = False
        refreshed = _concerned(self._objects.values())
        return dataclasses.replace(refreshed, everything=True, clients=True)

    def _apply(self, change: interface.Change) -> None:
        resource = change.resource
        if change.type is interface.ChangeType.DELETED:
            known = self._objects.get(resource.key)
            if known is not None and known.uid == resource.uid:
                self._drop(known)
            return
        known = self._objects.get(resource.key)
        if known is None or known.uid != resource.uid or known.resource_version <= resource.resource_version:
            self._put(resource)

    def _put(self, resource: resources.Resource) -> None:
        known = self._objects.get(resource.key)
        if known is not None and (known.uid != resource.uid or _model(known) != _model(resource)):
            self._drop(known)
        self._objects[resource.key] = resource
        self._of_kind[resource.kind][(resource.namespace, resource.name)] = resource
        if resource.owner is not None:
            self._children[(resource.owner.uid, resource.kind)][resource.name] = resource
        if model := _model(resource):
            self._of_model[model][resource.uid] = resource

    def _drop(self, resource: resources.Resource) -> None:
        self._objects.pop(resource.key, None)
        self._of_kind[resource.kind].pop((resource.namespace, resource.name), None)
        if resource.owner is not None:
            siblings = self._children[(resource.owner.uid, resource.kind)]
            siblings.pop(resource.name, None)
            if not siblings:  # owners come and go for months
                del self._children[(resource.owner.uid, resource.kind)]
        if model := _model(resource):
            del self._of_model[model][resource.uid]
            if not self._of_model[model]:
                del self._of_model[model]

    def get(self, kind: str, namespace: str, name: str) -> resources.Resource | None:
        return self._of_kind[kind].get((namespace, name))

    def all(self, kind: str) -> Iterable[resources.Resource]:
        return self._of_kind[kind].values()

    def subjects(self) -> list[queue.Key]:
        """Everything that passes are made over."""
        kinds = (resources.CLUSTER, *PUBLIC)
        found = [each for kind in kinds for each in self.all(kind)]
        return [queue.Key(kind=each.kind, namespace=each.namespace, name=each.name) for each in found]

    def children(self, owner_uid: str, kind: str) -> list[resources.Resource]:
        """Sorted by name."""
        return [resource for _, resource in sorted(self._children.get((owner_uid, kind), {}).items())]

    def of_model(self, name: str) -> Iterable[resources.Resource]:
        """The objects that have this public name."""
        return self._of_model.get(name, {}).values()


def public_name(resource: resources.Resource) -> str:
    """What clients send as "model"; the object's own name when the manifest does not say."""
    if resource.kind in resources.VIRTUAL:
        return resource.name
    model = resource.spec.get("model")
    return str((isinstance(model, Mapping) and model.get("name")) or resource.name)


def _model(resource: resources.Resource) -> str:
    return public_name(resource) if resource.kind in PUBLIC else ""


def _concerned(touched: Iterable[resources.Resource]) -> Refreshed:
    keys: set[queue.Key] = set()
    everything = clients = False
    for resource in touched:
        if resource.kind in refusals.KINDS and refusals.is_due(resource):
            keys.add(queue.Key(kind=resource.kind, namespace=resource.namespace, name=resource.name))
        if resource.kind in PUBLIC:
            keys.add(queue.Key(kind=resource.kind, namespace=resource.namespace, name=resource.name))
        elif resource.kind in (resources.REPLICA, resources.REVISION) and resource.owner is not None:
            keys.add(
                queue.Key(kind=resource.owner.kind, namespace=resource.namespace, name=resource.owner.name)
            )
        elif resource.kind == resources.CLUSTER:
            keys.add(queue.Key(kind=resource.kind, namespace="", name=resource.name))
            everything = True
        elif resource.kind == resources.API_KEY:
            clients = True
        else:
            everything = True
    return Refreshed(keys=frozenset(keys), everything=everything, clients=clients)
