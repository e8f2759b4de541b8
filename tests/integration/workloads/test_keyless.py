"""Batches and bulk requests through the door that asks for no key, with a client that sends one all the same, as SDKs do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tests.integration.gateway.rig import gateway_rig
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import echo, jsonl, row


async def test_rows_of_nobody_are_answered_and_counted_for_nobody(folder: Path) -> None:
    async with gateway_rig(folder, workloads=folder / "workloads.sock") as rig:
        await rig.stop()
        rig.settings = dataclasses.replace(rig.settings, listen=f"unix:{folder}/door.sock")
        await rig.start()
        await rig.serve(echo)
        made = Workloads(folder, rig)
        await made.start()
        try:
            content = jsonl(row(1), row(2))
            file = (await made.upload(content, "not-needed")).json()["id"]
            assert 200 == (await made.call("GET", f"/v1/files/{file}", key="another")).status_code
            shown = await made.completed(await made.batch(content, "not-needed"))
            assert {"total": 2, "completed": 2, "failed": 0} == shown["request_counts"]
            answer = await made.call("POST", "/v1/bulk", key="not-needed", content=content)
            assert [200, 200] == [
                json.loads(line)["response"]["status_code"] for line in answer.text.splitlines()
            ]
            await rig.control.until_used("", "m", 4)
        finally:
            await made.kill()
