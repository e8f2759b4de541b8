"""A Replica: one Slurm job for life, from intent to end."""

import dataclasses
import enum


class SubmissionState(enum.StrEnum):
    """How far the submission of a replica's job is known to have come. Stored; everything else is derived."""

    SUBMITTING = "Submitting"  # the intent is stored, sbatch may or may not have run
    UNKNOWN = "Unknown"  # sbatch ran and nobody knows what came of it
    SUBMITTED = "Submitted"  # there is a job, and we know its id
    REJECTED = "Rejected"  # there is no job, and there will be none
    ENDED = "Ended"  # the job is over


UNRESOLVED = frozenset({SubmissionState.SUBMITTING, SubmissionState.UNKNOWN})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """The private ledger of a replica. Its facts about the world are never dropped.

    `attempt_at` is when sbatch was last started (None = no job can exist); `resolved_at` when the job id was learned: a complete
    snapshot that began later must show the job; `retry_at` when a refused one is tried again; `rounds` counts the attempts that
    left no trace after settling.
    """

    state: SubmissionState
    job_name: str
    job_id: str | None = None
    script_hash: str = ""
    intent_at: float = 0.0
    attempt_at: float | None = None
    unknown_at: float | None = None  # when sbatch came back without saying what came of it
    resolved_at: float | None = None
    retry_at: float | None = None
    rounds: int = 0
    refusals: int = 0
    message: str = ""
    claimed_restart: int | None = None  # restart count of the job that holds the claim


class DrainReason(enum.StrEnum):
    SCALED_DOWN = "ScaledDown"
    REPLACED = "Replaced"  # by a newer revision
    DELETED = "Deleted"
    WALLTIME = "Walltime"
    UNREACHABLE = "Unreachable"
    NEVER_RUNS = "NeverRuns"  # Slurm will not run the job as it is
    LAUNCH_FAILED = "LaunchFailed"  # Slurm holds the job after it could not start it
    STARTUP_TIMEOUT = "StartupTimeout"  # the job runs and its agent is never heard


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """The decision that a replica shall end. `deadline_at` is when it is cancelled, whatever it still does.

    `message` says why, for people.
    """

    reason: DrainReason
    requested_at: float
    deadline_at: float
    message: str = ""


class EndReason(enum.StrEnum):
    """Why a replica is over, for people and for the crash counter."""

    DRAINED = "Drained"
    SUPERSEDED = "Superseded"
    TERMINATED = "Terminated"
    CANCELLED = "Cancelled"  # by us, before it ever ran or past its deadline
    CANCELLED_BY_OTHER = "CancelledByOther"
    COMPLETED = "UnexpectedExit"
    ENGINE_CRASHED = "EngineCrashed"
    BAD_SPEC = "BadSpec"
    NODE_UNUSABLE = "NodeUnusable"
    STORAGE = "Storage"
    TEMPORARY = "Temporary"
    MISSING_ARTIFACT = "MissingArtifact"
    STARTUP_TIMEOUT = "StartupTimeout"
    WALLTIME = "WalltimeReached"
    PREEMPTED = "Preempted"
    NODE_FAIL = "NodeFail"
    OUT_OF_MEMORY = "OutOfMemory"
    LAUNCH_FAILED = "LaunchFailed"
    REJECTED = "SubmissionRejected"
    NEVER_RUNS = "NeverRuns"
    FAILED = "Failed"
    LOST = "Lost"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How it ended. `log_tail` holds the last lines of the engine, as far as they are known."""

    reason: EndReason
    at: float
    message: str = ""
    exit_code: int | None = None
    node: str = ""
    log_tail: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """A replica as the planner reads it: the stored facts only.

    `ready_at` is when it last became ready (None = not ready); `host` and `port` are the engine's endpoint as last reported;
    `ends_at` is the walltime end as last seen; `phase` is what people were shown last.
    """

    name: str
    namespace: str
    uid: str
    deployment: str  # name of the owner, same namespace
    deployment_uid: str
    revision: int
    cluster: str
    created_at: float
    submission: Submission
    resource_version: int = 0
    deleted_at: float | None = None
    drain: Drain | None = None
    end: End | None = None
    started_at: float | None = None
    ready_at: float | None = None
    host: str = ""
    port: int = 0
    node: str = ""
    ends_at: float | None = None
    engine_restarts: int = 0
    missing_since: float | None = None  # when the first complete snapshot without its job was taken
    blocked_since: float | None = None  # since when Slurm says that its job will not run as it is
    unheard_since: float | None = None  # since when the job is seen to run without a word of its agent
    was_running: bool = False  # Slurm said RUNNING at least once
    phase: "Phase | None" = None


class AgentPhase(enum.StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    ENDED = "ended"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """How busy an engine says it is; None where it does not say. `age_s` is how long ago that was."""

    queue_depth: int | None = None  # requests that wait in it
    running: int | None = None
    kv_cache_usage: float | None = None  # 0..1
    age_s: float = 0.0


FILE_LATE_S = 60.0  # network file systems may show a new file so late (nfs(5), acdirmax)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """The last message of an agent. Lives in memory; only transitions reach the store.

    `ending`: with phase DRAINING, what its exit record will say; TERMINATED means that Slurm sent SIGTERM and only Slurm knows why.
    `by_file`: it came through the shared directory's inbox, because the agent does not reach the controller's listener.
    """

    replica_uid: str
    job_id: str
    restart_count: int
    phase: AgentPhase
    received_at: float
    seq: int = 0  # rises within a start of the agent: its two connections may overtake each other
    node: str = ""
    host: str = ""
    port: int = 0
    engine_restarts: int = 0
    connections: int = 0
    progress: float | None = None
    detail: str = ""
    load: EngineLoad | None = None  # of the engine, at `received_at`
    ending: EndReason | None = None
    end: End | None = None  # with phase ENDED
    by_file: bool = False

    @property
    def due_from(self) -> float:
        """The time from which its agent counts as silent: a file may be on its way for long before it is seen."""
        return self.received_at + (FILE_LATE_S if self.by_file else 0.0)


class Phase(enum.StrEnum):
    """What people are shown. Derived from job, heartbeat and record, never an input of a decision by itself."""

    SUBMITTING = "Submitting"
    PENDING = "Pending"
    BLOCKED = "Blocked"
    STARTING = "Starting"
    LOADING = "Loading"
    READY = "Ready"
    SUSPECT = "Suspect"
    UNREACHABLE = "Unreachable"
    DRAINING = "Draining"
    SUSPENDED = "Suspended"
    ENDED = "Ended"
    ORPHAN_ALIVE = "OrphanAlive"
    UNKNOWN = "Unknown"


def learn(each: Replica, **facts: object) -> Replica:
    """`each` with these facts; itself when they say nothing new, which is the rule: most passes find the world as it was."""
    if all(getattr(each, name) == value for name, value in facts.items()):
        return each
    return dataclasses.replace(each, **facts)  # type: ignore[arg-type]
