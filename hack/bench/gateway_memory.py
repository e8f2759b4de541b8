"""What an open stream costs in memory: 5,000 of them through the gateway and its peers, every one with an event received and more to
come. Resident memory of the process that serves them, less what it had before, divided by their number.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench
from gateways import contestants
from gateways.contestants import Contestant
from gateways.processes import answers, free_port, started, until
from gateways.stream_load import BODY

STREAMS = 5000
_PROGRAM = Path(__file__).parent / "gateways" / "stream_engine.py"


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-bench-tools")], check=True)
    conditions = bench.machine()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user where root runs this
        engine = stack.enter_context(_engine())
        field = {
            "ours": stack.enter_context(contestants.gateway(folder, engine)),
            "nginx": stack.enter_context(contestants.nginx(folder, engine)),
            "sglang-router": stack.enter_context(contestants.sglang_router(folder, engine)),
            "aiohttp": stack.enter_context(contestants.aiohttp(folder, engine)),
        }
        found = {name: _measure(contestant) for name, contestant in field.items()}
    per_stream = {name: value["kb_per_stream"] for name, value in found.items()}
    return bench.Result(
        name="gateway_memory",
        unit="KB per open stream",
        ours=per_stream.pop("ours"),
        peers=per_stream,
        higher_is_better=False,
        more={"resident_kb": found},
        conditions=conditions | {"streams": STREAMS, "load_average_after": round(os.getloadavg()[0], 2)},
    )


@contextlib.contextmanager
def _engine() -> Iterator[int]:
    port = free_port()
    with started([sys.executable, str(_PROGRAM), str(port), "0", "1"]):
        until(lambda: answers(port), "the engine does not listen")
        yield port


def _measure(contestant: Contestant) -> dict[str, float]:
    for sock in _open_streams(contestant, 50):  # what is made once is there
        sock.close()
    time.sleep(1)
    before = contestant.resident_kb()
    streams = _open_streams(contestant, STREAMS)
    after = contestant.resident_kb()
    for sock in streams:
        sock.close()
    return {
        "before": before,
        "with_streams": after,
        "kb_per_stream": (after - before) / STREAMS,
    }


def _open_streams(contestant: Contestant, number: int) -> list[socket.socket]:
    """Each has received its first event. Raises RuntimeError where that does not come."""
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {contestant.key}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    streams = []
    for start in range(0, number, 100):
        batch = [
            socket.create_connection(("127.0.0.1", contestant.port)) for _ in range(min(100, number - start))
        ]
        for sock in batch:
            sock.settimeout(30)
            sock.send(request)
        for sock in batch:
            received = b""
            while b"data: " not in received:
                piece = sock.recv(65536)
                if not piece:
                    raise RuntimeError(f"stream {start} of {number} was closed: {received!r}")
                received += piece
        streams += batch
    return streams
