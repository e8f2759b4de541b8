"""A batch of a key with limits and models of its own, through a real gateway."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.gateway.test_client_keys import SECRET, key
from tests.integration.gateway.upstreams import model
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import CHAT, echo, jsonl, row


async def test_rows_wait_for_the_limit_of_their_owner_and_reach_its_models_alone(
    workloads: Workloads,
) -> None:
    rig = workloads.rig
    engine = await rig.engine(echo)
    granted = key("m", requests_per_minute=2)
    models = [model("m"), model("other")]
    await rig.control.acknowledged(rig.control.publish([engine.endpoint()], models, keys=[granted]))

    refused = await create(workloads, SECRET, jsonl(row(1, model="other")))
    shown = await until(workloads, SECRET, refused, {"status": "completed"})
    assert {"total": 1, "completed": 0, "failed": 1} == shown["request_counts"]
    assert [] == engine.calls

    slow = await create(workloads, SECRET, jsonl(*map(row, range(10, 16))))
    theirs = await create(workloads, rig.key, jsonl(*map(row, range(20, 40))))
    await until(workloads, rig.key, theirs, {"status": "completed"})  # held up by nobody
    words = {"waiting": "the key default/team may use 2 requests per minute"}
    shown = await until(workloads, SECRET, slow, {"status": "in_progress", "llmop": words})
    assert 2 == shown["request_counts"]["completed"]
    assert 22 == len(engine.calls)


async def create(workloads: Workloads, secret: str, content: bytes) -> str:
    form: Any = {"data": {"purpose": "batch"}, "files": {"file": ("rows", content)}}
    file = (await workloads.call("POST", "/v1/files", key=secret, **form)).json()["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    name: str = (await workloads.call("POST", "/v1/batches", key=secret, json=wanted)).json()["id"]
    return name


async def until(workloads: Workloads, secret: str, name: str, wanted: dict[str, Any]) -> Any:
    """The batch, as soon as its fields are these; of what it waits for the beginning counts."""
    async with asyncio.timeout(20):
        while True:
            shown = (await workloads.call("GET", f"/v1/batches/{name}", key=secret)).json()
            waiting, words = (each.get("llmop", {}).get("waiting", "") for each in (shown, wanted))
            if shown["status"] == wanted["status"] and waiting.startswith(words):
                return shown
            await asyncio.sleep(0.02)
