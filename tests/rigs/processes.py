"""Processes of a rig: who they are, whether they live, how they are kept and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.rigs import keeper
from tests.rigs.errors import RigError

POLL = 0.05
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A process beyond reuse of its number: pid and start time in clock ticks since boot (field 22 of proc(5) stat)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None when there is no such process, or only its zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        return cls(pid=pid, started=int(fields[19]))

    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Does nothing when the process is gone, also when its number has a new owner."""
        if self.alive():
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                return


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A daemon and its keeper (see `tests.rigs.keeper`)."""

    name: str
    keeper: Identity
    daemon: Identity
    handle: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Asks the keeper to kill the daemon and all that it started."""
        self.keeper.kill(signal.SIGTERM)

    def ended(self) -> bool:
        if self.handle is not None:
            return self.handle.poll() is not None
        return not self.keeper.alive()


def keep(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    run: Path,
    user: str = "",
    lifeline: int | None = None,
) -> Kept:
    """Starts a daemon (which must stay in the foreground) under a keeper.

    `run` is the folder for its pid file; `lifeline` is the read end of a pipe: when its last write end closes, the
    daemon and its descendants die.
    """
    pid_file = run / f"{name}.daemon"
    pid_file.unlink(missing_ok=True)
    order = {
        "argv": list(argv),
        "env": dict(env),
        "log": str(log),
        "pid_file": str(pid_file),
        "user": user,
        "lifeline": lifeline is not None,
    }
    with log.open("ab") as output:
        handle = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, json.dumps(order)],
            stdin=subprocess.DEVNULL if lifeline is None else lifeline,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd="/",
            start_new_session=True,
        )

    def started() -> Kept | None:
        identity = Identity.of(handle.pid)
        daemon = Identity.of(int(pid_file.read_text())) if pid_file.exists() else None
        if identity is not None and daemon is not None:
            return Kept(name=name, keeper=identity, daemon=daemon, handle=handle)
        if handle.poll() is not None:
            raise RigError(f"{name} ended at once; the end of {log}:\n{tail(log)}")
        return None

    return wait_for(f"{name} to start", started, timeout=20)


def wait_for(what: str, probe: Callable[[], T | None], *, timeout: float) -> T:
    """Asks until the answer isn't None (nor false); raises RigError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise RigError(f"waited {timeout:g} s for {what}")
        time.sleep(POLL)


def processes_with(variables: Callable[[Mapping[str, str]], bool]) -> list[Identity]:
    """Live processes whose environment at their start answers true. Needs root to see other accounts."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            raw = (entry / "environ").read_bytes()
        except OSError:
            continue
        pairs = (item.decode(errors="replace").partition("=") for item in raw.split(b"\0") if b"=" in item)
        if variables({key: value for key, _, value in pairs}):
            identity = Identity.of(int(entry.name))
            if identity is not None:
                found.append(identity)
    return found


def tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise RigError(
            f"{what} needs root, because its daemons switch to the accounts of job owners; run it as root"
        )


def need_account(name: str) -> pwd.struct_passwd:
    """The ordinary account `name` with a home directory; made when missing (as root)."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        need_root(f"making the account {name}")
    with machine_lock("accounts"):
        result = subprocess.run(
            ["/usr/sbin/useradd", "--create-home", "--user-group", "--shell", "/bin/bash", name],
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode not in (0, 9):  # 9: another test run made it meanwhile
        raise RigError(f"useradd {name} failed: {result.stderr.strip()}")
    return pwd.getpwnam(name)


def as_account(account: pwd.struct_passwd, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as the account, in no group but its own; root alone may.

    Not by `user=` of subprocess: Python forks in full for that, and such a child crashes before its program begins where gRPC has had
    threads in this process (`epoll_wait error: Bad file descriptor`). And by way of `env`: setpriv has root's rights until it has started a
    program, which may so lie where the account finds none.
    """
    ids = f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"
    return ["/usr/bin/setpriv", *ids, "--clear-groups", "/usr/bin/env", "--", *argv]


@contextlib.contextmanager
def machine_lock(subject: str) -> Iterator[None]:
    """Lets one test run of this machine at a time do what concerns all of them (ports, accounts, cached images)."""
    folder = Path("/run" if os.geteuid() == 0 else "/tmp")
    with (folder / f"llmop-rigs-{subject}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
