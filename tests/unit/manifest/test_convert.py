"""Stored objects as the planner reads them, and templates as revisions keep them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmop.domain.deployment import Deployment, DeploymentSpec, SlurmOptions, Template
from llmop.domain.endpoint import QueueBounds
from llmop.domain.profile import Profile
from llmop.domain.resources import Resource
from llmop.domain.runtime import Metrics, Runtime, Warmup
from llmop.domain.site import Allowed, DriverKind, OrphanPolicy, Site
from llmop.manifest import admit, convert


def stored(kind: str, **spec: Any) -> Resource:
    return admit.admit(
        {"apiVersion": "llmop/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}, namespace=""
    )


def test_a_deployment_is_read_in_seconds_and_mebibytes() -> None:
    resource = stored(
        "ModelDeployment",
        model={"uri": "file:///models/a.gguf", "name": "org/a"},
        runtime="tgi",
        image="/i.sif",
        args=["a", ""],
        env={"A": ""},
        envFrom=[{"secretFile": "hf.env"}],
        resourceProfile="a100:2",
        resources={"cpus": 8, "memory": "64Gi"},
        cluster="c",
        slurm={
            "partition": "p",
            "timeLimit": "1-00:00:00",
            "timeMin": "90m",
            "exclude": ["n1"],
            "extraArgs": ["--exclusive"],
        },
        replicas=3,
        rolloutStrategy={"maxSurge": 0, "maxUnavailable": 2},
        progressDeadline="1h30m",
        minReady="10s",
        revisionHistoryLimit=0,
        probes={
            "startup": {"timeout": "1m"},
            "readiness": {"period": "2s"},
            "liveness": {"failureThreshold": 9},
        },
        terminationGracePeriod="0s",
        queue={
            "maxInFlight": 8,
            "maxRequests": 10,
            "maxBytes": "1Gi",
            "requestTTL": "5s",
            "noEndpointRequestTTL": "1h",
        },
    )

    assert Deployment(
        name="x",
        namespace="default",
        uid="",
        generation=0,
        resource_version=0,
        created_at=0.0,
        deleted_at=None,
        spec=DeploymentSpec(
            template=Template(
                model_uri="file:///models/a.gguf",
                model_name="org/a",
                runtime="tgi",
                image="/i.sif",
                args=("a", ""),
                env={"A": ""},
                env_files=("hf.env",),
                profile="a100",
                gpus=2,
                cpus=8,
                memory_mib=65536,
                cluster="c",
                slurm=SlurmOptions(
                    partition="p",
                    time_limit_s=86400,
                    time_min_s=5400,
                    exclude=("n1",),
                    extra_args=("--exclusive",),
                ),
                startup_timeout_s=60,
                readiness_period_s=2,
                liveness_failure_threshold=9,
                termination_grace_s=0,
            ),
            replicas=3,
            max_surge=0,
            max_unavailable=2,
            progress_deadline_s=5400,
            min_ready_s=10,
            revision_history_limit=0,
            queue=QueueBounds(
                max_requests=10, max_bytes=2**30, request_ttl_s=5, no_endpoint_request_ttl_s=3600
            ),
            max_in_flight=8,
        ),
    ) == convert.deployment(resource)


def test_without_a_profile_the_gpus_are_those_of_gres() -> None:
    counts = {
        gres: convert.deployment(
            stored("ModelDeployment", runtime="r", slurm={"gres": gres})
        ).spec.template.gpus
        for gres in ("gpu", "gpu:2", "gpu:a100", "gpu:a100:4")
    }

    assert {"gpu": 1, "gpu:2": 2, "gpu:a100": 1, "gpu:a100:4": 4} == counts


def test_an_object_of_an_older_version_gets_todays_defaults() -> None:
    old = Resource(kind="ModelDeployment", name="x", namespace="default", spec={"runtime": "tgi"})

    assert convert.deployment(stored("ModelDeployment", runtime="tgi")) == convert.deployment(old)


def test_a_template_is_the_same_however_it_is_written() -> None:
    short = stored(
        "ModelDeployment", runtime="r", probes={"startup": {"timeout": "90s"}}, resources={"memory": "1Gi"}
    )
    long = stored(
        "ModelDeployment",
        model={"uri": "", "name": "x"},
        runtime="r",
        image="",
        args=[],
        env={},
        slurm={"partition": "", "exclude": []},
        probes={"startup": {"timeout": "1m30s"}},
        resources={"memory": "1024Mi"},
        terminationGracePeriod="2m",
    )

    assert convert.template_json(short) == convert.template_json(long)
    assert {
        "model": {"name": "x"},
        "runtime": "r",
        "resources": {"memory": "1024Mi"},
        "probes": {
            "startup": {"timeout": "90s"},
            "readiness": {"period": "5s"},
            "liveness": {"failureThreshold": 3},
        },
        "terminationGracePeriod": "120s",
    } == convert.template_json(short)


def test_what_is_about_the_number_of_replicas_is_no_part_of_a_template() -> None:
    one = stored("ModelDeployment", runtime="r")
    many = stored(
        "ModelDeployment",
        runtime="r",
        replicas=9,
        rolloutStrategy={"maxSurge": 3},
        progressDeadline="1h",
        minReady="5s",
        revisionHistoryLimit=2,
    )

    assert convert.template_json(one) == convert.template_json(many)


NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=10)
TEMPLATES = st.builds(
    Template,
    model_uri=NAME.map(lambda name: f"file:///{name}") | st.just(""),
    model_name=NAME,
    runtime=NAME,
    image=NAME.map(lambda name: f"/{name}.sif") | st.just(""),
    args=st.lists(TEXT, max_size=3).map(tuple),
    env=st.dictionaries(st.sampled_from(["A", "B"]), TEXT),
    env_files=st.lists(NAME, max_size=2).map(tuple),
    profile=NAME,
    gpus=st.integers(0, 8),
    cpus=st.integers(0, 64),
    memory_mib=st.integers(0, 10**6),
    cluster=NAME | st.just(""),
    slurm=st.builds(
        SlurmOptions,
        partition=NAME | st.just(""),
        time_limit_s=st.integers(3600, 10**6),
        time_min_s=st.just(0) | st.integers(60, 3600),
        exclude=st.lists(NAME, max_size=2).map(tuple),
        extra_args=st.just(()) | st.just(("--exclusive",)),
    ),
    startup_timeout_s=st.integers(1, 10**5),
    readiness_period_s=st.integers(1, 100),
    liveness_failure_threshold=st.integers(1, 10),
    termination_grace_s=st.integers(0, 10**4),
)


@given(template=TEMPLATES)
def test_a_revision_gives_back_its_template(template: Template) -> None:
    assert template == convert.template(convert.write_template(template))


def test_a_runtime_is_read() -> None:
    resource = stored(
        "ServingRuntime",
        engine="e",
        image="/e.sif",
        command=["run", "{port}"],
        args=["--x"],
        env={"A": "{scratch}"},
        ports=["http", "metrics"],
        protocols=["tgi"],
        probes={
            "health": {"path": "/h", "timeout": "2s"},
            "warmup": {"method": "GET", "path": "/w", "body": {"a": None}},
        },
        metrics={"path": "/m", "queueDepth": "q", "kvCacheUsage": "e:used / e:all"},
        stop={"signal": "INT", "timeout": "1m"},
        modelRequired=False,
        supportedModelFormats=["gguf"],
        servedName="tgi",
        usageInStream=True,
        maxInFlight=16,
        apiKeyEnv="KEY",
        gpu="nvidia",
        container="apptainer",
        binds=["{sharedDir}/x"],
    )

    assert Runtime(
        name="x",
        engine="e",
        command=("run", "{port}"),
        args=("--x",),
        env={"A": "{scratch}"},
        image="/e.sif",
        container="apptainer",
        gpu="nvidia",
        ports=("http", "metrics"),
        binds=("{sharedDir}/x",),
        protocols=("tgi",),
        model_required=False,
        model_formats=("gguf",),
        served_name="tgi",
        usage_in_stream=True,
        max_in_flight=16,
        api_key_env="KEY",
        health_path="/h",
        health_timeout_s=2,
        warmup=Warmup(path="/w", body={"a": None}, method="GET"),
        metrics=Metrics(path="/m", queue_depth="q", kv_cache_usage="e:used / e:all"),
        stop_signal="INT",
        stop_timeout_s=60,
    ) == convert.runtime(resource)


def test_a_profile_is_read_and_without_gpus_its_amounts_are_per_replica() -> None:
    gpu = stored(
        "ResourceProfile",
        cluster="c",
        partition="p",
        account="a",
        qos="q",
        gres="gpu:a100",
        constraint="f",
        cpusPerGPU=8,
        memoryPerGPU="1Gi",
        gpusPerNode=4,
        timeLimit="24:00:00",
        timeMin="4h",
        maxReplicas=5,
    )
    cpu = stored("ResourceProfile", cpus=2, memory="512Mi")

    assert Profile(
        name="x",
        cluster="c",
        partition="p",
        account="a",
        qos="q",
        gres="gpu:a100",
        constraint="f",
        cpus_per_gpu=8,
        memory_mib_per_gpu=1024,
        gpus_per_node=4,
        time_limit_s=86400,
        time_min_s=14400,
        max_replicas=5,
    ) == convert.profile(gpu)
    assert Profile(name="x", cpus_per_gpu=2, memory_mib_per_gpu=512) == convert.profile(cpu)


def test_a_cluster_is_read() -> None:
    resource = stored(
        "Cluster",
        driver="slurm",
        sharedDir="/shared/",
        python="/usr/bin/python3.6",
        prelude=["module load apptainer"],
        allowed={
            "images": [],
            "modelRoots": ["/models"],
            "secretRoot": "/secrets/",
            "args": ["--x"],
            "extraArgs": ["--exclusive"],
        },
        submitRate={"perSecond": 0.5, "burst": 3},
        submitTimeout="2s",
        settleTime="1s",
        pollInterval={"min": "200ms", "max": "1s"},
        orphanPolicy="Cancel",
        orphanGracePeriod="10s",
    )

    assert Site(
        name="x",
        driver=DriverKind.SLURM,
        shared_dir="/shared",
        python="/usr/bin/python3.6",
        prelude=("module load apptainer",),
        allowed=Allowed(
            images=(),
            model_roots=("/models",),
            secret_root="/secrets",
            args=("--x",),
            extra_args=("--exclusive",),
        ),
        submit_rate=0.5,
        submit_burst=3,
        submit_timeout_s=2.0,
        settle_s=1.0,
        poll_min_s=0.2,
        poll_max_s=1.0,
        orphan_policy=OrphanPolicy.CANCEL,
        orphan_grace_s=10.0,
    ) == convert.site(resource)
    assert Site(name="x", driver=DriverKind.LOCAL, shared_dir="/s") == convert.site(
        stored("Cluster", driver="local", sharedDir="/s")
    )
