"""From what a site tells about itself to a Cluster and one ResourceProfile per partition and kind of GPU, for review.

Names depend on the partition and the GPU alone, so that a second run after a change of the site proposes the same ones.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

from llmop.domain.profile import Profile
from llmop.domain.survey import (
    Association,
    NodeGroup,
    Partition,
    Proposal,
    ProposedCluster,
    ProposedProfile,
    Survey,
)

DAY_S = 86_400
SHORTEST_S, LONGEST_S = 60, 366 * DAY_S  # a limit beyond is none that anybody has thought of
MOST_CPUS, MOST_GPUS = 4096, 1024  # that a manifest takes
NAME_LENGTH = 63
_BUILTIN = frozenset({"cpu"})  # profiles that ship, and belong to the installation
_GPU_TYPE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*|[0-9]+[A-Za-z_.-][A-Za-z0-9_.-]*", re.ASCII)
_AMD_TYPE = re.compile(r"(amd[-_])?(gfx|mi)[-_]?[0-9]{2,4}[a-z]?$", re.ASCII | re.IGNORECASE)
_SLURM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,62}", re.ASCII)
_SHORT_JOB_AGE_S = 120


def propose(survey: Survey, cluster: str, shared_dir: str = "") -> Proposal:
    """`cluster` is the name of the Cluster; `shared_dir` "" = a folder in the home directory, to be looked at."""
    left_out: list[str] = []
    profiles: list[ProposedProfile] = []
    for partition in sorted(survey.partitions, key=lambda each: (not each.is_default, each.name)):
        reason = _why_not(partition, survey)
        if reason:
            left_out.append(f"partition {partition.name}: {reason}")
            continue
        groups = [each for each in survey.node_groups if each.partition == partition.name]
        types = sorted({gpu.type for group in groups for gpu in group.gpus})
        odd = [kind for kind in types if kind and not _GPU_TYPE.fullmatch(kind)]
        left_out += [
            f"GPUs {kind!r} of partition {partition.name}: a manifest cannot name them" for kind in odd
        ]
        kinds: list[str | None] = [*types] or [None]
        profiles += [_profile(partition, kind, groups, survey, cluster) for kind in kinds if kind not in odd]
    return Proposal(
        cluster=_cluster(survey, cluster, shared_dir, left_out), profiles=tuple(_distinct(profiles))
    )


def _why_not(partition: Partition, survey: Survey) -> str:
    """Why the account cannot use the partition; "" when it can, as far as anybody can see."""
    if not _SLURM_NAME.fullmatch(partition.name):
        return "its name cannot stand in a manifest"
    if partition.state != "UP":
        return f"is {partition.state}"
    if partition.root_only:
        return "is for root only"
    if survey.associations and not _usable(partition, survey.associations):
        return "allows none of your accounts"
    return ""


def _usable(partition: Partition, associations: Sequence[Association]) -> list[Association]:
    return [
        each
        for each in associations
        if each.partition in ("", partition.name)
        and (partition.allow_accounts is None or each.account in partition.allow_accounts)
        and each.account not in partition.deny_accounts
        and (not each.qos or _allowed_qos(partition, each.qos))
    ]


def _allowed_qos(partition: Partition, names: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if (partition.allow_qos is None or name in partition.allow_qos) and name not in partition.deny_qos
    ]


def _profile(
    partition: Partition, kind: str | None, groups: Sequence[NodeGroup], survey: Survey, cluster: str
) -> ProposedProfile:
    """`kind` is the type of GPU, "" for GPUs without a type, None for none at all."""
    comments: dict[str, str] = {}
    remarks: list[str] = []
    having = [each for each in groups if kind is None or any(gpu.type == kind for gpu in each.gpus)]
    nodes = sum(each.nodes for each in having)
    what = (
        "no GPUs"
        if kind is None
        else f"GPUs of type {kind}"
        if kind
        else "GPUs whose type Slurm does not know"
    )
    remarks.append(
        f"{nodes} {'node' if nodes == 1 else 'nodes'} with {what} in partition {partition.name}"
        if having
        else f"partition {partition.name}; sinfo shows no nodes of it"
    )
    account, qos = _account(partition, survey, comments)
    cpus, memory, per_node = _shares(partition, kind, having, comments)
    remarks += _warnings(partition, survey)
    return ProposedProfile(
        profile=Profile(
            name=_name(partition.name, kind),
            cluster=cluster,
            partition=partition.name,
            account=account,
            qos=qos,
            gres="" if kind is None else f"gpu:{kind}".rstrip(":"),
            cpus_per_gpu=cpus,
            memory_mib_per_gpu=memory,
            gpus_per_node=per_node,
            gpu_vendor=_vendor(kind, comments),
            time_limit_s=_time_limit(partition, account, qos, survey, comments),
        ),
        comments=comments,
        remarks=tuple(remarks),
    )


def _account(partition: Partition, survey: Survey, comments: dict[str, str]) -> tuple[str, str]:
    """Account and QOS; "" where there is nothing to choose, or nobody knows."""
    if survey.associations is None:
        return "", ""
    usable = _usable(partition, survey.associations)
    if not usable:
        comments["account"] = (
            "sacctmgr shows no association of this account: ask your site which account to charge"
        )
        return "", ""
    accounts = sorted({each.account for each in usable})
    account = survey.default_account if survey.default_account in accounts else accounts[0]
    others = [name for name in accounts if name != account]
    words = "your default account" if account == survey.default_account else "allowed on this partition"
    comments["account"] = words + (f"; also possible: {', '.join(others)}" if others else "")
    # The association of the partition itself comes before the one for all partitions (sacctmgr(1)).
    mine = max((each for each in usable if each.account == account), key=lambda each: each.partition)
    allowed = _allowed_qos(partition, mine.qos)
    if not allowed:
        return account, ""
    qos = mine.default_qos if mine.default_qos in allowed else allowed[0]
    others = [name for name in allowed if name != qos]
    words = "your default QOS" if qos == mine.default_qos else "the first one allowed here"
    comments["qos"] = words + (f"; also possible: {', '.join(others)}" if others else "")
    return account, qos


def _shares(
    partition: Partition, kind: str | None, groups: Sequence[NodeGroup], comments: dict[str, str]
) -> tuple[int, int, int]:
    """(CPUs, MiB, GPUs per node): what every node that has such GPUs can give to each of them; 0 = not known."""
    if not groups:
        return 0, 0, 0
    shares = []
    for each in groups:
        cpus = min(each.cpus, partition.max_cpus_per_node or each.cpus)
        memory = min(each.memory_mib, partition.max_memory_per_node_mib or each.memory_mib)
        total = max(sum(gpu.count for gpu in each.gpus), 1) if kind is not None else 1
        own = next((gpu.count for gpu in each.gpus if gpu.type == kind), 0)
        shares.append((max(cpus // total, 1), memory // total, own))
    least_cpus, least_memory = min(share[0] for share in shares), min(share[1] for share in shares)
    if kind is None:
        comments["cpus"] = "at most 8 of a node; set what your models need"
        comments["memory"] = "half of the smallest node; set what your models need"
        return min(least_cpus, 8), _rounded(max(least_memory // 2, 1)), 0
    per_node = max(share[2] for share in shares)
    comments["cpusPerGPU"] = _range("CPUs of a node divided by its GPUs", [share[0] for share in shares])
    comments["memoryPerGPU"] = "memory of the smallest node divided by its GPUs, rounded down"
    if len({share[2] for share in shares}) > 1:
        comments["gpusPerNode"] = "the largest node; others have fewer"
    return min(least_cpus, MOST_CPUS), _rounded(least_memory), min(per_node, MOST_GPUS)


def _range(words: str, values: Sequence[int]) -> str:
    return f"{words}; {min(values)} to {max(values)}" if len(set(values)) > 1 else words


def _rounded(mebibytes: int) -> int:
    """Down to what people would write: whole GiB, from 16 GiB on in steps of 4 GiB, from 128 GiB on of 8 GiB."""
    gibibytes = mebibytes // 1024
    if gibibytes < 1:
        return mebibytes
    step = 8 if gibibytes >= 128 else 4 if gibibytes >= 16 else 1
    return gibibytes // step * step * 1024


def _time_limit(
    partition: Partition, account: str, qos: str, survey: Survey, comments: dict[str, str]
) -> int:
    """The longest walltime that every limit allows, in seconds; a day where there is none (a job should always end)."""
    limits = [("the partition's MaxTime", partition.max_time_s)]
    limits += [
        (f"MaxWall of QOS {each.name}", each.max_wall_s)
        for each in survey.qos
        if each.name and each.name in (qos, partition.qos)
    ]
    limits += [
        (f"MaxWall of account {account}", each.max_wall_s)
        for each in survey.associations or ()
        if each.account == account and each.partition in ("", partition.name)
    ]
    known = [
        (seconds, words)
        for words, seconds in limits
        if seconds is not None and SHORTEST_S <= seconds <= LONGEST_S
    ]
    if not known:
        comments["timeLimit"] = "no limit was found; a day is our choice"
        return DAY_S
    seconds, words = min(known)
    comments["timeLimit"] = words + ("; a shorter one often starts sooner" if seconds > DAY_S else "")
    return seconds


def _vendor(kind: str | None, comments: dict[str, str]) -> str:
    """AMD's data centre GPUs are called mi100, mi250x, mi300a and so on. Everything else is left to the runtime."""
    if kind is None or not _AMD_TYPE.match(kind):
        return ""
    comments["gpuVendor"] = "guessed from the name"
    return "amd"


