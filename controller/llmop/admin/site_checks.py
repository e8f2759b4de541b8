"""From what a site tells about itself to the checks of one job that would be submitted there. Pure."""

from collections.abc import Iterable, Mapping

from llmop.domain.checks import Check, failed, passed, warned
from llmop.domain.survey import Association, Partition, Survey


def check(subject: str, options: Mapping[str, str], time_limit_s: int, survey: Survey) -> Iterable[Check]:
    """`options` are those of sbatch, without dashes. What the site does not show is a WARN, never a PASS."""
    names = [name for name in options.get("partition", "").split(",") if name]
    known = {each.name: each for each in survey.partitions}
    default = next((each for each in survey.partitions if each.is_default), None)
    if not names and default is None:
        yield failed(
            subject,
            "Partition",
            "none is named, and this site has no default",
            "set partition in the profile",
        )
        return
    partitions = [known[name] for name in names if name in known] if names else [default] if default else []
    missing = [name for name in names if name not in known]
    if missing:
        yield failed(
            subject,
            "Partition",
            f"{', '.join(missing)}: not among those that Slurm shows this account",
            f"one of {', '.join(sorted(known)) or 'none is shown'}",
        )
    for partition in partitions:
        if partition is None:
            continue
        yield from _partition(subject, partition, survey.user)
        yield _walltime(subject, partition, time_limit_s, survey, options)
        yield from _account(subject, partition, options, survey)
        yield from _hardware(subject, partition, options, survey)


def _partition(subject: str, partition: Partition, user: str) -> Iterable[Check]:
    name = f"Partition {partition.name}"
    if partition.root_only:
        yield failed(subject, name, "is for root only", "use another partition")
    elif partition.state != "UP":
        yield warned(subject, name, f"is {partition.state}: jobs wait", "wait, or use another partition")
    else:
        yield passed(subject, name, "is UP")
    if partition.allow_groups is not None:
        words = f"only for the Unix groups {', '.join(partition.allow_groups)}"
        yield warned(subject, name, words, f"check with: id {user}")
    if partition.needs_reservation:
        yield warned(subject, name, "needs a reservation", "set spec.slurm.reservation of the deployment")


def _walltime(
    subject: str, partition: Partition, time_limit_s: int, survey: Survey, options: Mapping[str, str]
) -> Check:
    wanted_s = time_limit_s or partition.default_time_s or partition.max_time_s
    limits = [("MaxTime of the partition", partition.max_time_s)]
    limits += [
        (f"MaxWall of QOS {each.name}", each.max_wall_s)
        for each in survey.qos
        if each.name and each.name in (options.get("qos", ""), partition.qos)
    ]
    over = [
        f"{words} is {limit // 60} min"
        for words, limit in limits
        if limit is not None and limit < (wanted_s or 0)
    ]
    if over and wanted_s:
        fix = "shorten timeLimit in the profile or the deployment"
        return failed(subject, "TimeLimit", f"{wanted_s // 60} min: {'; '.join(over)}", fix)
    if not wanted_s:
        fix = "set timeLimit: jobs without an end start late and block maintenance"
        return warned(subject, "TimeLimit", "neither the profile nor the partition has one", fix)
    source = "" if time_limit_s else " (the partition's default)"
    return passed(subject, "TimeLimit", f"{wanted_s // 60} min{source}")


