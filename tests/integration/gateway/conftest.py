"""Each test has a gateway, a controller and a folder of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.gateway.rig import Rig, gateway_rig


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for the paths of Unix sockets are limited to 107 bytes; private, as a gateway's folder is."""
    with tempfile.TemporaryDirectory(prefix="llmop-gateway-") as path:
        yield Path(path)


@pytest.fixture
async def rig(folder: Path) -> AsyncIterator[Rig]:
    async with gateway_rig(folder) as rig:
        yield rig
