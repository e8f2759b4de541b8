"""The jobs of the virtual Slurm."""

import dataclasses
import enum

from llmop.domain.job import JobRequest


class Phase(enum.Enum):
    """Where a job is in its life, whatever squeue calls it."""

    PENDING = enum.auto()
    CONFIGURING = enum.auto()
    RUNNING = enum.auto()
    SUSPENDED = enum.auto()
    COMPLETING = enum.auto()
    ENDED = enum.auto()


@dataclasses.dataclass(slots=True, eq=False)
class VirtualJob:
    """A job as Slurm sees it; the world reads it and changes nothing. Times are epoch seconds of the true clock."""

    id: int
    request: JobRequest
    partition: str
    slots: int
    submitted_at: float
    eligible_at: float  # when its turn in the queue comes
    time_limit_s: int | None
    phase: Phase = Phase.PENDING
    reason: str = "None"
    node: str = ""
    started_at: float | None = None
    ends_at: float | None = None
    ended_at: float | None = None
    preempted_at: float | None = None
    restarts: int = 0
    run: int = 0  # how often it was started; unlike `restarts`, Slurm does not tell
    final: str = ""  # the state word that it will have when nothing of it is left
    status: int = 0  # raw wait status
    has_process: bool = False
    exited: bool = False  # by itself
    held: str = ""  # JobHeldUser or JobHeldAdmin
    blocked: str = ""  # a reason that a test gave
    shown_as: str = ""  # a state word that a test gave, while it runs
    is_late: bool = False  # it appeared long after its sbatch had timed out
    requeue: bool = False
    comment: str = ""

    @property
    def name(self) -> str:
        return self.request.name
