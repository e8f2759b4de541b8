"""What `get` shows."""

import pytest

from llmop.domain import resources
from llmop.rpc import tables

NOW = 1_760_000_000.0


def row(resource: resources.Resource) -> dict[str, str]:
    names = [column.name for column in tables.columns(resource.kind)]
    return dict(zip(names, tables.cells(resource, NOW), strict=True))


def deployment(status: dict[str, object], **fields: object) -> resources.Resource:
    spec = {
        "model": {"name": "llama"},
        "runtime": "tgi",
        "resourceProfile": "a100:2",
        "replicas": 3,
    }
    return resources.Resource(
        kind="ModelDeployment",
        name="x",
        namespace="default",
        created_at=NOW - 300,
        spec=spec,
        status=status,
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", sorted(resources.KINDS))
def test_an_object_without_status_has_a_full_row(kind: str) -> None:
    cells = tables.cells(resources.Resource(kind=kind, name="x"), NOW)
    assert all(cells)
    assert len(tables.columns(kind)) == len(cells)


def test_a_deployment_shows_its_counts_and_why_it_is_not_ready() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "QueuePending"}
    status = {"readyReplicas": 1, "updatedReplicas": 2, "pendingReplicas": 2, "conditions": [ready]}
    shown = row(deployment(status))
    assert {
        "NAME": "x",
        "READY": "1/3",
        "UP-TO-DATE": "2",
        "AVAILABLE": "0",
        "PENDING": "2",
        "MODEL": "llama",
        "RUNTIME": "tgi",
        "REASON": "QueuePending",
        "AGE": "5m",
        "URL": "<none>",
        "PROFILE": "a100:2",
        "REVISION": "<none>",
    } == shown


def test_the_reason_of_a_deployment_is_the_most_final_one() -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "InvalidPartition"}
    ready = {"type": "Ready", "status": "False", "reason": "NoReplicas"}
    assert "InvalidPartition" == row(deployment({"conditions": [ready, stalled]}))["REASON"]
    assert "Terminating" == row(deployment({"conditions": [stalled]}, deleted_at=NOW))["REASON"]
    fine = [{"type": "Ready", "status": "True", "reason": "Ready"}]
    assert "<none>" == row(deployment({"conditions": fine}))["REASON"]


def test_a_replica_shows_its_job_and_when_it_ends() -> None:
    replica = resources.Resource(
        kind="Replica",
        name="x-1",
        created_at=NOW - 60,
        spec={"revision": 2, "cluster": "c", "drain": {"reason": "ScaledDown"}},
        status={
            "phase": "Draining",
            "ready": True,
            "jobId": "17",
            "node": "n1",
            "restarts": 1,
            "endsAt": "2025-10-09T09:53:20Z",
        },
    )
    shown = row(replica)
    assert ("true", "Draining", "17", "n1", "1", "60m", "ScaledDown", "60s") == tuple(
        shown[name] for name in ("READY", "PHASE", "JOB", "NODE", "RESTARTS", "ENDS", "REASON", "AGE")
    )


def test_an_event_names_its_object_and_when_it_was_seen_last() -> None:
    event = resources.Resource(
        kind="Event",
        name="e",
        spec={
            "regarding": {"kind": "Replica", "name": "x-1", "uid": "u"},
            "type": "Warning",
            "reason": "Lost",
            "message": "it is gone",
            "count": 3,
            "lastSeenAt": "2025-10-09T08:51:20.000Z",
        },
    )
    assert ["2m", "Warning", "Lost", "replica/x-1", "it is gone", "3", "e"] == tables.cells(event, NOW)
