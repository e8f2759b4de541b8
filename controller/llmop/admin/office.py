"""The one door to what an administrator asks: implements `llmop.rpc.admin.Administration`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from llmop.admin import discovery, doctor, preflight
from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import site
from llmop.domain.checks import Check, PreflightQuestion
from llmop.reconciler import render
from llmop.reconciler.loop import Reconciler
from llmop.store.interface import Store


class Office:
    """`environ` is where the commands of Slurm take PATH and SLURM_CONF from; `addresses` where agents find this controller."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        reconciler: Reconciler,
        state_dir: Path,
        certificates: Sequence[Path],
        environ: Mapping[str, str],
        install: Callable[[site.Site], Awaitable[render.Installation]],
        make_cluster: Callable[[site.Site], driver.Cluster],
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._reconciler = reconciler
        self._state_dir = state_dir
        self._certificates = certificates
        self._environ = environ
        self._make_cluster = make_cluster
        self._preflight = preflight.Preflight(
            store,
            clock,
            environ,
            install=install,
            driver_of=self._driver_of,
            fences_of=reconciler.lookout.fences,
            addresses=addresses,
        )

    def _driver_of(self, where: site.Site) -> driver.Cluster:
        """The one in use, as long as the Cluster is what is stored; a driver of its own for one that is only proposed."""
        watch = self._reconciler.fleet.watches.get(where.name)
        return watch.cluster if watch is not None and watch.site == where else self._make_cluster(where)

    async def discover(self, cluster: str, shared_dir: str) -> Mapping[str, str]:
        return await discovery.propose(self._environ, cluster, shared_dir)

    def preflight(self, question: PreflightQuestion) -> AsyncIterator[Check]:
        return self._preflight.checks(question)

    async def doctor(self) -> Sequence[Check]:
        return await doctor.examine(
            self._store, self._reconciler, self._clock, self._state_dir, self._certificates
        )