def _account(
    subject: str, partition: Partition, options: Mapping[str, str], survey: Survey
) -> Iterable[Check]:
    account, qos = options.get("account", "") or survey.default_account, options.get("qos", "")
    if survey.associations is None:
        yield warned(
            subject,
            "Account",
            "not checked: Slurm shows no accounts",
            "see TestOnly: Slurm says there whether it takes such a job",
        )
        return
    mine = [each for each in survey.associations if each.partition in ("", partition.name)]
    having = [each for each in mine if each.account == account]
    if not having:
        offered = sorted({each.account for each in mine})
        yield failed(
            subject,
            "Account",
            f"{account or 'none'}: this account of the system has no such association",
            f"one of {', '.join(offered)}" if offered else "ask your site for an account to charge",
        )
        return
    allowed = partition.allow_accounts is None or account in partition.allow_accounts
    if not allowed or account in partition.deny_accounts:
        yield failed(
            subject, "Account", f"{account}: partition {partition.name} does not allow it", "use another one"
        )
    else:
        yield passed(subject, "Account", account)
    yield from _qos(subject, partition, qos, having)
    for each in having:
        if each.max_submit is not None:
            words = f"at most {each.max_submit} jobs at a time in account {account}"
            yield warned(subject, "Limits", words, "keep replicas and surge below that")


def _qos(subject: str, partition: Partition, qos: str, having: list[Association]) -> Iterable[Check]:
    offered = sorted({name for each in having for name in each.qos})
    used = qos or next((each.default_qos for each in having if each.default_qos), "")
    if not used:
        return
    if offered and used not in offered:
        yield failed(subject, "QOS", f"{used}: not one of yours", f"one of {', '.join(offered)}")
    elif (partition.allow_qos is not None and used not in partition.allow_qos) or used in partition.deny_qos:
        allowed = ", ".join(partition.allow_qos or ()) or "another one"
        yield failed(
            subject, "QOS", f"{used}: partition {partition.name} does not allow it", f"use {allowed}"
        )
    else:
        yield passed(subject, "QOS", used + ("" if qos else " (your default)"))


def _hardware(
    subject: str, partition: Partition, options: Mapping[str, str], survey: Survey
) -> Iterable[Check]:
    """Whether any single node could hold the job; several nodes are not asked for."""
    groups = [each for each in survey.node_groups if each.partition == partition.name]
    if not groups:
        yield warned(
            subject, "Nodes", "sinfo shows none of this partition", "sbatch --test-only below decides"
        )
        return
    kind, count = _gres(options.get("gres", ""))
    cpus = _count(options.get("cpus-per-task", ""))
    memory_mib = _count(options.get("mem", "").removesuffix("M"))
    fitting = []
    for each in groups:
        gpus = sum(gpu.count for gpu in each.gpus if kind in ("", gpu.type))
        if gpus >= count and each.cpus >= cpus and each.memory_mib >= memory_mib:
            fitting.append(each)
    wanted = ", ".join(
        part
        for part in (
            f"{count} x {'gpu:' + kind if kind else 'gpu'}" if count else "",
            f"{cpus} CPUs" if cpus else "",
            f"{memory_mib} MiB" if memory_mib else "",
        )
        if part
    )
    nodes = sum(each.nodes for each in fitting)
    if fitting:
        yield passed(
            subject, "Nodes", f"{nodes} {'node has' if nodes == 1 else 'nodes have'} {wanted or 'room'}"
        )
        return
    best = max(groups, key=lambda each: (sum(gpu.count for gpu in each.gpus), each.cpus, each.memory_mib))
    has = ", ".join(f"{gpu.count} x {gpu.type or 'gpu'}" for gpu in best.gpus) or "no GPUs"
    yield failed(
        subject,
        "Nodes",
        f"no node of partition {partition.name} has {wanted}",
        f"ask for less: the largest node has {has}, {best.cpus} CPUs, {best.memory_mib} MiB",
    )


def _count(text: str) -> int:
    """0 for what a deployment wrote in another form (slurm.extraArgs): `sbatch --test-only` knows them all."""
    return int(text) if text.isdecimal() else 0


def _gres(text: str) -> tuple[str, int]:
    """Type and count of `gpu:a100:2`, `gpu:2`, `gpu:a100`."""
    if not text:
        return "", 0
    words = text.split(":")[1:]
    count = int(words[-1]) if words and words[-1].isdecimal() else 1
    kind = words[0] if words and not words[0].isdecimal() else ""
    return kind, count
