"""Cluster: where replicas run, and what the admin allows there."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields


def _python(value: str) -> str:
    if value != "python3" and (problem := fields.path_problem(value)):
        raise fields.invalid(f"{problem}, or write python3")
    return value


def _where(value: str) -> str:
    if value == "Job":
        raise fields.unsupported(f"{value!r} is not supported in this version; write Login")
    if value != "Login":
        raise fields.invalid(f"{value!r} is not allowed here; write Login")
    return value


class Allowed(fields.Fields):
    """What manifests may name here. A field that is left out allows anything, an empty list nothing."""

    images: list[fields.ImagePrefix] | None = Field(
        default=None,
        description="Images that may be used: paths, directories of images, and beginnings of references such as "
        "`docker://ghcr.io/organisation` (`docker://` alone: all).",
    )
    model_roots: list[fields.ModelPrefix] | None = Field(
        default=None,
        description="Directories below which models may lie, and beginnings of references such as `hf://organisation` "
        "(`hf://` alone: all).",
    )
    secret_root: fields.AbsolutePath | None = Field(
        default=None,
        description="Directory of the files that envFrom may name. Without it envFrom is refused.",
    )
    args: list[fields.Flag] | None = Field(
        default=None, description="Flags that deployments may add to an engine's command."
    )
    extra_args: list[fields.Flag] = Field(
        default_factory=list,
        description="Options of sbatch that may stand in slurm.extraArgs. Left out: none.",
    )


class SubmitRate(fields.Fields):
    """How fast jobs are submitted."""

    per_second: float = Field(
        default=1.0, ge=0.001, le=1000, description="Submissions per second in the long run."
    )
    burst: int = Field(default=10, ge=1, le=10_000, description="Submissions that may come at once.")


class PollInterval(fields.Fields):
    """How often Slurm is asked for all jobs, in one call for everybody."""

    min: fields.FineDuration = Field(default="5s", description="The shortest time between two calls.")
    max: fields.FineDuration = Field(default="60s", description="The longest time between two calls.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if quantity.seconds(self.min) > quantity.seconds(self.max):
            raise fields.invalid_below(("min", f"{self.min!r} is longer than max {self.max!r}; shorten it"))
        return self


class Staging(fields.Fields):
    """How images and weights are brought to the shared directory."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"partition", "cpus"})

    where: Annotated[str, AfterValidator(_where)] = Field(
        default="Login", description="Login: a process beside the controller does it."
    )
    hub: fields.HttpAddress = Field(
        default="https://huggingface.co", description="Where hf:// models are asked for: a hub or its mirror."
    )
    insecure_registries: list[fields.Registry] | None = Field(
        default=None,
        max_length=100,
        description="Registries that are asked over plain HTTP, like localhost:5000.",
    )
    tmp_dir: fields.AbsolutePath | None = Field(
        default=None,
        description="Directory on a local disk where images are unpacked while they are made; left out: in the shared directory.",
    )


class ClusterSpec(fields.Fields):
    """Where replicas run."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"address"})

    driver: Literal["slurm", "local"] = Field(
        description="slurm: jobs of a Slurm cluster; local: processes of this machine."
    )
    shared_dir: fields.BindablePath = Field(
        description="Absolute path of a directory that the controller and all nodes see; llmop keeps its files there."
    )
    python: Annotated[str, AfterValidator(_python)] = Field(
        default="python3", description="Python on the nodes, 3.6 or newer: python3, or an absolute path."
    )
    prelude: list[fields.OneLine] | None = Field(
        default=None,
        description="Lines of shell that every job runs first, such as `module load apptainer`. Trusted text.",
    )
    allowed: Allowed = Field(default_factory=Allowed, description="What manifests may name here.")
    staging: Staging = Field(
        default_factory=Staging, description="How images and weights are brought to the shared directory."
    )
    submit_rate: SubmitRate = Field(default_factory=SubmitRate, description="How fast jobs are submitted.")
    submit_timeout: fields.FineDuration = Field(
        default="180s",
        description="How long sbatch may take before its outcome counts as unknown; it tries for 120 s by itself.",
    )
    settle_time: fields.FineDuration = Field(
        default="60s",
        description="How long a submission with unknown outcome may take to appear in the queue.",
    )
    poll_interval: PollInterval = Field(
        default_factory=PollInterval, description="How often Slurm is asked for all jobs."
    )
    orphan_policy: Literal["Report", "Cancel"] = Field(
        default="Report", description="What happens to a job of this installation that belongs to no replica."
    )
    orphan_grace_period: fields.FineDuration = Field(
        default="300s", description="How long such a job is left alone first."
    )
