"""What one replica asks Slurm for, as long options of sbatch(1)."""

import math

from llmop.domain.deployment import Template
from llmop.domain.profile import Profile


def options(template: Template, profile: Profile) -> tuple[tuple[str, str], ...]:
    """(name without dashes, value verbatim; "" = a flag) in a fixed order, deployment over profile, what is not set left out.

    Identity, script, output and fences are the driver's. GPUs are asked for with `--gres`, the form that most sites accept.
    """
    gpus = max(template.gpus, 1)
    slurm = template.slurm
    cpus = template.cpus or profile.cpus_per_gpu * gpus
    memory = template.memory_mib or profile.memory_mib_per_gpu * gpus
    least = slurm.time_min_s or profile.time_min_s
    limit = time_limit_s(template, profile)
    wanted = [
        ("partition", slurm.partition or profile.partition),
        ("account", slurm.account or profile.account),
        ("qos", slurm.qos or profile.qos),
        ("nodes", "1"),
        ("ntasks", "1"),
        ("gres", _gres(template, profile)),
        ("cpus-per-task", str(cpus) if cpus else ""),
        ("mem", f"{memory}M" if memory else ""),
        ("time", _minutes(limit) if limit else ""),
        ("time-min", _minutes(least) if least else ""),
        ("constraint", slurm.constraint or profile.constraint),
        ("reservation", slurm.reservation),
        ("exclude", ",".join(slurm.exclude)),
        ("nodelist", ",".join(slurm.nodelist)),
    ]
    extra = []
    for argument in slurm.extra_args:
        name, _, value = argument.removeprefix("--").partition("=")
        extra.append((name, value))
    return (*((name, value) for name, value in wanted if value), *extra)


def time_limit_s(template: Template, profile: Profile) -> int:
    """The walltime that a replica asks for, in seconds; 0 = the partition's default."""
    return template.slurm.time_limit_s or profile.time_limit_s


def _gres(template: Template, profile: Profile) -> str:
    """`gpu:a100:2`. A count that the deployment wrote itself stays as it is."""
    wanted = template.slurm.gres or profile.gres
    if not wanted or wanted.rpartition(":")[2].isdigit():
        return wanted
    return f"{wanted}:{max(template.gpus, 1)}"


def _minutes(seconds: int) -> str:
    """Slurm counts whole minutes and rounds up (sbatch(1), --time)."""
    return str(math.ceil(seconds / 60))
