"""Whose turn it is: a directory, because making a name for one is atomic on every shared file system.

The directory comes into place with who holds it written inside (rename(2) refuses a directory that is not empty as target), and the
holder touches that file as long as it lives. Another one takes over when the holder is seen to be gone: at
once when both are on one machine, else when nothing was touched for a while by the other's own clock; no clocks of two machines are
ever compared. A holder that stands still for so long may still believe that it holds it: who must not be two asks before each step.
"""

import dataclasses
import errno
import json
import os
import secrets
import shutil
import socket
from pathlib import Path

from llmop.files import whole

HEARTBEAT_S = 5.0
VANISHED_S = (
    60.0  # twelve heartbeats: network file systems cache attributes for up to a minute (nfs(5), acdirmax)
)
_OWNER = "owner.json"
# Somebody holds it; or a holder, or a first answer that was lost, has already removed what was to be renamed.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """One process, beyond reuse of its number: `machine` is a boot of a host and a PID namespace, `started` clock ticks."""

    token: str
    host: str
    machine: str
    pid: int
    started: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A lock as another process sees it. `owner` is None where that cannot be read: a damaged file, a full disk."""

    owner: Owner | None
    touched_ns: int


def myself() -> Owner:
    """This process, with a new token."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    pid = os.getpid()
    return Owner(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=f"{boot} {Path('/proc/self/ns/pid').readlink()}",
        pid=pid,
        started=_started(pid),
    )


def has_vanished(seen: Seen, me: Owner, running: int, unchanged_s: float, silent_s: float) -> bool:
    """Whether the holder is gone. `running` is when its process started according to /proc here (0 = no such process),
    `unchanged_s` how long `seen` has been the same, on our clock; `silent_s` is how long a living one may be silent."""
    if seen.owner is not None and seen.owner.machine == me.machine:
        return running != seen.owner.started
    return unchanged_s >= silent_s


class Lock:
    """One try to hold the lock at `path`. Everything raises OSError when the file system does not take it."""

    def __init__(self, path: Path, me: Owner) -> None:
        self.path = path
        self._me = me

    def take(self) -> bool:
        """False when somebody holds it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists():
            return self.is_mine()  # somebody may have given it back who had buried it too hastily
        fresh = self.path.with_name(f"{self.path.name}.{self._me.token}")
        try:
            fresh.mkdir(mode=0o700)
            whole.write(fresh / _OWNER, json.dumps(dataclasses.asdict(self._me)).encode(), 0o666)
            fresh.rename(self.path)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if error.errno not in _TAKEN:
                raise
        # A server that does a rename twice, because its first answer was lost, says that it failed.
        return self.is_mine()

    def sweep(self) -> None:
        """For the holder: removes what others have left beside the lock when they were killed."""
        for each in self.path.parent.glob(f"{self.path.name}.*"):
            # One that buries too hastily has our own in its hands for a moment, and will put it back.
            if _owner(each) != self._me:
                shutil.rmtree(each, ignore_errors=True)

    def look(self) -> Seen | None:
        """Who holds it; None when nobody does."""
        owner = _owner(self.path)
        try:
            where = self.path / _OWNER if owner is not None else self.path
            return Seen(owner=owner, touched_ns=where.stat().st_mtime_ns)
        except FileNotFoundError:
            return None

    def is_gone(self, seen: Seen, unchanged_s: float, silent_s: float | None = None) -> bool:
        """`silent_s` None = `VANISHED_S`."""
        running = _started(seen.owner.pid) if seen.owner is not None else 0
        return has_vanished(
            seen, self._me, running, unchanged_s, VANISHED_S if silent_s is None else silent_s
        )

    def is_here(self, seen: Seen) -> bool:
        """Whether the holder is a process of this machine."""
        return seen.owner is not None and seen.owner.machine == self._me.machine

    def bury(self, seen: Seen) -> None:
        """Removes the lock of a vanished holder; of several that try, one succeeds."""
        grave = self.path.with_name(f"{self.path.name}.{self._me.token}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        if _owner(grave) != seen.owner:
            # Somebody was quicker and holds it now; if a third one has come in between, that one's lock stays and this one's holder
            # will notice that it has lost it.
            try:
                grave.rename(self.path)
                return
            except OSError:
                pass
        shutil.rmtree(grave, ignore_errors=True)

    def touch(self) -> bool:
        """Says that we live. False when the lock is not ours any more; what cannot be read now may still be ours: an error."""
        try:
            if _parsed((self.path / _OWNER).read_bytes()) != self._me:
                return False
            os.utime(self.path / _OWNER)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_mine(self) -> bool:
        return _owner(self.path) == self._me

    def release(self) -> None:
        if self.is_mine():
            self.bury(Seen(owner=self._me, touched_ns=0))


def _owner(path: Path) -> Owner | None:
    try:
        return _parsed((path / _OWNER).read_bytes())
    except OSError:
        return None


def _parsed(content: bytes) -> Owner | None:
    try:
        data = json.loads(content)
        return Owner(
            token=str(data["token"]),
            host=str(data["host"]),
            machine=str(data["machine"]),
            pid=int(data["pid"]),
            started=int(data["started"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _started(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)); 0 when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
