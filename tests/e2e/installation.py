"""One installation of llmop on a private Slurm, run by an ordinary account as its users run it.

Controller and gateway are processes of that account, started from an installed wheel; manifests go in through llmctl. What is there
afterwards is looked up in Slurm and in /proc, never in llmop's own store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from tests.e2e.traffic import Traffic
from tests.rigs.bindfs import Bindfs
from tests.rigs.errors import RigError
from tests.rigs.ports import free_port
from tests.rigs.processes import Identity, Kept, keep, need_account, tail, wait_for
from tests.rigs.slurm import QueuedJob, SlurmRig

from llmop.cli.client import Client, ServerError

T = TypeVar("T")
POLL = 0.2
LIVE = frozenset({"PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED", "RESIZING"})
MODEL = "sim"
UNREACHED = "127.0.0.2"  # controllers here listen on 127.0.0.1 alone
# Short times: what is waited for here is the protocol, not a busy cluster.
CLUSTER: dict[str, Any] = {
    "driver": "slurm",
    "submitRate": {"perSecond": 20, "burst": 40},
    "submitTimeout": "20s",
    "settleTime": "10s",
    "pollInterval": {"min": "1s", "max": "3s"},
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """A Replica of the control API: name, what its spec and its status say."""

    name: str
    spec: dict[str, Any]
    status: dict[str, Any]

    @property
    def job_id(self) -> int | None:
        return int(self.status["jobId"]) if self.status.get("jobId") else None


class Installation:
    """Start with `start`; `stop` ends every process and every job of it, and removes its directory.

    `store` is SQLAlchemy's address ("" = SQLite in the state directory). `path_first` is put before PATH of the controller. `name` tells
    installations on one rig apart; `user` is the account that has it ("" = the rig's); `namespace` is where its deployments are;
    `shares_authority` keeps the agents' CA in one place for all controllers; `cluster` changes fields of the Cluster's spec; `bare` has no
    Cluster yet. `advertised` is the address of controllers that agents are told: with `UNREACHED` they find nobody there. With `fuse`
    everything of it, state and shared directory, lies on a FUSE file system.
    """

    def __init__(
        self,
        rig: SlurmRig,
        venv: Path,
        *,
        name: str,
        user: str = "",
        namespace: str = "default",
        store: str = "",
        path_first: Path | None = None,
        shares_authority: bool = False,
        cluster: Mapping[str, Any] | None = None,
        bare: bool = False,
        advertised: str = "",
        fuse: bool = False,
    ) -> None:
        self.rig = rig
        self.venv = venv
        self.user = user or rig.user
        self.namespace = namespace
        self.directory = rig.shared / name
        self.shared = self.directory / "shared"
        self.store = store
        self.authority = self.directory / "authority" if shares_authority else None
        self.key = ""
        self.port = 0
        self.controllers: dict[str, Kept] = {}
        self._gateway: Kept | None = None
        self._kept: list[Kept] = []  # also the keepers of what was killed: children of it may live on
        self._path = f"{path_first}:{rig.env['PATH']}" if path_first else rig.env["PATH"]
        self.cluster = {**CLUSTER, "sharedDir": str(self.shared), "python": str(venv / "bin/python")} | dict(
            cluster or {}
        )
        self._bare = bare
        self.advertised = advertised
        self._fuse = Bindfs(rig.shared / f".{name}", self.directory) if fuse else None
        self._lifeline = os.pipe()
        self._clients: dict[str, Client] = {}
        self._mounts = mounts()

    # Life

    def start(self) -> Installation:
        self.directory.mkdir()
        if self._fuse is not None:
            self._fuse.start()
            self._mounts = mounts()
        os.chown(self.directory, self.uid, need_account(self.user).pw_gid)
        self.port = free_port()
        try:
            self.start_processes()
        except BaseException:
            print(self.report())
            self.stop()
            raise
        return self

    def start_processes(self) -> None:
        """A controller, a gateway with a key, and the Cluster."""
        self.start_controller()
        made = self.run(["llmop", "key", "create", "--state-dir", str(self.state()), "tests"])
        self.key = made.strip()
        self.start_gateway()
        if not self._bare:
            self.apply(document("Cluster", "default", self.cluster))

    def stop_processes(self) -> None:
        """kill -9 of controllers and gateway; its jobs go on."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for kept in self._kept:
            kept.stop()
            wait_for(f"{kept.name} to end", kept.ended, timeout=60)
        self._kept.clear()
        self.controllers.clear()
        self._gateway = None

    def stop(self) -> None:
        """May be called twice. Ends every job of the rig."""
        self.stop_processes()
        if self._lifeline is not None:
            for descriptor in self._lifeline:
                os.close(descriptor)
            self._lifeline = ()
        if self.directory.exists():
            self._cancel_all()
            if self._fuse is not None:
                self._fuse.stop()
                shutil.rmtree(self._fuse.source, ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _cancel_all(self) -> None:
        def none_left() -> bool:
            left = [str(job.id) for job in self.rig.squeue() if job.state in LIVE]
            for argv in (["scancel", "--signal=KILL", "--full"], ["scancel"]) if left else ():
                with contextlib.suppress(RigError):  # a job that has ended meanwhile is an error to scancel
                    self.rig.run_as_root([*argv, *left])
            return not left

        wait_for("all jobs to end", none_left, timeout=60)

    @property
    def uid(self) -> int:
        return need_account(self.user).pw_uid

    def state(self, which: str = "first") -> Path:
        """The state directory of a controller."""
        return self.directory / f"state-{which}"

    def start_controller(self, which: str = "first", *, wait: bool = True) -> Kept:
        """`which` names one of several controllers; each has its own state directory."""
        argv = [
            *(str(self.venv / "bin/llmop"), "controller", "--state-dir", str(self.state(which))),
            *("--gateway-url", f"http://127.0.0.1:{self.port}"),
            *(["--store", self.store] if self.store else []),
            *(["--tls-dir", str(self.authority)] if self.authority else []),
            *(["--agent-advertise", self.advertised] if self.advertised else []),
        ]
        kept = self.controllers[which] = self._keep(f"controller-{which}", argv)
        if wait:
            self.wait("the controller to answer", lambda: self.answers(which), timeout=60)
        return kept

    def kill_controller(self, which: str = "first") -> None:
        """kill -9. What it had started (sbatch, squeue) goes on, as it does on a login node."""
        kept = self.controllers.pop(which)
        kept.daemon.kill(signal.SIGKILL)
        wait_for("the controller to end", lambda: not kept.daemon.alive(), timeout=30)

    def end_controller(self, which: str = "first") -> None:
        """SIGTERM."""
        kept = self.controllers.pop(which)
        kept.daemon.kill(signal.SIGTERM)
        wait_for("the controller to end", lambda: not kept.daemon.alive(), timeout=60)

    def answers(self, which: str = "first") -> bool:
        try:
            self.client(which).list("Cluster", "")
            return True
        except ServerError:
            return False

    def start_gateway(self) -> None:
        argv = [str(self.venv / "bin/llmop"), "gateway", "--state-dir", str(self.state())]
        self._gateway = self._keep("gateway", [*argv, "--listen", f"127.0.0.1:{self.port}"])

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        self.wait("the gateway to listen", listens, timeout=60)

    def _keep(self, name: str, argv: Sequence[str]) -> Kept:
        kept = keep(
            name,
            argv,
            env={**self.environment, "PATH": self._path},
            log=self.directory / f"{name}.log",
            run=self.directory,
            user=self.user,
            lifeline=self._lifeline[0],
        )
        self._kept.append(kept)
        return kept

    @property
    def environment(self) -> dict[str, str]:
        return {**self.rig.environment_of(self.user), "XDG_CONFIG_HOME": str(self.directory / "config")}

    # What people do

    def run(self, argv: Sequence[str], *, text: str = "", code: int = 0) -> str:
        """The output of one of llmop's programs, run by the account; fails when it ends with another code."""
        return self.as_account([str(self.venv / "bin" / argv[0]), *argv[1:]], text=text, code=code)

    def as_account(self, argv: Sequence[str], *, text: str = "", code: int = 0) -> str:
        """The same of any command."""
        done = self.rig.run_as_user(argv, user=self.user, input=text, env=self.environment, timeout=60)
        assert code == done.returncode, (
            f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
        return str(done.stdout) if code == 0 else f"{done.stdout}{done.stderr}"

    def llmctl(self, *argv: str, text: str = "", code: int = 0, which: str = "first") -> str:
        where = ["--controller", self.address(which), "--namespace", self.namespace]
        return self.run(["llmctl", *where, *argv], text=text, code=code)

    def apply(
        self, *documents: Mapping[str, Any], force: bool = False, code: int = 0, which: str = "first"
    ) -> str:
        text = yaml.safe_dump_all(documents, sort_keys=False)
        return self.llmctl(
            "apply", *(["--force"] if force else []), "-f", "-", text=text, code=code, which=which
        )

    def scale(self, name: str, replicas: int) -> None:
        self.llmctl("scale", "md", name, f"--replicas={replicas}")

    def delete(self, name: str) -> None:
        """Returns at once; see `wait_gone`."""
        self.llmctl("delete", "md", name, "--no-wait")

    # What can be seen

    def address(self, which: str = "first") -> str:
        return f"unix://{self.state(which)}/run/controller.sock"

    def client(self, which: str = "first") -> Client:
        if which not in self._clients:
            self._clients[which] = Client(self.address(which), 30.0)
        return self._clients[which]

    def status(self, kind: str, name: str, which: str = "first") -> dict[str, Any]:
        """Status of an object; {} when it is not there or nobody answers."""
        namespace = self.namespace if kind == "ModelDeployment" else ""
        try:
            found = self.client(which).get(kind, namespace, name)
        except ServerError:
            return {}
        status: dict[str, Any] = json.loads(found.object.status_json or "{}")
        return status

    def exists(self, name: str) -> bool:
        try:
            return bool(self.client().get("ModelDeployment", self.namespace, name))
        except ServerError as error:
            return error.reason != "NotFound"

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        """{} where nothing is known of it, or nobody answers."""
        found = self.status(kind, name).get("conditions", [])
        return next((dict(one) for one in found if one["type"] == condition), {})

    def wait_condition(
        self, kind: str, name: str, condition: str, *, timeout: float = 60, **wanted: str
    ) -> dict[str, Any]:
        """The condition as it is when it has these fields for the first time: a second look may find it changed."""

        def found() -> dict[str, Any] | None:
            seen = self.condition(kind, name, condition)
            return seen if seen and wanted.items() <= seen.items() else None

        what = " and ".join(f"{field} {value}" for field, value in wanted.items())
        return self.wait(f"{condition} of {name} to be {what}", found, timeout=timeout)

    def replicas(self, deployment: str = "", which: str = "first") -> list[Replica]:
        try:
            rows, _ = self.client(which).list("Replica", "")
        except ServerError:
            return []
        found = [
            Replica(
                name=row.object.metadata.name,
                spec=json.loads(row.object.spec_json),
                status=json.loads(row.object.status_json or "{}"),
            )
            for row in rows
        ]
        return [each for each in found if not deployment or each.spec["deployment"] == deployment]

    def ready(self, deployment: str) -> list[Replica]:
        return [each for each in self.replicas(deployment) if each.status.get("phase") == "Ready"]

    def jobs(self) -> list[QueuedJob]:
        """The jobs of any llmop that Slurm holds resources for, or will."""
        return [job for job in self.rig.squeue() if job.state in LIVE and job.name.startswith("llmop-")]

    def own_jobs(self) -> list[QueuedJob]:
        """Those of `jobs` that carry the mark of this installation: replica.json has it, and it stands in the names of its jobs."""
        marks = {
            json.loads(path.read_text())["installation"]
            for path in self.shared.glob("replicas/*/replica.json")
        }
        return [job for job in self.jobs() if job.name.split("-")[1] in marks]

    def owners(self, jobs: Sequence[QueuedJob]) -> set[str]:
        """The accounts that `jobs` run under."""
        lines = self.rig.run_as_root(["squeue", "--noheader", "--format=%i %u"]).splitlines()
        account = dict(line.split() for line in lines)
        return {account[str(job.id)] for job in jobs}

    # Waiting

    def hold(self, what: str, probe: Callable[[], object], *, seconds: float) -> None:
        """Asks for so long, and fails with everything that may explain it at the first answer that is not true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert probe(), f"this did not hold: {what}\n{self.report()}"
            time.sleep(POLL)

    def wait(self, what: str, probe: Callable[[], T | None], *, timeout: float) -> T:
        """Asks until the answer is true; its time is printed. Fails with everything that may explain why not."""
        began = time.monotonic()
        while True:
            answer = probe()
            if answer:
                print(f"{time.monotonic() - began:6.1f} s for {what}")
                return answer
            if time.monotonic() - began > timeout:
                raise AssertionError(f"waited {timeout:g} s for {what}\n{self.report()}")
            time.sleep(POLL)

    def wait_ready(self, name: str, replicas: int, *, timeout: float = 90) -> None:
        """Until the condition Ready of the applied generation is true with so many replicas."""

        def reached() -> bool:
            found = self.client_object(name)
            if found is None:
                return False
            status = json.loads(found.status_json or "{}")
            ready = [one for one in status.get("conditions", []) if one["type"] == "Ready"]
            return bool(
                ready
                and ready[0]["status"] == "True"
                and status.get("observedGeneration") == found.metadata.generation
                and status.get("readyReplicas") == replicas
            )

        self.wait(f"{name} to be ready with {replicas}", reached, timeout=timeout)

    def client_object(self, name: str) -> Any:
        try:
            return self.client().get("ModelDeployment", self.namespace, name).object
        except ServerError:
            return None

    def wait_gone(self, name: str, *, timeout: float = 90) -> None:
        self.wait(f"{name} to be gone", lambda: not self.exists(name), timeout=timeout)

    def wait_settled(self, jobs: int, *, timeout: float = 60) -> list[QueuedJob]:
        """Until Slurm has exactly so many running jobs of llmop and no others."""

        def settled() -> list[QueuedJob] | None:
            found = self.jobs()
            running = [job for job in found if job.state == "RUNNING"]
            return [*running, *found] if len(found) == len(running) == jobs else None

        return self.wait(f"{jobs} jobs to run", settled, timeout=timeout)[:jobs]

    # Nothing is left

    def processes(self) -> list[str]:
        """Command lines of processes below a job of this installation, wherever they went."""
        own = {kept.daemon.pid for kept in self.controllers.values()}
        own |= {self._gateway.daemon.pid} if self._gateway else set()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in own or Identity.of(int(entry.name)) is None:
                continue
            with contextlib.suppress(OSError):
                if entry.stat().st_uid != self.uid:
                    continue
                command = (entry / "cmdline").read_bytes()
                words = command + b"\0" + (entry / "environ").read_bytes()
                if str(self.shared).encode() in words:
                    found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def agent_of(self, each: Replica) -> int:
        """The process of a replica's agent."""
        config = str(self.shared / "replicas" / each.name / "replica.json").encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if config in words and b"--guard" not in words:
                    return int(entry.name)
        raise AssertionError(f"no agent of {each.name} runs")

    def assert_nothing_left(self) -> None:
        """No job, no process, no mount, no working directory."""
        self.wait("the queue to be empty", lambda: not self.jobs(), timeout=60)
        self.wait("the processes to be gone", lambda: not self.processes(), timeout=60)
        assert [] == sorted(mounts() - self._mounts)
        left = "replicas/*/scratch/*"  # removed by the agent, or by the controller just after the end is recorded
        self.wait("the working directories to be gone", lambda: not [*self.shared.glob(left)], timeout=60)
        self.wait(
            "what was being written to be whole",
            lambda: not [path for path in self.shared.rglob("*") if path.name.endswith(".tmp")],
            timeout=60,
        )

    # Reports

    def report(self) -> str:
        """Everything that may explain a failure."""
        parts = [f"queue: {self._or_error(self.rig.squeue)}"]
        replicas = self.replicas()
        for name in sorted({each.spec["deployment"] for each in replicas}):
            parts.append(f"{name}: {json.dumps(self.status('ModelDeployment', name))[:3000]}")  # noqa: PERF401
        parts.append(f"cluster: {json.dumps(self.status('Cluster', 'default').get('conditions'))}")
        for each in replicas:
            filled = {key: value for key, value in each.status.items() if value}
            parts.append(f"replica {each.name}: {json.dumps(filled)[:600]}")
        if self.controllers:
            events = self._or_error(lambda: "\n".join(self.llmctl("events").splitlines()[-40:]))
            parts.append(f"--- events\n{events}")
        logs = sorted(self.shared.glob("replicas/*/job.log"), key=lambda path: path.stat().st_mtime)[-4:]
        parts += [
            f"--- {path.relative_to(self.directory)}\n{tail(path, 40)}"
            for path in [*sorted(self.directory.glob("*.log")), *logs]
        ]
        return "\n".join(parts)

    @staticmethod
    def _or_error(call: Callable[[], object]) -> object:
        try:
            return call()
        except (AssertionError, RigError, subprocess.SubprocessError, ValueError) as error:
            return error

    def traffic(self, model: str = MODEL) -> Traffic:
        return Traffic(self.port, self.key, model)

    @contextlib.contextmanager
    def flowing(self, model: str = MODEL) -> Iterator[Traffic]:
        """Steady traffic for the time of the block; fails when a request failed, with all that may explain it."""
        traffic = self.traffic(model)
        traffic.start()
        try:
            yield traffic
        finally:
            traffic.stop()
        print(f"       {traffic}")
        assert [] == traffic.failures[:10], self.report()


def document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }


def simulator(
    name: str = MODEL,
    *,
    replicas: int | None = 1,
    args: Sequence[str] = (),
    image: Path | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A deployment of the engine without a model; with `image` it runs in Apptainer. `replicas` None leaves the number as it is."""
    whole: dict[str, Any] = {
        "runtime": "simulator",
        "resourceProfile": "cpu",
        **({} if replicas is None else {"replicas": replicas}),
        "args": ["--decode-base-ms=2", *args],
        "probes": {"readiness": {"period": "1s"}, "startup": {"timeout": "60s"}},
        "terminationGracePeriod": "20s",
        "resources": {"cpus": 1, "memory": "200Mi"},
        **({"image": str(image)} if image else {}),
        **spec,
    }
    return document("ModelDeployment", name, whole)


def mounts() -> set[str]:
    """Mounts of containers that this host can see: of Apptainer, or of a FUSE file system."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return {line for line in lines if "apptainer" in line or " fuse" in line or "squash" in line}
