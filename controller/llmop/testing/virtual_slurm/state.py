"""What slurmctld has on its books, and the time that goes by."""

import collections
import dataclasses
import enum
import heapq
import random
from collections.abc import Callable
from typing import Protocol

from llmop.domain.job import JobRequest
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.faults import Announced
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.shape import Shape

HOLDS_SLOTS = frozenset({Phase.CONFIGURING, Phase.RUNNING, Phase.SUSPENDED, Phase.COMPLETING})


class Signal(enum.StrEnum):
    """What the batch process of a job gets. KILL is not among them: a killed process is told by `Hooks.on_end`."""

    USR1 = "USR1"
    TERM = "TERM"
    STOP = "STOP"  # it stands still from now on, until CONT
    CONT = "CONT"


class Hooks(Protocol):
    """What the world hears of jobs. A hook may call back (`finish` from `on_signal`)."""

    def on_start(self, job: VirtualJob) -> None:
        """The batch process of the job runs now."""
        ...

    def on_signal(self, job: VirtualJob, signal: Signal) -> None: ...

    def on_end(self, job: VirtualJob) -> None:
        """The batch process is gone: it finished, was killed, or its node died."""
        ...


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    name: str
    slots: int
    used: int = 0
    reachable: bool = True  # by slurmctld
    drained: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A line of the accounting, known from `since` on."""

    since: float
    name: str
    submitted_at: float
    fields: tuple[str, ...]


class State:
    """`advance` moves the clock and lets things happen. `film` is what happened, in words; `fired` counts the rows of
    `llmop.cluster.slurm.states` that were used (compare with `states.ALL_ROWS`), `calls` the calls by name.
    """

    def __init__(
        self, clock: FakeClock, *, shape: Shape | None = None, seed: int = 0, hooks: Hooks | None = None
    ) -> None:
        self.shape = shape or Shape()
        self.hooks = hooks
        self.film: collections.deque[tuple[float, str]] = collections.deque(maxlen=20_000)
        self.fired: collections.Counter[str] = collections.Counter()
        self.calls: collections.Counter[str] = collections.Counter()
        self._clock = clock
        self._random = random.Random(seed)
        self._nodes = {name: Node(name, slots) for name, slots in self.shape.nodes.items()}
        self._jobs: dict[int, VirtualJob] = {}
        self._pending: dict[int, VirtualJob] = {}
        self._processes: dict[VirtualJob, None] = {}
        self._records: dict[tuple[int, float, int], Record] = {}
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._event_number = 0
        self._next_id = 1
        self._max_submit = self.shape.max_submit
        self._max_running = self.shape.max_running
        self._down = False
        self._frozen: list[JobRequest] | None = None
        self._accounting_down = False
        self._closed_partitions: set[str] = set()
        self._maintenance: tuple[float, float] | None = None
        self._announced = Announced()
        self._last_text = ""
        self._scheduling = False

    # Time

    def next_event_at(self) -> float | None:
        """When something happens next by itself; None when nothing will."""
        return self._events[0][0] if self._events else None

    def advance(self, to: float) -> None:
        """Moves the clock to `to` (epoch seconds), stopping at everything that happens on the way."""
        while self._events and self._events[0][0] <= to:
            when, _, action = heapq.heappop(self._events)
            self._clock.move_to(max(when, self._clock.now()))
            action()
        self._clock.move_to(to)

    # What is

    def jobs(self) -> tuple[VirtualJob, ...]:
        """Every job that slurmctld remembers, by id."""
        return tuple(self._jobs.values())

    def job(self, job_id: str | int) -> VirtualJob | None:
        return self._jobs.get(int(job_id))

    def live_jobs(self) -> tuple[VirtualJob, ...]:
        """The jobs that wait, run, stand still or are being cleaned up."""
        return tuple(job for job in self._jobs.values() if job.phase is not Phase.ENDED)

    def running_jobs(self) -> tuple[VirtualJob, ...]:
        """The jobs whose batch process is alive, also those that slurmctld has given up or forgotten."""
        return tuple(self._processes)

    # For the layers above

    def _note(self, text: str) -> None:
        self.film.append((self._clock.now(), text))

    def _at(self, when: float, action: Callable[[], object]) -> None:
        self._event_number += 1
        heapq.heappush(self._events, (when, self._event_number, action))
