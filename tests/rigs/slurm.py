"""A private, real Slurm of several nodes on this host, with fake GPUs, beside any Slurm that is already here.

Everything it needs lies in one directory (mode 0755, so that job owners reach it):

    etc/      slurm.conf, gres.conf, munge key        log/    every daemon's log
    run/      munge socket, pid files                 state/  slurmctld's state
    spool/    one folder for each slurmd              dev/    what plays the GPU devices
    shared/   the "shared file system": world-writable, sticky
    rig.json  what runs and who started it

Facts used here come from slurm.conf(5), gres.conf(5), munged(8) and from trials on Slurm 22.05.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.rigs import accounting, slurm_conf
from tests.rigs.errors import RigError
from tests.rigs.leftovers import MARK, PREFIX, end, is_used, remove_debris
from tests.rigs.processes import (
    Identity,
    Kept,
    as_account,
    keep,
    machine_lock,
    need_account,
    need_root,
    tail,
    wait_for,
)
from tests.rigs.release import PATH, RELEASE

PORTS = range(20000, 32000)  # below the ephemeral ports of Linux (32768)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QueuedJob:
    """One line of squeue, as an administrator sees it."""

    id: int
    name: str
    state: str


class SlurmRig:
    """A private Slurm. Start with `start` or as a context manager; needs root.

    nodes       how many slurmd, named n1, n2, ...; each pretends to have 32 CPUs, 256 GB and four GPUs of type a100
    directory   where it lives; by default a fresh one in the temporary directory
    user        the ordinary account `run_as_user` uses; made when missing
    overrides   settings of slurm.conf to change; None drops a setting
    partitions  partitions by name, with their settings, in place of `slurm_conf.PARTITIONS`; each has all the nodes
                unless it says otherwise
    nodes_like  other settings for some of the nodes, by name (`Gres`, `Feature`, `CPUs`, `RealMemory`)
    accounts    keeps accounts: a slurmdbd of its own, which knows the cluster and what these arguments of sacctmgr add before
                slurmctld starts (newer ones refuse a partition whose AllowQos nobody knows); None: no slurmdbd
    job_submit  the text of a job_submit.lua: what a site does to every job
    detached    survives this process (hack/dev-slurm); otherwise it dies with this process, however that ends
    """

    def __init__(
        self,
        *,
        nodes: int = 4,
        directory: Path | str | None = None,
        user: str = "llmoptest",
        overrides: Mapping[str, str | None] | None = None,
        partitions: Mapping[str, Mapping[str, str]] = slurm_conf.PARTITIONS,
        nodes_like: Mapping[str, Mapping[str, str]] | None = None,
        accounts: Sequence[str] | None = None,
        job_submit: str = "",
        detached: bool = False,
    ) -> None:
        if nodes < 1:
            raise RigError(f"nodes: {nodes} is too few; a Slurm needs at least one")
        self.nodes = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.user = user
        self.uid = -1
        self.gid = -1
        self.home = Path("/")
        self._directory = None if directory is None else Path(directory).resolve()
        self._overrides = dict(overrides or {})
        self._partitions = partitions
        self._nodes_like = dict(nodes_like or {})
        self._accounts = accounts
        self._job_submit = job_submit
        self._detached = detached
        self._kept: list[Kept] = []
        self._lifeline: tuple[int, int] | None = None

    # Life

    def start(self) -> SlurmRig:
        """Returns when every node is idle. Raises RigError, and leaves nothing, when that doesn't happen."""
        need_root("a private Slurm")
        for tool in ("munged", "slurmctld", "slurmd", "sbatch"):
            if shutil.which(tool, path=PATH) is None:
                raise RigError(f"{tool} is not installed; run hack/install-slurm")
        account = need_account(self.user)
        self.uid, self.gid, self.home = account.pw_uid, account.pw_gid, Path(account.pw_dir)
        remove_debris()
        self._make_directory()
        if not self._detached:
            self._lifeline = os.pipe()
        try:
            with machine_lock("ports"):  # until the daemons listen: two rigs may look for free ports at once
                self._write_configuration(_free_ports(len(self.nodes) + 3))
                self._start_munged()
                if self._accounts is not None:
                    accounting.start(
                        self.directory, self._database_port, self._dbd_port, self._keep, _listens
                    )
                    for words in ("add cluster rig", *self._accounts):
                        self.run_as_root(["sacctmgr", "--immediate", *words.split()])
                self._start_slurmctld("-c", "-i")
                for node in self.nodes:
                    self._start_slurmd(node)
                wait_for("every slurmd to listen", lambda: all(map(_listens, self._node_ports)), timeout=30)
            wait_for("every node to be idle", lambda: self._node_states() == {"idle"}, timeout=60)
        except BaseException as error:
            logs = self.logs()
            self.stop()
            if isinstance(error, RigError):
                raise RigError(f"{error}\n{logs}") from None
            raise
        return self

    def stop(self) -> None:
        """Kills every process of the rig, jobs included, and removes its directory. May be called twice."""
        if self._directory is not None and self._directory.exists():
            end(self._directory)
        for kept in self._kept:
            if kept.handle is not None:
                kept.handle.wait()
        self._kept.clear()
        if self._lifeline is not None:
            for descriptor in self._lifeline:
                os.close(descriptor)
            self._lifeline = None

    def __enter__(self) -> SlurmRig:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Where and who

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise RigError("the rig has no directory before it is started")
        return self._directory

    @property
    def conf(self) -> Path:
        return self.directory / "etc" / "slurm.conf"

    @property
    def shared(self) -> Path:
        """A folder every account may write in, seen by all nodes."""
        return self.directory / "shared"

    @property
    def env(self) -> dict[str, str]:
        """What a client of this Slurm needs; the munge socket is named in slurm.conf (AuthInfo)."""
        return {"PATH": PATH, "SLURM_CONF": str(self.conf)}

    @property
    def slurmctld_pid(self) -> int:
        return self._latest("slurmctld").daemon.pid

    # Clients

    def run_as_user(
        self,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        timeout: float = 60,
        check: bool = False,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as the ordinary account (or as `user`), with an environment made from nothing, in `shared`.

        `env` is added to it. Other arguments go to subprocess.run. Raises subprocess.TimeoutExpired after
        `timeout` seconds: a dead slurmctld makes clients hang for minutes.
        """
        options = self.as_user(argv, user=user, env=env)
        if not more.keys() & {"stdout", "stderr", "capture_output"}:
            options["capture_output"] = True
        if not more.keys() & {"stdin", "input"}:
            options["stdin"] = subprocess.DEVNULL
        options |= {"cwd": cwd or self.shared, "timeout": timeout, "text": True, **more}
        done: subprocess.CompletedProcess[str] = subprocess.run(check=check, **options)
        return done

    def as_user(
        self, argv: Sequence[str], *, user: str = "", env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Arguments for subprocess.run or Popen that run a command as an ordinary account with a clean environment."""
        account = need_account(user or self.user)
        return {
            "args": as_account(account, argv),
            "umask": 0o022,
            "env": {**self.environment_of(account.pw_name), **(env or {})},
        }

    def environment_of(self, user: str) -> dict[str, str]:
        """What an account has in its environment, made from nothing."""
        account = need_account(user)
        return {
            **self.env,
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            "LC_ALL": "C.UTF-8",
        }

    def run_as_root(self, argv: Sequence[str], *, timeout: float = 60) -> str:
        """Output of an administrator's command (scontrol update and the like). Raises RigError when it fails."""
        result = subprocess.run(
            list(argv),
            env={**self.env, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if result.returncode != 0:
            raise RigError(f"{' '.join(argv)} failed with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def squeue(self) -> list[QueuedJob]:
        """All jobs slurmctld still knows, finished ones too, by id."""
        output = self.run_as_root(["squeue", "--noheader", "--array", "--states=all", "--format=%i %T %j"])
        jobs = [line.split(" ", 2) for line in output.splitlines()]
        return sorted(
            (QueuedJob(id=int(job), state=state, name=name) for job, state, name in jobs),
            key=lambda job: job.id,
        )

    def job(self, job_id: int) -> QueuedJob | None:
        return next((job for job in self.squeue() if job.id == job_id), None)

    def wait_for_state(self, job_id: int, *states: str, timeout: float = 60) -> str:
        """The state of a job as soon as it is one of `states`; a purged job counts as state "" (empty)."""

        def reached() -> str | None:
            job = self.job(job_id)
            state = "" if job is None else job.state
            return f"={state}" if state in states else None

        try:
            return wait_for(
                f"job {job_id} to be {' or '.join(states)}", reached, timeout=timeout
            ).removeprefix("=")
        except RigError as error:
            raise RigError(f"{error}; the queue: {self.squeue()}\n{self.logs()}") from None

    def cancel_all(self) -> None:
        """Cancels every job and waits until none is left running: what a test calls to leave a clean Slurm."""
        live = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING"}

        def none_left() -> bool:
            left = [str(job.id) for job in self.squeue() if job.state in live]
            for argv in (["scancel", "--signal=KILL", "--full"], ["scancel"]) if left else ():
                with contextlib.suppress(RigError):  # a job that has ended meanwhile is an error to scancel
                    self.run_as_root([*argv, *left])
            return not left and self._node_states() <= {"idle", "down", "drained"}

        wait_for("all jobs to end", none_left, timeout=60)

    # Faults

    def pause_slurmctld(self) -> None:
        """SIGSTOP: clients connect (the kernel still accepts) and hang, and what they sent is done after `resume`."""
        self._latest("slurmctld").daemon.kill(signal.SIGSTOP)

    def resume_slurmctld(self) -> None:
        self._latest("slurmctld").daemon.kill(signal.SIGCONT)

    def kill_slurmctld(self) -> None:
        """kill -9; jobs run on."""
        kept = self._latest("slurmctld")
        kept.daemon.kill()
        wait_for("slurmctld to end", kept.ended, timeout=10)

    def start_slurmctld(self) -> None:
        """Starts it again from its saved state and waits until it answers."""
        self._start_slurmctld()

    def lose_state(self) -> None:
        """kill -9 of slurmctld, its StateSaveLocation emptied, and a start from nothing (-c): it has never heard of the jobs that run."""
        self.kill_slurmctld()
        for path in (self.directory / "state").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._start_slurmctld("-c", "-i")

    def kill_slurmd(self, node: str) -> None:
        """kill -9 of slurmd alone; its jobs run on, and the node goes down only after SlurmdTimeout."""
        kept = self._latest(f"slurmd-{node}")
        kept.daemon.kill()
        wait_for(f"slurmd of {node} to end", lambda: not kept.daemon.alive(), timeout=10)

    def kill_node(self, node: str) -> None:
        """Kills slurmd, slurmstepd and every process of the node's jobs at once, as a power cut does.

        slurmctld notices after SlurmdTimeout. A node started again before that hides the loss: its jobs stay RUNNING
        until the node registers anew, which can take minutes.
        """
        for kept in self._kept:
            if kept.name == f"slurmd-{node}":
                kept.stop()
                wait_for(f"the processes of {node} to end", kept.ended, timeout=10)

    def start_node(self, node: str) -> None:
        """Starts the node's slurmd again; slurmctld makes the node usable when it has registered (ReturnToService=2)."""
        self._start_slurmd(node)

    def save_state(self) -> None:
        """Returns when slurmctld has on disk what it knows now; a kill -9 within about five seconds would lose it."""
        name = f"saved-{secrets.token_hex(8)}"
        argv = ["sbatch", "--parsable", "--hold", "--output=/dev/null", "--chdir=/", "--wrap=true"]
        marker = self.run_as_root([*argv, f"--job-name={name}"]).strip()
        state = self.directory / "state" / "job_state"
        wait_for("slurmctld to save its state", lambda: name.encode() in state.read_bytes(), timeout=60)
        self.run_as_root(["scancel", marker])

    def logs(self, lines: int = 12) -> str:
        """The last lines of every daemon's log, for a failure report."""
        folder = self.directory / "log"
        names = ["munged.out.log", "slurmctld.out.log", *(f"slurmd-{node}.out.log" for node in self.nodes)]
        return "\n".join(f"--- {name}\n{tail(folder / name, lines)}" for name in names)

    # Making it

    def _make_directory(self) -> None:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        elif (self._directory / "rig.json").exists():
            if is_used(self._directory):
                raise RigError(
                    f"a private Slurm runs in {self._directory} already; stop it first"
                    f" (hack/dev-slurm down --dir {self._directory})"
                )
            end(self._directory)
        elif self._directory.exists() and any(self._directory.iterdir()):
            raise RigError(f"{self._directory} is not empty and not a rig's; name another directory")
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        closed = [parent for parent in directory.parents if parent.stat().st_mode & 0o001 == 0]
        if closed:
            raise RigError(
                f"{directory}: ordinary accounts can't reach it through {closed[-1]}; name another directory"
            )
        for name in ("etc", "run", "log", "state", "spool", "dev", "shared"):
            (directory / name).mkdir()
        (directory / "shared").chmod(0o1777)
        self._remember()

    def _remember(self) -> None:
        owner = None if self._detached else Identity.of(os.getpid())
        content = {
            "owner": None if owner is None else dataclasses.asdict(owner),
            "nodes": len(self.nodes),
            "kept": [
                {
                    "name": kept.name,
                    "keeper": dataclasses.asdict(kept.keeper),
                    "daemon": dataclasses.asdict(kept.daemon),
                }
                for kept in self._kept
            ],
        }
        partial = self.directory / "rig.json.new"
        partial.write_text(json.dumps(content, indent=1))
        partial.rename(self.directory / "rig.json")

    def _write_configuration(self, ports: Sequence[int]) -> None:
        self._ctld_port, self._database_port, self._dbd_port, *node_ports = ports
        self._node_ports = tuple(node_ports)
        # A GPU needs a device file each, or jobs get no CUDA_VISIBLE_DEVICES. Nothing opens it, since no cgroup
        # confines devices here; it is a second /dev/null.
        for number in range(4):
            os.mknod(self.directory / "dev" / f"fakegpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        key = self.directory / "etc" / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        version = subprocess.run(
            ["slurmctld", "-V"], env=self.env, capture_output=True, text=True, check=True
        )
        overrides = dict(self._overrides)
        if self._accounts is not None:
            overrides = {
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageHost": "localhost",
                "AccountingStoragePort": str(self._dbd_port),
                "AccountingStoragePass": f"{self.directory}/run/munge.socket",  # slurm.conf(5): with munge, its socket
                "AccountingStorageTRES": "gres/gpu",
                **overrides,
            }
        if RELEASE:
            overrides = {"PluginDir": f"{RELEASE}/lib/slurm", **overrides}
        if self._job_submit:
            overrides = {"JobSubmitPlugins": "lua", **overrides}
            (self.directory / "etc" / "job_submit.lua").write_text(self._job_submit)
        files = slurm_conf.render(
            self.directory,
            release=version.stdout.split()[-1],
            controller_port=self._ctld_port,
            nodes=dict(zip(self.nodes, self._node_ports, strict=True)),
            overrides=overrides,
            partitions=self._partitions,
            nodes_like=self._nodes_like,
        )
        for name, text in files.items():
            (self.directory / "etc" / name).write_text(text)

    def _keep(self, name: str, argv: Sequence[str]) -> None:
        kept = keep(
            name,
            argv,
            env={**self.env, "LC_ALL": "C", MARK: str(self.directory)},
            log=self.directory / "log" / f"{name}.out.log",
            run=self.directory / "run",
            lifeline=None if self._lifeline is None else self._lifeline[0],
        )
        self._kept = [*(old for old in self._kept if not old.ended()), kept]
        self._remember()

    def _start_munged(self) -> None:
        base = self.directory
        munge_socket = base / "run" / "munge.socket"
        files = {
            "socket": munge_socket,
            "key-file": base / "etc" / "munge.key",
            "log-file": base / "log" / "munged.log",
            "pid-file": base / "run" / "munged.pid",
            "seed-file": base / "run" / "munged.seed",
        }
        self._keep(
            "munged", ["munged", "--foreground", *(f"--{name}={path}" for name, path in files.items())]
        )
        wait_for("munged to listen", munge_socket.exists, timeout=10)

    def _start_slurmctld(self, *options: str) -> None:
        self._keep("slurmctld", ["slurmctld", "-D", *options])
        kept = self._latest("slurmctld")

        def answers() -> bool:
            if not kept.daemon.alive():
                raise RigError("slurmctld ended at once; its log says why")
            if not _listens(self._ctld_port):
                return False
            ping = subprocess.run(
                ["scontrol", "ping"], env=self.env, capture_output=True, text=True, timeout=60, check=False
            )
            return " is UP" in ping.stdout

        wait_for("slurmctld to answer", answers, timeout=30)

    def _start_slurmd(self, node: str) -> None:
        # slurmd(8): without -d it starts the slurmstepd of the place it was built for.
        stepd = ["-d", f"{RELEASE}/bin/slurmstepd"] if RELEASE else []
        self._keep(f"slurmd-{node}", ["slurmd", "-D", *stepd, "-N", node])

    def _latest(self, name: str) -> Kept:
        found = [kept for kept in self._kept if kept.name == name]
        if not found:
            raise RigError(f"{name} doesn't run in this rig")
        return found[-1]

    def _node_states(self) -> set[str]:
        return set(self.run_as_root(["sinfo", "--noheader", "--Node", "--format=%T"]).split())


def _free_ports(count: int) -> list[int]:
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise RigError(f"fewer than {count} free ports from {PORTS.start} to {PORTS.stop}")


def _listens(port: int) -> bool:
    """Whether a socket listens on the port, without connecting: daemons log half-open connections as errors."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == "0A":
                return True
    return False
