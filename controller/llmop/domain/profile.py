"""A ResourceProfile: what a short name such as "a100" means on a cluster."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """`gres` is the name without a count (`gpu:a100`); "" means that a replica gets no GPU and the profile takes no count."""

    name: str
    cluster: str = "default"
    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""
    constraint: str = ""
    cpus_per_gpu: int = 0  # without GPUs: CPUs per replica
    memory_mib_per_gpu: int = 0  # without GPUs: memory per replica
    gpus_per_node: int = 0
    time_limit_s: int = 0
    time_min_s: int = 0
    max_replicas: int = 0  # 0 = no bound
    gpu_vendor: str = ""  # nvidia or amd; "" = what the runtime is made for
