"""What the planner is given and what it gives back."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from llmop.domain import artifact, deployment, endpoint, job, resources, runtime, site, staging
from llmop.domain.conditions import Condition
from llmop.domain.fences import STANDARD, Fences
from llmop.domain.replica import Drain, End, Heartbeat, Phase, Replica
from llmop.planner import autoscale


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """When a silent replica is Suspect (T1), Unreachable (T2) and replaced (T3); seconds, from the heartbeat period."""

    suspect_s: float = 15.0
    unreachable_s: float = 30.0
    replaced_s: float = 300.0

    @classmethod
    def of_period(cls, period_s: float) -> "Timing":
        return cls(suspect_s=3 * period_s, unreachable_s=6 * period_s, replaced_s=max(300.0, 12 * period_s))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClusterView:
    """One cluster as last observed.

    `jobs` are those of the last complete snapshot, by job name; `snapshot_started_at` is None when there was none yet. `problem`
    is not empty while newer attempts fail: then the view is stale. `history` holds what accounting said of names
    that have left the queue; a name that was asked for and is unknown there maps to ().
    """

    site: site.Site
    snapshot_started_at: float | None = None
    snapshot_taken_at: float | None = None
    jobs: Mapping[str, tuple[job.ObservedJob, ...]] = dataclasses.field(default_factory=dict)
    problem: str = ""
    brake: str = ""  # why nothing may be done on this cluster now
    accounting: bool = False
    history: Mapping[str, tuple[job.ObservedJob, ...]] = dataclasses.field(default_factory=dict)
    fences: Fences = STANDARD
    unproven: str = ""  # why the fences are not known yet: nothing is submitted before

    @property
    def is_current(self) -> bool:
        """The last attempt to look gave a complete snapshot."""
        return self.snapshot_started_at is not None and not self.problem


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    number: int
    hash: str
    template: deployment.Template
    name: str
    uid: str
    pins: tuple[staging.Pin, ...] = ()  # what its references were when it first needed them


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The last bad end, for `status.lastFailure`."""

    reason: str
    message: str
    at: float
    exit_code: int | None = None
    node: str = ""
    log_tail: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """How long a replica took, in whole seconds: from its making to the start of its job, and from there to its first answer."""

    wait_s: int
    boot_s: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScalingStep:
    """A change of the number of replicas by the load. `inputs` are JSON: what the decision was made of."""

    at: float
    before: int
    after: int
    reason: str
    message: str
    inputs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScalingRecord:
    """How many replicas the load was given last, and the last steps to there, by time."""

    desired: int
    history: tuple[ScalingStep, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What earlier passes wrote into a deployment's status that later ones need.

    `crashes` counts bad ends of `crash_revision` in a row; `budget_since`/`budget_spent` are submissions since one became
    ready or since the window began. `stalled_until` blocks new replicas of `stalled_generation`.
    """

    conditions: tuple[Condition, ...] = ()
    crashes: int = 0
    crash_revision: int = 0
    retry_at: float | None = None
    budget_since: float | None = None
    budget_spent: int = 0
    stalled_reason: str = ""
    stalled_message: str = ""
    stalled_generation: int = 0
    stalled_until: float | None = None
    current_revision: int = 0  # what served last; 0 = nothing did
    last_failure: Failure | None = None
    leads: tuple[Lead, ...] = ()  # of the last replicas that became ready, by time
    scaling: ScalingRecord | None = None  # None = the number of replicas does not follow the load


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Desired:
    """A deployment with everything stored about it."""

    deployment: deployment.Deployment
    template_hash: str
    revisions: tuple[Revision, ...]  # by number
    replicas: tuple[Replica, ...]  # by name
    record: Record
    runtime: runtime.Runtime | None
    problems: tuple[str, ...] = ()  # broken references, in words; a person has to act
    name_conflict: str = ""  # who holds the model name
    refusal: str = (
        ""  # why this version refuses what is stored: nothing is begun before a person has mended it
    )

    @property
    def is_held(self) -> bool:
        """Its replicas stay as they are. What is being deleted is not held up."""
        return bool(self.refusal) and self.deployment.deleted_at is None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What was seen of the world for one deployment.

    `exits` are the agents' own death records. `in_flight` are replicas whose sbatch runs in this process right now.
    `writers` are replicas whose agents report through files.
    `drained_by_gateways` are draining replicas that no live gateway chooses any more, `routed_by_gateways` those that every live
    gateway chooses from; None where there is no gateway to wait for. `artifacts` holds what is known of the
    references of the newest revision, by their text. `scaling` is the last decision by the load, None while there is none.
    """

    now: float
    controller_since: float
    installation: str
    clusters: Mapping[str, ClusterView]
    heartbeats: Mapping[str, Heartbeat]
    exits: Mapping[str, End]
    in_flight: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    drained_by_gateways: frozenset[str] = frozenset()
    routed_by_gateways: frozenset[str] | None = None
    api_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    artifacts: Mapping[str, staging.View] = dataclasses.field(default_factory=dict)
    timing: Timing = Timing()
    scaling: autoscale.Decision | None = None
    is_blind: bool = (
        False  # so much is silent at once that the fault is more likely ours: nobody is replaced for silence
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FreshName:
    """A name for something new: a random suffix and a uid."""

    suffix: str
    uid: str


Names = Callable[[], FreshName]


# Actions. Each says why; `reconciler.execute` carries them out without deciding anything.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CreateRevision:
    revision: Revision


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoveRevision:
    revision: Revision


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PinArtifacts:
    """Writes down what the references of a revision are; `pins` are all of it."""

    revision: Revision
    pins: tuple[staging.Pin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StageArtifact:
    """Keeps the stager at it: finds out what `reference` is now (`digest` ""), or brings `digest` to the cluster."""

    reference: artifact.Reference
    digest: str
    cluster: str
    secret_files: tuple[str, ...]  # relative to the cluster's secret root


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CreateReplica:
    """Stores the intent only."""

    replica: Replica
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SubmitJob:
    """Runs sbatch for a stored intent; `round` is 0 for the first attempt."""

    replica: Replica
    round: int
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AdoptJob:
    """The job of an unresolved submission was found."""

    replica: Replica
    job_id: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CancelJobs:
    replica: Replica
    job_ids: tuple[str, ...]
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StartDrain:
    """Stores the decision that this replica ends; from now on it gets nothing new."""

    replica: Replica
    drain: Drain
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderDrain:
    """Tells the agent to drain: the gateways know already. `deadline_s` is seconds from now."""

    replica: Replica
    deadline_s: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordEnd:
    """The replica is over: the fact is stored, then the object is removed or kept for people to look at."""

    replica: Replica
    end: End
    keep: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoveReplica:
    """Takes an ended replica away, or an intent for which no job can exist."""

    replica: Replica
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FinishDeletion:
    """Nothing is left of the deployment: its finalizer goes, and the object with it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Announce:
    """Something has happened that people want to know."""

    regarding: resources.Owner
    warning: bool
    reason: str
    message: str


Action = (
    CreateRevision
    | RemoveRevision
    | PinArtifacts
    | StageArtifact
    | CreateReplica
    | SubmitJob
    | AdoptJob
    | CancelJobs
    | StartDrain
    | OrderDrain
    | RecordEnd
    | RemoveReplica
    | FinishDeletion
    | Announce
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaStatus:
    """The facts about a replica that the store keeps, and what people are shown."""

    replica: Replica  # with the new facts filled in
    phase: Phase
    reason: str
    message: str
    is_ready: bool
    estimated_start_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentStatus:
    replicas: int
    ready: int
    updated: int
    pending: int
    available: int
    update_revision: int
    record: Record
    estimated_start_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do now, in order; what to show; when to look again at the latest (None = when something changes)."""

    actions: tuple[Action, ...]
    replicas: tuple[ReplicaStatus, ...]
    status: DeploymentStatus
    endpoints: tuple[endpoint.Endpoint, ...]
    model: endpoint.RoutedModel | None
    recheck_at: float | None
