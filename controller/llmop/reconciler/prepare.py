"""What a submission needs, put together when its turn comes."""

from collections.abc import Awaitable, Callable

from llmop.domain import errors, fences, job, os_errors, replica, resources, site, staging
from llmop.manifest import convert
from llmop.manifest import stored as manifests
from llmop.planner import canary
from llmop.reconciler import codec, gather, mirror, render, submit
from llmop.store import interface


class Preparer:
    """Renders the job of a replica from what is stored then.

    `refresh` brings `stored` up to date; `install` makes the shared directory usable, or raises OSError;
    `holding` tells which fences hold on a cluster.
    """

    def __init__(
        self,
        store: interface.Store,
        stored: mirror.Mirror,
        gatherer: gather.Gatherer,
        refresh: Callable[[], Awaitable[None]],
        install: Callable[[site.Site], Awaitable[render.Installation]],
        holding: Callable[[str], fences.Fences],
    ) -> None:
        self._store = store
        self._mirror = stored
        self._gatherer = gatherer
        self._refresh = refresh
        self._install = install
        self._holding = holding

    async def prepare(self, each: replica.Replica) -> submit.Prepared | job.Refused | str:
        """A text when the replica is not wanted any more. Raises ValueError when it cannot be rendered."""
        await self._refresh()
        stored = self._mirror.get(resources.REPLICA, each.namespace, each.name)
        if stored is None or stored.uid != each.uid or stored.owner is None or stored.spec.get("drain"):
            return "the replica is not wanted any more"
        revisions = self._mirror.children(stored.owner.uid, resources.REVISION)
        revision = next((one for one in revisions if codec.number_of(one) == each.revision), None)
        ledgers = await self._store.ledgers([each.uid])
        runtimes, profiles, sites = self._gatherer.known()
        if revision is None or not ledgers:
            return "its revision is gone"
        try:
            template = convert.template(revision.spec["template"])
        except errors.Invalid as error:
            return job.Refused(
                message=f"its revision {revision.name}: {manifests.sentence(error.violations)}"
            )
        if refused := self._gatherer.refused(template, each.cluster):
            return job.Refused(message="; ".join(refused))
        engine = runtimes.get(template.runtime)
        resource_profile = profiles.get(template.profile) or gather.no_profile(each.cluster)
        where = sites.get(each.cluster)
        if engine is None or where is None:
            return "its runtime or its cluster is gone"
        holding = self._holding(each.cluster)
        if holding.identity is fences.Identity.NOTHING:  # found out after this submission was decided
            return job.Refused(message=canary.NO_IDENTITY)
        try:
            template = staging.located(engine, template, convert.pins(revision), where.shared_dir)
        except ValueError as error:
            return job.Refused(message=str(error))
        try:
            installation = await self._install(where)
        except OSError as error:
            return job.Refused(message=os_errors.sentence(error, where.shared_dir))
        return render.prepared(
            installation,
            each,
            ledgers[0],
            template,
            engine,
            resource_profile,
            where,
            holding,
        )
