"""ModelDeployment: this model, this engine, this many replicas."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmop.domain import artifact
from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields
from llmop.manifest.schema_v1alpha1.scaling import Scaling

# Options that carry the identity, the script and the fences of a replica's job, and with them exactly-once.
OWN_SBATCH_FLAGS = frozenset(
    {
        "array", "begin", "chdir", "clusters", "comment", "cpus-per-task", "deadline", "dependency", "error", "export",
        "export-file", "get-user-env", "gid", "help", "hold", "ignore-pbs", "input", "job-name", "kill-on-invalid-dep",
        "mem", "no-kill", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "propagate",
        "quiet", "requeue", "signal", "test-only", "uid", "usage", "version", "wait", "wrap",
    }
)  # fmt: skip
NAMED_SBATCH_FLAGS = {
    "account": "account", "constraint": "constraint", "exclude": "exclude", "gres": "gres", "nodelist": "nodelist",
    "partition": "partition", "qos": "qos", "reservation": "reservation", "time": "timeLimit", "time-min": "timeMin",
}  # fmt: skip

_PROFILE = re.compile(
    r"(?P<name>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)(?::(?P<count>[1-9][0-9]{0,3}))?", re.ASCII
)
_EXTRA = re.compile(r"--(?P<name>[a-z][a-z0-9-]*)(=.*)?", re.ASCII)


def split_profile(value: str) -> tuple[str, int]:
    """("a100", 2) of "a100:2", ("cpu", 0) of "cpu". Raises ValueError."""
    match = _PROFILE.fullmatch(value)
    if match is None:
        raise ValueError(
            f"{value!r} is not a profile; write it like a100:2 (name:GPUs), or like cpu for one without GPUs"
        )
    return match["name"], int(match["count"] or 0)


def gres_count(value: str) -> int | None:
    """2 of "gpu:a100:2"; None where no count is written, as in "gpu:a100"."""
    last = value.rpartition(":")[2]
    return int(last) if last.isdigit() else None


def _profile(value: str) -> str:
    try:
        split_profile(value)
    except ValueError as error:
        raise fields.invalid(str(error)) from error
    return value


def _uri(value: str) -> str:
    if not value:
        return value
    if artifact.is_model_reference(value):
        try:
            artifact.parse_model(value, "")
        except ValueError as error:
            raise fields.invalid(str(error)) from error
        return value
    if not value.startswith("file://"):
        raise fields.invalid(
            f"{value!r} is not a model's address; write hf://organisation/name or file:///absolute/path"
        )
    if problem := fields.path_problem(value.removeprefix("file://")):
        raise fields.invalid(f"{value!r} is not file:///absolute/path: {problem}")
    return value


def _revision(value: str) -> str:
    if problem := artifact.revision_problem(value):
        raise fields.invalid(problem)
    return value


def _extra_arg(value: str) -> str:
    match = _EXTRA.fullmatch(value)
    if match is None or "\n" in value:
        raise fields.invalid(
            f"{value!r} is not an option of sbatch; write it like --exclusive or --licenses=fluent:1"
        )
    if (field := NAMED_SBATCH_FLAGS.get(match["name"])) is not None:
        raise fields.invalid(f"{value!r} has a field of its own; set slurm.{field} instead")
    if match["name"] in OWN_SBATCH_FLAGS:
        raise fields.invalid(f"{value!r} is set by llmop itself and cannot be changed")
    # getopt_long(3) takes the beginning of an option for it, and no option of sbatch is the beginning of one of these.
    meant = [
        flag for flag in sorted({*OWN_SBATCH_FLAGS, *NAMED_SBATCH_FLAGS}) if flag.startswith(match["name"])
    ]
    if meant:
        raise fields.invalid(
            f"{value!r} would be taken for --{meant[0]}, which cannot be set here; write the option in full"
        )
    return value


class Parallelism(fields.Fields):
    """How one replica spreads over its GPUs; tensor times pipeline is their number."""

    tensor: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="GPUs that share each layer. Default: all that pipeline leaves.",
    )
    pipeline: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Groups of layers on GPUs of their own, one behind the other, on the same node.",
    )


class ModelSource(fields.Fields):
    """Which model, and what clients call it."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"adapters", "expose"})

    uri: Annotated[str, AfterValidator(_uri)] | None = Field(
        default=None,
        description="Where the weights are: `hf://organisation/name` of a hub, or `hf://organisation/name/file.gguf` for one file "
        "of it, brought to the cluster before a replica starts; or `file:///absolute/path` of a file or a directory that all nodes "
        "see, taken verbatim. Empty for runtimes that need no model.",
    )
    revision: Annotated[str, AfterValidator(_revision)] | None = Field(
        default=None,
        description="Commit, branch or tag of an hf:// model; main when left out. Each revision of the deployment keeps the commit "
        "that it found.",
    )
    name: fields.ModelName | None = Field(
        default=None, description='What clients send as "model". Default: the name of the deployment.'
    )
    max_tokens: int | None = Field(
        default=None,
        ge=2,
        le=100_000_000,
        description="Longest prompt plus answer, in tokens. Default: what the engine reads from the model.",
    )

    @model_validator(mode="after")
    def _revision_is_of_a_hub(self) -> Self:
        if self.revision and not artifact.is_model_reference(self.uri or ""):
            raise fields.invalid_below(("revision", f"{self.revision!r} is for hf:// models; remove it"))
        return self


