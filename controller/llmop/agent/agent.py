#!/usr/bin/env python3
"""The agent of one replica: agent.py --config <replica directory>/replica.json

It is the process that Slurm's batch script becomes. It claims the replica, checks the node, starts the inference engine on a
free port, proves that the port is the engine's, warms it up, reports to the controller, and ends everything when it is asked to.
docs/reference/agent-channel.md is the contract; this file implements it with the standard library of Python 3.6.

Three processes: the agent, a guard (this file again, `--guard`), and the engine below it. The guard kills the engine with all its
children when the agent is gone, however the agent went. Threads of the agent: the main thread takes signals and supervises the
engine; `beats` keeps one heartbeat open; `pushes` sends changes at once; `files` writes heartbeats into the shared directory while no
controller can be reached; `log` bounds engine.log; `load` asks the engine how busy it is; probes run in short threads of their own.
While the engine runs only these threads touch the shared file system (controllers.json after a failed call, the inbox, orders), and
the main thread once for a USR1.

Sections: ends, the configuration, files, processes and sockets, ports, the guard, the engine, its load, the controller, the agent, main.
"""

import argparse
import ctypes
import errno
import http.client
import io
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple
from urllib.parse import urlsplit

Document = Dict[str, Any]

CONTRACT_VERSION = 1
FIRST_PERIOD = 5.0  # seconds between heartbeats until the controller has named its own
REPLY_TIMEOUT = 10.0  # seconds for a reply, on top of the time it may be held back
CLAIM_TIMEOUT = 5.0  # seconds for a reply to the claim: there is another way to ask
FILES_AFTER = 10.0  # seconds without a controller until files are written: most restarts are over by then
FILES_SLOWER = 4.0  # so many periods between two files at most, while nobody takes them
LAST_WORD_TIMEOUT = 3.0  # seconds for the heartbeat that says "ended"
LOG_LIMIT = 64 << 20  # bytes of engine.log; one older piece of the same size is kept as engine.log.1
LOG_TAIL_LINES, LOG_TAIL_COLUMNS = 20, 400
MIN_FREE_BYTES = 64 << 20  # below this a replica directory cannot even keep its log
PORT_ATTEMPTS = 5  # engine starts that may fail because somebody took the port
TERM_BUDGET = 25.0  # Slurm's KillWait is 30 s by default; SIGKILL follows SIGTERM after that
TERM_STOP_SHARE = 10.0  # of these, what the engine gets to end by itself
SETTLE_USR1, SETTLE_TERM = (
    5.0,
    1.0,
)  # time for gateways to hear of a drain that they did not agree to beforehand
QUIET = 0.2  # seconds without an outside connection that end a drain
BUSY_PATIENCE = 5  # an engine that works but does not answer gets this many times its failureThreshold
LOAD_PERIOD = 5.0  # seconds between two looks at the engine's metrics, at most
LOAD_TIMEOUT = 2.0  # seconds for all of the metrics
LOAD_LIMIT = 1 << 20  # bytes of metrics
REFUSED_WARMUPS = 5  # as many 4xx answers in a row are a fault, not a model that still loads


# --- Ends -------------------------------------------------------------------------------------------------------------


class End(Exception):
    """The agent is over: `reason` and `code` are the contract's, `message` is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = EXIT_CODES[reason]
        self.message = message


EXIT_CODES = {
    "Drained": 0,
    "Superseded": 0,
    "Terminated": 0,
    "BadSpec": 64,
    "NodeUnusable": 69,
    "EngineCrashed": 70,
    "Storage": 73,
    "Temporary": 75,
    "MissingArtifact": 78,
    "StartupTimeout": 124,
}


class EngineEnded(Exception):
    """The engine ended by itself, or has to be ended: what a restart may repair."""


class PortTaken(Exception):
    """Somebody else listens where the engine should: another port may help."""


class DrainRequested(Exception):
    """An order or a signal asks for the end."""


def say(text: str) -> None:
    """One line for the job's log, stamped to the millisecond: `llmctl bench startup` reads from it how long each step took."""
    now = time.time()  # noqa: TID251 - this file runs alone, without llmop.clock
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    sys.stderr.write("{}.{:03d}Z agent: {}\n".format(stamp, int(now * 1000) % 1000, text))
    sys.stderr.flush()


# --- The configuration ------------------------------------------------------------------------------------------------


class Reader:
    """One JSON object of replica.json; every complaint names the field, the value and what is expected."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise End("BadSpec", "{} must be an object, not {!r}".format(path or "replica.json", value))
        self.document = value
        self.path = path

    def _get(self, name: str, default: Any) -> Any:
        value = self.document.get(name)
        if value is None:
            if default is None:
                raise End("BadSpec", "{} is missing".format(self.name(name)))
            return default
        return value

    def name(self, name: str) -> str:
        return self.path + "." + name if self.path else name

    def bad(self, name: str, value: Any, expected: str) -> End:
        return End("BadSpec", "{} is {!r}: it must be {}".format(self.name(name), value, expected))

    def text(self, name: str, default: Optional[str] = None) -> str:
        value = self._get(name, default)
        if not isinstance(value, str) or "\0" in value:
            raise self.bad(name, value, "text without NUL characters")
        return value

    def filled(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise self.bad(name, value, "text that is not empty")
        return value

    def secret(self, name: str) -> str:
        value = self._get(name, None)
        if not isinstance(value, str) or not re.match(r"^[!-~]+\Z", value):
            raise End(
                "BadSpec",
                "{} must be printable ASCII without blanks (its value is not shown)".format(self.name(name)),
            )
        return value

    def number(self, name: str, default: Optional[float] = None, least: float = 0) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
            raise self.bad(name, value, "a number from {:g} on".format(least))
        return float(value)

    def whole(self, name: str, default: Optional[int] = None, least: int = 0) -> int:
        value = self.number(name, default, least)
        if value != int(value):
            raise self.bad(name, value, "a whole number")
        return int(value)

    def choice(self, name: str, choices: Sequence[str], default: Optional[str] = None) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise self.bad(name, value, "one of " + ", ".join(choices))
        return value

    def texts(self, name: str, default: Optional[List[str]] = None) -> List[str]:
        value = self._get(name, default)
        if not isinstance(value, list) or not all(
            isinstance(item, str) and "\0" not in item for item in value
        ):
            raise self.bad(name, value, "a list of texts without NUL characters")
        return list(value)

    def child(self, name: str, default: Optional[Document] = None) -> "Reader":
        return Reader(self._get(name, default), self.name(name))


VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
METRIC = re.compile(r"^[A-Za-z_:][A-Za-z0-9_:]*\Z")


class MetricsConfig:
    """The object `engine.metrics`: where the engine says how busy it is, and under which names; "" for what it does not say."""

    def __init__(self, reader: Reader, path: str) -> None:
        self.path = path
        self.queue_depth = self._name(reader, "queueDepth")
        self.running = self._name(reader, "running")
        self.kv_cache_usage = reader.text("kvCacheUsage", "")
        if self.kv_cache_usage and not all(map(METRIC.match, self.kv_cache_usage.split(" / ", 1))):
            raise reader.bad(
                "kvCacheUsage", self.kv_cache_usage, "the name of a metric, or two like used / total"
            )

    @staticmethod
    def _name(reader: Reader, name: str) -> str:
        value = reader.text(name, "")
        if value and not METRIC.match(value):
            raise reader.bad(name, value, "the name of a metric")
        return value


class EngineConfig:
    """The object `engine` of replica.json."""

    def __init__(self, reader: Reader) -> None:
        self.argv = reader.texts("argv")
        if not self.argv or not self.argv[0]:
            raise reader.bad("argv", self.argv, "a command: its first item is the program")
        self.env = self._variables(reader)
        self.env_files = reader.texts("envFiles", [])
        self.api_key_env = reader.text("apiKeyEnv", "")
        if self.api_key_env and not VARIABLE.match(self.api_key_env):
            raise reader.bad("apiKeyEnv", self.api_key_env, "the name of a variable")
        self.ports = reader.texts("ports", ["http"])
        if "http" not in self.ports or len(set(self.ports)) != len(self.ports):
            raise reader.bad("ports", self.ports, "different names, one of them http")
        self.cwd = reader.text("cwd", "{scratch}")
        self.requires = reader.texts("requires", [])
        self.startup_timeout = reader.number("startupTimeout")
        self.max_restarts = reader.whole("maxRestarts")
        self._container(reader.child("container", {"kind": "none"}))
        self._probes(reader)
        stop = reader.child("stop", {})
        self.stop_signal = self._signal(stop)
        self.stop_timeout = stop.number("timeout", 30)

    @staticmethod
    def _variables(reader: Reader) -> Dict[str, str]:
        variables = reader.child("env", {})
        for name in variables.document:
            if not VARIABLE.match(name):
                raise reader.bad("env", name, "names of letters, digits and _")
        return {name: variables.text(name) for name in variables.document}

    @staticmethod
    def _signal(stop: Reader) -> int:
        name = stop.text("signal", "TERM")
        number = getattr(signal, "SIG" + name, None)
        if not isinstance(number, signal.Signals):
            raise stop.bad("signal", name, "the name of a signal without SIG, such as TERM")
        return int(number)

    def _container(self, container: Reader) -> None:
        self.contained = container.choice("kind", ["none", "apptainer"]) == "apptainer"
        self.image, self.gpu, self.binds = "", "none", []  # type: str, str, List[str]
        if not self.contained:
            return
        self.image = container.text("image")
        if not self.image.startswith("/"):
            raise container.bad("image", self.image, "an absolute path")
        self.gpu = container.choice("gpu", ["none", "nvidia", "amd"], "none")
        self.binds = container.texts("binds", [])
        for bind in self.binds:
            # A comma begins another bind for apptainer.
            if not bind.startswith("/") or "," in bind or bind.count(":") > 2:
                raise container.bad("binds", bind, "/host, /host:/inside or /host:/inside:ro, without commas")

    def _probes(self, reader: Reader) -> None:
        health = reader.child("health")
        self.health_path = self._route(health)
        self.health_period = health.number("period", 5, 0.01)
        self.health_timeout = health.number("timeout", 5, 0.01)
        self.failure_threshold = health.whole("failureThreshold", 3, 1)
        self.warmup = None  # type: Optional[Tuple[str, str, bytes]]
        if reader.document.get("warmup") is not None:
            warmup = reader.child("warmup")
            body = json.dumps(warmup.document.get("body")).encode("utf-8")
            self.warmup = (warmup.choice("method", ["POST", "GET"], "POST"), self._route(warmup), body)
        self.metrics = None  # type: Optional[MetricsConfig]
        if reader.document.get("metrics") is not None:
            metrics = reader.child("metrics")
            self.metrics = MetricsConfig(metrics, self._route(metrics))

    @staticmethod
    def _route(reader: Reader) -> str:
        path = reader.text("path")
        if not re.match(r"^/[!-~]*\Z", path):
            raise reader.bad("path", path, "a path from / on, of printable ASCII")
        return path


class Config:
    """replica.json. Durations are seconds; `directory` is where the file lies, whatever the file says."""

    def __init__(self, document: Any, directory: str) -> None:
        reader = Reader(document, "")
        if reader.whole("version") != CONTRACT_VERSION:
            raise reader.bad(
                "version",
                document["version"],
                "{}: this agent is of another release".format(CONTRACT_VERSION),
            )
        replica = reader.child("replica")
        self.uid = replica.filled("uid")
        self.name = replica.filled("name")
        self.job_name = replica.filled("jobName")
        if "/" in self.job_name or self.job_name.startswith("."):
            raise replica.bad("jobName", self.job_name, "a file name")
        self.shared = reader.filled("sharedDir")
        self.directory = directory
        self.token = reader.secret("token")
        self.api_key = reader.secret("apiKey")
        self.ca = reader.filled("ca")
        self.controller_wait = reader.number("controllerWait", 30)
        self.gpus = reader.whole("gpus", 0)
        self.termination_grace = reader.number("terminationGrace", 120)
        self.rollover_margin = reader.number("rolloverMargin", 120)
        self.engine = EngineConfig(reader.child("engine"))
        self.tls = self._tls()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The CA is this installation's own: whoever holds a certificate of it is the controller, at any address.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise End("BadSpec", "ca must be a certificate in PEM form: {}".format(error)) from error
        return context

    @staticmethod
    def load(path: str) -> "Config":
        try:
            with open(path, "rb") as file:
                document = json.loads(file.read().decode("utf-8"))
        except OSError as error:
            raise End("BadSpec", "{} cannot be read: {}".format(path, error.strerror)) from error
        except ValueError as error:
            raise End("BadSpec", "{} is not JSON: {}".format(path, error)) from error
        return Config(document, os.path.dirname(os.path.abspath(path)))


class Job:
    """Who this process is to the scheduler."""

    def __init__(self, environment: Dict[str, str]) -> None:
        self.id = environment.get("SLURM_JOB_ID", "")
        if not self.id:
            raise End("BadSpec", "SLURM_JOB_ID is not set: the agent is started by a job's script")
        self.restart_count = int(environment.get("SLURM_RESTART_COUNT") or 0)
        self.node = environment.get("SLURMD_NODENAME") or socket.gethostname()
        end = environment.get("SLURM_JOB_END_TIME", "")  # epoch seconds; Slurm has it from 23.02 on
        self.end_time = float(end) if re.match(r"^\d+\Z", end) else None

    def holder(self) -> Document:
        return {"jobId": self.id, "restartCount": self.restart_count}


PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{port\}|\{port:[^{}]*\}|\{host\}|\{scratch\}|\{sockets\}|\{apiKeyFile\}"
)


def fill(template: str, ports: Dict[str, int], others: Dict[str, str]) -> str:
    """Replace the contract's placeholders in one pass; whatever else stands in braces stays as it is."""

    def one(match: Any) -> str:
        found = match.group(0)
        if found in ("{{", "}}"):
            return str(found[0])
        name = found[1:-1]
        if name in others:
            return others[name]
        port = "http" if name == "port" else name[len("port:") :]
        if port not in ports:
            raise End(
                "BadSpec", "{}: engine.ports has no {!r}, only {}".format(found, port, ", ".join(ports))
            )
        return str(ports[port])

    return PLACEHOLDER.sub(one, template)


