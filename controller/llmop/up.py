"""`llmop up`: controller, gateway and workloads of one machine as child processes, kept alive until this one is told to end."""

import asyncio
import contextlib
import ctypes
import fcntl
import http.client
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import click

from llmop import statedir
from llmop.cli import contexts
from llmop.cli.errors import ConfigError
from llmop.clock import SystemClock
from llmop.cluster.local import LocalCluster
from llmop.domain.errors import NeedsUser
from llmop.gateway import keys
from llmop.settings import DEPOSED, STORE_VARIABLE, VECTORS_VARIABLE, ControllerSettings

KEY_NAME = "up"
START_S = 30.0
STOP_S = 15.0
KILL_WAIT_S = 5
RESTART_S = 1.0
RESTART_MAX_S = 30.0
QUICK_S = 30.0  # also a slow machine has started, or failed to start, by then
QUICK_ENDS = 5  # so many in a row are no accident
_PR_SET_PDEATHSIG = 1


class _Child:
    """A process that is started again when it ends by itself."""

    def __init__(
        self, name: str, argv: Sequence[str], variables: Mapping[str, str], log: Path, *, quiet: bool
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._variables = dict(variables)
        self._log = log
        self._quiet = quiet
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._log_start = 0
        self._due_at: float | None = None  # when it is to be started again
        self.quick_ends = 0

    def start(self) -> None:
        self._due_at = None
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llmop", *self._argv],
                env={**os.environ, **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if self._quiet else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (this process has one thread)
            )
        self._started_at = time.monotonic()

    def has_ended(self) -> bool:
        """True once for every end by itself."""
        if self._process is None or self._due_at is not None or self._process.poll() is None:
            return False
        now = time.monotonic()
        self.quick_ends = self.quick_ends + 1 if now - self._started_at < QUICK_S else 1
        # At once the first time, then after 1, 2, 4 ... seconds.
        pause_s = RESTART_S * 2 ** min(self.quick_ends - 2, 10) if self.quick_ends > 1 else 0.0
        self._due_at = now + min(RESTART_MAX_S, pause_s)
        return True

    @property
    def is_due(self) -> bool:
        return self._due_at is not None and time.monotonic() >= self._due_at

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    def last_words(self) -> str:
        """The last lines of this very process, as the end of a sentence; "" where they stand on the terminal already."""
        if not self._quiet:
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-5:]
        return ":\n" + "\n".join(lines) if lines else ""

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    """Also after a kill -9 of this process nothing of it stays."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class _Stop(Exception):
    """Somebody asked us to end."""


def run(state_dir: Path, *, listen: str, store: str, vectors: str, ephemeral: bool, quiet: bool) -> int:
    """Runs until SIGINT or SIGTERM; returns the exit code. Raises NeedsUser, OSError."""
    settings = ControllerSettings(state_dir=state_dir, store=store)
    statedir.ensure(state_dir)
    if ephemeral and any(entry.name != "shared" for entry in state_dir.iterdir()):
        raise NeedsUser(
            "NotEmpty",
            f"--ephemeral deletes {state_dir} at its end, and it is not empty: name a new directory",
        )
    with _only_one(state_dir), _with_port(listen) as listen:
        return _run(settings, listen=listen, store=store, vectors=vectors, ephemeral=ephemeral, quiet=quiet)


@contextlib.contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """A second one would find the first one's socket, believe that all is well and take over the context of its user."""
    with (state_dir / "up.lock").open("a+") as file:
        try:
            # Close-on-exec: the children do not inherit it, and it goes with this process however that ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise NeedsUser(
                "InUse",
                f"llmop up runs already in {state_dir} (pid {file.read().strip() or 'unknown'}): "
                "end that one, or name another --state-dir",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _run(
    settings: ControllerSettings, *, listen: str, store: str, vectors: str, ephemeral: bool, quiet: bool
) -> int:
    state_dir = settings.state_dir

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    children: list[_Child] = []
    try:
        url = f"http://{listen}"
        children = _children(settings, listen, url, store, vectors, quiet=quiet)
        secret_file = _key(settings)
        for child in children:
            child.start()
        _wait(settings, listen, children)
        context = contexts.Context(
            name="local", controller=settings.socket, gateway=url, key_file=str(secret_file)
        )
        _greet(url, secret_file, options=_remember(context))
        while True:
            _restart(children)
            time.sleep(RESTART_S)
    except _Stop:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # The gateway last: requests that are under way get their answers as long as replicas live.
        for child in children:
            child.stop()
        if ephemeral:
            asyncio.run(_end_jobs(state_dir / "shared" / "jobs"))
            shutil.rmtree(state_dir, ignore_errors=True)
        elif left := asyncio.run(_live_jobs(_local(state_dir / "shared" / "jobs"))):
            click.echo(
                f"Replicas that go on without llmop: {len(left)}. The next llmop up on this directory finds them; "
                "to end them, start it and delete their deployments.",
                err=True,
            )


async def _end_jobs(directory: Path) -> None:
    """Cancels every local job and waits until none is left."""
    cluster = _local(directory)
    deadline = time.monotonic() + STOP_S + KILL_WAIT_S
    while time.monotonic() < deadline:
        live = await _live_jobs(cluster)
        if not live:
            return
        await cluster.cancel(live)
        await asyncio.sleep(0.2)


