"""A private Slurm that looks like somebody's site: accounts, limits, two kinds of GPU, a hidden and a closed partition."""

from __future__ import annotations

from collections.abc import Mapping

from tests.rigs.slurm import SlurmRig

PARTITIONS: Mapping[str, Mapping[str, str]] = {
    "gpu": {
        "Default": "YES",
        "Nodes": "n1,n2",
        "MaxTime": "2-00:00:00",
        "DefaultTime": "60",
        "AllowAccounts": "nlp,cv",
    },
    "Mixed_long": {
        "Nodes": "n2,n3",
        "MaxTime": "UNLIMITED",
        "DefaultTime": "",
        "AllowQos": "long",
        "PreemptMode": "CANCEL",
        "GraceTime": "120",
    },
    "cpu": {"Nodes": "n4", "MaxTime": "4:00:00"},
    "hidden": {"Nodes": "n4", "Hidden": "YES"},
    "closed": {"State": "DOWN"},
    "admins": {"RootOnly": "YES"},
    "others": {"AllowAccounts": "physics"},
}
NODES: Mapping[str, Mapping[str, str]] = {
    "n2": {"Gres": "gpu:h100:2", "Feature": "h100,ib", "CPUs": "64", "RealMemory": "515000"},
    "n3": {"Gres": "gpu:a100:2,gpu:h100:2"},
    "n4": {"Gres": "", "Feature": ""},
}


def site_rig(*, job_submit: str = "") -> SlurmRig:
    """Not started. `add_accounts` makes the ordinary account at home there."""
    return SlurmRig(
        nodes=4,
        accounts=("add account nlp cv physics", "add qos long"),
        partitions=PARTITIONS,
        nodes_like=NODES,
        overrides={"AccountingStorageEnforce": "associations,limits,qos", "EnforcePartLimits": "ALL"},
        job_submit=job_submit,
    )


def add_accounts(rig: SlurmRig) -> None:
    """The rig's ordinary account is a member (see `add_member`)."""
    limits = "MaxWall=7-00:00:00 MaxJobsPU=4 MaxSubmitJobsPU=8 MaxTRESPU=gres/gpu=8"
    rig.run_as_root(["sacctmgr", "--immediate", *f"modify qos long set {limits}".split()])
    add_member(rig, rig.user)


def add_member(rig: SlurmRig, user: str) -> None:
    """The Unix account `user` may use two of the accounts and two QOS."""
    for command in (
        f"add user {user} account=nlp DefaultAccount=nlp qos=normal,long DefaultQOS=normal",
        f"add user {user} account=cv partition=gpu MaxJobs=3 MaxSubmit=5 MaxWall=1-00:00:00 GrpTRES=gres/gpu=4",
    ):
        rig.run_as_root(["sacctmgr", "--immediate", *command.split()])