# --- Files ------------------------------------------------------------------------------------------------------------


def storage_end(error: OSError, path: str) -> End:
    return End("Storage", "{}: {}".format(error.filename or path, error.strerror))


def write_synced(path: str, content: str) -> None:
    """Write a 0600 file and wait until it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def replace_json(path: str, document: Document) -> None:
    """Write JSON so that a reader sees the old or the new file, never a part."""
    temporary = "{}.{}.tmp".format(path, os.getpid())
    write_synced(temporary, json.dumps(document))
    os.rename(temporary, path)


def read_json(path: str) -> Any:
    """The JSON in a file, or None when there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        return None


def read_new_json(directory: str, name: str) -> Any:
    """The same for a file that another machine may just have made: network file systems tell of it only who lists the directory."""
    try:
        there = name in os.listdir(directory)
    except OSError:
        there = False
    return read_json(os.path.join(directory, name)) if there else None


def remove(path: str) -> bool:
    """Whether there was such a file, which is gone now."""
    try:
        os.unlink(path)
        return True
    except OSError:
        return False


class ClaimLink:
    """The hard link claims/<job name>: whoever made it is the replica (link(2) is atomic on every shared file system)."""

    def __init__(self, config: Config, job: Job) -> None:
        directory = os.path.join(config.shared, "claims")
        self.path = os.path.join(directory, config.job_name)
        self.temporary = "{}.{}.{}.tmp".format(self.path, job.node, os.getpid())
        self.mine = job.holder()
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            write_synced(self.temporary, json.dumps(dict(self.mine, node=job.node)))
            self.holder = self._link()
        except OSError as error:
            raise storage_end(error, self.path) from error

    def _link(self) -> Document:
        try:
            os.link(self.temporary, self.path)
            return self.mine
        except FileExistsError:
            # A repeated NFS request answers "exists" to the one who made the link; the count of names tells.
            if os.stat(self.temporary).st_nlink == 2:
                return self.mine
        found = read_json(self.path)
        if not isinstance(found, dict):
            return {"jobId": "", "restartCount": 0}
        return {"jobId": str(found.get("jobId")), "restartCount": found.get("restartCount")}

    def is_mine(self) -> bool:
        return self.holder == self.mine

    def take_over(self) -> None:
        os.rename(self.temporary, self.path)
        self.holder = self.mine

    def tidy(self) -> None:
        try:
            os.unlink(self.temporary)
        except OSError:
            pass


def read_env_file(path: str) -> Dict[str, str]:
    """Variables of a file of NAME=value lines; the value is the rest of the line as it stands. # begins a comment line."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().decode("utf-8").split("\n")
    except FileNotFoundError as error:
        raise End("MissingArtifact", "engine.envFiles: {} is not there".format(path)) from error
    except (OSError, ValueError) as error:
        raise End("BadSpec", "engine.envFiles: {} cannot be read: {}".format(path, error)) from error
    if mode & 0o077:
        raise End("BadSpec", "engine.envFiles: {0} is open to others: chmod 600 {0}".format(path))
    variables = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        # The value is not shown: it may be a secret.
        if not equals or not VARIABLE.match(name) or "\0" in value:
            raise End("BadSpec", "engine.envFiles: {}:{} is not NAME=value".format(path, number))
        variables[name] = value
    return variables


class LogKeeper:
    """engine.log: the engine appends to it by itself; here it is bounded, and its last lines are read."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.begin = 0  # where the lines of the running engine begin
        self.marked = 0  # the size that was written down last

    def open(self) -> int:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.begin = os.fstat(handle).st_size
        self.mark("start")
        return handle

    def bound(self) -> None:
        """Copy the file away and empty it when it is too long. O_APPEND makes the engine go on at the new end."""
        if os.stat(self.path).st_size <= self.limit:
            return
        shutil.copyfile(self.path, self.path + ".1")
        os.truncate(self.path, 0)
        os.truncate(self.path + ".times", 0)
        self.begin = 0
        self.marked = 0

    def mark(self, word: str = "") -> None:
        """Write down how long the log is now: engines put no times on their lines, and people ask for the last ten minutes.

        A line of engine.log.times is: seconds since 1970, bytes of engine.log, and `start` where an engine begins.
        """
        size = os.stat(self.path).st_size
        if size == self.marked and not word:
            return
        self.marked = size
        now = time.time()  # noqa: TID251 - this file runs alone, without llmop.clock
        handle = os.open(self.path + ".times", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, "{:.0f} {} {}".format(now, size, word).strip().encode() + b"\n")
        finally:
            os.close(handle)

    def tail(self, secrets: Sequence[str]) -> List[str]:
        """The engine's last lines, cut and without the given secrets."""
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self.begin, size - LOG_TAIL_LINES * LOG_TAIL_COLUMNS))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        for secret in secrets:
            text = text.replace(secret, "***")
        return [line[:LOG_TAIL_COLUMNS] for line in text.splitlines()[-LOG_TAIL_LINES:]]


# --- Processes and sockets, from /proc (Linux manual page proc(5)) ------------------------------------------------------


def descendants(root: int) -> List[int]:
    """Every process below `root` that is not a zombie, parents first."""
    children = {}  # type: Dict[int, List[Tuple[int, str]]]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat_fields(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append((int(entry), fields[0]))
    found = []  # type: List[int]
    waiting = [root]
    while waiting:
        for pid, state in children.get(waiting.pop(), []):
            waiting.append(pid)
            if state != "Z":
                found.append(pid)
    return found


def stat_fields(pid: int) -> List[str]:
    """The fields of /proc/<pid>/stat from the state on; none when the process is gone."""
    try:
        # A node may have thousands of processes: this is read without the calls that a file object makes beside it.
        descriptor = os.open("/proc/{}/stat".format(pid), os.O_RDONLY)
        try:
            text = os.read(descriptor, 4096).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    except OSError:
        return []
    # The second field is the name in brackets; it may hold blanks and brackets itself.
    return text.rpartition(")")[2].split()


def is_below(pid: int, root: int) -> bool:
    """Whether `root` is among the parents of the process, which is there."""
    while pid > 1:
        fields = stat_fields(pid)
        if not fields:
            return False
        pid = int(fields[1])
        if pid == root:
            return True
    return False


def cpu_ticks(pids: Iterable[int]) -> int:
    """Clock ticks of CPU time that the processes have used."""
    total = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields:
            total += int(fields[11]) + int(fields[12])
    return total


