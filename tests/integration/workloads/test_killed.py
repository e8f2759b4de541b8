"""A batch on a laptop whose processes are killed again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.installation import simulator
from tests.integration.laptop import Laptop
from tests.integration.workloads.test_sdk import CHAT

SCRIPT = Path(__file__).resolve().parents[3] / "hack" / "batch-under-kills"


class Run:
    """A batch of `rows` on a laptop with two replicas."""

    def __init__(self, laptop: Laptop, client: httpx.Client, rows: int) -> None:
        self._laptop = laptop
        self._client = client
        self._rows = rows
        content = _content(rows)
        file = client.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("rows.jsonl", content)}
        ).json()
        wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        self._batch = client.post("/v1/batches", json=wanted).json()["id"]

    def kill(self, which: str, share: float) -> None:
        """One process of those whose command has this word, once this share of the rows is answered."""
        self._laptop.wait("some rows more", lambda: self._has(share * self._rows), timeout=60)
        pid = next(pid for pid, command in self._laptop.processes() if which in command)
        os.kill(pid, signal.SIGKILL)

    def check(self) -> None:
        """It completes, and every row has one answer."""
        ended = self._laptop.wait("the batch to end", lambda: self._show("completed"), timeout=120)
        content = self._client.get(f"/v1/files/{ended['output_file_id']}/content").text
        found = Counter(json.loads(line)["custom_id"] for line in content.splitlines())
        assert {"total": self._rows, "completed": self._rows, "failed": 0} == ended["request_counts"]
        assert Counter(f"row-{number}" for number in range(self._rows)) == found

    def _show(self, status: str | None = None) -> Any:
        """The batch, or None while nobody answers or it is not that far."""
        try:
            answer = self._client.get(f"/v1/batches/{self._batch}")
        except httpx.TransportError:
            return None
        if answer.status_code == 503:
            return None
        shown = answer.json()
        return shown if status in (None, shown["status"]) else None

    def _has(self, rows: float) -> bool:
        shown = self._show()
        return shown is not None and shown["request_counts"]["completed"] >= rows


@pytest.fixture
def client(laptop: Laptop) -> Iterator[httpx.Client]:
    laptop.up("--ephemeral", "--quiet")
    laptop.apply(simulator(replicas=2))
    laptop.wait_ready("sim")
    port, key = laptop.gateway
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as made:
        yield made


def test_5000_rows_and_a_process_that_is_killed_five_times(laptop: Laptop, client: httpx.Client) -> None:
    """Nothing is lost and nothing stands there twice, whatever the process was doing."""
    run = Run(laptop, client, 5_000)
    for kill in range(5):
        run.kill(" workloads ", kill / 6)
    run.check()
    assert 5 == laptop.log.read_text().count("the workloads ")  # up has seen every end
    assert 0 == laptop.end()
    assert [] == laptop.processes()


def test_rows_are_answered_whoever_is_killed() -> None:
    """One of each kind of process, in the order that this seed gives."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "3000", "4", "3"], capture_output=True, text=True, timeout=200, check=False
    )
    print(done.stdout)
    assert 0 == done.returncode, done.stderr
    killed = sorted(line.rpartition(" ")[2] for line in done.stdout.splitlines() if "kill -9" in line)
    assert ["controller", "gateway", "replica", "workloads"] == killed
    assert "3000 rows, every custom_id once, 4 kills" in done.stdout


def _content(rows: int) -> bytes:
    def row(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"row {number}"}]
        body = {"model": "sim", "messages": messages, "max_tokens": 2}
        return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}

    return b"".join(json.dumps(row(number)).encode() + b"\n" for number in range(rows))
