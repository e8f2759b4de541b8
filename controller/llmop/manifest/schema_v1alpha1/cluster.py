"""Cluster: where replicas run, and what the admin allows there."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields


def _python(value: str) -> str:
    if value != "python3" and (problem := fields.path_problem(value)):
        raise fields.invalid(f"{problem}, or write python3")
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

    where: Literal["Login", "Job"] = Field(
        default="Login",
        description="Login: a process beside the controller fetches them and makes the images. Job: a Slurm job does, one for each; "
        "what a tag or a branch is now the controller still asks itself.",
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
    python: fields.AbsolutePath | None = Field(
        default=None,
        description="With where: Job. Python on the nodes that has llmop installed; left out: the controller's own, which the nodes "
        "must see under the same path.",
    )
    partition: fields.SlurmList | None = Field(
        default=None, description="With where: Job. Partition, or several joined by commas."
    )
    account: fields.SlurmWord | None = Field(
        default=None, description="With where: Job. Account that is charged."
    )
    qos: fields.SlurmWord | None = Field(default=None, description="With where: Job. Quality of service.")
    cpus: int | None = Field(
        default=None, ge=1, le=4096, description="With where: Job. CPUs of the job; 1 when left out."
    )
    memory: fields.Memory | None = Field(
        default=None, description="With where: Job. Memory of the job, like 16Gi."
    )
    time_limit: fields.SlurmDuration | None = Field(
        default=None,
        description="With where: Job. Walltime of the job, like 4h. What a job could not finish the next one takes up.",
    )

    @model_validator(mode="after")
    def _has_a_job(self) -> Self:
        of_jobs = {
            "python": self.python,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "cpus": self.cpus,
            "memory": self.memory,
            "timeLimit": self.time_limit,
        }
        given = [name for name, value in of_jobs.items() if value is not None]
        if given and self.where != "Job":
            raise fields.invalid_below(*((name, "is for where: Job; remove it") for name in given))
        return self


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

    @model_validator(mode="after")
    def _has_slurm_for_jobs(self) -> Self:
        if self.driver != "slurm" and self.staging.where == "Job":
            raise fields.invalid_below(
                ("staging.where", "'Job' is for clusters with driver: slurm; write Login")
            )
        return self
