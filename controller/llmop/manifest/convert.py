"""Stored objects to the planner's values. Everything that `admit` let through converts; what another version let through raises
errors.Invalid where this one refuses it (`stored` reads that all the same).

Objects that were stored by an older version get the defaults of fields that it did not know.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from llmop.domain import attributes, endpoint, resources, scaling, staging, times
from llmop.domain import client as clients
from llmop.domain import deployment as deployments
from llmop.domain import profile as profiles
from llmop.domain import runtime as runtimes
from llmop.domain import site as sites
from llmop.domain import tribunal as tribunals
from llmop.domain.assistant import Assistant
from llmop.manifest import admit, quantity
from llmop.manifest.schema_v1alpha1.apikey import APIKeySpec
from llmop.manifest.schema_v1alpha1.assistant import AssistantSpec
from llmop.manifest.schema_v1alpha1.cluster import ClusterSpec
from llmop.manifest.schema_v1alpha1.deployment import (
    ModelDeploymentSpec,
    Slurm,
    gres_count,
    split_profile,
)
from llmop.manifest.schema_v1alpha1.fields import Fields
from llmop.manifest.schema_v1alpha1.profile import ResourceProfileSpec
from llmop.manifest.schema_v1alpha1.runtime import ServingRuntimeSpec
from llmop.manifest.schema_v1alpha1.scaling import ScaleDown, ScaleUp, Scaling
from llmop.manifest.schema_v1alpha1.tribunal import Member, TribunalSpec

_Spec = TypeVar("_Spec", bound=Fields)


def deployment(resource: resources.Resource) -> deployments.Deployment:
    """The ModelDeployment that `resource` stores."""
    spec = _read(ModelDeploymentSpec, resource)
    return deployments.Deployment(
        name=resource.name,
        namespace=resource.namespace,
        uid=resource.uid,
        generation=resource.generation,
        resource_version=resource.resource_version,
        created_at=resource.created_at,
        deleted_at=resource.deleted_at,
        spec=deployments.DeploymentSpec(
            template=_template(spec, resource.name),
            replicas=spec.replicas if spec.scaling is None else spec.scaling.min_replicas,
            scaling=_scaling(spec.scaling) if spec.scaling is not None else None,
            max_surge=spec.rollout_strategy.max_surge,
            max_unavailable=spec.rollout_strategy.max_unavailable,
            progress_deadline_s=quantity.whole_seconds(spec.progress_deadline),
            min_ready_s=quantity.whole_seconds(spec.min_ready),
            revision_history_limit=spec.revision_history_limit,
            paused=bool(spec.paused),
            queue=endpoint.QueueBounds(
                max_requests=spec.queue.max_requests,
                max_bytes=quantity.mebibytes(spec.queue.max_bytes) * 1024 * 1024,
                request_ttl_s=quantity.whole_seconds(spec.queue.request_ttl),
                no_endpoint_request_ttl_s=quantity.whole_seconds(spec.queue.no_endpoint_request_ttl),
            ),
            max_in_flight=spec.queue.max_in_flight or 0,
        ),
    )


def _scaling(spec: Scaling) -> scaling.Scaling:
    return scaling.Scaling(
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        metrics=tuple(
            scaling.Metric(type=scaling.MetricType(each.type), target=each.target) for each in spec.metrics
        ),
        stable_s=quantity.whole_seconds(spec.stable_window),
        panic_s=quantity.whole_seconds(spec.panic_window),
        panic_percent=spec.panic_threshold_percent,
        tolerance_percent=spec.tolerance_percent,
        scale_to_zero_after_s=quantity.whole_seconds(spec.scale_to_zero_after),
        up=_direction(spec.behavior.scale_up),
        down=_direction(spec.behavior.scale_down),
        schedules=tuple(
            scaling.Schedule(
                name=each.name,
                timezone=each.timezone,
                start=each.start,
                end=each.end,
                min_replicas=each.min_replicas,
            )
            for each in spec.schedules or ()
        ),
    )


def _direction(spec: ScaleUp | ScaleDown) -> scaling.Direction:
    return scaling.Direction(
        stabilization_s=None
        if spec.stabilization_window is None
        else quantity.whole_seconds(spec.stabilization_window),
        policies=tuple(
            scaling.Policy(
                type=scaling.PolicyType(each.type),
                value=each.value,
                period_s=quantity.whole_seconds(each.period),
            )
            for each in spec.policies or ()
        ),
        select=scaling.Select(spec.select_policy),
    )


def template(data: Mapping[str, Any]) -> deployments.Template:
    """The Template that `template_json` wrote. Raises errors.Invalid."""
    spec = admit.read(resources.MODEL_DEPLOYMENT, "", data)
    assert isinstance(spec, ModelDeploymentSpec)
    return _template(spec, "")


def template_json(resource: resources.Resource) -> dict[str, Any]:
    """What makes a revision of the ModelDeployment `resource`, as JSON in manifest words.

    Two deployments whose replicas are made the same way give the same JSON, however they are written: durations and
    amounts have one form, and what is empty is left out.
    """
    return write_template(deployment(resource).spec.template)


def write_template(value: deployments.Template) -> dict[str, Any]:
    """The JSON that `template` reads."""
    slurm = value.slurm
    profile = f"{value.profile}:{value.gpus}" if value.profile and value.gpus else value.profile
    written: dict[str, Any] = {
        "model": {
            "uri": value.model_uri,
            "revision": value.model_revision,
            "name": value.model_name,
            "maxTokens": value.max_tokens or None,
        },
        "runtime": value.runtime,
        "image": value.image,
        "args": list(value.args),
        "env": dict(sorted(value.env.items())),
        "envFrom": [{"secretFile": path} for path in value.env_files],
        "resourceProfile": profile,
        "parallelism": {
            "tensor": value.tensor or None,
            "pipeline": value.pipeline if value.pipeline > 1 else None,
        },
        "resources": {
            "cpus": value.cpus or None,
            "memory": quantity.write_mebibytes(value.memory_mib) if value.memory_mib else "",
        },
        "cluster": value.cluster,
        "slurm": {
            "partition": slurm.partition,
            "account": slurm.account,
            "qos": slurm.qos,
            "gres": slurm.gres,
            "timeLimit": quantity.write_seconds(slurm.time_limit_s) if slurm.time_limit_s else "",
            "timeMin": quantity.write_seconds(slurm.time_min_s) if slurm.time_min_s else "",
            "constraint": slurm.constraint,
            "reservation": slurm.reservation,
            "exclude": list(slurm.exclude),
            "nodelist": list(slurm.nodelist),
            "extraArgs": list(slurm.extra_args),
        },
        "probes": {
            "startup": {"timeout": quantity.write_seconds(value.startup_timeout_s)},
            "readiness": {"period": quantity.write_seconds(value.readiness_period_s)},
            "liveness": {"failureThreshold": value.liveness_failure_threshold},
        },
        "terminationGracePeriod": quantity.write_seconds(value.termination_grace_s),
        "restartedAt": value.restarted_at,
    }
    result = _without_empty(written)
    if value.env:  # an empty value of a variable is a value
        result["env"] = written["env"]
    if value.args:
        result["args"] = written["args"]
    return result


def pins(resource: resources.Resource) -> tuple[staging.Pin, ...]:
    """What the references of the Revision that `resource` stores are pinned to."""
    return tuple(
        staging.Pin(reference=str(each["reference"]), digest=str(each["digest"]))
        for each in resource.status.get("artifacts", ())
    )


def write_pins(values: Sequence[staging.Pin]) -> dict[str, Any]:
    """The status of a Revision, which `pins` reads."""
    return {"artifacts": [{"reference": each.reference, "digest": each.digest} for each in values]}


def runtime(resource: resources.Resource) -> runtimes.Runtime:
    """The ServingRuntime that `resource` stores."""
    spec = _read(ServingRuntimeSpec, resource)
    warmup = spec.probes.warmup
    return runtimes.Runtime(
        name=resource.name,
        engine=spec.engine,
        command=tuple(spec.command),
        args=tuple(spec.args or ()),
        env=dict(spec.env or {}),
        image=spec.image or "",
        container=spec.container,
        gpu=spec.gpu,
        ports=tuple(spec.ports),
        binds=tuple(spec.binds or ()),
        protocols=tuple(spec.protocols),
        model_required=spec.model_required,
        model_formats=tuple(spec.supported_model_formats or ()),
        served_name=spec.served_name or "",
        usage_in_stream=spec.usage_in_stream,
        max_in_flight=spec.max_in_flight or 0,
        api_key_env=spec.api_key_env or "",
        refused_args=dict(spec.refused_args or {}),
        health_path=spec.probes.health.path,
        health_timeout_s=quantity.whole_seconds(spec.probes.health.timeout),
        warmup=None
        if warmup is None
        else runtimes.Warmup(path=warmup.path, body=warmup.body, method=warmup.method),
        metrics=None
        if spec.metrics is None
        else runtimes.Metrics(
            path=spec.metrics.path,
            queue_depth=spec.metrics.queue_depth or "",
            running=spec.metrics.running or "",
            kv_cache_usage=spec.metrics.kv_cache_usage or "",
        ),
        stop_signal=spec.stop.signal,
        stop_timeout_s=quantity.whole_seconds(spec.stop.timeout),
    )


def profile(resource: resources.Resource) -> profiles.Profile:
    """The ResourceProfile that `resource` stores."""
    spec = _read(ResourceProfileSpec, resource)
    return profiles.Profile(
        name=resource.name,
        cluster=spec.cluster,
        partition=spec.partition or "",
        account=spec.account or "",
        qos=spec.qos or "",
        gres=spec.gres or "",
        constraint=spec.constraint or "",
        cpus_per_gpu=spec.cpus_per_gpu or spec.cpus or 0,
        memory_mib_per_gpu=_mebibytes(spec.memory_per_gpu or spec.memory),
        gpus_per_node=spec.gpus_per_node or 0,
        time_limit_s=_slurm_seconds(spec.time_limit),
        time_min_s=_slurm_seconds(spec.time_min),
        max_replicas=spec.max_replicas or 0,
        gpu_vendor=spec.gpu_vendor or "",
    )


def site(resource: resources.Resource) -> sites.Site:
    """The Cluster that `resource` stores."""
    spec = _read(ClusterSpec, resource)
    return sites.Site(
        name=resource.name,
        driver=sites.DriverKind(spec.driver),
        shared_dir=spec.shared_dir.rstrip("/") or "/",
        python=spec.python,
        prelude=tuple(spec.prelude or ()),
        allowed=sites.Allowed(
            images=_tuple(spec.allowed.images),
            model_roots=_tuple(spec.allowed.model_roots),
            secret_root=(spec.allowed.secret_root or "").rstrip("/"),
            args=_tuple(spec.allowed.args),
            extra_args=tuple(spec.allowed.extra_args),
        ),
        staging=sites.Staging(
            where=sites.StagingPlace(spec.staging.where),
            hub=spec.staging.hub,
            insecure_registries=tuple(spec.staging.insecure_registries or ()),
            tmp_dir=(spec.staging.tmp_dir or "").rstrip("/"),
            python=spec.staging.python or "",
            partition=spec.staging.partition or "",
            account=spec.staging.account or "",
            qos=spec.staging.qos or "",
            cpus=spec.staging.cpus or 1,
            memory_mib=_mebibytes(spec.staging.memory),
            time_limit_s=_slurm_seconds(spec.staging.time_limit),
        ),
        submit_rate=spec.submit_rate.per_second,
        submit_burst=spec.submit_rate.burst,
        submit_timeout_s=quantity.seconds(spec.submit_timeout),
        settle_s=quantity.seconds(spec.settle_time),
        poll_min_s=quantity.seconds(spec.poll_interval.min),
        poll_max_s=quantity.seconds(spec.poll_interval.max),
        orphan_policy=sites.OrphanPolicy(spec.orphan_policy),
        orphan_grace_s=quantity.seconds(spec.orphan_grace_period),
    )


def client_key(resource: resources.Resource) -> clients.ClientKey:
    """The APIKey that `resource` stores."""
    spec = _read(APIKeySpec, resource)
    limits = spec.limits
    return clients.ClientKey(
        name=f"{resource.namespace}/{resource.name}",
        digest=spec.key_hash.removeprefix("sha256:"),
        models=tuple(spec.models or ()),
        priority=clients.Priority(spec.priority),
        limits=clients.Limits(
            requests_per_minute=limits.requests_per_minute or 0,
            tokens_per_minute=limits.tokens_per_minute or 0,
            parallel_requests=limits.parallel_requests or 0,
        )
        if limits is not None
        else clients.Limits(),
        shadow=spec.shadow,
        operations=spec.operations,
        expires_at=times.from_rfc3339(spec.expires_at) if spec.expires_at else None,
    )


def tribunal(resource: resources.Resource) -> tribunals.Tribunal:
    """The Tribunal that `resource` stores."""
    spec = _read(TribunalSpec, resource)
    return tribunals.Tribunal(
        name=resource.name,
        namespace=resource.namespace,
        drafters=tuple(
            tribunals.Drafter(
                model=each.model, temperature=each.temperature, copies=each.n, weight=each.weight
            )
            for each in spec.drafters
        ),
        critics=tuple(_member(each) for each in spec.critics),
        judge=_member(spec.judge),
        rounds=spec.rounds,
        min_successful=spec.min_successful,
        agreement=spec.agreement if spec.early_stop else None,
        round_timeout_s=quantity.seconds(spec.round_timeout),
        timeout_s=quantity.seconds(spec.timeout),
        max_tokens=spec.max_tokens,
        round_max_tokens=spec.round_max_tokens or 0,
        answer_tokens=spec.answer_tokens,
        prompts=tribunals.Prompts(
            critique=spec.prompts.critique or "",
            refine=spec.prompts.refine or "",
            judge=spec.prompts.judge or "",
        ),
        shows_progress=spec.stream == "Progress",
        falls_back=spec.on_error == "BestDraft",
    )


def assistant(resource: resources.Resource) -> Assistant:
    """The Assistant that `resource` stores."""
    spec = _read(AssistantSpec, resource)
    return Assistant(
        name=resource.name,
        namespace=resource.namespace,
        model=spec.model,
        vector_stores=tuple(dict.fromkeys(spec.vector_stores)),
        instructions=spec.instructions or "",
        top_k=spec.top_k,
        min_score=spec.min_score,
        not_found=spec.not_found or "",
        filters=None if spec.filters is None else attributes.read(spec.filters),
    )


def _read(model: type[_Spec], resource: resources.Resource) -> _Spec:
    spec = admit.read(resource.kind, resource.name, resource.spec)
    assert isinstance(spec, model)
    return spec


def _member(spec: Member) -> tribunals.Member:
    return tribunals.Member(model=spec.model, temperature=spec.temperature)


def _template(spec: ModelDeploymentSpec, default_name: str) -> deployments.Template:
    slurm = spec.slurm or Slurm.model_construct()
    profile, gpus = split_profile(spec.resource_profile) if spec.resource_profile else ("", 0)
    if not profile and slurm.gres:
        gpus = gres_count(slurm.gres) or 1  # Slurm's own default
    return deployments.Template(
        model_uri=spec.model.uri or "",
        model_revision=spec.model.revision or "",
        model_name=spec.model.name or default_name,
        max_tokens=spec.model.max_tokens or 0,
        runtime=spec.runtime,
        image=spec.image or "",
        args=tuple(spec.args or ()),
        env=dict(spec.env or {}),
        env_files=tuple(source.secret_file for source in spec.env_from or ()),
        profile=profile,
        gpus=gpus,
        tensor=(spec.parallelism.tensor or 0) if spec.parallelism else 0,
        pipeline=spec.parallelism.pipeline if spec.parallelism else 1,
        cpus=(spec.resources.cpus or 0) if spec.resources else 0,
        memory_mib=_mebibytes(spec.resources.memory) if spec.resources else 0,
        cluster=spec.cluster or "",
        slurm=deployments.SlurmOptions(
            partition=slurm.partition or "",
            account=slurm.account or "",
            qos=slurm.qos or "",
            gres=slurm.gres or "",
            time_limit_s=_slurm_seconds(slurm.time_limit),
            time_min_s=_slurm_seconds(slurm.time_min),
            constraint=slurm.constraint or "",
            reservation=slurm.reservation or "",
            exclude=tuple(slurm.exclude or ()),
            nodelist=tuple(slurm.nodelist or ()),
            extra_args=tuple(slurm.extra_args or ()),
        ),
        startup_timeout_s=quantity.whole_seconds(spec.probes.startup.timeout),
        readiness_period_s=quantity.whole_seconds(spec.probes.readiness.period),
        liveness_failure_threshold=spec.probes.liveness.failure_threshold,
        termination_grace_s=quantity.whole_seconds(spec.termination_grace_period),
        restarted_at=spec.restarted_at or "",
    )


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _mebibytes(text: str | None) -> int:
    return quantity.mebibytes(text) if text else 0


def _slurm_seconds(text: str | None) -> int:
    return quantity.whole_seconds(text, slurm=True) if text else 0


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_empty(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in ("", None, [], {})}


# How the kinds of models without replicas are read.
VIRTUAL: Mapping[str, Callable[[resources.Resource], tribunals.Tribunal | Assistant]] = {
    resources.TRIBUNAL: tribunal,
    resources.ASSISTANT: assistant,
}