def kill_descendants(root: int, patience: float) -> None:
    """Send SIGKILL to everything below `root` until nothing is left, or `patience` seconds are over (a process in the kernel)."""
    deadline = time.monotonic() + patience
    while True:
        living = descendants(root)
        if not living or time.monotonic() > deadline:
            return
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.005)


def socket_inodes(pids: Iterable[int]) -> Set[int]:
    """The sockets that the processes have open, by inode."""
    inodes = set()
    for pid in pids:
        directory = "/proc/{}/fd".format(pid)
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(directory + "/" + name)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    return inodes


class Connection(NamedTuple):
    """One line of /proc/net/tcp or tcp6. Addresses are text; an IPv4 address stays one inside IPv6."""

    local: Tuple[str, int]
    remote: Tuple[str, int]
    state: int
    inode: int


ESTABLISHED, LISTEN = 1, 10
ANY_ADDRESS = ("0.0.0.0", "::")


def tcp_table(listeners_only: bool = False) -> List[Connection]:
    """Listeners and established connections. The kernel walks a table of hundreds of thousands of places for the latter, which takes
    milliseconds; the former come first (Documentation/networking/proc_net_tcp.rst of the kernel).
    """
    found = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path) as file:
                next(file, None)
                for line in file:
                    fields = line.split()
                    state = int(fields[3], 16)
                    if listeners_only and state != LISTEN:
                        break
                    if state in (ESTABLISHED, LISTEN):
                        local, remote = endpoint(fields[1]), endpoint(fields[2])
                        found.append(Connection(local, remote, state, int(fields[9])))
        except OSError:
            continue
    return found


def endpoint(field: str) -> Tuple[str, int]:
    """`0100007F:1F90` is 127.0.0.1:8080: the address is printed in words of 32 bits of the machine's own byte order."""
    address, port = field.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack("={}I".format(len(words)), *words)
    if len(packed) == 16 and packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed = packed[12:]
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)


OURS, NOBODY, FOREIGN = "ours", "nobody", "foreign"


class Family:
    """The process `root` and those below it, and which sockets of `tcp_table` are theirs. Those that had the engine's port at the last
    look are asked first: only where they have not got what is asked for all processes of the node are looked at.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.listening = []  # type: List[int]

    def listener(self, table: Sequence[Connection], port: int, addresses: Sequence[str]) -> str:
        """Who listens on the port at the addresses that clients reach: only processes below `root`, nobody, or a stranger."""
        reach = set(addresses) | set(ANY_ADDRESS)
        inodes = {
            entry.inode
            for entry in table
            if entry.state == LISTEN and entry.local[1] == port and entry.local[0] in reach
        }
        if not inodes:
            return NOBODY
        if inodes <= socket_inodes(self._still_listening()):
            return OURS
        self.listening = [pid for pid in descendants(self.root) if inodes & socket_inodes([pid])]
        return OURS if inodes <= socket_inodes(self.listening) else FOREIGN

    def _still_listening(self) -> List[int]:
        return [pid for pid in self.listening if is_below(pid, self.root)]

    def outside_connections(self, table: Sequence[Connection], port: int) -> int:
        """Established connections to the port, without those that come from `root` or the processes below it."""
        incoming = [entry for entry in table if entry.state == ESTABLISHED and entry.local[1] == port]
        # A client on this machine has a line of its own, with the two ends exchanged.
        clients = {(entry.local, entry.remote): entry.inode for entry in table if entry.remote[1] == port}
        inodes = [clients.get((entry.remote, entry.local)) for entry in incoming]
        near = {inode for inode in inodes if inode is not None}
        if near and not near <= socket_inodes([self.root, *self._still_listening()]):
            near &= socket_inodes([self.root, *descendants(self.root)])
        return sum(1 for inode in inodes if inode not in near)


# --- Ports ------------------------------------------------------------------------------------------------------------


def hold(host: str, port: int) -> socket.socket:
    """Bind the port without listening: clients are refused and nobody else can bind it. Raises OSError when it is taken."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # SO_REUSEADDR gets past old connections in TIME_WAIT; left on, it would let others bind beside us.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        holder.close()
        raise
    return holder


def ephemeral_range() -> Tuple[int, int]:
    """The ports that the kernel gives to outgoing connections: one of these may be gone between choice and use."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first, last = file.read().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 32768, 60999


def candidates(ephemeral: Tuple[int, int]) -> List[int]:
    """Ports to try: everything from 10000 that the kernel does not hand out; 0 lets the kernel choose."""
    return [port for port in range(10000, 65536) if not ephemeral[0] <= port <= ephemeral[1]] or [0]


def admit(holder: socket.socket, others: bool) -> None:
    """Whether others may bind the held port beside us and listen there (socket(7)): Linux asks both sides for SO_REUSEADDR, or for
    SO_REUSEPORT and the same account. Servers set one or the other."""
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        holder.setsockopt(socket.SOL_SOCKET, option, int(others))


class Ports:
    """The engine's ports by name; every start of an engine has new ones.

    `http` is bound here without a break: an engine binds it beside us (`lend`), and from `shut` on nobody else can, while the engine
    runs and when it has ended. Clients were told that port, and may come with a prompt and the key as long as this process lives, so
    until then it is never given back. The other ports are held until the engine starts.
    """

    def __init__(self, names: Sequence[str], host: str) -> None:
        self.names = names
        self.host = host
        self.numbers = {}  # type: Dict[str, int]
        self.held = {}  # type: Dict[str, socket.socket]
        self.told = False  # clients know the current port `http`
        self.closed = []  # type: List[socket.socket]

    def choose(self) -> None:
        """Hold a free port for each name, none of those that were just given up. Raises End(Temporary)."""
        avoid = set(self.numbers.values())
        self.release()
        self.numbers = {}
        choices = [port for port in candidates(ephemeral_range()) if port not in avoid]
        random.SystemRandom().shuffle(choices)
        if choices == [0]:
            choices = [0] * len(self.names)
        for port in choices:
            try:
                holder = hold(self.host, port)
            except OSError:
                continue
            name = self.names[len(self.numbers)]
            self.held[name] = holder
            self.numbers[name] = holder.getsockname()[1]
            if len(self.numbers) == len(self.names):
                return
        self.release()
        raise End("Temporary", "no free port for {}".format(", ".join(self.names)))

    def lend(self) -> None:
        """An engine is about to bind them."""
        for name in list(self.held):
            if name == "http":
                admit(self.held[name], True)
            else:
                self.held.pop(name).close()

    def shut(self) -> None:
        """The engine listens on `http`, and clients are about to be told."""
        admit(self.held["http"], False)
        self.told = True

    def hold_again(self) -> bool:
        """The engine has ended: hold all ports once more; false when somebody has one of them."""
        admit(self.held["http"], False)
        try:
            for name, port in self.numbers.items():
                if name not in self.held:
                    self.held[name] = hold(self.host, port)
        except OSError:
            return False
        return True

    def release(self) -> None:
        if self.told:
            self.closed.append(self.held.pop("http"))
            self.told = False
        for holder in self.held.values():
            holder.close()
        self.held = {}


# --- The guard: the engine's parent, which ends with the agent and leaves nothing -----------------------------------------

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
LIBC = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl({}) failed".format(option))


class Wakeup:
    """Lets threads and signals wake the one thread that waits here. A pipe: unlike locks, it may be used in signal handlers."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)

    def set(self) -> None:
        try:
            os.write(self.writer, b".")
        except BlockingIOError:
            pass  # it is awake already

    def wait(self, seconds: float, others: Sequence[int] = ()) -> List[int]:
        """Wait for a wake-up or until one of the other descriptors can be read; returns those that can."""
        ready = select.select([self.reader, *others], [], [], max(0.0, seconds))[0]
        if self.reader in ready:
            ready.remove(self.reader)
            os.read(self.reader, 4096)
        return ready


