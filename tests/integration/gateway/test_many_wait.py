"""Ten thousand requests that wait, in a gateway process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.gateway.control import Control
from tests.integration.gateway.gateway_process import connect, gateway_process, metric, until_metric
from tests.integration.gateway.upstreams import Engine, answer_any, model, waits

from llmop.gateway.serving import raise_file_limit

BODY = b'{"model":"m","messages":[],"p":"%b"}' % (b"x" * 1000)
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
QUEUED = 'llmop_gateway_queued{model="m",priority="default"}'
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def resident(pid: int) -> int:
    """Bytes."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


async def sent(folder: Path) -> Connection:
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await connect(folder)
                break
            except BlockingIOError:  # as many as the system lets wait to be accepted
                await asyncio.sleep(0.02)
    writer.write(REQUEST)
    return reader, writer


async def status(connection: Connection) -> int:
    async with asyncio.timeout(60):
        head = await connection[0].readuntil(b"\r\n\r\n")
    return int(head.split(b" ")[1])


async def test_ten_thousand_wait_and_all_are_served(folder: Path) -> None:
    raise_file_limit()
    control = Control(folder / "control.sock")
    await control.start()
    engine = Engine("r1", answer_any)
    await engine.start()
    connections: list[Connection] = []
    try:
        async with gateway_process(folder) as process:
            await control.acknowledged(control.publish([], [model("m", queue=waits(9_500))]))
            before = resident(process.pid)
            for _ in range(100):
                connections += await asyncio.gather(*(sent(folder) for _ in range(100)))
            await until_metric(folder, QUEUED, 9_500)
            dropped = 'llmop_gateway_dropped_total{model="m",reason="queue_full"}'
            await until_metric(folder, dropped, 500)
            assert await metric(folder, 'llmop_gateway_queued_bytes{model="m"}') < 9_500 * (len(BODY) + 100)
            # Each has its connection, its head and its body there, and little else.
            assert resident(process.pid) - before < 10_000 * 16 * 1024
            leaving, staying = connections[:500], connections[500:]
            for _, writer in leaving:
                writer.close()
            await until_metric(folder, QUEUED, 9_000)
            control.publish([engine.endpoint()], [model("m", max_in_flight=64, queue=waits(9_500))])
            statuses = await asyncio.gather(*map(status, staying))
            assert (statuses.count(200), statuses.count(503)) == (9_000, 500)
            await until_metric(folder, QUEUED, 0)
    finally:
        for _, writer in connections:
            writer.close()
        await engine.stop()
        await control.stop()
