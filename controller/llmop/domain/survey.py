"""What a stranger can find out about a Slurm site, and what follows from it for a Cluster and its ResourceProfiles."""

import dataclasses
from collections.abc import Mapping

from llmop.domain.profile import Profile


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A partition as `scontrol show partition` tells of it. Times are seconds, None = no limit; None for a list = everybody."""

    name: str
    state: str = "UP"
    is_default: bool = False
    max_time_s: int | None = None
    default_time_s: int | None = None
    allow_accounts: tuple[str, ...] | None = None
    deny_accounts: tuple[str, ...] = ()
    allow_qos: tuple[str, ...] | None = None
    deny_qos: tuple[str, ...] = ()
    allow_groups: tuple[str, ...] | None = None
    qos: str = ""  # the partition's own: its limits hold for every job
    root_only: bool = False
    needs_reservation: bool = False
    preempt_mode: str = ""
    grace_s: int = 0
    max_cpus_per_node: int | None = None
    max_memory_per_node_mib: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    type: str  # "" = Slurm knows them by number only
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NodeGroup:
    """Nodes of one partition that are alike (a line of sinfo)."""

    partition: str
    nodes: int
    cpus: int
    memory_mib: int
    gpus: tuple[Gpu, ...] = ()
    features: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Association:
    """What the account may do in one account of the site, on one partition or ("") on all."""

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    max_jobs: int | None = None
    max_submit: int | None = None
    max_wall_s: int | None = None
    group_tres: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Qos:
    name: str
    max_wall_s: int | None = None
    max_jobs_per_user: int | None = None
    max_submit_per_user: int | None = None
    max_tres_per_user: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Everything that was found out. `unknown` says in sentences what was not, and why.

    `associations` is None where the site keeps no accounts, or does not show them.
    """

    cluster_name: str = ""
    version: str = ""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    node_groups: tuple[NodeGroup, ...] = ()
    associations: tuple[Association, ...] | None = None
    default_account: str = ""
    qos: tuple[Qos, ...] = ()
    home: str = ""  # of the account
    user: str = ""
    unknown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProposedProfile:
    """A profile to be reviewed. `comments` are by the field of the manifest; `remarks` stand above it."""

    profile: Profile
    comments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProposedCluster:
    name: str
    shared_dir: str
    settle_s: int
    poll_min_s: int
    poll_max_s: int
    comments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    cluster: ProposedCluster
    profiles: tuple[ProposedProfile, ...]