class Guard:
    """Runs one engine. The first line of stdin says which; later lines are `signal <number>` and `kill`; its end means that the
    agent is gone. One line of JSON on stdout says how the engine ended: {"status": n} (negative: a signal) or {"error", "errno"}."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.input = b""
        self.alone = False  # the agent is gone
        self.engine = 0
        self.status = None  # type: Optional[int]

    def run(self) -> int:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        # Slurm may signal the whole tree; here only the agent decides. Handlers, because "ignored" would be inherited.
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGCHLD,
        ):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup.writer)
        order = self.next_line()
        if order is None:
            return 0
        document = json.loads(order)
        answer = self.start(document)
        if answer is None:
            self.watch()
            kill_descendants(os.getpid(), 5.0)
            self.reap()
            answer = {"status": self.status}
        if self.alone:
            for directory in document["remove"]:
                shutil.rmtree(directory, ignore_errors=True)
        try:
            os.write(1, json.dumps(answer).encode("utf-8") + b"\n")
        except OSError:
            pass  # the agent is gone
        return 0

    def next_line(self) -> Optional[str]:
        """The next line of the agent's; None when the agent is gone."""
        while b"\n" not in self.input:
            if not self.read():
                return None
        line, self.input = self.input.split(b"\n", 1)
        return line.decode("utf-8")

    def read(self) -> bool:
        chunk = os.read(0, 65536)
        self.input += chunk
        self.alone = not chunk
        return not self.alone

    def start(self, order: Document) -> Optional[Document]:
        """Start the engine. Returns what went wrong, if anything did."""
        guard = os.getpid()

        def in_child() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in range(1, signal.NSIG):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    try:
                        signal.signal(number, signal.SIG_DFL)
                    except (OSError, ValueError):
                        pass

        try:
            log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self.engine = subprocess.Popen(
                order["argv"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=in_child,  # noqa: PLW1509 - the guard has no other threads
            ).pid
            os.close(log)
        except OSError as error:
            return {
                "error": "{}: {}".format(error.filename or order["argv"][0], error.strerror),
                "errno": error.errno,
            }
        return None

    def watch(self) -> None:
        """Return when the engine has ended, has to be killed, or the agent is gone."""
        while self.status is None:
            if 0 in self.wakeup.wait(60.0, [0]) and not self.read():
                return
            self.reap()
            while b"\n" in self.input and self.status is None:
                word = (self.next_line() or "").split()
                if word[0] == "kill":
                    return
                os.kill(self.engine, int(word[1]))

    def reap(self) -> None:
        """Collect every child that has ended, orphans of the engine among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.engine:
                self.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


# --- The engine -------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """The text as one word of a POSIX shell, whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"


# What runs first inside the container: it reads the variables from a file, so that they stand in no argv and are seen by no
# version of apptainer (which evaluates `$(...)` in --env and --env-file), then becomes the engine.
CONTAINER_ENTRY = '. "$0" && exec "$@"'


def container_command(runtime: str, scratch: str, binds: Sequence[str], cwd: str, gpu: str) -> List[str]:
    """The command that runs something in an image, up to the image: nothing of the host's home, /tmp or variables gets in.

    `scratch` has the folders home and container; `gpu` is none, nvidia or amd.
    """
    command = [runtime, "exec", "--cleanenv", "--contain"]
    command += ["--workdir", os.path.join(scratch, "container"), "--home", os.path.join(scratch, "home")]
    for bind in binds:
        command += ["--bind", bind]
    command += ["--pwd", cwd]
    return command + {"none": [], "nvidia": ["--nv"], "amd": ["--rocm"]}[gpu]


def container_directories(scratch: str) -> Dict[str, str]:
    """Where Apptainer and its forks put what they need for a moment: never into the home directory, whose quota is small, nor into
    /tmp, which is often memory. Each fork reads the names with its own prefix. (Without CONFIGDIR, Apptainer 1.4 makes ~/.apptainer.)"""
    place = os.path.join(scratch, "tmp")
    kinds = ("CACHEDIR", "CONFIGDIR", "TMPDIR")
    return {prefix + "_" + kind: place for prefix in ("APPTAINER", "SINGULARITY") for kind in kinds}


class Launch:
    """Everything one start of the engine needs: its private directory, command and environment."""

    def __init__(
        self, config: Config, ports: Dict[str, int], bind: str, runtime: str, environment: Dict[str, str]
    ) -> None:
        self.config = config
        self.engine = config.engine
        self.runtime = runtime
        self.environment = environment
        base = environment.get("SLURM_TMPDIR") or os.path.join(config.directory, "scratch")
        os.makedirs(base, mode=0o700, exist_ok=True)
        self.scratch = tempfile.mkdtemp(prefix=config.name + "-", dir=base)
        # The path of a Unix socket has 107 bytes at most (unix(7)); shared directories are deeper than that.
        self.sockets = tempfile.mkdtemp(prefix="llmop-", dir="/tmp") if self.has_sockets() else ""
        for name in ("home", "tmp", "container"):
            os.mkdir(os.path.join(self.scratch, name), 0o700)
        self.key_file = os.path.join(self.scratch, "api-key")
        write_synced(self.key_file, config.api_key + "\n")
        self.ports = ports
        self.words = {
            "host": bind,
            "scratch": self.scratch,
            "sockets": self.sockets,
            "apiKeyFile": self.key_file,
        }

    def has_sockets(self) -> bool:
        return any(
            "{sockets}" in text for text in [*self.engine.argv, *self.engine.env.values(), self.engine.cwd]
        )

    def directories(self) -> List[str]:
        """What goes when the engine has ended; they hold secrets."""
        return [self.scratch, self.sockets] if self.sockets else [self.scratch]

    def fill(self, template: str) -> str:
        return fill(template, self.ports, self.words)

    def order(self, log: str) -> Document:
        """What the guard is told."""
        argv = [self.fill(word) for word in self.engine.argv]
        cwd = self.fill(self.engine.cwd)
        given = self.given()
        passed = {"LANG": self.environment.get("LANG") or "C.UTF-8"}
        for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_ID"):
            if name in self.environment:
                passed[name] = self.environment[name]
        own = {
            "PATH": self.environment.get("PATH") or os.defpath,
            "HOME": self.environment.get("HOME") or os.path.join(self.scratch, "home"),
            "USER": self.environment.get("USER") or "user",
            "TMPDIR": os.path.join(self.scratch, "tmp"),
        }
        if not self.engine.contained:
            variables = dict(own, **dict(passed, **given))
            return {"argv": argv, "env": variables, "cwd": cwd, "log": log, "remove": self.directories()}
        # The command `apptainer` gets nothing but `own`: variables such as APPTAINER_BIND would change what it does.
        argv = self.contained(argv, cwd, dict(passed, **given))
        variables = dict(own, LANG=passed["LANG"], **container_directories(self.scratch))
        return {"argv": argv, "env": variables, "cwd": self.scratch, "log": log, "remove": self.directories()}

    def given(self) -> Dict[str, str]:
        """The variables that the manifest and its secret files name."""
        variables = {}  # type: Dict[str, str]
        for path in self.engine.env_files:
            variables.update(read_env_file(path))
        variables.update({name: self.fill(value) for name, value in self.engine.env.items()})
        if self.engine.api_key_env:
            variables[self.engine.api_key_env] = self.config.api_key
        return variables

    def contained(self, argv: List[str], cwd: str, variables: Dict[str, str]) -> List[str]:
        entry = os.path.join(self.scratch, "environment")
        lines = ["export {}={}\n".format(name, quoted(value)) for name, value in sorted(variables.items())]
        write_synced(entry, "".join(lines))
        binds = ["{0}:{0}".format(path) for path in self.directories()] + self.engine.binds
        command = container_command(self.runtime, self.scratch, binds, cwd, self.engine.gpu)
        return [*command, self.engine.image, "/bin/sh", "-c", CONTAINER_ENTRY, entry, *argv]

    def remove(self) -> None:
        for directory in self.directories():
            shutil.rmtree(directory, ignore_errors=True)


class Engine:
    """One run of the engine, through its guard. Made by the main thread only: PR_SET_PDEATHSIG follows the thread."""

    def __init__(self, launch: Launch, log: str) -> None:
        order = json.dumps(launch.order(log)) + "\n"
        self.launch = launch
        self.started = time.monotonic()
        self.status = None  # type: Optional[int]
        self.guard = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), "--guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._tell(order)

    def _tell(self, line: str) -> None:
        try:
            assert self.guard.stdin is not None
            self.guard.stdin.write(line.encode("utf-8"))
            self.guard.stdin.flush()
        except OSError:
            pass  # the guard is gone: ended() says so

    def ended(self) -> bool:
        """Whether the engine is over; then `status` is its exit status, and nothing of it runs any more. Raises End when it
        could not be started at all."""
        if self.guard.poll() is None:
            return False
        assert self.guard.stdin is not None and self.guard.stdout is not None
        if not self.guard.stdout.closed:
            answer = self.guard.stdout.read()
            self.guard.stdout.close()
            self.guard.stdin.close()
            # Only if the guard itself was killed is anything left; it was handed to us, the next subreaper.
            kill_descendants(os.getpid(), 5.0)
            document = json.loads(answer.decode("utf-8")) if answer else {"status": -signal.SIGKILL}
            if "error" in document:
                raise start_failure(document)
            self.status = document["status"]
        return True

    def signal(self, number: int) -> None:
        """Signal the launcher, never the whole tree: the mount helpers of a container must outlive the engine."""
        self._tell("signal {}\n".format(number))

    def stop(self, number: int, overdue: Callable[[], bool]) -> None:
        """Ask the engine to end, wait until it has or is overdue, then kill all of it."""
        self.signal(number)
        if not self._over_before(overdue):
            self._tell("kill\n")
        if not self._over_before(after(10.0)):
            kill_descendants(os.getpid(), 5.0)  # the guard itself is stuck
            self._over_before(after(5.0))

    def _over_before(self, overdue: Callable[[], bool]) -> bool:
        while not self.ended():
            if overdue():
                return False
            time.sleep(0.02)
        return True


def after(seconds: float) -> Callable[[], bool]:
    """A question that is answered with yes once the time is over."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def start_failure(answer: Document) -> End:
    """Why the engine's program could not even begin."""
    if answer["errno"] in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
        return End("MissingArtifact", "the engine cannot be started: {}".format(answer["error"]))
    return End(
        "Storage" if answer["errno"] in STORAGE_ERRORS else "Temporary",
        "the engine cannot be started: {}".format(answer["error"]),
    )


STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


def check_node(config: Config, environment: Dict[str, str]) -> str:
    """What has to be true before an engine is started. Returns the container program. Raises End with every finding."""
    free = os.statvfs(config.directory)
    if free.f_bavail * free.f_frsize < MIN_FREE_BYTES:
        raise End("Storage", "{}: less than {} MiB are free".format(config.directory, MIN_FREE_BYTES >> 20))
    try:
        tempfile.TemporaryFile(dir=config.directory).close()
    except OSError as error:
        raise storage_end(error, config.directory) from error
    needed = ([config.engine.image] if config.engine.contained else []) + config.engine.requires
    missing = [path for path in needed if not os.path.exists(path)]
    if missing:
        raise End("MissingArtifact", "not on this node: " + ", ".join(missing))
    check_gpus(config, environment)
    if not config.engine.contained:
        return ""
    for name in ("apptainer", "singularity"):
        found = shutil.which(name, path=environment.get("PATH") or os.defpath)
        if found:
            return found
    raise End(
        "NodeUnusable", "neither apptainer nor singularity is in PATH ({})".format(environment.get("PATH"))
    )


def check_gpus(config: Config, environment: Dict[str, str]) -> None:
    if not config.gpus:
        return
    names = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"]
    if config.engine.gpu == "amd":
        names.reverse()
    name = next((name for name in names if name in environment), names[0])
    value = environment.get(name, "")
    devices = [] if value == "NoDevFiles" else [device for device in value.split(",") if device.strip()]
    if len(devices) != config.gpus:
        found = "{} GPUs are asked for, the scheduler gives {} ({}={!r})".format(
            config.gpus, len(devices), name, value
        )
        raise End("NodeUnusable", found)


class Answer(NamedTuple):
    """What a probe brought: an HTTP status, or 0 and the reason why there is none."""

    status: int
    text: str