def _local(directory: Path) -> LocalCluster:
    return LocalCluster(directory, SystemClock(), environ=os.environ, kill_wait_s=KILL_WAIT_S)


async def _live_jobs(cluster: LocalCluster) -> list[str]:
    return [seen.job_id for seen in (await cluster.snapshot()).jobs if seen.state.is_live]


def _children(
    settings: ControllerSettings, listen: str, url: str, store: str, vectors: str, *, quiet: bool
) -> list[_Child]:
    logs = settings.state_dir / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    state = ["--state-dir", str(settings.state_dir)]
    controller = [
        "controller",
        *state,
        "--local",
        "--gateway-url",
        url,
    ]
    gateway = ["gateway", *state, "--listen", listen]
    workloads = ["workloads", *state, "--gateway", url]
    return [
        _Child("controller", controller, {STORE_VARIABLE: store}, logs / "controller.log", quiet=quiet),
        _Child("workloads", workloads, {VECTORS_VARIABLE: vectors}, logs / "workloads.log", quiet=quiet),
        _Child("gateway", gateway, {}, logs / "gateway.log", quiet=quiet),
    ]


@contextlib.contextmanager
def _with_port(listen: str) -> Iterator[str]:
    """`listen` with a free port instead of 0. The port is held, not listened on: until the gateway does, and while it is restarted, the
    kernel gives it to nobody who asks for any port (socket(7): with SO_REUSEADDR several may bind what nobody listens on).
    """
    host, _, port = listen.rpartition(":")
    if port != "0":
        yield listen
        return
    with socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host.strip("[]"), 0))
        yield f"{host}:{holder.getsockname()[1]}"


def _key(settings: ControllerSettings) -> Path:
    """A key for the person who runs this; its secret is in a 0600 file that llmctl reads."""
    secret_file = settings.state_dir / "key"
    settings.keys_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.kept(settings.keys_file, KEY_NAME, secret_file)
    return secret_file


def _wait(settings: ControllerSettings, listen: str, children: Sequence[_Child]) -> None:
    """Until the control API's socket is there, the gateway knows which models there are, and workloads listens: who is told that llmop
    is up may ask for all of it. A controller is waited for as long as it runs: it knows what it waits for itself, says so in its
    log, and ends when that does not come. Raises NeedsUser when a process cannot start.
    """
    path = Path(settings.socket.removeprefix("unix://"))

    def answers() -> bool:
        return path.exists() and _answers(path)

    if not _came(children, answers, time.monotonic() + START_S):
        click.echo(
            f"the controller does not answer yet; it is waited for as long as it runs{children[0].last_words()}",
            err=True,
        )
        _came(children, answers, math.inf)
    if not _came(children, lambda: _has_table(listen), time.monotonic() + START_S):
        click.echo(
            f"the gateway knows no models after {START_S:.0f} s: it answers 503 until the controller tells it",
            err=True,
        )
    if not _came(children, lambda: _answers(settings.workloads_socket), time.monotonic() + START_S):
        click.echo(
            f"files and batches are not served after {START_S:.0f} s: they are as soon as they can be",
            err=True,
        )


def _came(children: Sequence[_Child], probe: Callable[[], bool], deadline: float) -> bool:
    """Whether `probe` was true before the deadline (monotonic). Raises NeedsUser when a process has ended meanwhile."""
    while time.monotonic() < deadline:
        for child in children:
            if child.has_ended():
                raise NeedsUser("StartFailed", f"the {child.name} did not start{child.last_words()}")
        if probe():
            return True
        time.sleep(0.05)
    return False


def _has_table(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2.0)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
            return True
        except OSError:
            return False


def _restart(children: Sequence[_Child]) -> None:
    """Raises NeedsUser when nothing is left to be done here."""
    for child in children:
        if child.has_ended():
            if child.exit_code == DEPOSED:
                raise NeedsUser("Deposed", "another controller has taken over this installation's database")
            if child.quick_ends < QUICK_ENDS:
                click.echo(f"the {child.name} has ended; starting it again", err=True)
            elif child.name == "gateway":
                raise NeedsUser("KeepsEnding", f"the gateway ends again and again{child.last_words()}")
            elif child.quick_ends == QUICK_ENDS:
                # A full disk, a damaged database: no reason to take the gateway away from those who use it.
                click.echo(
                    f"the {child.name} ends again and again; it is tried until it stays, and the gateway serves on with what it"
                    f" knows{child.last_words()}",
                    err=True,
                )
        if child.is_due:
            child.start()


def _remember(context: contexts.Context) -> str:
    """Tells llmctl where we are; the options that it needs, written out, where it cannot be told."""
    path = contexts.default_path(os.environ)
    try:
        contexts.save(path, context)
    except (OSError, ConfigError) as error:
        click.echo(f"llmctl cannot be told: {error}", err=True)
        return f"--controller {shlex.quote(context.controller)} "
    return ""


def _greet(url: str, secret_file: Path, *, options: str) -> None:
    click.echo(
        f"llmop is up.\n  gateway  {url}\n  key      in {secret_file}\n  try      llmctl {options}get md,rep",
        err=True,
    )
    sys.stderr.flush()
