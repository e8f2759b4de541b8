"""A cluster that replicas run on stays where it is: their jobs, claims and logs lie in its shared directory, under its driver."""

from llmop.domain import resources
from llmop.domain.errors import Invalid, Violation
from llmop.manifest import convert, stored
from llmop.store import interface

_SHOWN = 5


async def check(
    store: interface.Store, live: resources.Resource | None, after: resources.Resource
) -> tuple[interface.NoOthers, ...]:
    """What has to be committed together with the change from `live` to `after`: that no replica has come since this was checked.

    Raises Invalid when the change moves a cluster that has replicas which are not over, with or without a job: an unresolved
    submission may still become one.
    """
    if live is None or after.kind != resources.CLUSTER:
        return ()
    before, now = stored.read(live, convert.site).value, convert.site(after)
    if before is None:  # where it was is not known any more: the manifest says it again
        return ()
    moved = [
        (path, old, new)
        for path, old, new in (
            ("spec.driver", before.driver.value, now.driver.value),
            ("spec.sharedDir", before.shared_dir, now.shared_dir),
        )
        if old != new
    ]
    if not moved:
        return ()
    found = (await store.list(resources.REPLICA)).items
    users = [each for each in found if each.spec.get("cluster") == live.name and not each.status.get("end")]
    if users:
        raise Invalid(
            live.kind,
            live.name,
            tuple(
                Violation(
                    path=path,
                    reason="InUse",
                    message=f"cannot be changed from {old!r} to {new!r} while {_names(users)}: scale the deployments"
                    " there to 0 or delete them first, or describe the other place as another Cluster",
                )
                for path, old, new in moved
            ),
        )
    return (interface.NoOthers(kind=resources.REPLICA, uids=frozenset(each.uid for each in found)),)


def _names(users: list[resources.Resource]) -> str:
    shown = ", ".join(f"{each.namespace}/{each.name}" for each in users[:_SHOWN])
    more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
    verb = "is" if len(users) == 1 else "are"
    return f"replica{'' if len(users) == 1 else 's'} {shown}{more} {verb} on this cluster"
