"""What may go wrong with a call, and what was announced to."""

import collections
import dataclasses
import enum


class SubmitFault(enum.Enum):
    """What happens to an sbatch."""

    ACCEPTED_UNSEEN = enum.auto()  # there is a job, and a time-out; with a delay the job comes later
    LOST = enum.auto()  # there is no job, and a time-out
    SAYS = enum.auto()  # there is no job, and the text given


class SnapshotFault(enum.Enum):
    """What happens to an squeue. EMPTY, MISSING and STALE look complete."""

    TIMEOUT = enum.auto()
    FAILS = enum.auto()
    TRUNCATED = enum.auto()
    GARBAGE = enum.auto()
    NOISE = enum.auto()
    EMPTY = enum.auto()
    MISSING = enum.auto()  # some jobs are left out
    STALE = enum.auto()  # as it was the time before


@dataclasses.dataclass(slots=True)
class Announced:
    """The next submissions (fault, text, seconds that a job is late) and snapshots, and how many cancellations reach nobody."""

    submits: collections.deque[tuple[SubmitFault, str, float]] = dataclasses.field(
        default_factory=collections.deque
    )
    snapshots: collections.deque[SnapshotFault] = dataclasses.field(default_factory=collections.deque)
    cancels: int = 0
