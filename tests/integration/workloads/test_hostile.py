"""Uploads that are wrong, too slow, too large or given up, through the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway.rig import Wire
from tests.integration.gateway.upstreams import polite
from tests.integration.workloads.conftest import Workloads
from tests.integration.workloads.test_sdk import CHAT, jsonl, row
from tests.waiting import until

FORM = "multipart/form-data; boundary=x"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--x\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


FILE = part("file", b"content", '; filename="a"')
PURPOSE = part("purpose", b"batch")
END = b"--x--\r\n"


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (PURPOSE + FILE + END, "application/json", 415, "multipart/form-data"),
        (PURPOSE + FILE + END, "multipart/form-data", 415, "multipart/form-data"),
        (FILE + END, FORM, 400, "purpose"),
        (part("purpose", b"mischief") + FILE + END, FORM, 400, "batch, user_data, assistants"),
        (PURPOSE + END, FORM, 400, "'file' is missing"),
        (PURPOSE + FILE + FILE + END, FORM, 400, "comes twice"),
        (PURPOSE + FILE, FORM, 400, "ends too early"),
        (b"no form at all", FORM, 400, "cannot be read"),
        (part("purpose", b"b" * 5000) + FILE + END, FORM, 400, "longer than 4096"),
        (PURPOSE + part("file", b"", f'; filename="{"n" * 9000}"') + END, FORM, 400, "header size"),
        (b"".join(part(f"f{n}", b"") for n in range(30)) + FILE + END, FORM, 400, "more than 20 fields"),
        (
            PURPOSE + part("expires_after[anchor]", b"tomorrow") + FILE + END,
            FORM,
            400,
            "must be created_at",
        ),
    ],
)
async def test_bad_forms_are_refused_in_words_and_leave_nothing(
    workloads: Workloads, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = await workloads.call("POST", "/v1/files", content=content, headers={"content-type": kind})
    assert (status, True) == (answer.status_code, words in answer.json()["error"]["message"]), answer.text
    assert [] == lying(workloads)


async def test_who_is_refused_early_hears_it_however_much_is_on_its_way(workloads: Workloads) -> None:
    wire = await workloads.rig.wire()
    head = {"content-type": "text/plain", "content-length": str(50_000_000)}
    sending = asyncio.create_task(wire.send(workloads.rig.request("/v1/files", b"x" * 50_000_000, head)))
    assert 415 == (await wire.answer()).status
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_names_of_files_lead_nowhere(workloads: Workloads) -> None:
    nasty = part("file", b"x", '; filename="../../../etc/passwd"')
    answer = await workloads.call(
        "POST",
        "/v1/files",
        content=PURPOSE + nasty + END,
        headers={"content-type": FORM},
    )
    name = answer.json()["id"]
    assert "../../../etc/passwd" == answer.json()["filename"]  # as it was given; nothing lies under it
    assert [name] == lying(workloads)
    for path in ("/v1/files/..%2Fworkloads.db/content", "/v1/files/../key/content", "/v1/batches/%00"):
        assert 404 == (await workloads.call("GET", path)).status_code


async def test_targets_that_are_no_text_are_answered(workloads: Workloads) -> None:
    for target in (
        b"/v1/files/\xe9",
        b"/v1/files?after=\xff",
        b"/v1/files/%E9%00?x=%zz",
        b"http://h/v1/files/x",
    ):
        wire = await workloads.rig.wire()
        request = workloads.rig.request("/TARGET", b"", method="GET").replace(b"/TARGET", target)
        await wire.send(request)
        assert (await wire.answer()).status in (200, 400, 404), target
        wire.close()


async def test_a_client_that_asks_first_is_told_to_go_on(workloads: Workloads) -> None:
    content = PURPOSE + FILE + END
    head = {"content-type": FORM, "content-length": str(len(content)), "expect": "100-continue"}
    wire = await workloads.rig.wire()
    await wire.send(workloads.rig.request("/v1/files", b"", head))
    assert 100 == (await wire.head())[0]
    await wire.send(content)
    assert 200 == (await wire.answer()).status


async def test_an_upload_that_is_given_up_leaves_nothing(workloads: Workloads) -> None:
    wire = await begin_upload(workloads)
    await until(lambda: lying(workloads) != [])
    wire.close()
    await until(lambda: lying(workloads) == [])


async def test_an_upload_while_workloads_is_killed_is_an_error_and_leaves_nothing_for_long(
    workloads: Workloads,
) -> None:
    wire = await begin_upload(workloads)
    await until(lambda: lying(workloads) != [])
    os.kill(workloads.pid, signal.SIGKILL)
    answer = await wire.answer()
    assert (503, "workloads_away") == (answer.status, answer.headers["x-llmop-dropped-reason"])
    await workloads.kill()
    await workloads.start()
    assert [] == lying(workloads)


async def test_a_large_file_is_in_nobodys_memory(workloads: Workloads) -> None:
    """60 MB in and out again; the process has not grown by a fraction of it."""
    rows = b"".join(jsonl(row(number, user="u" * 6000)) for number in range(10_000))

    async def pieces() -> AsyncIterator[bytes]:
        yield PURPOSE + b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for start in range(0, len(rows), 1 << 16):
            yield rows[start : start + (1 << 16)]
        yield b"\r\n" + END

    before = resident_mb(workloads.pid)
    headers = {"content-type": FORM}
    file = (await workloads.call("POST", "/v1/files", content=pieces(), headers=headers)).json()
    assert len(rows) == file["bytes"]
    assert rows == (await workloads.call("GET", f"/v1/files/{file['id']}/content")).content
    await workloads.rig.serve(polite)
    wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = (await workloads.call("POST", "/v1/batches", json=wanted)).json()["id"]
    seen = [before]

    def is_completed(shown: dict[str, Any]) -> bool:
        seen.append(resident_mb(workloads.pid))
        return bool(shown["status"] == "completed")

    shown = await workloads.until(batch, is_completed, patience_s=180)
    most = max(seen)
    assert 10_000 == shown["request_counts"]["completed"]
    print(f"{before:.0f} MB before, {most:.0f} MB at most")
    assert most - before < 40


async def begin_upload(workloads: Workloads) -> Wire:
    """The first half of a form has gone out."""
    wire = await workloads.rig.wire()
    content = PURPOSE + b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\n' + b"x" * 500_000
    head = {"content-type": FORM, "content-length": "1000000"}
    await wire.send(workloads.rig.request("/v1/files", content, head))
    return wire


def lying(workloads: Workloads) -> list[str]:
    return sorted(path.name for path in (workloads.folder / "workloads" / "files").iterdir())


def resident_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1024
