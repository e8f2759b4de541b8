"""From facts about an installation to the checks of `llmctl doctor`. Pure; `examine` gathers the facts."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from llmop.domain import times
from llmop.domain.checks import Check, failed, passed, warned

MIB = 1 << 20
STATE_LEAST_MIB = 512
SHARED_LEAST_MIB = 4096
STALE_SNAPSHOT_S = 180.0
CLOCK_WARN_S = 5.0
CLOCK_FAIL_S = 60.0  # munge gives a credential five minutes, our own margins are smaller
EXPIRES_SOON_S = 30 * 86_400.0
GATEWAY_LATE_S = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """`free_mib` None = it could not be looked at, for the reason in `problem`."""

    subject: str
    path: str
    least_mib: int
    free_mib: int | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    name: str
    problem: str = ""
    snapshot_age_s: float | None = None
    brake: str = ""
    directory_problem: str | None = ""  # None = not looked yet
    clock_ahead_s: float | None = None
    conditions: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # type: (status, message)
    orphans: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """`store` and `epoch` are problems in words, "" for none. Ages are seconds."""

    now: float
    store: str
    epoch: str
    clusters: tuple[Cluster, ...] = ()
    agents: Mapping[str, float] = dataclasses.field(default_factory=dict)  # replica -> age of its last report
    silent_s: float = 30.0  # agents older than that are stale
    writing: frozenset[str] = frozenset()  # those of `agents` that report through files
    gateways: Mapping[str, tuple[float, int]] = dataclasses.field(
        default_factory=dict
    )  # name -> (age, version)
    table_version: int = 0
    disks: tuple[Disk, ...] = ()
    certificates: Mapping[str, float | str] = dataclasses.field(default_factory=dict)  # end, or a problem


def checks(facts: Facts) -> tuple[Check, ...]:
    return (
        *_controller(facts),
        *(check for cluster in facts.clusters for check in _cluster(cluster)),
        *_agents(facts),
        *_gateways(facts),
        *(_disk(disk) for disk in facts.disks),
        *(_certificate(name, end, facts.now) for name, end in sorted(facts.certificates.items())),
    )


def _controller(facts: Facts) -> Iterable[Check]:
    if facts.store:
        yield failed("store", "Answers", facts.store, "start the database, or check --store and LLMOP_STORE")
    else:
        yield passed("store", "Answers")
    if facts.epoch:
        yield failed("controller", "Epoch", facts.epoch, "stop this controller: another one has taken over")
    elif not facts.store:
        yield passed("controller", "Epoch", "this controller is the one that acts")
    if not facts.clusters:
        yield warned(
            "controller", "Clusters", "there is no Cluster", "llmctl discover, review, then llmctl apply"
        )


def _cluster(cluster: Cluster) -> Iterable[Check]:
    subject = f"cluster {cluster.name}"
    age_s = cluster.snapshot_age_s
    if cluster.problem:
        yield failed(
            subject, "Reachable", cluster.problem, "run squeue on the controller's host, as its account"
        )
    elif age_s is None:
        yield warned(subject, "Reachable", "it was not looked at yet", "wait, then ask again")
    elif age_s > STALE_SNAPSHOT_S:
        message = f"the last complete look is {times.human(age_s)} old"
        yield warned(subject, "Reachable", message, "the controller's log says what squeue answers")
    else:
        yield passed(subject, "Reachable", f"looked at {times.human(age_s)} ago")
    if cluster.brake:
        yield failed(
            subject, "Brake", cluster.brake, "ask your admins about slurmctld; nothing is replaced meanwhile"
        )
    else:
        yield passed(subject, "Brake", "not pulled")
    if cluster.directory_problem is None:
        yield warned(subject, "SharedDirectory", "it was not looked at yet", "wait, then ask again")
    elif cluster.directory_problem:
        yield failed(
            subject, "SharedDirectory", cluster.directory_problem, "check the path, its rights and the quota"
        )
    else:
        yield passed(subject, "SharedDirectory")
    status, message = cluster.conditions.get("Fenced", ("Unknown", "not known yet"))
    if status == "True" and not message:
        yield passed(subject, "Fences")
    else:
        make = failed if status == "False" else warned
        yield make(subject, "Fences", message, f"llmctl describe cl/{cluster.name} shows the table")
    if cluster.orphans:
        shown = ", ".join(cluster.orphans[:3])
        more = f" and {len(cluster.orphans) - 3} more" if len(cluster.orphans) > 3 else ""
        yield warned(
            subject,
            "Orphans",
            f"jobs without a replica: {shown}{more}",
            "scancel them, or set orphanPolicy: Cancel",
        )
    else:
        yield passed(subject, "Orphans", "none")
    if cluster.clock_ahead_s is not None:
        yield _clock(subject, cluster.clock_ahead_s)


def _clock(subject: str, ahead_s: float) -> Check:
    size_s = abs(ahead_s)
    words = f"Slurm's clock is {size_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the controller's"
    if size_s < CLOCK_WARN_S:
        return passed(subject, "Clock", "agrees with Slurm's")
    fix = "synchronise the clock of the controller's host (NTP)"
    return (failed if size_s >= CLOCK_FAIL_S else warned)(subject, "Clock", words, fix)


def _agents(facts: Facts) -> Iterable[Check]:
    stale = sorted(name for name, age_s in facts.agents.items() if age_s > facts.silent_s)
    if stale:
        shown = ", ".join(stale[:5])
        more = f" and {len(stale) - 5} more" if len(stale) > 5 else ""
        yield warned(
            "agents",
            "Reports",
            f"{len(stale)} of {len(facts.agents)} are silent: {shown}{more}",
            "llmctl logs --source job shows what an agent says; it needs the address in controllers.json of the shared"
            " directory, or its inbox",
        )
    elif facts.agents:
        yield passed("agents", "Reports", f"{len(facts.agents)} report in time")
    else:
        yield passed("agents", "Reports", "none runs")
    if facts.writing:
        shown = ", ".join(sorted(facts.writing)[:5])
        more = f" and {len(facts.writing) - 5} more" if len(facts.writing) > 5 else ""
        yield warned(
            "agents",
            "Channel",
            f"{len(facts.writing)} of {len(facts.agents)} report through files in the shared directory, which is slower: {shown}{more}",
            "from a node, the address in controllers.json of the shared directory must answer: see --agent-advertise",
        )


def _gateways(facts: Facts) -> Iterable[Check]:
    if not facts.gateways:
        yield warned("gateways", "Alive", "no gateway has reported", "start one: llmop gateway")
    for name, (age_s, version) in sorted(facts.gateways.items()):
        subject = f"gateway {name}"
        if age_s > GATEWAY_LATE_S:
            message = f"was last heard {times.human(age_s)} ago"
            yield warned(subject, "Alive", message, "start it again, if it should run")
        elif version < facts.table_version:
            message = "acts on an older table of endpoints"
            yield warned(subject, "Table", message, "wait a second; if it stays, look at the gateway's log")
        elif 0 < facts.table_version < version:  # 0 before the first one
            message = "acts on a table of endpoints that is newer than all of this controller's"
            fix = (
                "stop the other controller, if there is one; if there is none, stop the gateway, remove endpoints.json "
                "from its state directory and start it"
            )
            yield warned(subject, "Table", message, fix)
        else:
            yield passed(subject, "Table", "acts on the newest table of endpoints")


def _disk(disk: Disk) -> Check:
    if disk.free_mib is None:
        return failed(
            disk.subject, "Space", f"{disk.path}: {disk.problem}", "check the path and its file system"
        )
    words = f"{disk.path}: {_size(disk.free_mib)} free"
    if disk.free_mib < disk.least_mib:
        return warned(
            disk.subject,
            "Space",
            words,
            f"make room: {_size(disk.least_mib)} at least, more for images and models",
        )
    return passed(disk.subject, "Space", words)


def _certificate(name: str, end: float | str, now: float) -> Check:
    subject = f"certificate {name}"
    if isinstance(end, str):
        return failed(subject, "Valid", end, "restore the state directory's tls/ from a backup")
    left_s = end - now
    words = f"until {times.to_rfc3339(end)}"
    fix = "move tls/ away and restart the controller; running replicas then have to be replaced"
    if left_s <= 0:
        return failed(subject, "Valid", f"ended {times.to_rfc3339(end)}", fix)
    return (
        warned(subject, "Valid", words, fix) if left_s < EXPIRES_SOON_S else passed(subject, "Valid", words)
    )


def _size(mebibytes: int) -> str:
    return f"{mebibytes / 1024:.0f} GiB" if mebibytes >= 10 * 1024 else f"{mebibytes} MiB"


def conditions(stored: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """The conditions of a status by their type."""
    return {
        str(each.get("type", "")): (str(each.get("status", "")), str(each.get("message", "")))
        for each in stored
    }
