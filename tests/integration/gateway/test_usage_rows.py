"""What clients use reaches the controller once, whoever ends in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.gateway.control import Control
from tests.integration.gateway.gateway_process import gateway_process
from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.test_client_keys import bearer, key
from tests.integration.gateway.upstreams import Call, Engine, model
from tests.waiting import PATIENCE_S

ANSWER = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


async def counting(call: Call) -> None:
    await call.answer(ANSWER)


async def serve(rig: Rig) -> None:
    engine = await rig.engine(counting)
    version = rig.control.publish([engine.endpoint()], [model("m")], keys=[key()])
    await rig.control.acknowledged(version)


async def test_usage_is_told_by_key_and_model_also_what_a_limit_refused(rig: Rig) -> None:
    engine = await rig.engine(counting)
    keys = [key(requests_per_minute=2)]
    await rig.control.acknowledged(rig.control.publish([engine.endpoint()], [model("m")], keys=keys))
    for _ in range(3):
        await rig.ask(headers=bearer())
        await rig.ask()
    await rig.ask("/tokenize", b'{"inputs":"x"}')
    await rig.control.until_used("default/team", "m", 2)
    await rig.control.until_used("test", "m", 3)
    assert {("default/team", "m"): (2, 6, 4), ("test", "m"): (3, 9, 6)} == rig.control.used()
    limited = {row.key: row.limited for each in rig.control.usage for row in each.rows if row.limited}
    assert {"default/team": 1} == limited


async def test_a_batch_whose_answer_is_lost_is_sent_again_as_it_was(rig: Rig) -> None:
    await serve(rig)
    rig.control.forgets_to_answer = 2
    assert 200 == (await rig.ask(headers=bearer())).status
    async with asyncio.timeout(PATIENCE_S):
        while len(rig.control.usage) < 3:  # nothing tells
            await asyncio.sleep(0.05)
            await rig.ask(headers=bearer())
    first, second, third = rig.control.usage[:3]
    assert first == second == third


async def test_what_was_used_last_is_told_at_the_end(rig: Rig) -> None:
    await serve(rig)
    for _ in range(5):
        assert 200 == (await rig.ask(headers=bearer())).status
    await rig.stop()
    assert {("default/team", "m"): (5, 15, 10)} == rig.control.used()


async def test_usage_waits_on_disk_while_the_controller_is_away(rig: Rig) -> None:
    await serve(rig)
    await rig.control.stop()
    assert 200 == (await rig.ask(headers=bearer())).status
    await rig.stop()
    await rig.control.start()
    await rig.start()
    assert 200 == (await rig.ask(headers=bearer())).status
    await rig.control.until_used("default/team", "m", 2)


async def test_a_gateway_that_is_killed_again_and_again_loses_and_doubles_nothing(folder: Path) -> None:
    control = Control(folder / "control.sock")
    await control.start()
    engine = Engine("r1", counting)
    await engine.start()
    request = b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n\r\n{"model":"m"}'
    control.publish([engine.endpoint()], [model("m")])
    asked = 0
    control.forgets_to_answer = 2
    try:
        for _ in range(4):
            async with gateway_process(folder) as process:
                wire = Wire(*await asyncio.open_unix_connection(str(folder / "door.sock")))
                while True:
                    await wire.send(request)
                    if (await wire.answer()).status == 200:
                        break
                    await asyncio.sleep(0.02)
                for _ in range(50):
                    await wire.send(request)
                    assert 200 == (await wire.answer()).status
                asked += 51
                wire.close()
                process.kill()
                await process.wait()
                (folder / "door.sock").unlink()
        async with gateway_process(folder):
            await control.until_used("", "m", asked)
    finally:
        await engine.stop()
        await control.stop()
    assert {("", "m"): (asked, 3 * asked, 2 * asked)} == control.used()