class EnvSource(fields.Fields):
    """A file of environment variables."""

    secret_file: fields.RelativePath = Field(
        description="Path below the cluster's secretRoot of a file with mode 0600 and lines NAME=value. It is read on the "
        "node only and never stored."
    )


class Resources(fields.Fields):
    """Amounts that stand instead of the profile's."""

    cpus: int | None = Field(default=None, ge=1, le=4096, description="CPUs per replica.")
    memory: fields.Memory | None = Field(default=None, description="Memory per replica, like 64Gi.")


class Slurm(fields.Fields):
    """Options of sbatch that stand instead of, or over, the profile's."""

    partition: fields.SlurmList | None = Field(
        default=None, description="Partition, or several joined by commas."
    )
    account: fields.SlurmWord | None = Field(default=None, description="Account that is charged.")
    qos: fields.SlurmWord | None = Field(default=None, description="Quality of service.")
    gres: fields.Gres | None = Field(
        default=None,
        description="GPUs per replica, like gpu:a100:2; without a count the profile's count is used.",
    )
    time_limit: fields.SlurmDuration | None = Field(
        default=None,
        description="Walltime of a replica's job, like 24h or 1-00:00:00; Slurm counts whole minutes.",
    )
    time_min: fields.SlurmDuration | None = Field(
        default=None,
        description="The shortest walltime that is still useful: Slurm may shorten timeLimit to it to start earlier.",
    )
    constraint: fields.Constraint | None = Field(default=None, description="Node features, like a100&ib.")
    reservation: fields.SlurmList | None = Field(default=None, description="Reservation to run in.")
    exclude: list[fields.Nodes] | None = Field(default=None, description="Nodes never to use.")
    nodelist: list[fields.Nodes] | None = Field(
        default=None, description="Nodes that the job must have, all of them."
    )
    extra_args: list[Annotated[str, AfterValidator(_extra_arg)]] | None = Field(
        default=None, description="More options of sbatch, like --exclusive; the Cluster must allow each."
    )

    @model_validator(mode="after")
    def _time_min_is_shorter(self) -> Self:
        if self.time_limit and self.time_min:
            limit = quantity.whole_seconds(self.time_limit, slurm=True)
            least = quantity.whole_seconds(self.time_min, slurm=True)
            if least > limit:
                raise fields.invalid_below(
                    (
                        "timeMin",
                        f"{self.time_min!r} is longer than timeLimit {self.time_limit!r}; shorten it",
                    )
                )
        return self


class RolloutStrategy(fields.Fields):
    """How replicas are replaced when the template changes."""

    type: Literal["RollingUpdate"] = Field(
        default="RollingUpdate", description="The only way in this version."
    )
    max_surge: int = Field(
        default=1, ge=0, le=10_000, description="Replicas that may run beyond `replicas` during a rollout."
    )
    max_unavailable: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Replicas that may be missing from `replicas` during a rollout.",
    )

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise fields.invalid(
                "maxSurge 0 and maxUnavailable 0 together leave no way to replace a replica; raise one"
            )
        return self


class StartupProbe(fields.Fields):
    timeout: fields.PositiveDuration = Field(
        default="30m",
        description="How long an engine may take to load and answer, counted from the start of its job. A job whose agent is not "
        "heard for so long, and for ten minutes at least, is cancelled and counts as failed.",
    )


class ReadinessProbe(fields.Fields):
    period: fields.PositiveDuration = Field(
        default="5s", description="Time between two health checks on the node."
    )


class LivenessProbe(fields.Fields):
    failure_threshold: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Failed health checks in a row after which the engine counts as dead.",
    )


class Probes(fields.Fields):
    """When a replica counts as started, ready and dead."""

    startup: StartupProbe = Field(default_factory=StartupProbe, description="The start of the engine.")
    readiness: ReadinessProbe = Field(
        default_factory=ReadinessProbe, description="Whether it may get requests."
    )
    liveness: LivenessProbe = Field(
        default_factory=LivenessProbe, description="Whether it has to be restarted."
    )


