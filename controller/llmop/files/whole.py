"""Files that a reader sees as they were or as they are, never in part."""

import contextlib
import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes, mode: int) -> None:
    """Atomic and durable; `mode` before the umask. Raises OSError; then nothing has changed."""
    draft = _draft(path, content, mode)
    try:
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes, mode: int) -> None:
    """As `write`, but a file that is there stays as it is, also one that another machine makes at this moment."""
    draft = _draft(path, content, mode)
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    """A file beside `path` that has all of it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
