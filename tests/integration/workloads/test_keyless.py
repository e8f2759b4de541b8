"""Batches and bulk requests through the door that asks for no key, with a client that sends one all the same, as SDKs do."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

from tests.integration.gateway.rig import gateway_rig
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import CHAT, echo, jsonl, row


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
            form = {"data": {"purpose": "batch"}, "files": {"file": ("rows", content)}}
            file = (await made.call("POST", "/v1/files", key="not-needed", **form)).json()["id"]
            assert 200 == (await made.call("GET", f"/v1/files/{file}", key="another")).status_code
            wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
            name = (await made.call("POST", "/v1/batches", json=wanted)).json()["id"]
            async with asyncio.timeout(30):
                while await status(made, name) != "completed":  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.02)
            shown = (await made.call("GET", f"/v1/batches/{name}")).json()
            assert {"total": 2, "completed": 2, "failed": 0} == shown["request_counts"]
            answer = await made.call("POST", "/v1/bulk", key="not-needed", content=content)
            assert [200, 200] == [
                json.loads(line)["response"]["status_code"] for line in answer.text.splitlines()
            ]
            await rig.control.until_used("", "m", 4)
        finally:
            await made.kill()


async def status(workloads: Workloads, name: str) -> str:
    found: str = (await workloads.call("GET", f"/v1/batches/{name}")).json()["status"]
    return found
