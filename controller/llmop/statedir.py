"""The private directory of an installation: who may use it, and one process of a kind at a time."""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from llmop.domain.errors import NeedsUser


def ensure(directory: Path, called: str = "state directory") -> None:
    """Makes the directory (0700). Raises NeedsUser when it is there and not ours alone: keys and the database lie in it.

    `called` is what people know it as.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except FileExistsError as error:
        raise _unusable(directory, "is no directory", called) from error
    except OSError as error:
        raise _unusable(directory, f"cannot be made: {error.strerror}", called) from error
    if found.st_uid != os.geteuid():
        raise _unusable(directory, f"belongs to user id {found.st_uid}, not to you ({os.geteuid()})", called)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise _unusable(
            directory, f"others may enter it (mode {mode:04o}); run: chmod 700 {directory}", called
        )


@contextlib.contextmanager
def claim(directory: Path, kind: str) -> Iterator[None]:
    """Makes the directory and holds it for the one process of this `kind` ("controller"); a killed process holds nothing.

    Raises NeedsUser.
    """
    ensure(directory)
    path = directory / f"{kind}.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, f"cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 300).decode(errors="replace").strip() or "not known yet"
            raise NeedsUser(
                "StateDirectoryInUse",
                f"{directory} is in use by another {kind} ({holder}): stop that one, or name another --state-dir",
            ) from error
        except OSError as error:
            raise _unusable(directory, f"its file system has no locks: {error.strerror}") from error
        with contextlib.suppress(OSError):  # who holds it is only for people; the disk may be full
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _unusable(directory: Path, problem: str, called: str = "state directory") -> NeedsUser:
    return NeedsUser("BadStateDirectory", f"{called} {directory}: {problem}")
