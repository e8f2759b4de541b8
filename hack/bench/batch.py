"""A batch of 100,000 rows from its upload to its output file, before an engine that answers at once: rows per second, and the memory of the
process that runs it, against the same process with a batch of 1,000 rows. BATCH_ROWS gives another number of rows.

The yardstick is the least that could be done: the same requests by the same HTTP client through the same gateway, as many at once, with
nothing kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
from gateway_unary import ANSWER, BODY
from gateways import contestants
from gateways.contestants import Contestant
from gateways.processes import cpu_seconds, resident_kb, started, until

ROWS = int(os.environ.get("BATCH_ROWS", "100000"))
FEW = 1_000
AT_ONCE = 64
CHAT = "/v1/chat/completions"


def run() -> bench.Result:
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        subprocess.run([str(bench.ROOT / "hack" / "install-bench-tools")], check=True)
    conditions = bench.machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user where root runs this
        engine = stack.enter_context(contestants.static_engine(folder, ANSWER))
        run_dir = folder / "run"
        run_dir.mkdir(mode=0o700)
        gateway = stack.enter_context(contestants.gateway(folder, engine, workloads=run_dir / "w.sock"))
        workloads = stack.enter_context(_workloads(folder, gateway))
        few = _batch(gateway, workloads, FEW)
        all_ = _batch(gateway, workloads, ROWS)
        bare = asyncio.run(_bare(gateway, min(ROWS, 20_000)))
    return bench.Result(
        name="batch",
        unit="rows/s",
        ours=all_["rows_per_s"],
        peers={"the same requests, nothing kept": bare},
        higher_is_better=True,
        more={f"{FEW} rows": few, f"{ROWS} rows": all_},
        conditions=conditions
        | {"rows": ROWS, "at_once": AT_ONCE, "load_average_after": round(os.getloadavg()[0], 2)},
    )


@contextlib.contextmanager
def _workloads(folder: Path, gateway: Contestant) -> Iterator[int]:
    """Its pid."""
    from llmop.gateway import keys

    key = keys.create(folder / "gateway" / "keys", keys.OF_WORKLOADS)
    code = (
        "from pathlib import Path; from llmop.workloads.main import serve; from llmop.workloads.quota import Quota;"
        " from llmop.workloads.settings import WorkloadsSettings;"
        f"serve(WorkloadsSettings(directory=Path('{folder}/workloads'), socket=Path('{folder}/run/w.sock'),"
        f" gateway='http://127.0.0.1:{gateway.port}', controller='unix://{folder}/none', key='{key}', concurrency={AT_ONCE},"
        " keep_s=86_400.0, keep_gone_s=0, quota=Quota(files=1000, bytes=2**40), vectors='', vector_memory=2**30))"
    )
    with started([sys.executable, "-c", code], log=folder / "workloads.out") as process:
        until(lambda: _ask(gateway, "GET", "/v1/files")[0] == 200, "llmop workloads does not answer")
        yield process.pid


def _batch(gateway: Contestant, pid: int, rows: int) -> dict[str, Any]:
    """Checks that every row is answered once."""
    content = b"".join(
        b'{"custom_id":"row-%d","method":"POST","url":"%b","body":%b}\n' % (n, CHAT.encode(), BODY.encode())
        for n in range(rows)
    )
    form = b'--x\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = form % (b"purpose", b"", b"batch") + form % (b"file", b'; filename="rows"', content) + b"--x--\r\n"
    begun, used = time.monotonic(), cpu_seconds(pid)
    memory = [resident_kb(pid)]
    file = json.loads(_ask(gateway, "POST", "/v1/files", body, "multipart/form-data; boundary=x")[1])
    uploaded = time.monotonic()
    wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = json.loads(_ask(gateway, "POST", "/v1/batches", json.dumps(wanted).encode())[1])
    while batch["status"] not in ("completed", "failed", "expired"):
        time.sleep(0.1)
        memory.append(resident_kb(pid))
        batch = json.loads(_ask(gateway, "GET", f"/v1/batches/{batch['id']}")[1])
    ended = time.monotonic()
    output = _ask(gateway, "GET", f"/v1/files/{batch['output_file_id']}/content")[1]
    seen = Counter(json.loads(line)["custom_id"] for line in output.splitlines())
    if seen != Counter(f"row-{n}" for n in range(rows)):
        raise RuntimeError(f"rows are missing or stand there twice: {batch}")
    return {
        "rows_per_s": rows / (ended - uploaded),
        "upload_s": uploaded - begun,
        "batch_s": ended - uploaded,
        "cpu_ms_per_row": 1000 * (cpu_seconds(pid) - used) / rows,
        "resident_mb_before": memory[0] / 1024,
        "resident_mb_most": max(memory) / 1024,
        "input_mb": len(content) / 1e6,
        "output_mb": len(output) / 1e6,
    }


def _ask(
    gateway: Contestant, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": kind}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


async def _bare(gateway: Contestant, requests: int) -> float:
    """Requests per second."""
    import aiohttp

    left = iter(range(requests))
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{gateway.port}{CHAT}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def ask() -> None:
            for _ in left:
                async with session.post(url, data=BODY) as answer:
                    await answer.read()

        begun = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return requests / (time.monotonic() - begun)
