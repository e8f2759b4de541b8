"""Running scancel."""

from collections.abc import Callable, Coroutine, Sequence

import structlog

from llmop.clock import Clock
from llmop.reconciler import observe, queue

_log = structlog.get_logger()

AGAIN_S = 60.0


class Canceller:
    """Cancels what was not cancelled a moment ago: the next snapshot shows whether it worked."""

    def __init__(
        self,
        clock: Clock,
        spawn: Callable[[Coroutine[None, None, None]], None],
        later: Callable[[queue.Key, float], None],  # after so many seconds
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._later = later
        self._cancelled: dict[tuple[str, str], float] = {}  # (cluster, job id) -> when (monotonic)

    def cancel(self, watch: observe.ClusterWatch, job_ids: Sequence[str], key: queue.Key) -> None:
        """Starts one scancel; `key` is looked at again soon when it fails."""
        now = self._clock.monotonic()
        self._cancelled = {known: at for known, at in self._cancelled.items() if now - at < AGAIN_S}
        cluster = watch.site.name
        fresh = [job_id for job_id in dict.fromkeys(job_ids) if (cluster, job_id) not in self._cancelled]
        if not fresh:
            return
        self._cancelled.update(dict.fromkeys(((cluster, job_id) for job_id in fresh), now))
        self._spawn(self._run(watch, fresh, key))

    async def _run(self, watch: observe.ClusterWatch, job_ids: list[str], key: queue.Key) -> None:
        problem = await watch.cluster.cancel(job_ids)
        if problem:
            _log.warning("scancel failed", cluster=watch.site.name, jobs=job_ids, problem=problem)
            for job_id in job_ids:
                self._cancelled.pop((watch.site.name, job_id), None)
            self._later(key, observe.SOON_S)
            return
        watch.soon()
