"""A batch on a laptop whose workloads process is killed again and again."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.installation import simulator
from tests.integration.test_local_installation import Laptop
from tests.integration.workloads.test_sdk import CHAT

ROWS = 5_000
KILLS = 5


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path)
    yield made
    made.clean()


def test_5000_rows_and_a_process_that_is_killed_five_times(laptop: Laptop) -> None:
    """Nothing is lost and nothing stands there twice, whatever the process was doing."""
    laptop.up("--ephemeral", "--quiet")
    laptop.apply(simulator(replicas=2))
    laptop.wait_ready("sim")
    port, key = laptop.gateway
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        file = client.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("rows.jsonl", _content())}
        ).json()
        wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        batch = client.post("/v1/batches", json=wanted).json()["id"]
        for kill in range(KILLS):
            enough = kill * ROWS / (KILLS + 1)
            laptop.wait("some rows more", functools.partial(_has, client, batch, enough), timeout=60)
            (pid,) = [pid for pid, command in laptop.processes() if " workloads " in command]
            os.kill(pid, signal.SIGKILL)
        ended = laptop.wait("the batch to end", lambda: _show(client, batch, status="completed"), timeout=120)
        lines = client.get(f"/v1/files/{ended['output_file_id']}/content").text.splitlines()
        found = Counter(json.loads(line)["custom_id"] for line in lines)
    assert {"total": ROWS, "completed": ROWS, "failed": 0} == ended["request_counts"]
    assert Counter(f"row-{number}" for number in range(ROWS)) == found
    assert KILLS == laptop.log.read_text().count("the workloads ")  # up has seen every end
    assert 0 == laptop.end()
    assert [] == laptop.processes()


def _content() -> bytes:
    rows = (
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": CHAT,
            "body": {
                "model": "sim",
                "messages": [{"role": "user", "content": f"row {number}"}],
                "max_tokens": 2,
            },
        }
        for number in range(ROWS)
    )
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def _show(client: httpx.Client, batch: str, status: str | None = None) -> Any:
    """The batch, or None while nobody answers or it is not that far."""
    answer = client.get(f"/v1/batches/{batch}")
    if answer.status_code == 503:
        return None
    shown = answer.json()
    return shown if status in (None, shown["status"]) else None


def _has(client: httpx.Client, batch: str, rows: float) -> bool:
    shown = _show(client, batch)
    return shown is not None and shown["request_counts"]["completed"] >= rows
