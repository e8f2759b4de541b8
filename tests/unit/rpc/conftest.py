"""Every test of the control API runs over both stores."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.control.rig import Rig, serving

from llmop.testing.memory_store import MemoryStore


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(MemoryStore(), tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Log lines are kept out of the output; tests that read them capture them."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
