"""A proposal as manifests with comments: for people to review, for `llmctl apply` to take unchanged.

Written by hand, because no YAML library writes comments. Strings are quoted unless they cannot be mistaken for anything else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from llmop.domain import resources
from llmop.domain.survey import Proposal, ProposedCluster, ProposedProfile
from llmop.manifest import quantity

_PLAIN = re.compile(r"(/[A-Za-z0-9._/-]*|[A-Za-z][A-Za-z0-9._/-]*(:[A-Za-z0-9._-]+)*)", re.ASCII)
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_WIDTH = 112

_ALLOWED = (
    "allowed:                  # what deployments may name; left out, images and models are free",
    "  images: [/path/of/images]",
    "  modelRoots: [/path/of/models]",
    "  secretRoot: /path/of/secrets",
)


def files(proposal: Proposal) -> Mapping[str, str]:
    """File names and texts: the cluster, and one file for each profile."""
    written = {f"cluster-{proposal.cluster.name}.yaml": _cluster(proposal.cluster)}
    for each in proposal.profiles:
        written[f"profile-{each.profile.name}.yaml"] = _profile(each)
    return written


def _cluster(cluster: ProposedCluster) -> str:
    spec = [
        ("driver", "slurm"),
        ("sharedDir", cluster.shared_dir),
        ("settleTime", quantity.write_seconds(cluster.settle_s)),
    ]
    lines = [
        *_head(resources.CLUSTER, cluster.name, cluster.remarks),
        *_fields(spec, cluster.comments),
        f"  pollInterval: {{min: {cluster.poll_min_s}s, max: {cluster.poll_max_s}s}}"
        + _comment(cluster.comments.get("pollInterval", "how often squeue is asked")),
        *(
            f"  # {text}"
            for text in (
                "prelude: [module load apptainer]   # shell lines that every job runs first",
                *_ALLOWED,
            )
        ),
    ]
    return "\n".join(lines) + "\n"


def _profile(proposed: ProposedProfile) -> str:
    profile = proposed.profile
    spec: list[tuple[str, str | int]] = [
        ("cluster", profile.cluster),
        ("partition", profile.partition),
        ("account", profile.account),
        ("qos", profile.qos),
        ("gres", profile.gres),
        ("gpuVendor", profile.gpu_vendor),
        ("gpusPerNode", profile.gpus_per_node),
        ("cpusPerGPU" if profile.gres else "cpus", profile.cpus_per_gpu),
        ("memoryPerGPU" if profile.gres else "memory", _memory(profile.memory_mib_per_gpu)),
        ("timeLimit", _walltime(profile.time_limit_s)),
    ]
    missing = [
        f"  # {name}: {_one_line(text)}"
        for name, text in proposed.comments.items()
        if not dict(spec).get(name)
    ]
    name = f"{profile.name}:1" if profile.gres else profile.name
    remarks = [*proposed.remarks, f"Deployments say resourceProfile: {name}"]
    lines = [
        *_head(resources.RESOURCE_PROFILE, profile.name, remarks),
        *_fields([(field, value) for field, value in spec if value], proposed.comments),
        *missing,
    ]
    return "\n".join(lines) + "\n"


def _head(kind: str, name: str, remarks: Sequence[str]) -> Iterable[str]:
    for remark in remarks:
        yield from _wrapped(_one_line(remark))
    yield f"apiVersion: {resources.API_VERSION}"
    yield f"kind: {kind}"
    yield "metadata:"
    yield f"  name: {_scalar(name)}"
    yield "spec:"


def _wrapped(text: str) -> Iterable[str]:
    line = "#"
    for word in text.split(" "):
        if len(line) + len(word) >= _WIDTH and line != "#":
            yield line
            line = "#  "
        line += f" {word}"
    yield line


def _fields(spec: Sequence[tuple[str, str | int]], comments: Mapping[str, str]) -> Iterable[str]:
    for name, value in spec:
        yield f"  {name}: {_scalar(value)}" + _comment(comments.get(name, ""))


def _comment(text: str) -> str:
    return f"  # {_one_line(text)}" if text else ""


def _one_line(text: str) -> str:
    """What a site printed must not end a comment."""
    return _CONTROL.sub(" ", text)


def _scalar(value: str | int) -> str:
    if isinstance(value, int) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return str(value)
    return json.dumps(value)


def _memory(mebibytes: int) -> str:
    if not mebibytes:
        return ""
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else quantity.write_mebibytes(mebibytes)


def _walltime(seconds: int) -> str:
    """As Slurm writes it."""
    if not seconds:
        return ""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    return f"{days}-{hours:02}:{minutes:02}:{left:02}" if days else f"{hours:02}:{minutes:02}:{left:02}"
