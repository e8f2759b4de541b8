"""Each test has a gateway, a controller and a folder of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from tests.integration.gateway.rig import Rig, gateway_rig


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a gateway process has."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for the paths of Unix sockets are limited to 107 bytes; private, as a gateway's folder is."""
    with tempfile.TemporaryDirectory(prefix="llmop-gateway-") as path:
        yield Path(path)


@pytest.fixture
async def rig(folder: Path) -> AsyncIterator[Rig]:
    async with gateway_rig(folder) as rig:
        yield rig
