"""Files that a reader sees as they were or as they are, never in part."""

import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes, mode: int) -> None:
    """Atomic and durable; `mode` before the umask. Raises OSError; then nothing has changed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
