"""What the controller says of keys and virtual models, and that it counts only while the controller is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.control import manifests
from tests.control.rig import serving
from tests.unit.workloads.workloads_rig import StandingClock

from llmop.testing.memory_store import MemoryStore
from llmop.workloads import control
from llmop.workloads.known import Virtual
from llmop.workloads.owners import Owners

OWNER = 64 * "a"


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


async def test_a_key_is_missed_as_soon_as_it_is_gone_and_nothing_counts_as_heard_without_a_controller(
    tmp_path: Path,
) -> None:
    clock, heard = StandingClock(), set[str]()
    owners, virtual = Owners(tmp_path / "owners.json", clock), Virtual(tmp_path)
    async with serving(MemoryStore(), tmp_path) as rig:
        await rig.apply(manifests.document("APIKey", "alice", {"keyHash": f"sha256:{OWNER}"}))
        watching = asyncio.create_task(control.watch(rig.address, virtual, owners, heard))
        await until(lambda: heard == {"APIKey", "Assistant", "Tribunal"})
        assert [] == owners.due(0)
        await rig.delete("key", "alice")
        await until(lambda: owners.due(0) == [OWNER])
    await until(lambda: not heard)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