def _warnings(partition: Partition, survey: Survey) -> list[str]:
    found = []
    if partition.needs_reservation:
        found.append("jobs here need a reservation: set spec.slurm.reservation of the deployment")
    if partition.allow_groups is not None:
        found.append(f"only for the Unix groups {', '.join(partition.allow_groups)}")
    if partition.preempt_mode and survey.settings.get("PreemptType", "preempt/none") != "preempt/none":
        grace = f" after {partition.grace_s} s" if partition.grace_s else ""
        found.append(
            f"jobs here may be preempted ({partition.preempt_mode}{grace}) where others have priority"
        )
    found += [
        f"at most {each.max_submit_per_user} of your jobs at a time (QOS {each.name})"
        for each in survey.qos
        if each.name == partition.qos and each.max_submit_per_user is not None
    ]
    found += [
        f"at most {each.max_submit} jobs at a time in account {each.account}"
        for each in survey.associations or ()
        if each.partition in ("", partition.name) and each.max_submit is not None
    ]
    return found


def _name(partition: str, kind: str | None) -> str:
    """`gpu-a100`; a partition that is called like its GPUs is not named twice."""
    left, right = _slug(partition), "cpu" if kind is None else _slug(kind) or "gpu"
    name = left if right in left.split("-") else f"{left}-{right}" if left else right
    if name in _BUILTIN:
        name = f"{name}-nodes"
    return _short(name, f"{partition}:{kind}")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _short(name: str, whole: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 5].rstrip('-')}-{_mark(whole)}"