def ask_engine(
    port: int,
    method: str,
    path: str,
    body: Optional[bytes],
    key: str,
    timeout: float,
    is_engine: Callable[[], bool],
) -> Answer:
    """One request to the engine on this machine, on a connection of its own, with the replica's key.

    `is_engine` says whether the engine listens on the port. It is asked between the connection and the request: whoever took the port
    after the last look gets nothing.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"Authorization": "Bearer " + key, "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.connect()
        if not is_engine():
            return Answer(0, "the engine does not listen on port {} any more".format(port))
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        text = response.read(1 << 20).decode("utf-8", "replace")
        return Answer(response.status, text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, "{}: {}".format(type(error).__name__, error))
    finally:
        connection.close()


class Task:
    """A call that may block, in a thread of its own; the main thread is woken when it is over."""

    def __init__(self, call: Callable[[], Any], wakeup: Wakeup) -> None:
        self.done = False
        self.value = None  # type: Any
        self._call = call
        self._wakeup = wakeup
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.value = self._call()
        finally:
            self.done = True
            self._wakeup.set()


# --- The engine's load ------------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """How busy the engine says it is; None = it does not say, or nothing that could be. `at` is time.monotonic()."""

    queue_depth: Optional[int]
    running: Optional[int]
    kv_cache_usage: Optional[float]  # 0..1
    at: float


class Received:
    """Bytes that have come, for http.client to read an answer from."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def fetch_metrics(port: int, path: str, key: str, is_engine: Callable[[], bool]) -> str:
    """The engine's metrics. Raises OSError, ValueError, OverflowError (of a length that nobody can read) or HTTPException.

    The time and the size of the whole answer are bounded, however it trickles in. `is_engine` is asked as for a probe.
    """
    deadline = time.monotonic() + LOAD_TIMEOUT
    with socket.create_connection(("127.0.0.1", port), LOAD_TIMEOUT) as connection:
        if not is_engine():
            raise OSError("the engine does not listen on port {} any more".format(port))
        head = (
            "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.format(path, port, key).encode("ascii"))
        content = bytearray()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError("no whole answer within {:g} s".format(LOAD_TIMEOUT))
            connection.settimeout(left)
            piece = connection.recv(1 << 16)
            if not piece:
                break
            content += piece
            if len(content) > LOAD_LIMIT:
                raise ValueError("more than {} bytes".format(LOAD_LIMIT))
    response = http.client.HTTPResponse(Received(bytes(content)))  # type: ignore[arg-type]
    response.begin()
    if response.status != 200:
        raise ValueError("answers {}".format(response.status))
    return response.read().decode("utf-8", "replace")


# Each digit has one way to match: what an engine writes may be LOAD_LIMIT long, and while Python looks at it no other thread runs.
NUMBER = re.compile(r"^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?\Z")


def gauge(text: str, name: str) -> Optional[float]:
    """The value of a metric in Prometheus' text form 0.0.4, None where it is not there or no number from 0 on.

    Of several series the largest: those of one engine are its ranks, and each of them tells of the whole engine.
    """
    found = []  # type: List[float]
    for line in text.split("\n"):
        if not line.startswith(name):
            continue
        rest = line[len(name) :]
        if rest.startswith("{"):
            # A label's value may hold any sign; behind the last brace there is none.
            rest = rest.rpartition("}")[2]
        elif not rest.startswith((" ", "\t")):
            continue  # another metric, whose name is longer
        words = rest.split()
        if not words or not NUMBER.match(words[0]):
            return None
        found.append(float(words[0]))
    value = max(found) if found else None
    return value if value is not None and value < float("inf") else None


def whole(value: Optional[float]) -> Optional[int]:
    return int(value) if value is not None and value < 1e9 and value == int(value) else None


def share(text: str, names: str) -> Optional[float]:
    """`names` is a metric from 0 to 1, or two like `used / total`."""
    used, _, total = names.partition(" / ")
    value = gauge(text, used)
    if total and value is not None:
        most = gauge(text, total)
        value = value / most if most else None
    return value if value is not None and value <= 1.0 else None


def load_of(text: str, config: MetricsConfig, now: float) -> Load:
    """What the metrics say."""
    return Load(
        whole(gauge(text, config.queue_depth)) if config.queue_depth else None,
        whole(gauge(text, config.running)) if config.running else None,
        share(text, config.kv_cache_usage) if config.kv_cache_usage else None,
        now,
    )


# --- The controller ---------------------------------------------------------------------------------------------------


class Away(Exception):
    """No controller answers; the text says why. Never a reason to stop serving."""


class Line:
    """One connection to the controller. The addresses are read again after every failed call."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.connection = None  # type: Optional[http.client.HTTPSConnection]
        self.url = ""  # of the controller that has answered on this line

    def post(self, message: str, body: Callable[[str], Document], timeout: float) -> Tuple[int, Document]:
        """Send one message; returns status (200, 400, 401, 403 or 409) and reply. Raises Away.

        `body` makes the message from this machine's own address on the connection.
        """
        if self.connection is not None:
            try:
                return self._exchange(self.connection, message, body, timeout)
            except FAILED_CALL:
                self.close()
        problem = "controllers.json names no controller"
        for url in addresses(self.config):
            try:
                host, port = host_and_port(url)
                # http.client knows neither proxy variables nor redirects.
                self.connection = http.client.HTTPSConnection(
                    host, port, timeout=timeout, context=self.config.tls
                )
                answer = self._exchange(self.connection, message, body, timeout)
                self.url = url
                return answer
            except FAILED_CALL as error:
                problem = "{}: {}".format(url, error)
                self.close()
        raise Away(problem)

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        message: str,
        body: Callable[[str], Document],
        timeout: float,
    ) -> Tuple[int, Document]:
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(timeout)
        content = json.dumps(body(connection.sock.getsockname()[0])).encode("utf-8")
        headers = {"Authorization": "Bearer " + self.config.token, "Content-Type": "application/json"}
        connection.request("POST", "/agent/v1/" + message, body=content, headers=headers)
        response = connection.getresponse()
        text = response.read(1 << 20)
        if response.status not in (200, 400, 401, 403, 409):
            raise Away("answers {}".format(response.status))
        reply = json.loads(text.decode("utf-8")) if text else {}
        if not isinstance(reply, dict):
            raise Away("answers no JSON object")
        return response.status, reply

    def close(self) -> None:
        self.url = ""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


FAILED_CALL = (OSError, http.client.HTTPException, ValueError, Away)


def addresses(config: Config) -> List[str]:
    """The controllers' URLs, from the shared directory; none when the file is not there."""
    document = read_json(os.path.join(config.shared, "controllers.json"))
    urls = document.get("urls") if isinstance(document, dict) else None
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def host_and_port(url: str) -> Tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("not an https address")
    return parts.hostname, parts.port or 443


def source_address(url: str) -> str:
    """This machine's address on the way to the controller: what clients on that side can reach. Sends nothing."""
    host, port = host_and_port(url)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def own_address() -> str:
    """This machine's address as seen from outside, where there is no way to the controller that would tell; "" when nothing tells."""
    try:
        # An address for documentation (RFC 5737): only the routing table is asked.
        return source_address("https://192.0.2.1:9")
    except OSError:
        pass
    try:
        named = socket.gethostbyname(socket.gethostname())
    except (OSError, UnicodeError):
        return ""
    return "" if is_loopback(named) else named


class Addresses:
    """Where the engine binds (`bind`) and where clients find it (`host`)."""

    def __init__(self, url: str) -> None:
        source = ""
        try:
            source = source_address(url) if url else ""
        except (OSError, ValueError):
            pass
        # An installation whose controller is on loopback is on one machine: nothing of it is shown to the network.
        self.bind = "127.0.0.1" if is_loopback(source) else "0.0.0.0"
        self.host = "127.0.0.1" if is_loopback(source) else source  # "" until a controller was reached

    def update(self, source: str) -> None:
        """Take this machine's end of a connection to a controller that has come up, or moved."""
        if source and self.bind != "127.0.0.1" and (not self.host or not is_loopback(source)):
            self.host = source

    def reach(self) -> List[str]:
        return [address for address in (self.bind, "127.0.0.1", self.host) if address]


class Letters:
    """Messages as files in the inbox. Of one Letters only the newest lies there: who has not read the others needs them no more."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.directory = os.path.join(config.shared, "inbox")
        self.last = ""  # path of the newest
        self.taken = True  # the one before it had been taken, or there was none

    def put(self, message: str, number: int, body: Document) -> str:
        """Write one message; returns the random part of its name. Raises OSError."""
        nonce = "{:08x}".format(random.SystemRandom().getrandbits(32))
        name = "{}.{:010d}.{}.json".format(self.config.job_name, number, nonce)
        # A name that begins with a dot is not read: whoever dies here leaves a draft.
        draft = os.path.join(self.directory, "." + name)
        try:
            write_synced(draft, json.dumps({"token": self.config.token, "message": message, "body": body}))
            os.rename(draft, os.path.join(self.directory, name))
        except OSError:
            remove(draft)
            raise
        # The new one first: there is always one that can be read.
        self.taken = not self.withdraw()
        self.last = os.path.join(self.directory, name)
        return nonce

    def withdraw(self) -> bool:
        """Take the newest back; returns whether it still lay there."""
        last, self.last = self.last, ""
        return bool(last) and remove(last)


class Channel:
    """The heartbeats: one that the controller may hold back, pushes of changes beside it, and files where no controller answers."""

    def __init__(
        self,
        config: Config,
        report: Callable[..., Document],
        receive: Callable[[int, Document], bool],
        fetch: Callable[[], None],
    ) -> None:
        self.config = config
        self.report = (
            report  # makes a heartbeat from this machine's address on the connection, or a guess at it
        )
        self.receive = receive  # takes status and reply; returns whether the reply brought anything new
        self.fetch = fetch  # looks for orders in the replica's directory
        self.letters = Letters(config)
        self.period = FIRST_PERIOD
        self.stopped = threading.Event()
        self.changed = threading.Event()
        self.news = threading.Event()  # the same for the files
        self.writer = threading.Thread(target=self.write, name="files", daemon=True)
        self.away = ""  # why nobody answers
        self.away_since = None  # type: Optional[float]
        self.files_problem = ""

    def start(self) -> None:
        for thread in (
            threading.Thread(target=self.beat, name="beats", daemon=True),
            threading.Thread(target=self.push, name="pushes", daemon=True),
            self.writer,
        ):
            thread.start()

    def announce(self) -> None:
        """Something has changed: say so at once."""
        self.changed.set()
        self.news.set()

    def lost(self, since: float) -> None:
        """No controller has answered since then (time.monotonic())."""
        if self.away_since is None:
            self.away_since = since

    def is_cut_off(self) -> bool:
        since = self.away_since
        return since is not None and time.monotonic() - since >= FILES_AFTER

    def beat(self) -> None:
        line = Line(self.config)
        failures = 0
        while not self.stopped.is_set():
            begun = time.monotonic()
            try:
                # The first one on a line is answered at once: it brings the period. Orders come with the next, which is held.
                held = self.period if line.url else 0.0
                news = self.send(line, held)
                failures = 0
            except Away as error:
                failures += 1
                self.lost(time.monotonic())
                self.note(str(error))
                self.stopped.wait(min(self.period, 0.2 * 2 ** min(failures, 10)) * random.uniform(0.8, 1.2))
                continue
            # A controller that holds nothing back must not be called in a tight loop.
            if held and not news:
                self.stopped.wait(max(0.0, begun + self.period - time.monotonic()))

    def push(self) -> None:
        line = Line(self.config)
        while True:
            self.changed.wait()
            self.changed.clear()
            try:
                if not self.stopped.is_set():
                    self.send(line, 0.0)
            except Away as error:
                self.lost(time.monotonic())
                self.note(str(error))
                # The heartbeat beside this one may be held for a while on a connection that is no more.
                self.changed.set()
                self.stopped.wait(1.0)
            if self.stopped.is_set():
                return

    def send(self, line: Line, wait: float) -> bool:
        status, reply = line.post(
            "heartbeat", lambda source: dict(self.report(source), wait=wait), wait + REPLY_TIMEOUT
        )
        self.away_since = None
        self.note("" if status == 200 else "{} answers {}: {}".format(line.url, status, reply))
        self.take_period(reply)
        return self.receive(status, reply)

    def take_period(self, reply: Document) -> None:
        period = reply.get("period")
        if isinstance(period, (int, float)) and not isinstance(period, bool):
            self.period = min(max(float(period), 0.1), 600.0)

    def write(self) -> None:
        """While no controller can be reached: heartbeats as files, and orders as a file."""
        pause = 0.0
        while True:
            self.news.wait(pause)
            self.news.clear()
            if self.stopped.is_set():
                return
            if not self.is_cut_off():
                self.letters.withdraw()
                pause = min(self.period, 1.0)
                continue
            try:
                beat = self.report("", own_address())
                self.letters.put("heartbeat", beat["seq"], beat)
                problem = ""
            except OSError as error:
                problem = "{}: {}".format(self.letters.directory, error.strerror)
            if problem != self.files_problem:
                say("inbox: " + (problem or "can be written again"))
            self.files_problem = problem
            # A file that nobody takes is not renewed so often, but often enough to be heard soon once somebody looks.
            slower = min(2 * max(pause, self.period), FILES_SLOWER * self.period)
            pause = self.period if self.letters.taken and not problem else slower
            self.fetch()

    def note(self, problem: str) -> None:
        """Say once that the controller went or came, not at every call."""
        if bool(problem) != bool(self.away):
            say("controller: " + (problem or "answers"))
        self.away = problem

    def last_word(self, exit_record: Document) -> None:
        """Say that it is over: one attempt, the exit record is on the disk as well."""
        self.stopped.set()
        self.news.set()
        end = {"phase": "ended", "endpoint": None, "wait": 0.0, "exit": exit_record}
        try:
            if not self.is_cut_off():
                Line(self.config).post(
                    "heartbeat", lambda source: dict(self.report(source), **end), LAST_WORD_TIMEOUT
                )
                return
        except Away:
            pass
        if self.writer.is_alive():
            # What it has begun it may finish, or a draft stays behind. Not for long: its file system may hang.
            self.writer.join(LAST_WORD_TIMEOUT)
        try:
            beat = dict(self.report(""), **end)
            Letters(self.config).put("heartbeat", beat["seq"], beat)
        except OSError as error:
            say("inbox: the end cannot be written: {}".format(error.strerror))


# --- The agent --------------------------------------------------------------------------------------------------------


class DrainPlan:
    """How the end was asked for. Times are time.monotonic()."""

    def __init__(
        self, reason: str, end: str, deadline: float, settle: float, stop_by: Optional[float]
    ) -> None:
        self.reason = reason  # for people
        self.end = end  # the contract's reason for the exit record
        self.deadline = deadline  # open connections may last until then
        self.settle = settle  # before that not even an idle engine is stopped
        self.stop_by = stop_by  # the engine must be gone by then

    def tighten(self, other: "DrainPlan") -> None:
        """A second wish only ever makes it shorter."""
        self.deadline = min(self.deadline, other.deadline)
        self.settle = min(self.settle, other.settle)
        if other.stop_by is not None:
            self.stop_by = min(other.stop_by, self.stop_by or other.stop_by)


class Agent:
    def __init__(self, config: Config, job: Job, environment: Dict[str, str]) -> None:
        self.config = config
        self.job = job
        self.environment = environment
        self.wakeup = Wakeup()
        self.family = Family(os.getpid())
        self.signals = set()  # type: Set[int]
        self.log = LogKeeper(os.path.join(config.directory, "engine.log"), LOG_LIMIT)
        self.channel = Channel(config, self.report, self.receive, self.fetch_orders)
        self.runtime = ""
        self.addresses = Addresses("")
        self.ports = Ports(config.engine.ports, self.addresses.bind)
        self.owns_directory = True
        self.engine = None  # type: Optional[Engine]
        self.last_status = None  # type: Optional[int]
        self.startup_deadline = 0.0
        self.plan = None  # type: Optional[DrainPlan]
        self.was_ready = False
        # What the heartbeat threads read and write, under the lock.
        self.lock = threading.Lock()
        self.seq = 0
        self.phase = "starting"
        self.detail = ""
        self.ending = None  # type: Optional[str]
        self.restarts = 0
        self.proven = False
        self.lost = False
        self.load = None  # type: Optional[Load]
        self.mail = []  # type: List[Document]
        self.superseded = False
        self.became_ready = threading.Event()

    # Signals

    def take_signals(self) -> None:
        """From here on signals only set a flag and wake the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup.writer)
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def _signalled(self, number: int, _frame: Any) -> None:
        self.signals.add(number)

    # Life

    def run(self) -> None:
        """From the claim to the end, which is always an End."""
        self.claim()
        # An earlier start of this job has left it: should this one be killed, that is not how it ended.
        remove(os.path.join(self.config.directory, "exit.json"))
        self.runtime = check_node(self.config, self.environment)
        urls = addresses(self.config)
        self.addresses = Addresses(urls[0] if urls else "")
        self.ports = Ports(self.config.engine.ports, self.addresses.bind)
        self.channel.start()
        threading.Thread(target=self.keep_log, name="log", daemon=True).start()
        metrics = self.config.engine.metrics
        if metrics is not None:
            threading.Thread(target=self.watch_load, args=(metrics,), name="load", daemon=True).start()
        try:
            self.serve()
        except DrainRequested:
            self.drain()

    def identity(self) -> Document:
        return {
            "replica": self.config.uid,
            "jobName": self.config.job_name,
            "jobId": self.job.id,
            "restartCount": self.job.restart_count,
            "node": self.job.node,
        }

    def claim(self) -> None:
        """Return when this job is the replica. Raises End(Superseded)."""
        link = ClaimLink(self.config, self.job)
        try:
            reply = self.ask_controller(dict(self.identity(), holder=link.holder, agent=own_hash()))
            verdict = reply.get("verdict")
            if verdict == "run" and reply.get("takeOver") is True and not link.is_mine():
                link.take_over()
            if verdict == "superseded" or not link.is_mine():
                self.owns_directory = False
                if verdict == "superseded":
                    raise End("Superseded", "the controller says that this job is not the replica")
                raise End("Superseded", "job {} is the replica".format(link.holder["jobId"]))
        except OSError as error:
            raise storage_end(error, link.path) from error
        finally:
            link.tidy()

    def ask_controller(self, body: Document) -> Document:
        """The controller's verdict on the claim, by HTTPS or as a file; nothing when no controller answers within controllerWait."""
        line = Line(self.config)
        letters = Letters(self.config)
        begun = time.monotonic()
        deadline = begun + self.config.controller_wait
        pause = 0.1
        problem, answer = "", ""
        try:
            while True:
                left = max(0.1, deadline - time.monotonic())
                try:
                    status, reply = line.post("claim", lambda _: body, min(left, CLAIM_TIMEOUT))
                    if status in (200, 409) and reply.get("verdict") in ("run", "superseded"):
                        letters.withdraw()
                        return reply
                    problem = "answers {}: {}".format(status, reply)
                except Away as error:
                    problem = str(error)
                    answer = answer or self.ask_by_file(letters, body)
                reply = self.read_answer(answer)
                if reply:
                    say("the claim was answered by a file: no controller can be reached ({})".format(problem))
                    self.channel.lost(begun - FILES_AFTER)
                    self.channel.take_period(reply)
                    return reply
                if time.monotonic() + pause >= deadline or signal.SIGTERM in self.signals:
                    say(
                        "no controller within {:g} s ({}): the link decides".format(
                            self.config.controller_wait, problem
                        )
                    )
                    self.channel.lost(begun - FILES_AFTER)
                    return {}
                self.wakeup.wait(pause)
                pause = min(2.0, pause * 2)
        finally:
            line.close()

    def ask_by_file(self, letters: Letters, body: Document) -> str:
        """Put the claim into the inbox; returns the name of the file that will hold the answer, nothing when there is no inbox."""
        try:
            return "answer-{}.json".format(letters.put("claim", 0, body))
        except OSError:
            return ""

    def read_answer(self, name: str) -> Document:
        found = read_new_json(self.config.directory, name) if name else None
        if not isinstance(found, dict) or found.get("verdict") not in ("run", "superseded"):
            return {}
        return found

    def serve(self) -> None:
        """Keep an engine running. Ends by DrainRequested or End only."""
        clashes = 0
        self.ports.choose()
        self.begin_startup()
        while True:
            try:
                self.start_engine()
                self.bring_up()
                clashes = 0
                self.watch()
            except PortTaken as taken:
                clashes += 1
                self.end_engine()
                say("{}; attempt {} of {}".format(taken, clashes, PORT_ATTEMPTS))
                if clashes >= PORT_ATTEMPTS:
                    raise End("Temporary", "no port could be kept: {}".format(taken)) from taken
                self.ports.choose()
            except EngineEnded as ended:
                self.end_engine()
                self.count_restart(str(ended))
                self.ports.choose()
                self.begin_startup()

    def begin_startup(self) -> None:
        self.startup_deadline = time.monotonic() + self.config.engine.startup_timeout

    def start_engine(self) -> None:
        self.pause(0)
        try:
            launch = Launch(
                self.config, dict(self.ports.numbers), self.addresses.bind, self.runtime, self.environment
            )
            os.close(self.log.open())
        except OSError as error:
            raise storage_end(error, self.config.directory) from error
        self.ports.lend()
        try:
            self.engine = Engine(launch, self.log.path)
        except (End, OSError):
            launch.remove()
            raise
        self.set_phase("loading", "the engine was started on port {}".format(self.port))
        say("engine started on {}".format(self.ports.numbers))

    @property
    def port(self) -> int:
        return self.ports.numbers["http"]

    def count_restart(self, reason: str) -> None:
        """Wait before the next start, longer every time. Raises End when there is none left."""
        limit = self.config.engine.max_restarts
        if self.restarts >= limit:
            raise End("EngineCrashed", "{}; it was restarted {} times".format(reason, self.restarts))
        with self.lock:
            self.restarts += 1
        seconds = min(60.0, 2.0 ** (self.restarts - 1))
        self.set_phase(
            "starting", "{}; restart {} of {} in {:g} s".format(reason, self.restarts, limit, seconds)
        )
        say(self.detail)
        self.rest(seconds)

    def end_engine(self) -> None:
        """Be sure that nothing of the engine runs, and hold its ports."""
        with self.lock:
            self.proven, self.load = False, None
        if self.engine is not None:
            if not self.engine.ended():
                self.engine.stop(self.config.engine.stop_signal, after(self.config.engine.stop_timeout))
        if not self.ports.hold_again():
            say("one of the ports {} was taken at once by somebody else".format(self.ports.numbers))
        if self.engine is not None:
            self.last_status = self.engine.status
            self.engine.launch.remove()
            self.engine = None

    # Waiting: everything that may interrupt the engine's life goes through pause()

    def pause(self, seconds: float) -> None:
        """Wait for news or a time. Raises DrainRequested, and EngineEnded or PortTaken when the engine is over."""
        self.wakeup.wait(seconds)
        self.read_mail()
        if self.plan is not None:
            raise DrainRequested
        if self.engine is not None and self.engine.ended():
            raise self.why_ended(self.engine)

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.pause(until - time.monotonic())

    def offload(self, call: Callable[[], Answer]) -> Answer:
        """The result of a call that may block, while everything else stays awake."""
        task = Task(call, self.wakeup)
        while not task.done:
            self.pause(1.0)
            self.check_startup()
        answer = task.value
        assert isinstance(answer, Answer)
        return answer

    def check_startup(self) -> None:
        if self.phase == "loading" and time.monotonic() > self.startup_deadline:
            seconds = self.config.engine.startup_timeout
            raise End(
                "StartupTimeout", "the engine was not ready within {:g} s: {}".format(seconds, self.detail)
            )

    def why_ended(self, engine: Engine) -> Exception:
        """The engine is over: because its port was taken, or for reasons of its own. Holds the port at once."""
        with self.lock:
            self.proven, self.load = False, None
        held = self.ports.hold_again() and self.prove(tcp_table()) != FOREIGN
        status = engine.status or 0
        how = "signal {}".format(-status) if status < 0 else "status {}".format(status)
        if not held and self.phase == "loading":
            return PortTaken(
                "the engine ended with {} and somebody else has one of the ports {}".format(
                    how, self.ports.numbers
                )
            )
        return EngineEnded("the engine ended with {}".format(how))

    # From start to ready

    def bring_up(self) -> None:
        """Wait until the engine is healthy, make it generate one token, and report it ready."""
        config = self.config.engine
        refusals = 0
        was_listening = False
        while True:
            self.check_startup()
            self.rest(
                min(0.1, config.health_period)
                if time.monotonic() < self.engine_started() + 5
                else min(1.0, config.health_period)
            )
            if not self.is_listening():
                continue
            if not was_listening:
                was_listening = True
                say("engine listens on {}".format(self.port))
            health = self.ask("GET", config.health_path, None, config.health_timeout)
            if health.status != 200:
                self.set_detail(
                    "loading: {} answers {}".format(config.health_path, health.status or health.text)
                )
                continue
            if config.warmup is None:
                break
            method, path, body = config.warmup
            left = max(1.0, self.startup_deadline - time.monotonic())
            answer = self.ask(method, path, body if method == "POST" else None, left)
            if 200 <= answer.status < 300 and answer.text:
                break
            refusals = refusals + 1 if 400 <= answer.status < 500 and answer.status != 429 else 0
            self.set_detail("warm-up: {} answers {}: {}".format(path, answer.status, self.shown(answer.text)))
            if refusals >= REFUSED_WARMUPS:
                raise EngineEnded("the engine refuses its warm-up: {}".format(self.detail))
        self.ports.shut()
        if not self.is_listening():
            raise EngineEnded("the engine closed its port after the warm-up")
        self.was_ready = True
        self.set_ready()
        say("ready at {}:{}".format(self.addresses.host or self.addresses.bind, self.port))

    def engine_started(self) -> float:
        assert self.engine is not None
        return self.engine.started

    def is_listening(self) -> bool:
        """Whether the engine, and nobody else, listens on its port. Raises PortTaken for anybody else: it must not see our key."""
        who = self.listens()
        if who == FOREIGN:
            raise PortTaken("somebody else listens on port {}".format(self.port))
        return who == OURS

    def listens(self) -> str:
        """Who listens on the engine's port. Raises EngineEnded for an engine that is about to be gone: it has let go of its socket, which still
        stands in the table, and looks like a stranger's.
        """
        who = self.prove(tcp_table(listeners_only=True))
        if who == FOREIGN:
            self.rest(0.2)
            who = self.prove(tcp_table(listeners_only=True))
        return who

    def prove(self, table: Sequence[Connection]) -> str:
        return self.family.listener(table, self.port, self.addresses.reach())

    def ask(self, method: str, path: str, body: Optional[bytes], timeout: float) -> Answer:
        port, key = self.port, self.config.api_key
        return self.offload(
            lambda: ask_engine(
                port, method, path, body, key, timeout, lambda: self.prove(tcp_table()) == OURS
            )
        )

    def shown(self, text: str) -> str:
        """The beginning of an engine's answer, for people; without our secrets."""
        for secret in (self.config.api_key, self.config.token):
            text = text.replace(secret, "***")
        return " ".join(text.split())[:200]

    # While it serves

    def watch(self) -> None:
        """Probe the engine as long as it lives. Raises EngineEnded when it has to be started again."""
        config = self.config.engine
        failures = 0
        ticks = cpu_ticks(descendants(os.getpid()))
        since = time.monotonic()
        while True:
            self.rest_or_lost(config.health_period)
            problem = self.problem()
            if not problem:
                failures, since = 0, time.monotonic()
                ticks = cpu_ticks(descendants(os.getpid()))
                if self.phase != "ready" or not self.proven:
                    self.set_ready()
                    say("ready again")
                continue
            failures += 1
            if failures < config.failure_threshold and self.proven:
                continue
            if self.phase != "unhealthy":
                self.set_phase("unhealthy", problem)
                say("unhealthy: " + problem)
            used = (cpu_ticks(descendants(os.getpid())) - ticks) / float(os.sysconf("SC_CLK_TCK"))
            # An engine under full load may be too busy to answer: it is left alone for a while as long as it works.
            working = self.proven and used > 0.1 * (time.monotonic() - since)
            if failures >= config.failure_threshold * (BUSY_PATIENCE if working else 1):
                raise EngineEnded("the engine failed {} probes: {}".format(failures, problem))

    def rest_or_lost(self, seconds: float) -> None:
        """Wait for the next probe; a heartbeat that finds the listener gone cuts it short."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.lost:
            self.pause(until - time.monotonic())
        if self.lost:
            # Do not spin while it stays lost.
            self.lost = False
            self.rest(min(seconds, 0.5))

    def problem(self) -> str:
        """What is wrong with the engine; nothing when it answers."""
        if self.listens() == FOREIGN:
            raise EngineEnded("somebody else listens on port {}".format(self.port))
        config = self.config.engine
        answer = self.ask("GET", config.health_path, None, config.health_timeout)
        return (
            ""
            if answer.status == 200
            else "{} answers {}".format(config.health_path, answer.status or answer.text)
        )

    # Orders and signals

    def read_mail(self) -> None:
        """Turn signals and orders into a plan to drain."""
        signals, self.signals = self.signals, set()
        with self.lock:
            orders, self.mail = self.mail, []
            superseded = self.superseded
        now = time.monotonic()
        if superseded and self.owns_directory:
            self.owns_directory = False
            self.adopt(DrainPlan("Superseded", "Superseded", now + self.config.termination_grace, 0.0, None))
        if signal.SIGUSR1 in signals:
            orders += self.read_orders_file()
        for order in orders:
            self.adopt(DrainPlan(str(order["reason"]), "Drained", now + order["deadline"], 0.0, None))
        if signal.SIGUSR1 in signals and not orders:
            self.adopt(
                DrainPlan(
                    "the job's end is near", "Drained", now + self.time_to_end(), now + SETTLE_USR1, None
                )
            )
        if signal.SIGTERM in signals or signal.SIGINT in signals:
            cut = now + TERM_BUDGET - TERM_STOP_SHARE
            self.adopt(DrainPlan("SIGTERM", "Terminated", cut, now + SETTLE_TERM, now + TERM_BUDGET))

    def adopt(self, plan: DrainPlan) -> None:
        if self.plan is None:
            self.plan = plan
        else:
            self.plan.tighten(plan)

    def fetch_orders(self) -> None:
        """Read the orders file, in a heartbeat thread. The same orders again change nothing."""
        orders = self.read_orders_file()
        if orders:
            with self.lock:
                self.mail += orders
            self.wakeup.set()

    def read_orders_file(self) -> List[Document]:
        document = read_new_json(self.config.directory, "orders.json")
        return [order for order in map(drain_order, document if isinstance(document, list) else []) if order]

    def time_to_end(self) -> float:
        if self.job.end_time is None:
            return self.config.termination_grace
        now = time.time()  # noqa: TID251 - this file runs alone, without llmop.clock
        return max(0.0, self.job.end_time - self.config.rollover_margin - now)

    def receive(self, status: int, reply: Document) -> bool:
        """Take a reply to a heartbeat, in a heartbeat thread. Returns whether it brought an order."""
        if status == 409 and reply.get("verdict") == "superseded":
            with self.lock:
                self.superseded = True
            self.wakeup.set()
        given = reply.get("orders")
        orders = [order for order in map(drain_order, given if isinstance(given, list) else []) if order]
        if not orders:
            return False
        with self.lock:
            news = self.phase != "draining"
            self.mail += orders
        self.wakeup.set()
        return news

    # The end

    def drain(self) -> None:
        """Wait for the last outside connection or the deadline, end the engine, and say how it went. Raises End."""
        plan = self.plan
        assert plan is not None
        with self.lock:
            self.ending = plan.end
        self.set_phase("draining", "draining: {}".format(plan.reason))
        say("draining: {}, at most {:.0f} s".format(plan.reason, plan.deadline - time.monotonic()))
        open_at_end = self.wait_for_connections(plan)
        begun = time.monotonic()

        def overdue() -> bool:
            self.read_mail()  # SIGTERM leaves less time than the configuration
            limit = begun + self.config.engine.stop_timeout
            if plan.stop_by is not None:
                limit = min(limit, max(begun + 1.0, plan.stop_by))
            return time.monotonic() >= limit

        if self.engine is not None and not self.engine.ended():
            self.engine.stop(self.config.engine.stop_signal, overdue)
        self.end_engine()
        cut = "; {} connections were cut at the deadline".format(open_at_end) if open_at_end else ""
        raise End(plan.end, plan.reason + cut)

    def wait_for_connections(self, plan: DrainPlan) -> int:
        """Returns how many connections were still open when the time was over."""
        quiet = time.monotonic()
        while self.engine is not None and not self.engine.ended():
            now = time.monotonic()
            count = self.family.outside_connections(tcp_table(), self.port) if self.was_ready else 0
            if count:
                quiet = now
            elif not self.was_ready or (now >= quiet + QUIET and now >= min(plan.settle, plan.deadline)):
                return 0
            if now >= plan.deadline:
                return count
            self.wakeup.wait(0.1)
            self.read_mail()
        return 0

    def finish(self, end: End) -> None:
        """Leave nothing running, write the exit record, say goodbye."""
        if self.engine is not None:
            try:
                self.end_engine()
            except End:
                pass  # the end that is under way is the one that counts
        record = self.exit_record(end)
        say("{} ({}): {}".format(end.reason, end.code, end.message))
        steps = []  # type: List[Callable[[], None]]
        if self.owns_directory:
            steps.append(lambda: write_exit_record(self.config.directory, record))
            steps.append(lambda: self.channel.last_word(record))
        for step in steps:
            task = Task(step, self.wakeup)
            # A file system or a network that hangs must not keep the job alive.
            deadline = time.monotonic() + 10.0
            while not task.done and time.monotonic() < deadline:
                self.wakeup.wait(deadline - time.monotonic())

    def exit_record(self, end: End) -> Document:
        secrets = (self.config.api_key, self.config.token)
        ran = self.last_status is not None
        tail = self.log.tail(secrets) if ran else []
        return dict(exit_record(end, self.job), engineExitCode=self.last_status, logTail=tail)

    # What the controller is told

    def set_phase(self, phase: str, detail: str) -> None:
        with self.lock:
            self.phase = phase
            self.detail = detail
        self.channel.announce()

    def set_ready(self) -> None:
        with self.lock:
            self.proven, self.lost = True, False
            self.phase, self.detail = "ready", ""
        self.became_ready.set()
        self.channel.announce()

    def set_detail(self, detail: str) -> None:
        with self.lock:
            self.detail = detail

    def report(self, source: str, guess: str = "") -> Document:
        """The heartbeat, with a fresh proof that the port is the engine's. Called in the heartbeat threads.

        `source` is this machine's end of a connection to the controller; `guess` is shown only until there was one.
        """
        self.addresses.update(source)
        while True:
            with self.lock:
                proven = self.proven
            connections, ours = 0, False
            if proven:
                table = tcp_table()
                connections = self.family.outside_connections(table, self.port)
                ours = self.prove(table) == OURS
            with self.lock:
                if proven != self.proven:
                    continue  # the engine came or went in between
                if proven and not ours:
                    self.proven, self.lost = False, True
                    self.wakeup.set()
                # Phase and number are taken together: a higher number never tells an older story.
                self.seq += 1
                return dict(
                    self.identity(),
                    seq=self.seq,
                    phase="unhealthy" if self.phase == "ready" and not ours else self.phase,
                    endpoint={"host": self.addresses.host or guess, "port": self.port} if ours else None,
                    engineRestarts=self.restarts,
                    detail=self.detail,
                    ending=self.ending if self.phase == "draining" else None,
                    connections=connections,
                    progress=None,
                    load=self.shown_load() if ours else None,
                )

    def shown_load(self) -> Optional[Document]:
        """The newest look at the engine's metrics and how old it is in seconds; under the lock."""
        load = self.load
        if load is None:
            return None
        return {
            "queueDepth": load.queue_depth,
            "running": load.running,
            "kvCacheUsage": load.kv_cache_usage,
            "age": round(time.monotonic() - load.at, 3),
        }

    def watch_load(self, metrics: MetricsConfig) -> None:
        """Look at the engine's metrics as long as it serves, in a thread of its own. Whatever goes wrong there is no fault of the engine:
        what is known just becomes older.
        """
        period = min(self.config.engine.health_period, LOAD_PERIOD)
        before = ""
        while True:
            self.became_ready.wait(period)
            self.became_ready.clear()
            with self.lock:
                port = self.ports.numbers.get("http") if self.proven else None
            if port is None:
                continue
            try:
                problem = self.look_at_load(metrics, port)
            except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
                problem = "{}: {}".format(type(error).__name__, error)
            if bool(problem) != bool(before):
                say("{}: {}".format(metrics.path, self.shown(problem) or "can be read again"))
            before = problem

    def look_at_load(self, metrics: MetricsConfig, port: int) -> str:
        """Returns what cannot be used; raises what fetch_metrics raises."""
        begun = time.monotonic()
        text = fetch_metrics(
            port,
            metrics.path,
            self.config.api_key,
            lambda: self.family.listener(tcp_table(), port, self.addresses.reach()) == OURS,
        )
        load = load_of(text, metrics, begun)
        with self.lock:
            if not self.proven or self.ports.numbers.get("http") != port:
                return ""  # the engine went in between
            is_first, self.load = self.load is None, load
        if is_first:
            self.channel.announce()
        wanted = [
            (metrics.queue_depth, load.queue_depth),
            (metrics.running, load.running),
            (metrics.kv_cache_usage, load.kv_cache_usage),
        ]
        missing = [name for name, value in wanted if name and value is None]
        return "{} cannot be used".format(", ".join(missing)) if missing else ""

    def keep_log(self) -> None:
        while True:
            time.sleep(5.0)
            try:
                self.log.mark()
                self.log.bound()
            except OSError as error:
                say("engine.log: {}".format(error))


