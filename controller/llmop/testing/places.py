"""The clusters of a simulation, and the objects that it begins with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmop.domain import resources, site
from llmop.testing import builders, leaders
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.shape import Shape, constant
from llmop.testing.virtual_slurm.state import Hooks

CALM = "calm"  # a second cluster, on which nothing goes wrong
QUIET = "quiet"  # the deployment there, which its users leave alone
QUIET_REPLICAS = 2
CALM_NODE = "quiet1"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A cluster: its Slurm, and what lies in its shared directory."""

    slurm: VirtualSlurm
    files: leaders.Files


def calm(clock: FakeClock, seed: int, hooks: Hooks) -> Place:
    """The second one. Nobody waits there."""
    shape = Shape(
        nodes={CALM_NODE: QUIET_REPLICAS + 2},
        queue_wait=constant(0),
        completing=constant(0),
        purge_lag=constant(0),
    )
    return Place(VirtualSlurm(clock, shape=shape, seed=seed, hooks=hooks), leaders.Files())


def shared_dir(cluster: str) -> str:
    return f"/shared/{cluster}"


def documents(
    orphan_policy: site.OrphanPolicy, time_limit: str, poll_s: int
) -> tuple[Mapping[str, Any], ...]:
    """Clusters, a runtime and profiles, and the deployment on the calm cluster."""
    cluster = builders.cluster_manifest(
        settleTime="60s",
        pollInterval={"min": f"{poll_s}s", "max": f"{max(60, poll_s)}s"},
        orphanPolicy=orphan_policy.value,
        submitRate={"perSecond": 1, "burst": 10},
    )
    quiet = {"sharedDir": shared_dir(CALM), "pollInterval": {"min": "60s", "max": "60s"}}
    return (
        cluster,
        builders.manifest(resources.CLUSTER, CALM, {**cluster["spec"], **quiet}),
        builders.runtime_manifest(),
        builders.profile_manifest(timeLimit=time_limit),
        builders.manifest("ResourceProfile", CALM, {"cluster": CALM, "timeLimit": "30-00:00:00"}),
        builders.deployment_manifest(QUIET, replicas=QUIET_REPLICAS, resourceProfile=CALM),
    )
