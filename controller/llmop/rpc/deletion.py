"""Who uses what: a runtime, a profile or a cluster that is in use is not deleted."""

from llmop.domain import resources
from llmop.domain.errors import NeedsUser
from llmop.manifest import convert, references, stored
from llmop.store.interface import Store

_SHOWN = 5


async def refuse_if_used(store: Store, target: resources.Resource) -> None:
    """Raises NeedsUser(InUse) with the names of the users."""
    users = sorted(await _users(store, target))
    if not users:
        return
    shown = ", ".join(users[:_SHOWN])
    more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
    raise NeedsUser(
        "InUse",
        f'{target.kind} "{target.name}" is used by {shown}{more}: delete them or let them use another one first',
    )


async def _users(store: Store, target: resources.Resource) -> set[str]:
    if target.kind not in (resources.SERVING_RUNTIME, resources.RESOURCE_PROFILE, resources.CLUSTER):
        return set()
    users = set()
    profiles = stored.by_name((await store.list(resources.RESOURCE_PROFILE)).items, convert.profile)
    for each in (await store.list(resources.MODEL_DEPLOYMENT)).items:
        template = stored.deployment(each, ())[0].spec.template
        used = {
            resources.SERVING_RUNTIME: template.runtime,
            resources.RESOURCE_PROFILE: template.profile,
            resources.CLUSTER: references.cluster_of(template, profiles.get(template.profile)),
        }
        if used[target.kind] == target.name:
            users.add(_label(each))
    if target.kind == resources.CLUSTER:
        for kind in (resources.RESOURCE_PROFILE, resources.REPLICA):
            for each in (await store.list(kind)).items:
                if target.name == each.spec.get("cluster"):
                    users.add(_label(each))
    return users


def _label(resource: resources.Resource) -> str:
    singular = resources.KINDS[resource.kind].singular
    return (
        f"{singular} {resource.namespace}/{resource.name}"
        if resource.namespace
        else f"{singular} {resource.name}"
    )
