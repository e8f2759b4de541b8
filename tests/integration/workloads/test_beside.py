"""People beside a batch: a gateway whose replica is full, rows that wait for it, and requests that come meanwhile."""

from __future__ import annotations

import json

from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.upstreams import Call, Engine, Gate, waits
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import jsonl, row

SLOTS = 2
ROWS = 40
BULK = 'llmop_gateway_queued{model="m",priority="bulk"}'
PEOPLE = 'llmop_gateway_queued{model="m",priority="default"}'


async def test_no_request_of_people_is_passed_by_a_row(workloads: Workloads) -> None:
    """Rows hold every slot, and more of them wait, queued before and after. Whatever slot becomes free, who came from people takes it."""
    gate, rig = Gate(), workloads.rig
    (engine,) = await rig.serve(gate, max_in_flight=SLOTS, queue=waits())
    batch = await workloads.batch(jsonl(*map(row, range(ROWS))))
    await engine.until(lambda each: len(each.calls) == SLOTS)
    assert ["row"] * SLOTS == order(engine)
    wires: list[Wire] = []
    for people in (1, 3, 2, 5):
        await rig.until_at_least(BULK, 2)
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
    shown = await workloads.completed(batch)
    assert {"total": ROWS, "completed": ROWS, "failed": 0} == shown["request_counts"]
    assert SLOTS == gate.most
    assert ROWS == order(engine).count("row")


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
