"""What a ModelDeployment asks for, after defaults and references were resolved."""

import dataclasses
from collections.abc import Mapping

from llmop.domain.endpoint import NO_QUEUE, QueueBounds
from llmop.domain.scaling import Scaling


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """Options that stand instead of, or over, those of the resource profile; empty means "not set here".

    `time_limit_s` and `time_min_s` are seconds (Slurm rounds up to minutes); 0 means not set.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""
    time_limit_s: int = 0
    time_min_s: int = 0
    constraint: str = ""
    reservation: str = ""
    exclude: tuple[str, ...] = ()
    nodelist: tuple[str, ...] = ()
    extra_args: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """Everything that makes a new revision when it changes: what a replica is, not how many there are."""

    model_uri: str  # "" for runtimes that need no model, else file:///absolute/path or hf://organisation/name
    model_name: str  # what clients send as "model"
    max_tokens: int = 0  # longest prompt plus answer; 0 = as the engine reads it from the model
    runtime: str
    model_revision: str = ""  # of hf://; "" = main
    image: str = ""  # absolute path of a .sif, docker://, oras://; "" = the runtime's own
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    env_files: tuple[str, ...] = ()  # relative to the cluster's secret root
    profile: str = ""  # "" = none: the options under `slurm` say all
    gpus: int = 0
    tensor: int = 0  # GPUs that share each layer; 0 = all that `pipeline` leaves
    pipeline: int = 1  # groups of layers, one behind the other
    cpus: int = 0  # 0 = the profile's
    memory_mib: int = 0  # 0 = the profile's
    cluster: str = ""  # "" = the profile's
    slurm: SlurmOptions = SlurmOptions()
    startup_timeout_s: int = 1800
    readiness_period_s: int = 5
    liveness_failure_threshold: int = 3
    termination_grace_s: int = 120
    restarted_at: str = ""  # RFC 3339; says nothing but that replicas from before are to be replaced

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share each layer; 1 without GPUs."""
        return self.tensor or max(self.gpus, 1) // self.pipeline


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentSpec:
    """A Template and how many replicas of it, replaced how, and how requests wait for them.

    With `scaling` the planner puts its decision into `replicas`.
    """

    template: Template
    replicas: int = 1
    scaling: Scaling | None = None
    max_surge: int = 1
    max_unavailable: int = 0
    progress_deadline_s: int = 1800  # counted from RUNNING, never from submit
    min_ready_s: int = 0
    revision_history_limit: int = 10
    paused: bool = False
    queue: QueueBounds = NO_QUEUE
    max_in_flight: int = 0  # requests that a replica gets at a time; 0 = as the runtime says


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A ModelDeployment as the planner reads it."""

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: int
    created_at: float
    deleted_at: float | None
    spec: DeploymentSpec
