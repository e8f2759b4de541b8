"""Asking a Slurm site about itself: five commands, none of which has to work."""

from llmop.cluster.slurm import parse, process, states, survey
from llmop.domain.survey import Association, NodeGroup, Partition, Qos, Survey

_NO_ACCOUNTS = ("not running a supported accounting_storage plugin", "accounting storage is disabled")


async def discover(account: process.Account, timeout_s: float) -> Survey:
    """What the site shows to this account. A command that fails or is over its time becomes a sentence in `unknown`."""
    unknown: list[str] = []

    async def ask(*argv: str) -> str | None:
        ended = await process.run(argv, environment=account.for_queries, timeout_s=timeout_s)
        command = " ".join(word for word in argv[:3] if not word.startswith("-"))
        problem = ended.why(argv[0])
        if not problem and not ended.output.strip() and "error:" in ended.errors:
            problem = states.said(ended.errors)  # some commands end with 0 after some errors
        if problem and any(text in ended.errors.lower() for text in _NO_ACCOUNTS):
            unknown.append("this Slurm keeps no accounts: account and qos are not needed, and not checked")
            return None
        if problem:
            unknown.append(f"{command}: {problem}")
            return None
        return ended.output

    def noted(problem: str) -> None:
        if problem:
            unknown.append(problem)

    settings = parse.config(await ask("scontrol", "show", "config") or "")
    partitions: tuple[Partition, ...] = ()
    if (text := await ask("scontrol", "show", "partition", "-o")) is not None:
        partitions, problem = survey.partitions(text)
        noted(problem)
    groups: tuple[NodeGroup, ...] = ()
    if (text := await ask("sinfo", "--noheader", f"--Format={survey.SINFO_FORMAT}")) is not None:
        groups, problem = survey.node_groups(text)
        noted(problem)
    associations: tuple[Association, ...] | None = None
    default_account, qos = "", tuple[Qos, ...]()
    user = account.variables["USER"]
    cluster = settings.get("ClusterName", "")
    sacctmgr = ("sacctmgr", "--noheader", "--parsable2", "show")
    where = [f"user={user}", *([f"cluster={cluster}"] if cluster else [])]
    text = await ask(*sacctmgr, "assoc", *where, f"format={','.join(survey.ASSOCIATION_FIELDS)}")
    if text is not None:
        associations, problem = survey.associations(text)
        noted(problem)
        default_account = survey.default_account(
            await ask(*sacctmgr, "user", f"name={user}", f"format={','.join(survey.USER_FIELDS)}") or "", user
        )
        if (text := await ask(*sacctmgr, "qos", f"format={','.join(survey.QOS_FIELDS)}")) is not None:
            qos, problem = survey.qos(text)
            noted(problem)
    private = settings.get("PrivateData", "none")
    if private not in ("", "none"):
        unknown.append(f"PrivateData={private}: this site hides some of what others see")
    return Survey(
        cluster_name=cluster,
        version=settings.get("SLURM_VERSION", ""),
        settings=settings,
        partitions=partitions,
        node_groups=groups,
        associations=associations,
        default_account=default_account,
        qos=qos,
        home=account.variables["HOME"],
        user=user,
        unknown=tuple(dict.fromkeys(unknown)),
    )
