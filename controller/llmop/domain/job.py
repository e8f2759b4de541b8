"""Slurm jobs as llmop sees them: what it asks for, what came of it, what it observes."""

import dataclasses
import enum
from collections.abc import Mapping


class JobState(enum.StrEnum):
    """Slurm's job states that mean something different to us (`squeue --Format=State`, squeue(1) "JOB STATE CODES").

    Words that nobody knows become UNKNOWN, never an error: new releases add flags.
    """

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    PREEMPTED = "PREEMPTED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DEADLINE = "DEADLINE"
    REQUEUED = "REQUEUED"
    HELD = "HELD"  # REQUEUE_HOLD, SPECIAL_EXIT, RESV_DEL_HOLD
    UNKNOWN = "UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        """The job will never run again and has released, or will release, what it held."""
        return self in _TERMINAL

    @property
    def is_live(self) -> bool:
        """The job holds or may come to hold a node: it counts as one of our jobs."""
        return not self.is_terminal


_TERMINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.TIMEOUT,
        JobState.CANCELLED,
        JobState.PREEMPTED,
        JobState.NODE_FAIL,
        JobState.OUT_OF_MEMORY,
        JobState.DEADLINE,
    }
)


class PendingClass(enum.StrEnum):
    """What a pending reason means for us."""

    NORMAL = "Normal"  # its turn will come
    QUOTA = "Quota"  # a limit of the account; more submissions would not help
    INFRASTRUCTURE = "Infrastructure"  # nodes or partitions are away
    NEVER = "Never"  # will not run as it was submitted
    HELD = "Held"  # launch failed or the user holds it: another job may do better
    HELD_BY_ADMIN = "HeldByAdmin"  # respect it
    UNKNOWN = "Unknown"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ObservedJob:
    """One record of a snapshot or of the accounting. Times are epoch seconds; None = not known or not yet.

    `exit_code` and `signal` come from Slurm's "code:signal"; `state_text` is the word as Slurm wrote it.
    """

    job_id: str
    name: str
    state: JobState
    state_text: str
    reason: str = ""
    pending: PendingClass | None = None  # of PENDING jobs: the class of `reason`
    explanation: str = ""  # `reason` in words for people
    partition: str = ""
    node: str = ""  # the batch host, "" before the start
    node_list: str = ""
    submitted_at: float | None = None
    started_at: float | None = None  # of a PENDING job: the scheduler's estimate
    ends_at: float | None = None  # of a running job: the walltime end; of an ended one: its end
    time_limit_s: int | None = None  # None = unlimited or unknown
    preempted_at: float | None = None
    restart_count: int = 0
    exit_code: int | None = None
    signal: int | None = None
    comment: str = ""
    dependency: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All jobs of this account that Slurm knows, seen in one call.

    Only a complete snapshot says anything: `problem` is "" then. Otherwise `jobs` is empty and `problem` is the sentence for
    people; it means "no information", never "no jobs". `started_at`..`taken_at` is the time of the call.
    """

    started_at: float
    taken_at: float
    jobs: tuple[ObservedJob, ...] = ()
    problem: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.problem


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What the accounting (sacct) says of jobs that have left the queue. `available` is False where there is none."""

    available: bool
    jobs: tuple[ObservedJob, ...] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """One job to submit: Slurm's options and the script, nothing left to decide.

    `options` are long sbatch options without the leading dashes, in order, values verbatim (`("time", "60")`; "" = a flag
    without a value). They hold neither job name, dependency nor requeue: the driver sets those itself.
    """

    name: str
    options: tuple[tuple[str, str], ...]
    script: str
    directory: str  # the replica's directory: working directory and place of job.log
    time_limit_s: int = 0
    signal_before_end_s: int = 0  # Slurm's --signal=B:USR1@<this>; 0 = none
    # For the plugins of Slurm sites; the local driver, which has none, does not read them.
    comment: str = ""  # the name once more, at sites that change names
    singleton: bool = True  # False where a site's plugins make it useless or harmful
    held: bool = False  # never to be started


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    job_id: str


class RejectClass(enum.StrEnum):
    """Why a submission will never work as it is; a CamelCase word for conditions."""

    INVALID_OPTION = "InvalidOption"
    INVALID_PARTITION = "InvalidPartition"
    INVALID_ACCOUNT = "InvalidAccount"
    INVALID_QOS = "InvalidQOS"
    INVALID_GRES = "InvalidGres"
    INVALID_TIME_LIMIT = "InvalidTimeLimit"
    INVALID_CONSTRAINT = "InvalidConstraint"
    UNSATISFIABLE = "Unsatisfiable"
    PERMISSION_DENIED = "PermissionDenied"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Final: the same request will be rejected again. Only for texts that are known to be final."""

    reject_class: RejectClass
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """No capacity to take the job now (queue full, submit limit); no job was made. Try again later."""

    message: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SubmitUnknown:
    """Nobody knows whether there is a job: a timeout, a lost connection, a text that is not in the tables."""

    message: str


SubmitOutcome = Submitted | Rejected | Refused | SubmitUnknown


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a cluster told about itself. `values` keeps the settings that people want to see in the Cluster's status."""

    version: str
    min_job_age_s: int
    kill_wait_s: int
    message_timeout_s: int
    accounting: bool
    partitions: tuple[str, ...] = ()
    clock_ahead_s: float | None = None  # of ours; None where the cluster does not tell its time
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
