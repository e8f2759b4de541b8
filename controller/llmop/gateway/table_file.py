"""The last good table on disk, so that a gateway which starts without a controller serves at once."""

import os
from pathlib import Path

from llmop.gateway import table
from llmop.gateway.table import ReceivedTable


def write_private(path: Path, content: bytes) -> None:
    """Replaces `path` as a whole, mode 0600; after a crash it holds the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class TableFile:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "endpoints.json"

    def save(self, received: ReceivedTable) -> None:
        """Raises OSError."""
        write_private(self._path, table.to_json(received))

    def load(self) -> ReceivedTable | None:
        """None where there is no table yet. Raises OSError, and ValueError for a damaged file."""
        try:
            return table.from_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
