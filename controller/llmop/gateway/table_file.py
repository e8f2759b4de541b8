"""The last good table on disk, so that a gateway which starts without a controller serves at once."""

from pathlib import Path

from llmop.files import whole
from llmop.gateway import table
from llmop.gateway.table import ReceivedTable


class TableFile:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "endpoints.json"

    def save(self, received: ReceivedTable) -> None:
        """Raises OSError."""
        whole.write(self._path, table.to_json(received), 0o600)

    def load(self) -> ReceivedTable | None:
        """None where there is no table yet. Raises OSError, and ValueError for a damaged file."""
        try:
            return table.from_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
