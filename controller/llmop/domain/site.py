"""A Cluster: where replicas run, and what the admin allows there."""

import dataclasses
import enum


class DriverKind(enum.StrEnum):
    SLURM = "slurm"
    LOCAL = "local"


class OrphanPolicy(enum.StrEnum):
    REPORT = "Report"
    CANCEL = "Cancel"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What manifests may name; an empty tuple allows nothing of its sort, None anything."""

    images: tuple[str, ...] | None = (
        None  # path prefixes, and the beginnings of docker:// and oras:// references
    )
    model_roots: tuple[str, ...] | None = None  # path prefixes, and the beginnings of hf:// references
    secret_root: str = ""  # "" = envFrom is refused
    args: tuple[str, ...] | None = None  # flags that may be appended to an engine's command
    extra_args: tuple[str, ...] = ()  # flags of sbatch that may stand in slurm.extraArgs


class StagingPlace(enum.StrEnum):
    LOGIN = "Login"  # a process beside the controller
    JOB = "Job"  # a Slurm job for each artifact


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Staging:
    """How images and weights are brought to the shared directory. What follows `tmp_dir` is for jobs; "" and 0 = Slurm's defaults."""

    where: StagingPlace = StagingPlace.LOGIN
    hub: str = "https://huggingface.co"  # where hf:// is asked
    insecure_registries: tuple[str, ...] = ()  # asked over plain HTTP
    tmp_dir: str = ""  # where images are unpacked; "" = in the shared directory
    python: str = ""  # one on the nodes that has llmop; "" = the controller's own
    partition: str = ""
    account: str = ""
    qos: str = ""
    cpus: int = 1
    memory_mib: int = 0
    time_limit_s: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The spec of a Cluster (called Site in code, because `cluster.Cluster` is the driver's interface).

    `shared_dir` is an absolute path that the controller and all nodes see. `submit_rate` is submissions per second.
    """

    name: str
    driver: DriverKind
    shared_dir: str
    python: str = "python3"
    prelude: tuple[str, ...] = ()
    allowed: Allowed = Allowed()
    staging: Staging = Staging()
    submit_rate: float = 1.0
    submit_burst: int = 10
    submit_timeout_s: float = 180.0
    settle_s: float = 60.0  # how long a lost submission may take to appear: max(60 s, 3 x MessageTimeout)
    poll_min_s: float = 5.0
    poll_max_s: float = 60.0
    orphan_policy: OrphanPolicy = OrphanPolicy.REPORT
    orphan_grace_s: float = 300.0
