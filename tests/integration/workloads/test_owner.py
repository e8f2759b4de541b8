"""A batch of a key with limits and models of its own, through a real gateway."""

from __future__ import annotations

from tests.integration.gateway.test_client_keys import SECRET, key
from tests.integration.gateway.upstreams import model
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import echo, jsonl, row


async def test_rows_wait_for_the_limit_of_their_owner_and_reach_its_models_alone(
    workloads: Workloads,
) -> None:
    rig = workloads.rig
    engine = await rig.engine(echo)
    granted = key("m", requests_per_minute=1)
    models = [model("m"), model("other")]
    await rig.control.acknowledged(rig.control.publish([engine.endpoint()], models, keys=[granted]))

    refused = await workloads.batch(jsonl(row(1, model="other")), SECRET)
    shown = await workloads.completed(refused, SECRET)
    assert {"total": 1, "completed": 0, "failed": 1} == shown["request_counts"]
    assert [] == engine.calls

    slow = await workloads.batch(jsonl(*map(row, range(10, 16))), SECRET)
    theirs = await workloads.batch(jsonl(*map(row, range(20, 40))))
    await workloads.completed(theirs)  # held up by nobody
    words = "the key default/team may use 1 requests per minute"
    shown = await workloads.until(
        slow, lambda batch: batch.get("llmop", {}).get("waiting", "").startswith(words), SECRET
    )
    assert ("in_progress", 1) == (shown["status"], shown["request_counts"]["completed"])
    assert 21 == len(engine.calls)
