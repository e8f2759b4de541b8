"""People beside a batch: a gateway whose replica is full, rows that wait for it, and requests that come meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.upstreams import Call, Engine, Gate, waits
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import CHAT, jsonl, row

SLOTS = 2
ROWS = 40
BULK = 'llmop_gateway_queued{model="m",priority="bulk"}'
PEOPLE = 'llmop_gateway_queued{model="m",priority="default"}'


async def test_no_request_of_people_is_passed_by_a_row(workloads: Workloads) -> None:
    """Rows hold every slot, and more of them wait, queued before and after. Whatever slot becomes free, who came from people takes it."""
    gate, rig = Gate(), workloads.rig
    (engine,) = await rig.serve(gate, max_in_flight=SLOTS, queue=waits())
    batch = await start(workloads)
    await engine.until(lambda each: len(each.calls) == SLOTS)
    assert ["row"] * SLOTS == order(engine)
    wires: list[Wire] = []
    for people in (1, 3, 2, 5):
        await until_at_least(rig, BULK, 2)
        before = len(engine.calls)
        for number in range(people):
            wires.append(await ask(rig))
            await rig.until_metric(PEOPLE, number + 1)
        assert before == len(engine.calls)  # they wait for a slot
        gate.let(people + 1)  # and the one after them is a row again
        await engine.until(lambda each: len(each.calls) == before + people + 1)  # noqa: B023
        assert [*["person"] * people, "row"] == order(engine)[before:]
    gate.let(ROWS + len(wires))
    assert {200} == {(await wire.answer()).status for wire in wires}
    shown = await ended(workloads, batch)
    assert {"total": ROWS, "completed": ROWS, "failed": 0} == shown["request_counts"]
    assert SLOTS == gate.most
    assert ROWS == order(engine).count("row")


async def start(workloads: Workloads) -> str:
    upload = {"data": {"purpose": "batch"}, "files": {"file": ("rows", jsonl(*map(row, range(ROWS))))}}
    file = (await workloads.call("POST", "/v1/files", **upload)).json()["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    name: str = (await workloads.call("POST", "/v1/batches", json=wanted)).json()["id"]
    return name


async def ended(workloads: Workloads, batch: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            shown = (await workloads.call("GET", f"/v1/batches/{batch}")).json()
            if shown["status"] == "completed":
                return shown
            await asyncio.sleep(0.02)


async def ask(rig: Rig) -> Wire:
    """One request of a person, on its way."""
    wire = await rig.wire()
    messages = [{"role": "user", "content": "person"}]
    await wire.send(rig.request(body=json.dumps({"model": "m", "messages": messages}).encode()))
    return wire


def order(engine: Engine) -> list[str]:
    """Who came to the engine, in the order in which they came."""
    return [who(call) for call in engine.calls]


def who(call: Call) -> str:
    return "person" if json.loads(call.body)["messages"][0]["content"] == "person" else "row"


async def until_at_least(rig: Rig, series: str, number: int) -> None:
    async with asyncio.timeout(10):
        while await rig.metric(series) < number:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
