"""llmctl batch against a gateway with workloads behind it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.gateway.upstreams import Call
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import echo, jsonl, row

BIN = Path(sys.executable).parent


async def llmctl(workloads: Workloads, *argv: str, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
    """What it wrote to stdout and to stderr."""
    key_file = workloads.folder / "key"
    key_file.write_text(workloads.rig.key)
    # Not uvloop's: that forks in full, and the child crashes where gRPC has had threads in this process.
    ended = await asyncio.to_thread(
        subprocess.run,
        [BIN / "llmctl", "batch", *argv, "--gateway", workloads.url, "--key-file", str(key_file)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(workloads.folder), "LC_ALL": "C.UTF-8"},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert code == ended.returncode, ended.stderr.decode()
    return ended.stdout.decode(), ended.stderr.decode()


async def test_from_a_file_to_its_results(workloads: Workloads) -> None:
    await workloads.rig.serve(echo)
    rows = workloads.folder / "rows.jsonl"
    rows.write_bytes(jsonl(*map(row, range(30))))
    stdout, stderr = await llmctl(workloads, "create", str(rows), "--wait")
    name = stdout.strip()
    assert name.startswith("batch_")
    assert f"batch/{name} completed: 30/30, 1 failed" in stderr
    table, _ = await llmctl(workloads, "list")
    assert ["ID", "STATUS", "DONE", "FAILED", "TOTAL", "AGE"] == table.splitlines()[0].split()
    assert [name, "completed", "29", "1", "30"] == table.splitlines()[1].split()[:5]
    answers, _ = await llmctl(workloads, "results", name)
    assert [f"c{n}" for n in range(30) if n != 3] == [
        json.loads(line)["custom_id"] for line in answers.splitlines()
    ]
    target = workloads.folder / "errors.jsonl"
    assert ("", "") == await llmctl(workloads, "results", name, "--errors", "-O", str(target))
    assert "c3" == json.loads(target.read_text())["custom_id"]
    shown, _ = await llmctl(workloads, "get", name, "-o", "json")
    assert "completed" == json.loads(shown)["status"]
    _, stderr = await llmctl(workloads, "cancel", name, code=212)
    assert "cannot be cancelled any more" in stderr


async def test_a_bad_file_says_line_and_reason(workloads: Workloads) -> None:
    stdout, stderr = await llmctl(workloads, "create", "-", "--wait", stdin=b"{oops\n", code=217)
    assert "line 1: the line is not valid JSON" in stderr
    _, again = await llmctl(workloads, "get", stdout.strip())
    assert "line 1: the line is not valid JSON" in again
    _, stderr = await llmctl(workloads, "results", stdout.strip())
    assert "The batch has no answers." in stderr


async def test_every_line_that_is_wrong_is_named(workloads: Workloads) -> None:
    """And nothing of the file is run."""
    (engine,) = await workloads.rig.serve(echo)
    content = b"".join(
        [
            b"\xef\xbb\xbf" + jsonl(row(1)),
            jsonl(row(2)).replace(b"\n", b"\r\n"),
            b"\n",
            jsonl(row(2)),
            '{"custom_id": "caf\u00e9"}\n'.encode("latin-1"),
            jsonl(row(3) | {"url": "/v1/embeddings"}),
            b'{"custom_id": "' + b"x" * (4 * 1024 * 1024) + b'"}\n',
            jsonl(row(4, model="another")),
            jsonl(row(5, model=7)),
        ]
    )
    _, stderr = await llmctl(workloads, "create", "-", "--wait", stdin=content, code=217)
    assert [
        "line 1: the line begins with a byte order mark: save the file as UTF-8 without one",
        "line 4: the custom_id 'c2' stands on line 2 already",
        "line 5: the line is not UTF-8: byte 19 of it is 0xe9; save the file as UTF-8",
        "line 6: the field 'url' must be /v1/chat/completions, the endpoint of the batch",
        "line 7: the line is longer than 4194304 bytes: put less into one request",
        "line 9: the field 'body.model' must name a model",
    ] == [line for line in stderr.splitlines() if line.startswith("line ")]
    for nothing in (b"", b"\r\n\n  \n"):
        _, stderr = await llmctl(workloads, "create", "-", "--wait", stdin=nothing, code=217)
        assert "the input file has no lines" in stderr
    assert [] == engine.calls


async def test_what_holds_a_batch_up_is_shown_and_it_can_be_cancelled(workloads: Workloads) -> None:
    async def full(call: Call) -> None:
        await call.answer(b'{"error":{"message":"all seats are taken"}}', "429 Too Many Requests")

    await workloads.rig.serve(full)
    stdout, _ = await llmctl(workloads, "create", "-", stdin=jsonl(row(1)))
    name = stdout.strip()
    _, stderr = await llmctl(workloads, "wait", name, "--for", "3s", code=208)
    assert "all seats are taken" in stderr
    _, stderr = await llmctl(workloads, "get", name)
    assert "It waits: all seats are taken" in stderr
    _, stderr = await llmctl(workloads, "results", name, code=213)
    assert "batch wait" in stderr
    _, stderr = await llmctl(workloads, "cancel", name)
    assert f"batch/{name} cancelling" in stderr
    _, stderr = await llmctl(workloads, "wait", name, code=217)
    assert "cancelled: 1/1, 1 failed" in stderr


async def test_bad_wishes(workloads: Workloads) -> None:
    _, stderr = await llmctl(workloads, "create", "/nowhere.jsonl", code=203)
    assert "/nowhere.jsonl: cannot be read" in stderr
    _, stderr = await llmctl(workloads, "create", "-", "--window", "soon", stdin=b"{}", code=207)
    assert "completion_window" in stderr
    assert [] == (await files(workloads))["data"]  # nothing half-done stays
    _, stderr = await llmctl(workloads, "get", "../models", code=202)
    assert "is not the id of a batch" in stderr
    _, stderr = await llmctl(workloads, "get", "batch_none", code=209)
    assert "there is no batch 'batch_none'" in stderr
    assert (await llmctl(workloads, "list"))[1].startswith("No batches found.")


async def files(workloads: Workloads) -> Any:
    return (await workloads.call("GET", "/v1/files")).json()
