"""Which waiting job of the virtual Slurm starts now, and what is said of the others."""

from __future__ import annotations

import dataclasses

import pytest

from llmop.domain.job import JobRequest
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.placement import Cluster, place
from llmop.testing.virtual_slurm.state import Node

NOW = 1000.0
FREE = Node("a", 4)
CLUSTER = Cluster(
    now=NOW, nodes=[FREE], jobs=[], closed_partitions=frozenset(), maintenance=None, max_running=None
)


def job(number: int = 2, name: str = "j", **more: object) -> VirtualJob:
    request = JobRequest(name=name, options=(), script="", directory="/d", time_limit_s=600)
    fields = {"partition": "gpu", "slots": 1, "submitted_at": 0.0, "eligible_at": 0.0, "time_limit_s": 600}
    return VirtualJob(id=number, request=request, **(fields | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("waiting", "changes", "reason"),
    [
        pytest.param(job(), {}, None, id="there is room"),
        pytest.param(job(held="JobHeldUser"), {}, "JobHeldUser", id="held"),
        pytest.param(job(blocked="None"), {}, "None", id="it waits, and no reason is said"),
        pytest.param(job(), {"jobs": [job(1)]}, "Dependency", id="another of its name waits for longer"),
        pytest.param(job(), {"jobs": [job(1, "other")]}, None, id="another of another name"),
        pytest.param(job(), {"closed_partitions": {"gpu"}}, "PartitionDown", id="its partition is closed"),
        pytest.param(job(restarts=1, eligible_at=NOW + 1), {}, "BeginTime", id="requeued a moment ago"),
        pytest.param(job(slots=5), {}, "PartitionConfig", id="larger than every node"),
        pytest.param(
            job(),
            {"max_running": 1, "jobs": [job(1, "other", phase=Phase.RUNNING)]},
            "QOSMaxJobsPerUserLimit",
            id="the quota is used",
        ),
        pytest.param(
            job(),
            {"maintenance": (NOW + 599, NOW + 900)},
            "ReqNodeNotAvail, Reserved for maintenance",
            id="it would not end before the maintenance",
        ),
        pytest.param(job(), {"maintenance": (NOW + 600, NOW + 900)}, None, id="it just would"),
        pytest.param(job(eligible_at=NOW + 1), {}, "Priority", id="its turn has not come"),
        pytest.param(
            job(),
            {"nodes": [Node("a", 4, drained=True), Node("b", 4, reachable=False)]},
            "ReqNodeNotAvail, UnavailableNodes:a,b",
            id="no node takes anything",
        ),
        pytest.param(job(), {"nodes": [Node("a", 4, used=4)]}, "Resources", id="all is used"),
    ],
)
def test_a_job_starts_or_waits_for_the_first_reason_that_applies(
    waiting: VirtualJob, changes: dict[str, object], reason: str | None
) -> None:
    found = place(waiting, dataclasses.replace(CLUSTER, **changes))  # type: ignore[arg-type]
    assert (("None", [FREE]) if reason is None else (reason, [])) == found
