"""What the commands print that tell about a site, as values; for the eyes of whoever reviews what `llmctl discover` writes.

Unlike a snapshot of jobs this may be incomplete: what cannot be read is left out and said in a sentence.
"""

import re
from collections.abc import Mapping, Sequence

from llmop.cluster.slurm import parse
from llmop.domain.survey import Association, Gpu, NodeGroup, Partition, Qos

# Of sinfo -O (sinfo(1)): a suffix without a width is neither cut nor padded. Features, free text of the site, come last.
SINFO_FIELDS = ("PartitionName", "Nodes", "CPUs", "Memory", "Gres", "Features")
SINFO_FORMAT = ",".join(
    f"{name}:{parse.RECORD_END if name == SINFO_FIELDS[-1] else parse.FIELD_END}" for name in SINFO_FIELDS
)
# Names that sacctmgr(1) knows in 22.05 to 26.05.
ASSOCIATION_FIELDS = (
    *("Account", "Partition", "QOS", "DefaultQOS", "MaxJobs", "MaxSubmit", "MaxWall", "GrpTRES"),
)
QOS_FIELDS = ("Name", "MaxWall", "MaxJobsPU", "MaxSubmitPU", "MaxTRESPU")
USER_FIELDS = ("User", "DefaultAccount")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*", re.ASCII)
_OUTSIDE_BRACES = re.compile(r",(?![^(]*\))")
_MOST = 10**9


def partitions(text: str) -> tuple[tuple[Partition, ...], str]:
    """The partitions in the output of `scontrol show partition -o`, and what is wrong with it ("" = nothing)."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [_partition(values) for values in parse.partitions(text)]
    good = {each.name: each for each in found if _NAME.fullmatch(each.name)}
    return tuple(good.values()), _odd("scontrol show partition", len(lines) - len(good))


def _partition(values: Mapping[str, str]) -> Partition:
    return Partition(
        name=values["PartitionName"],
        state=values.get("State", "UP"),
        is_default=values.get("Default") == "YES",
        max_time_s=parse.time_limit(values.get("MaxTime", "")),
        default_time_s=parse.time_limit(values.get("DefaultTime", "")),
        allow_accounts=_allowed(values.get("AllowAccounts", "ALL")),
        deny_accounts=_allowed(values.get("DenyAccounts", "")) or (),
        allow_qos=_allowed(values.get("AllowQos", "ALL")),
        deny_qos=_allowed(values.get("DenyQos", "")) or (),
        allow_groups=_allowed(values.get("AllowGroups", "ALL")),
        qos="" if values.get("QoS") in (None, "N/A", "(null)") else values["QoS"],
        root_only=values.get("RootOnly") == "YES",
        needs_reservation=values.get("ReqResv") == "YES",
        preempt_mode="" if values.get("PreemptMode") in (None, "OFF") else values["PreemptMode"],
        grace_s=number(values.get("GraceTime", "")) or 0,
        max_cpus_per_node=number(values.get("MaxCPUsPerNode", "")),
        max_memory_per_node_mib=number(values.get("MaxMemPerNode", "")),
    )


def _allowed(text: str) -> tuple[str, ...] | None:
    if text in ("ALL", "(null)", "N/A", ""):
        return None
    return tuple(word for word in text.split(",") if word)


def node_groups(text: str) -> tuple[tuple[NodeGroup, ...], str]:
    """The groups in the output of `sinfo --noheader --Format=<SINFO_FORMAT>`, and what is wrong with it."""
    found, odd = [], 0
    for record in text.split(parse.RECORD_END):
        record = record.strip("\n")
        if not record:
            continue
        fields = record.split(parse.FIELD_END)
        if len(fields) != len(SINFO_FIELDS):
            odd += 1
            continue
        # What a login script or a wrapper prints first stands before the first field.
        name, nodes, cpus, memory, gres, features = fields
        name = name.rpartition("\n")[2].strip()
        counted = [number(each) for each in (nodes, cpus, memory)]
        if not _NAME.fullmatch(name) or None in counted:
            odd += 1
            continue
        node_count, cpu_count, memory_mib = (each or 0 for each in counted)
        found.append(
            NodeGroup(
                partition=name,
                nodes=node_count,
                cpus=cpu_count,
                memory_mib=memory_mib,
                gpus=gpus(gres),
                features=() if features in ("(null)", "") else tuple(features.split(",")),
            )
        )
    return tuple(found), _odd("sinfo", odd)


def gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs in a node's Gres, like `gpu:a100:4(S:0-1),gpu:2,mps:400`, by type; a type that stands twice is added up."""
    counts: dict[str, int] = {}
    for part in _OUTSIDE_BRACES.split(text):
        name, *rest = part.partition("(")[0].strip().split(":")
        if name != "gpu" or not rest:
            continue
        words = [word for word in rest if word != "no_consume"]
        count = number(words[-1]) if words else None
        kind = words[:-1] if count is not None else words
        if len(kind) > 1:
            continue
        counts[kind[0] if kind else ""] = counts.get(kind[0] if kind else "", 0) + (
            1 if count is None else count
        )
    return tuple(Gpu(type=kind, count=count) for kind, count in sorted(counts.items()) if count)


def associations(text: str) -> tuple[tuple[Association, ...], str]:
    """The associations in the output of `sacctmgr -nP show assoc format=<ASSOCIATION_FIELDS>`."""
    found = []
    rows, odd = _rows(text, ASSOCIATION_FIELDS)
    for account, partition, qos, default_qos, jobs, submit, wall, tres in rows:
        found.append(
            Association(
                account=account,
                partition=partition,
                qos=tuple(sorted(word for word in qos.split(",") if word)),
                default_qos=default_qos,
                max_jobs=number(jobs),
                max_submit=number(submit),
                max_wall_s=parse.time_limit(wall),
                group_tres=tres,
            )
        )
    return tuple(found), _odd("sacctmgr show assoc", odd)


def qos(text: str) -> tuple[tuple[Qos, ...], str]:
    """The QOS in the output of `sacctmgr -nP show qos format=<QOS_FIELDS>`."""
    rows, odd = _rows(text, QOS_FIELDS)
    found = tuple(
        Qos(
            name=name,
            max_wall_s=parse.time_limit(wall),
            max_jobs_per_user=number(jobs),
            max_submit_per_user=number(submit),
            max_tres_per_user=tres,
        )
        for name, wall, jobs, submit, tres in rows
    )
    return found, _odd("sacctmgr show qos", odd)


def default_account(text: str, user: str) -> str:
    """The account in the output of `sacctmgr -nP show user format=<USER_FIELDS>`; "" when it does not say."""
    rows, _ = _rows(text, USER_FIELDS)
    return next((account for name, account in rows if name == user), "")


def _rows(text: str, fields: Sequence[str]) -> tuple[list[list[str]], int]:
    """The rows whose first field is a name, and how many lines are none."""
    rows, odd = [], 0
    for line in text.splitlines():
        words = line.split("|")
        if len(words) == len(fields) and _NAME.fullmatch(words[0]):
            rows.append(words)
        elif line.strip():
            odd += 1
    return rows, odd


def number(text: str) -> int | None:
    """The number at the start of `32`, `256000+` or `20 sec`; None where there is none, as in UNLIMITED."""
    found = re.match(r"[0-9]+", text)
    return min(int(found[0]), _MOST) if found else None


def _odd(command: str, lines: int) -> str:
    if lines <= 0:
        return ""
    noun = "a line that is no record" if lines == 1 else f"{lines} lines that are no records"
    return f"{command} printed {noun}: something at this site changes its output, or the answer is incomplete"
