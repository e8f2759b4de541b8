"""ResourceProfile: what a short name such as "a100" means on a cluster."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields


class ResourceProfileSpec(fields.Fields):
    """The options of sbatch that the name stands for. Owners of models say a100:4; the admin owns what it means."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"preemptible", "cost", "defaultQueueWait", "labels"})

    cluster: fields.Name = Field(default="default", description="The Cluster on which the profile holds.")
    partition: fields.SlurmList | None = Field(
        default=None, description="Partition, or several joined by commas."
    )
    account: fields.SlurmWord | None = Field(default=None, description="Account that is charged.")
    qos: fields.SlurmWord | None = Field(default=None, description="Quality of service.")
    gres: fields.GresType | None = Field(
        default=None,
        description="Kind of GPU without a count, like gpu:a100. Empty: replicas get no GPU, and the profile takes no count.",
    )
    gpu_vendor: Literal["nvidia", "amd"] | None = Field(
        default=None,
        description="Whose GPUs they are: containers get --nv or --rocm. Left out: what the runtime is made for.",
    )
    constraint: fields.Constraint | None = Field(default=None, description="Node features, like a100&ib.")
    cpus_per_gpu: int | None = Field(
        default=None, alias="cpusPerGPU", ge=1, le=4096, description="CPUs of a replica for each of its GPUs."
    )
    memory_per_gpu: fields.Memory | None = Field(
        default=None, alias="memoryPerGPU", description="Memory of a replica for each of its GPUs, like 64Gi."
    )
    cpus: int | None = Field(
        default=None, ge=1, le=4096, description="CPUs of a replica, for a profile without GPUs."
    )
    memory: fields.Memory | None = Field(
        default=None, description="Memory of a replica, for a profile without GPUs."
    )
    gpus_per_node: int | None = Field(
        default=None,
        alias="gpusPerNode",
        ge=1,
        le=1024,
        description="GPUs in one node: the most that one replica can have.",
    )
    time_limit: fields.SlurmDuration | None = Field(
        default=None,
        description="Walltime of a replica's job, like 24h or 1-00:00:00. Empty: the partition's default.",
    )
    time_min: fields.SlurmDuration | None = Field(
        default=None,
        description="The shortest walltime that is still useful: Slurm may shorten timeLimit to it to start earlier.",
    )
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="The most replicas one deployment may have on this profile.",
    )

    @model_validator(mode="after")
    def _fits_its_gpus(self) -> Self:
        if self.gres:
            wrong = {"cpus": self.cpus, "memory": self.memory}
            fix = "write cpusPerGPU and memoryPerGPU instead"
        else:
            wrong = {
                "cpusPerGPU": self.cpus_per_gpu,
                "memoryPerGPU": self.memory_per_gpu,
                "gpusPerNode": self.gpus_per_node,
                "gpuVendor": self.gpu_vendor,
            }
            fix = "set gres, or write cpus and memory instead"
        given = [name for name, value in wrong.items() if value is not None]
        if given:
            kind = "with" if self.gres else "without"
            raise fields.invalid_below(
                *((name, f"cannot stand in a profile {kind} GPUs; {fix}") for name in given)
            )
        return self

    @model_validator(mode="after")
    def _time_min_is_shorter(self) -> Self:
        if self.time_limit and self.time_min:
            limit = quantity.whole_seconds(self.time_limit, slurm=True)
            if quantity.whole_seconds(self.time_min, slurm=True) > limit:
                raise fields.invalid_below(
                    (
                        "timeMin",
                        f"{self.time_min!r} is longer than timeLimit {self.time_limit!r}; shorten it",
                    )
                )
        return self
