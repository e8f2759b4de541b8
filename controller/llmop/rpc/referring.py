"""What an object may not contradict in others.

What deployments refer to is kept as values of the domain: every apply asks for it, and it hardly ever changes.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmop.domain import deployment as deployments
from llmop.domain import resources
from llmop.domain.errors import Invalid, Violation
from llmop.manifest import convert, references
from llmop.manifest import stored as manifests
from llmop.store import interface

_CONVERSIONS: Mapping[str, Callable[[resources.Resource], Any]] = {
    resources.SERVING_RUNTIME: convert.runtime,
    resources.RESOURCE_PROFILE: convert.profile,
    resources.CLUSTER: convert.site,
}
_KINDS = tuple(_CONVERSIONS)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """The objects by kind and name, and what a commit compares to see that they are still all there are."""

    values: Mapping[str, Mapping[str, Any]]
    refusals: Mapping[tuple[str, str], str]  # by kind and name, of what this version refuses
    guard: interface.Unchanged


class References:
    """Checks deployments against runtimes, profiles and clusters, virtual models against those they ask, and keys against each other."""

    def __init__(self, store: interface.Store) -> None:
        self._store = store
        self._known: _Known | None = None
        self._converted: dict[tuple[str, int], manifests.Found[Any]] = {}

    async def check(
        self, resource: resources.Resource, *, will_write: bool
    ) -> tuple[interface.Unchanged, ...]:
        """Raises Invalid when a deployment names what does not exist or does not fit, and when two objects claim the same key.

        With `will_write` the answer may rest on what was read for an earlier one; what is returned has to be committed together with
        `resource`, and fails where that is not the case any more (`forget`, and check again).
        """
        if resource.kind == resources.API_KEY:
            return (await self._check_key(resource),)
        if resource.kind in resources.VIRTUAL:
            await self._check_members(resource)
        if resource.kind != resources.MODEL_DEPLOYMENT:
            return ()
        deployment = convert.deployment(resource)

        def violations(known: _Known) -> tuple[Violation, ...]:
            found = references.check(deployment, *(known.values[kind] for kind in _KINDS))
            return (*_refused(deployment, known), *found)

        known = self._known
        if known is None or not will_write or violations(known):
            known = self._known = await self._read()
            if found := violations(known):
                raise Invalid(resource.kind, resource.name, found)
        return (known.guard,)

    def forget(self) -> None:
        """Something has changed: the next check reads everything again."""
        self._known = None

    async def _check_key(self, resource: resources.Resource) -> interface.Unchanged:
        keys = (await self._store.list(resources.API_KEY)).items
        for other in keys:
            if other.spec.get("keyHash") == resource.spec["keyHash"] and other.uid != resource.uid:
                holder = f"{other.namespace}/{other.name}"
                problem = Violation(
                    path="spec.keyHash",
                    reason="InvalidValue",
                    message=f"is the hash of the APIKey {holder} already; make a key of its own with llmctl key create",
                )
                raise Invalid(resource.kind, resource.name, (problem,))
        return interface.Unchanged(kinds={resources.API_KEY: _extent(keys)})

    async def _check_members(self, resource: resources.Resource) -> None:
        known, stored = await asyncio.gather(self._read(), self._store.list(resources.MODEL_DEPLOYMENT))
        virtual = [await self._store.list(kind) for kind in resources.VIRTUAL]
        runtimes = known.values[resources.SERVING_RUNTIME]
        templates = [(each.name, manifests.deployment(each, ())[0].spec.template) for each in stored.items]
        served = [
            references.Served(
                model=template.model_name,
                deployment=name,
                protocols=runtimes[template.runtime].protocols if template.runtime in runtimes else None,
            )
            for name, template in templates
        ]
        others = [
            other
            for listing in virtual
            for each in listing.items
            if each.key != resource.key
            and (other := manifests.read(each, convert.VIRTUAL[each.kind]).value) is not None
        ]
        violations = (
            references.check_tribunal(convert.tribunal(resource), served, others)
            if resource.kind == resources.TRIBUNAL
            else references.check_assistant(convert.assistant(resource), served, others)
        )
        if violations:
            raise Invalid(resource.kind, resource.name, violations)

    async def _read(self) -> _Known:
        listings = await asyncio.gather(*(self._store.list(kind) for kind in _KINDS))
        before = self._converted
        self._converted = {
            version: before[version] if version in before else manifests.read(each, _CONVERSIONS[each.kind])
            for listing in listings
            for each in listing.items
            for version in ((each.uid, each.resource_version),)
        }
        found = [(kind, listing.items) for kind, listing in zip(_KINDS, listings, strict=True)]
        read = {
            (kind, each.name): self._converted[each.uid, each.resource_version]
            for kind, items in found
            for each in items
        }
        return _Known(
            values={
                kind: {
                    name: each.value
                    for (of, name), each in read.items()
                    if of == kind and each.value is not None
                }
                for kind in _KINDS
            },
            refusals={place: each.refusal for place, each in read.items() if each.refusal},
            guard=interface.Unchanged(kinds={kind: _extent(items) for kind, items in found}),
        )


def _refused(deployment: deployments.Deployment, known: _Known) -> Iterator[Violation]:
    """What `deployment` needs and this version refuses as it is stored: its replicas would not be submitted."""
    template = deployment.spec.template
    cluster = references.cluster_of(template, known.values[resources.RESOURCE_PROFILE].get(template.profile))
    needed = (
        ("spec.runtime", resources.SERVING_RUNTIME, template.runtime),
        ("spec.resourceProfile", resources.RESOURCE_PROFILE, template.profile),
        ("spec.cluster", resources.CLUSTER, cluster),
    )
    for path, kind, name in needed:
        if words := known.refusals.get((kind, name)):
            yield Violation(path=path, reason="InvalidValue", message=f'the {kind} "{name}": {words}')


def _extent(items: Sequence[resources.Resource]) -> tuple[int, int]:
    """How many, and the newest version: any change of them changes one of the two."""
    return (len(items), max((each.resource_version for each in items), default=0))