def drain_order(order: Any) -> Optional[Document]:
    """The order if it is one that this agent knows, else nothing."""
    if not isinstance(order, dict) or order.get("type") != "drain":
        return None
    deadline = order.get("deadline")
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)):
        return None
    return {"reason": order.get("reason") or "drain", "deadline": max(0.0, float(deadline))}


def exit_record(end: End, job: Optional[Job]) -> Document:
    return {
        "version": CONTRACT_VERSION,
        "reason": end.reason,
        "exitCode": end.code,
        "engineExitCode": None,
        "message": end.message,
        "node": job.node if job else socket.gethostname(),
        "jobId": job.id if job else "",
        "restartCount": job.restart_count if job else 0,
        "endedAt": int(time.time()),  # noqa: TID251 - this file runs alone, without llmop.clock
        "logTail": [],
    }


def write_exit_record(directory: str, record: Document) -> None:
    try:
        replace_json(os.path.join(directory, "exit.json"), record)
    except OSError as error:
        say("exit.json cannot be written: {}".format(error))


def own_hash() -> str:
    """Which agent this is: the name of its file, which is the hash of its content on the cluster."""
    return os.path.splitext(os.path.basename(__file__))[0]


# --- main -------------------------------------------------------------------------------------------------------------


def run_agent(path: str) -> int:
    environment = dict(os.environ)
    os.umask(0o077)
    job = None  # type: Optional[Job]
    try:
        job = Job(environment)
        config = Config.load(path)
    except End as end:
        say("{} ({}): {}".format(end.reason, end.code, end.message))
        write_exit_record(os.path.dirname(os.path.abspath(path)), exit_record(end, job))
        return end.code
    say("job {} begins on {}".format(job.id, job.node))
    agent = Agent(config, job, environment)
    agent.take_signals()
    try:
        agent.run()
        raise AssertionError("an agent ends by an End only")
    except End as end:
        verdict = end
    except Exception as error:
        traceback.print_exc()
        storage = isinstance(error, OSError) and error.errno in STORAGE_ERRORS
        verdict = End(
            "Storage" if storage else "Temporary",
            "the agent failed: {}: {}".format(type(error).__name__, error),
        )
    agent.finish(verdict)
    return verdict.code


def speak_utf8() -> None:
    """Python 3.6 takes the C locale of a batch job for ASCII, and then cannot pass on other names and values."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("LC_ALL") != "C.UTF-8":
        command = [sys.executable, "-I", os.path.abspath(__file__), *sys.argv[1:]]
        os.execve(sys.executable, command, dict(os.environ, LC_ALL="C.UTF-8"))


def main(argv: Sequence[str]) -> int:
    if list(argv) == ["--guard"]:
        return Guard().run()
    parser = argparse.ArgumentParser(prog="agent.py", description="Run the engine of one replica (llmop).")
    parser.add_argument("--config", required=True, help="<replica directory>/replica.json")
    return run_agent(parser.parse_args(argv).config)


if __name__ == "__main__":
    speak_utf8()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that wait for a network or a file system must not hold up the end.
    os._exit(code)
