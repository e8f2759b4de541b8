"""Every test of the control API runs over both stores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.control.rig import Rig, serving

from llmop.store.sql import open_store
from llmop.testing.memory_store import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    store = (
        MemoryStore()
        if request.param == "memory"
        else await open_store(f"sqlite+aiosqlite:///{tmp_path}/llmop.db")
    )
    try:
        async with serving(store, tmp_path) as running:
            yield running
    finally:
        await store.close()
