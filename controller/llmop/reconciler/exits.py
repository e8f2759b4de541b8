"""What agents leave in the shared directory at their end: a death record, and, when they were killed, the working directory."""

from collections.abc import Mapping, Sequence

import structlog

from llmop.domain import replica
from llmop.planner import values
from llmop.reconciler import observe

_log = structlog.get_logger()


class ExitRecords:
    """Each is read once, when the job is over or gone."""

    def __init__(self, fleet: observe.Fleet) -> None:
        self._fleet = fleet
        self.known: dict[str, replica.End] = {}  # by replica uid

    async def read(
        self, replicas: Sequence[replica.Replica], views: Mapping[str, values.ClusterView]
    ) -> None:
        """Looks for those of `replicas` that are not known yet. A directory that does not answer is asked once, not once for each."""
        silent: set[str] = set()
        for each in replicas:
            view = views.get(each.cluster)
            watch = self._fleet.watches.get(each.cluster)
            if each.end is not None or each.uid in self.known or view is None or watch is None:
                continue
            if _is_over(each, view) and each.cluster not in silent:
                try:
                    end = await watch.files.read_end(each.name)
                except OSError as error:
                    # What cannot be read is no record: Slurm's own words are used instead.
                    _log.warning("no death record", cluster=each.cluster, replica=each.name, error=str(error))
                    silent.add(each.cluster)
                    continue
                if end is not None:
                    self.known[each.uid] = end

    async def clear(self, each: replica.Replica) -> None:
        """Once its end is recorded. What cannot be removed now is left to the sweep."""
        watch = self._fleet.watches.get(each.cluster)
        if watch is None:
            return
        try:
            left = await watch.files.clear(each.name)
        except OSError as error:
            _log.warning(
                "working directory not removed", cluster=each.cluster, replica=each.name, error=str(error)
            )
            return
        if left:
            _log.info(
                "removed what a killed agent left", cluster=each.cluster, replica=each.name, directories=left
            )

    def forget(self, uid: str) -> None:
        """The replica is gone."""
        self.known.pop(uid, None)


def _is_over(each: replica.Replica, view: values.ClusterView) -> bool:
    if each.submission.job_id is None:
        return False
    found = [
        seen for seen in view.jobs.get(each.submission.job_name, ()) if seen.job_id == each.submission.job_id
    ]
    return all(seen.state.is_terminal for seen in found) if found else view.is_current
