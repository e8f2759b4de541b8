"""The Unix socket of the control API: whoever may reach it is admin, so only its owner may.

gRPC cannot tell who is on the other side of a Unix socket, so the directory is the fence.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llmop.domain.errors import NeedsUser

_LONGEST_PATH = 107  # sun_path holds 108 bytes with the final NUL (unix(7))


def parse(address: str) -> Path:
    """The path in `unix:///absolute/path`. Raises NeedsUser for anything else."""
    if not address.startswith("unix://"):
        raise NeedsUser(
            "UnsupportedAddress",
            f'control API address "{address}": only unix:///absolute/path is supported in this version; TCP is not',
        )
    path = Path(address.removeprefix("unix://"))
    if not path.is_absolute() or ".." in path.parts or path.name == "":
        raise NeedsUser("UnsupportedAddress", f'control API address "{address}": the path must be absolute')
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise NeedsUser(
            "UnsupportedAddress",
            f'control API address "{address}": a socket path has at most {_LONGEST_PATH} bytes; choose a shorter directory',
        )
    return path


@contextlib.contextmanager
def claim(path: Path) -> Iterator[None]:
    """Makes and checks the directory, and holds a lock so that no second controller takes the address away.

    Raises NeedsUser when the directory is not ours alone, or the address is taken.
    """
    _private_directory(path.parent)
    lock = os.open(
        path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NeedsUser(
                "AddressInUse", f"{path}: another controller listens here; stop it, or choose another address"
            ) from error
        except OSError as error:
            raise NeedsUser(
                "NoFileLocks",
                f"{path}: its file system has no locks ({error.strerror}); choose a directory on a local disk",
            ) from error
        path.unlink(missing_ok=True)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _private_directory(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NeedsUser("UnsafeDirectory", f"{directory}: must be a directory, and no symbolic link")
    if found.st_uid != os.geteuid():
        raise NeedsUser(
            "UnsafeDirectory", f"{directory}: belongs to user id {found.st_uid}, not to you ({os.geteuid()})"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise NeedsUser(
            "UnsafeDirectory",
            f"{directory}: others may enter it (mode {mode:04o}); run: chmod 700 {directory}",
        )