def _mark(whole: str) -> str:
    return hashlib.sha256(whole.encode()).hexdigest()[:4]


def _distinct(proposed: Sequence[ProposedProfile]) -> list[ProposedProfile]:
    """Names that became equal get four characters more, made of what they stand for."""
    names = [each.profile.name for each in proposed]
    result = []
    for each in proposed:
        profile = each.profile
        if names.count(profile.name) > 1:
            marked = f"{profile.name[: NAME_LENGTH - 5].rstrip('-')}-{_mark(f'{profile.partition}:{profile.gres}')}"
            profile = dataclasses.replace(profile, name=marked)
        result.append(dataclasses.replace(each, profile=profile))
    return result


def _cluster(survey: Survey, name: str, shared_dir: str, left_out: Sequence[str]) -> ProposedCluster:
    comments: dict[str, str] = {}
    remarks = [
        f"Slurm {survey.version} of {survey.cluster_name or 'a cluster without a name'}, seen as {survey.user}"
    ]
    remarks += [f"left out: {each}" for each in left_out]
    remarks += [f"not found out: {each}" for each in survey.unknown]
    if not survey.partitions:
        remarks.append("no partition was found: write the ResourceProfiles by hand")
    timeout_s = _seconds(survey.settings.get("MessageTimeout", "")) or 10
    age_s = _seconds(survey.settings.get("MinJobAge", ""))
    settle_s = max(60, 3 * timeout_s)
    comments["settleTime"] = f"three times MessageTimeout ({timeout_s} s), a minute at least"
    comments["sharedDir"] = (
        "every node must see it; llmctl preflight checks that"
        if shared_dir
        else "CHECK THIS: a guess. Every node must see it, with room for images and models; llmctl preflight checks that"
    )
    is_limited = "rl_enable" in survey.settings.get("SlurmctldParameters", "")
    poll_min_s = 15 if is_limited else 5
    if is_limited:
        comments["pollInterval"] = "this site limits how often it may be asked (rl_enable)"
    if age_s is not None and 0 < age_s < _SHORT_JOB_AGE_S:
        remarks.append(
            f"Slurm forgets a job {age_s} s after its end (MinJobAge): how it ended comes from its own exit record"
        )
    if survey.settings.get("JobSubmitPlugins") or survey.settings.get("CliFilterPlugins"):
        plugins = survey.settings.get("JobSubmitPlugins") or survey.settings.get("CliFilterPlugins")
        remarks.append(
            f"this site changes or checks jobs when they are submitted ({plugins}): see status.canary later"
        )
    return ProposedCluster(
        name=name,
        # Not ~/llmop: that is where people clone the repository to.
        shared_dir=shared_dir or f"{survey.home.rstrip('/')}/llmop-shared",
        settle_s=settle_s,
        poll_min_s=poll_min_s,
        poll_max_s=60,
        comments=comments,
        remarks=tuple(remarks),
    )


def _seconds(setting: str) -> int | None:
    """The number in a setting like `300 sec`."""
    found = re.match(r"[0-9]{1,9}", setting)
    return int(found[0]) if found else None
