"""What happens to nodes, partitions and quotas."""

import functools

from llmop.testing.virtual_slurm.hands import Hands
from llmop.testing.virtual_slurm.jobs import Phase
from llmop.testing.virtual_slurm.state import HOLDS_SLOTS


class Site(Hands):
    def kill_node(self, name: str) -> None:
        """Power cut: the processes die at once, slurmctld notices after its time-out."""
        self._note(f"node {name} dies")
        for job in [job for job in self._processes if job.node == name]:
            self._process_lost(job)
        self._lose_contact(name)

    def cut_off_node(self, name: str) -> None:
        """The network of a node is gone: slurmctld gives its jobs up, their processes live until `restore_node`."""
        self._note(f"node {name} is cut off")
        self._lose_contact(name)

    def restore_node(self, name: str) -> None:
        """The node is back; what slurmctld has given up is killed there."""
        node = self._nodes[name]
        node.reachable = True
        self._note(f"node {name} is back")
        for job in [job for job in self._processes if job.node == name]:
            if self._jobs.get(job.id) is not job or job.phase is Phase.ENDED:
                self._process_lost(job)
            elif job.phase is Phase.COMPLETING:
                self._kill(job, job.run)
        for job in [job for job in self._jobs.values() if job.node == name and job not in self._processes]:
            if job.exited:
                self._process_gone(job)  # slurmstepd had kept the exit code
            elif job.phase in (Phase.RUNNING, Phase.SUSPENDED, Phase.CONFIGURING):
                self._end(job, "NODE_FAIL")
            elif job.phase is Phase.COMPLETING:
                self._clean_up(job)
        self._schedule()

    def drain_node(self, name: str, *, drained: bool = True) -> None:
        """Nothing new starts there; what runs goes on."""
        self._nodes[name].drained = drained
        self._schedule()

    def close_partition(self, name: str, *, closed: bool = True) -> None:
        """Its jobs wait with PartitionDown."""
        (self._closed_partitions.add if closed else self._closed_partitions.discard)(name)
        self._schedule()

    def reserve(self, start: float, end: float) -> None:
        """Maintenance on all nodes: jobs that could not end before wait until it is over."""
        self._maintenance = (start, end)
        self._at(end, self._schedule)
        self._schedule()

    def limit(self, *, max_submit: int | None = None, max_running: int | None = None) -> None:
        """Sets the account's quotas; None = no limit."""
        self._max_submit, self._max_running = max_submit, max_running
        self._schedule()

    def _lose_contact(self, name: str) -> None:
        self._nodes[name].reachable = False
        self._at(self._clock.now() + self.shape.node_timeout_s, functools.partial(self._give_up, name))
        self._schedule()

    def _give_up(self, name: str) -> None:
        if self._nodes[name].reachable:
            return
        for job in [job for job in self._jobs.values() if job.node == name and job.phase in HOLDS_SLOTS]:
            self._end(job, "NODE_FAIL" if job.phase is not Phase.COMPLETING else job.final)