class Queue(fields.Fields):
    """How requests wait in a gateway that no replica can take."""

    max_in_flight: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Requests that a replica gets at a time; the others wait. Default: as the runtime says.",
    )
    max_requests: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Requests that may wait at a gateway, of each priority; 0: none waits.",
    )
    max_bytes: fields.Memory = Field(
        default="64Mi",
        description="What the requests that wait may take of a gateway's memory, of each priority, like 64Mi.",
    )
    request_ttl: fields.Duration = Field(
        default="60s",
        alias="requestTTL",
        description="How long a request waits while there are replicas and all are full; 0s: not at all. Then it is answered with 429.",
    )
    no_endpoint_request_ttl: fields.Duration = Field(
        default="10m",
        alias="noEndpointRequestTTL",
        description="How long a request waits while there is no replica; 0s: not at all. Then it is answered with 503.",
    )


class ModelDeploymentSpec(fields.Fields):
    """What is wanted."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"rollover", "loadBalancing", "trafficPolicy"})

    model: ModelSource = Field(default_factory=ModelSource, description="Which model is served.")
    runtime: fields.Name = Field(description="The ServingRuntime that starts the engine, like tgi.")
    image: fields.Image | None = Field(
        default=None,
        description="`docker://registry/name:tag`, `oras://registry/name:tag`, or the absolute path of a .sif or an unpacked image; "
        "stands instead of the runtime's image.",
    )
    args: list[str] | None = Field(
        default=None,
        max_length=1000,
        description="Arguments added at the end of the engine's command, verbatim, never through a shell.",
    )
    env: fields.Env | None = Field(
        default=None,
        description="Environment variables of the engine, verbatim. Not for secrets: they are stored.",
    )
    env_from: list[EnvSource] | None = Field(
        default=None,
        max_length=100,
        description="Files with environment variables of the engine, for secrets. HF_TOKEN, and DOCKER_USERNAME with "
        "DOCKER_PASSWORD, are also used to fetch the model and the image.",
    )
    resource_profile: Annotated[str, AfterValidator(_profile)] | None = Field(
        default=None,
        description="A ResourceProfile and the GPUs per replica, like a100:2; a profile without GPUs takes no count.",
    )
    parallelism: Parallelism | None = Field(
        default=None, description="How one replica spreads over its GPUs. Default: tensor over all of them."
    )
    resources: Resources | None = Field(default=None, description="CPUs and memory instead of the profile's.")
    cluster: fields.OptionalName | None = Field(
        default=None, description="The Cluster that runs the replicas. Default: the profile's."
    )
    slurm: Slurm | None = Field(
        default=None, description="Options of sbatch instead of, or over, the profile's."
    )
    replicas: int = Field(
        default=1, ge=0, le=10_000, description="How many replicas are wanted; not together with scaling."
    )
    scaling: Scaling | None = Field(
        default=None, description="As many replicas as the load asks for, instead of a fixed number."
    )
    rollout_strategy: RolloutStrategy = Field(
        default_factory=RolloutStrategy, description="How replicas are replaced when the template changes."
    )
    progress_deadline: fields.PositiveDuration = Field(
        default="30m",
        description="A rollout without progress for this long is reported as stalled; waiting in the queue does not count.",
    )
    min_ready: fields.Duration = Field(
        default="0s", description="How long a new replica must be ready before it counts as available."
    )
    revision_history_limit: int = Field(
        default=10, ge=0, le=1000, description="Old revisions that are kept for undo."
    )
    paused: bool | None = Field(
        default=None,
        description="true: replicas are not replaced and a changed template waits, until it is false again. Replicas that are missing, "
        "or that are wanted beyond those there are, are made of the oldest revision that still runs. See `llmctl rollout pause`.",
    )
    restarted_at: fields.Time | None = Field(
        default=None,
        description="Another time makes a new revision and replaces every replica; nothing else follows from it. "
        "Set by `llmctl rollout restart`.",
    )
    probes: Probes = Field(
        default_factory=Probes, description="When a replica counts as started, ready and dead."
    )
    termination_grace_period: fields.Duration = Field(
        default="120s",
        description="How long open requests may go on when a replica is scaled down or replaced.",
    )

    queue: Queue = Field(
        default_factory=Queue, description="How requests wait in a gateway that no replica can take."
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.scaling is not None and "replicas" in self.model_fields_set:
            message = "the number follows from scaling; remove it, or remove scaling to fix the number"
            raise fields.invalid_below(("replicas", message))
        return self

    @model_validator(mode="after")
    def _deadline_is_longer(self) -> Self:
        if quantity.seconds(self.progress_deadline) <= quantity.seconds(self.min_ready):
            message = f"{self.min_ready!r} must be shorter than progressDeadline {self.progress_deadline!r}"
            raise fields.invalid_below(("minReady", message))
        return self

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.resource_profile and self.slurm and self.slurm.gres:
            profile, count = split_profile(self.resource_profile)
            written = gres_count(self.slurm.gres)
            if written is not None and written != count:
                message = (
                    f"{self.slurm.gres!r} and resourceProfile {self.resource_profile!r} disagree about the GPUs;"
                    f" write {profile}:{written}, or the gres without a count"
                )
                raise fields.invalid_below(("slurm.gres", message))
        return self
