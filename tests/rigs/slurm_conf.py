"""The configuration files of a private Slurm (slurm.conf(5), gres.conf(5), cgroup.conf(5))."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from tests.rigs.errors import RigError

PARTITIONS: Mapping[str, Mapping[str, str]] = {
    "gpu": {"Default": "YES", "PriorityTier": "10"},
    "preempt": {"PriorityTier": "1", "PreemptMode": "CANCEL", "GraceTime": "20"},
    "short": {"PriorityTier": "10", "MaxTime": "2", "DefaultTime": "1"},
    "closed": {"State": "DOWN"},
}


def render(
    base: Path,
    *,
    release: str,
    controller_port: int,
    nodes: Mapping[str, int],
    overrides: Mapping[str, str | None],
    partitions: Mapping[str, Mapping[str, str]],
    nodes_like: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """File names and texts. `release` is Slurm's, like 22.05.8; `nodes` are names and the ports of their slurmd.

    Raises RigError for an override that is no setting's name.
    """
    host = socket.gethostname().partition(".")[0]
    settings: dict[str, str | None] = {
        "ClusterName": "rig",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(controller_port),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        # A requeued job waits until its credential has expired; the default is two minutes.
        "AuthInfo": f"socket={base}/run/munge.socket,cred_expire=10",
        "StateSaveLocation": f"{base}/state",
        "SlurmdSpoolDir": f"{base}/spool/%n",
        "SlurmctldPidFile": f"{base}/run/slurmctld.pid",
        "SlurmdPidFile": f"{base}/run/slurmd-%n.pid",
        "SlurmdLogFile": f"{base}/log/slurmd-%n.log",  # for slurmstepd; the daemons also log to their output
        "SlurmctldLogFile": f"{base}/log/slurmctld.log",
        "SlurmdParameters": "config_overrides",  # nodes may claim more than this host has
        "ReturnToService": "2",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "PropagateResourceLimits": "NONE",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": "1000",
        "GresTypes": "gpu",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=5,bf_interval=2,batch_sched_delay=1,bf_resolution=1",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "MinJobAge": "30",
        "KillWait": "5",
        "SlurmdTimeout": "15",
        "SlurmctldTimeout": "10",
        "MessageTimeout": "5",
        "BatchStartTimeout": "10",
        "UnkillableStepTimeout": "30",
        "InactiveLimit": "0",
        "CompleteWait": "0",
        "AccountingStorageType": "accounting_storage/none",
        "JobCompType": "jobcomp/none",
    }
    unknown = [name for name in overrides if not name.isalnum()]
    if unknown:
        raise RigError(f"overrides: {unknown[0]!r} is not the name of a slurm.conf setting")
    settings.update(overrides)
    lines = [f"{name}={value}" for name, value in settings.items() if value is not None]
    gpus: dict[str, list[str]] = {}
    for node, port in nodes.items():
        hardware = {"CPUs": "32", "RealMemory": "256000", "Gres": "gpu:a100:4", "Feature": "a100,fake"}
        hardware |= nodes_like.get(node, {})
        gpus.setdefault(hardware["Gres"], []).append(node)
        words = " ".join(f"{key}={value}" for key, value in hardware.items() if value)
        lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {words}")
    names = ",".join(nodes)
    for name, options in partitions.items():
        merged = {"Nodes": names, "MaxTime": "60", "DefaultTime": "10", "State": "UP", "OverSubscribe": "NO"}
        merged |= options
        words = " ".join(f"{key}={value}" for key, value in merged.items() if value)
        lines.append(f"PartitionName={name} {words}")
    # Cgroups stay out of it: 24.05 and newer must be told, older releases refuse the setting.
    modern = tuple(int(part) for part in release.split(".")[:2]) >= (24, 5)
    return {
        "slurm.conf": "\n".join(lines) + "\n",
        "gres.conf": "AutoDetect=off\n" + "".join(_gres(base, gres, names) for gres, names in gpus.items()),
        "cgroup.conf": "CgroupPlugin=disabled\n" if modern else "",
    }


def _gres(base: Path, gres: str, nodes: list[str]) -> str:
    """The lines of gres.conf for nodes with `gpu:a100:4`, `gpu:2` or several of these joined by commas."""
    lines = ""
    first = 0
    for part in filter(None, gres.split(",")):
        _, *kind, count = part.split(":")
        last = first + int(count) - 1
        typed = f" Type={kind[0]}" if kind else ""
        lines += f"NodeName={','.join(nodes)} Name=gpu{typed} File={base}/dev/fakegpu[{first}-{last}]\n"
        first = last + 1
    return lines
