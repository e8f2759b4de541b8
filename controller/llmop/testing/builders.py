"""Manifests and planner inputs for tests: valid as they are, each field replaceable."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from llmop.domain import deployment, ids, job, profile, replica, runtime, site
from llmop.planner import values

INSTALLATION = "k3v9qd"
NOW = 1_760_000_000.0
CLUSTER = "main"
DEPLOYMENT = "chat"


def manifest(kind: str, name: str, spec: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "llmop/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}


def cluster_manifest(**spec: Any) -> dict[str, Any]:
    return manifest("Cluster", CLUSTER, {"driver": "slurm", "sharedDir": "/shared/llmop", **spec})


def runtime_manifest() -> dict[str, Any]:
    spec = {
        "engine": "toy",
        "command": ["toy", "--port", "{port}"],
        "modelRequired": False,
        "metrics": {"queueDepth": "toy:waiting", "kvCacheUsage": "toy:cache"},
    }
    return manifest("ServingRuntime", "toy", spec)


def profile_manifest(**spec: Any) -> dict[str, Any]:
    return manifest("ResourceProfile", "small", {"cluster": CLUSTER, **spec})


def deployment_manifest(name: str = DEPLOYMENT, **spec: Any) -> dict[str, Any]:
    wanted = {"model": {"name": name}, "runtime": "toy", "resourceProfile": "small", **spec}
    return manifest("ModelDeployment", name, wanted, namespace="default")


def template(**changes: Any) -> deployment.Template:
    base = deployment.Template(
        model_uri="", model_name=DEPLOYMENT, runtime="toy", profile="small", cluster=CLUSTER
    )
    return dataclasses.replace(base, **changes)


def where(**changes: Any) -> site.Site:
    base = site.Site(name=CLUSTER, driver=site.DriverKind.SLURM, shared_dir="/shared/llmop")
    return dataclasses.replace(base, **changes)


def engine() -> runtime.Runtime:
    return runtime.Runtime(name="toy", engine="toy", command=("toy", "--port", "{port}"))


def small() -> profile.Profile:
    return profile.Profile(name="small", cluster=CLUSTER)


def submission(name: str, uid: str, **changes: Any) -> replica.Submission:
    """A submission whose job is known; `job_id` and `state` say otherwise."""
    base = replica.Submission(
        state=replica.SubmissionState.SUBMITTED,
        job_name=ids.job_name(INSTALLATION, name, uid),
        job_id="1",
        intent_at=NOW - 600,
        attempt_at=NOW - 600,
        resolved_at=NOW - 600,
        claimed_restart=0,
    )
    return dataclasses.replace(base, **changes)


def uid_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def a_replica(
    number: int = 1, *, submission_changes: Mapping[str, Any] | None = None, **changes: Any
) -> replica.Replica:
    """Replica `chat-r<number>` whose job has the id `number`; it runs and is ready unless `changes` say otherwise."""
    name, uid = f"{DEPLOYMENT}-r{number}", uid_of(number)
    base = replica.Replica(
        name=name,
        namespace="default",
        uid=uid,
        deployment=DEPLOYMENT,
        deployment_uid="d",
        revision=1,
        cluster=CLUSTER,
        created_at=NOW - 600,
        submission=submission(name, uid, **{"job_id": str(number), **(submission_changes or {})}),
        started_at=NOW - 500,
        ready_at=NOW - 400,
        host=f"h{number}",
        port=8000,
        node=f"n{number}",
        was_running=True,
        phase=replica.Phase.READY,
    )
    return dataclasses.replace(base, **changes)


def a_job(of: replica.Replica, state: job.JobState = job.JobState.RUNNING, **changes: Any) -> job.ObservedJob:
    """The job of a replica as Slurm shows it."""
    base = job.ObservedJob(
        job_id=of.submission.job_id or "1",
        name=of.submission.job_name,
        state=state,
        state_text=state.value,
        node=of.node,
        submitted_at=NOW - 600,
        started_at=NOW - 500 if state is not job.JobState.PENDING else None,
        pending=job.PendingClass.NORMAL if state is job.JobState.PENDING else None,
    )
    return dataclasses.replace(base, **changes)


def a_heartbeat(
    of: replica.Replica, phase: replica.AgentPhase = replica.AgentPhase.READY, **changes: Any
) -> replica.Heartbeat:
    base = replica.Heartbeat(
        replica_uid=of.uid,
        job_id=of.submission.job_id or "1",
        restart_count=0,
        phase=phase,
        received_at=NOW - 1,
        node=of.node,
        host=of.host or "h",
        port=of.port or 8000,
    )
    return dataclasses.replace(base, **changes)


def a_view(jobs: Sequence[job.ObservedJob] = (), **changes: Any) -> values.ClusterView:
    """A complete snapshot, taken just now."""
    by_name: dict[str, tuple[job.ObservedJob, ...]] = {}
    for each in jobs:
        by_name[each.name] = (*by_name.get(each.name, ()), each)
    base = values.ClusterView(site=where(), snapshot_started_at=NOW - 1, snapshot_taken_at=NOW, jobs=by_name)
    return dataclasses.replace(base, **changes)


def observed(
    jobs: Sequence[job.ObservedJob] = (), heartbeats: Sequence[replica.Heartbeat] = (), **changes: Any
) -> values.Observed:
    """What is seen at NOW; every replica that was heard of has an API key."""
    view = changes.pop("view", None) or a_view(jobs)
    base = values.Observed(
        now=NOW,
        controller_since=NOW - 3600,
        installation=INSTALLATION,
        clusters={CLUSTER: view},
        heartbeats={beat.replica_uid: beat for beat in heartbeats},
        exits={},
        api_keys={uid_of(number): f"key-{number}" for number in range(50)},
    )
    return dataclasses.replace(base, **changes)


def desired(replicas: Sequence[replica.Replica] = (), **changes: Any) -> values.Desired:
    """One replica of revision 1 is wanted; `spec` fields may be given by name."""
    fields = {field.name for field in dataclasses.fields(deployment.DeploymentSpec)}
    spec = deployment.DeploymentSpec(
        **{"template": template(), **{name: changes.pop(name) for name in list(changes) if name in fields}}
    )
    newest = changes.pop("revision", 1)
    base = values.Desired(
        deployment=deployment.Deployment(
            name=DEPLOYMENT,
            namespace="default",
            uid="d",
            generation=1,
            resource_version=1,
            created_at=NOW - 3600,
            deleted_at=changes.pop("deleted_at", None),
            spec=spec,
        ),
        template_hash=f"hash-{newest}",
        revisions=tuple(
            values.Revision(
                number=number,
                hash=f"hash-{number}",
                template=template(),
                name=f"{DEPLOYMENT}-{number}",
                uid=f"rev-{number}",
            )
            for number in range(1, newest + 1)
        ),
        replicas=tuple(replicas),
        record=values.Record(),
        runtime=engine(),
    )
    return dataclasses.replace(base, **changes)


def names() -> values.Names:
    """New names in order: suffixes new1, new2, ..."""
    counter = itertools.count(1)

    def fresh() -> values.FreshName:
        number = next(counter)
        return values.FreshName(suffix=f"new{number}", uid=uid_of(1000 + number))

    return fresh
