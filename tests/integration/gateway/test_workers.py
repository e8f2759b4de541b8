"""A gateway of several worker processes: one table, one sum of counts, and no client that notices when a worker dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.gateway import child
from tests.integration.gateway.child import Child
from tests.integration.gateway.control import Control
from tests.integration.gateway.rig import Wire
from tests.integration.gateway.test_client_keys import SECRET, key
from tests.integration.gateway.upstreams import Call, Engine, Gate, answer_any, model, waits
from tests.rigs.ports import free_port
from tests.waiting import PATIENCE_S, eventually, until

from llmop.api.v1 import gateway_pb2
from llmop.gateway import keys
from llmop.gateway.crew import pause

PROGRAM = """
import sys
from pathlib import Path
from llmop.gateway import endpoints
from llmop.gateway.main import serve
from llmop.gateway.settings import GatewaySettings
endpoints.REPORT_PERIOD = 600.0  # the controller says how often
folder = Path(sys.argv[1])
serve(GatewaySettings(controller=f"unix://{folder}/control.sock", listen=sys.argv[2], workers=2,
                      keys_file=folder / "keys", state_dir=folder / "state"))
"""


class Gateway:
    def __init__(self, process: Child, port: int, key: str, control: Control) -> None:
        self.process = process
        self.port = port
        self.key = key
        self.control = control
        self.wires: list[Wire] = []

    def workers(self) -> list[int]:
        """Process ids."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    def request(self, path: str = "/v1/completions", method: str = "POST") -> bytes:
        body = b'{"model":"m","stream":true}' if method == "POST" else b""
        return (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def status(self, path: str = "/v1/completions", method: str = "POST") -> int:
        wire = await self.wire()
        await wire.send(self.request(path, method))
        status = (await wire.answer()).status
        wire.close()
        return status

    async def metric(self, series: str) -> float:
        wire = await self.wire()
        await wire.send(self.request("/metrics", "GET"))
        text = (await wire.answer()).body.decode()
        wire.close()
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
        return float(values[0])

    async def until_metric(self, series: str, value: float) -> None:
        await eventually(lambda: self.metric(series), lambda seen: seen == value)


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    control = Control(folder / "control.sock")
    await control.start()
    secret = keys.create(folder / "keys", "test")
    port = free_port()
    process = await child.start(PROGRAM, str(folder), f"127.0.0.1:{port}")
    gateway = Gateway(process, port, secret, control)
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    await gateway.status("/healthz", "GET")
                    break
                await asyncio.sleep(0.02)
        yield gateway
    finally:
        for wire in gateway.wires:
            wire.close()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        await control.stop()


class Held:
    """An engine whose streams send one event and go on when they are let."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await self.go_on.wait()
        await call.chunk(b"data: 2\n\n")
        await call.end_stream()


@pytest.fixture
async def held() -> Held:
    return Held()


@pytest.fixture
async def engines(gateway: Gateway, held: Held) -> AsyncIterator[list[Engine]]:
    engines = [Engine("r1", held), Engine("r2", held)]
    for engine in engines:
        await engine.start()
    version = gateway.control.publish([engine.endpoint() for engine in engines], [model("m")])
    await gateway.control.acknowledged(version)
    yield engines
    held.go_on.set()
    for engine in engines:
        await engine.stop()


async def open_streams(gateway: Gateway, number: int) -> list[Wire]:
    wires = [await gateway.wire() for _ in range(number)]
    for wire in wires:
        await wire.send(gateway.request())
        assert 200 == (await wire.head())[0]
        assert b"data: 1\n\n" == await wire.chunk()
    return wires


async def test_load_is_balanced_by_what_all_workers_have_in_flight(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    wires = await open_streams(gateway, 40)
    # Each worker alone would be even by itself; only with the sum no request goes wrong, whichever worker it reaches.
    assert [20, 20] == [len(engine.calls) for engine in engines]
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 40.0)
    await gateway.until_metric("llmop_gateway_connections", 41.0)
    held.go_on.set()
    for wire in wires:
        assert [b"data: 2\n\n", b""] == [await wire.chunk(), await wire.chunk()]
    await gateway.until_metric('llmop_gateway_requests_total{code="2xx",dialect="openai",model="m"}', 40.0)
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 0.0)


async def test_a_table_is_acknowledged_when_every_worker_acts_on_it(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    held.go_on.set()
    one, other = engines
    for first, second in ((one, other), (other, one), (one, other)):
        await gateway.control.acknowledged(gateway.control.publish([first.endpoint()], [model("m")]))
        before = len(second.calls)
        for _ in range(20):
            assert 200 == await gateway.status()
        assert before == len(second.calls)


async def test_a_dead_worker_is_replaced_and_what_it_had_in_flight_is_forgotten(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    one, other = engines
    await gateway.control.acknowledged(gateway.control.publish([one.endpoint()], [model("m")]))
    await open_streams(gateway, 20)
    both = [one.endpoint(), other.endpoint()]
    await gateway.control.acknowledged(gateway.control.publish(both, [model("m")]))
    before = gateway.workers()
    assert 2 == len(before)
    for dead in before:
        os.kill(dead, signal.SIGKILL)
        await until(lambda: dead not in (now := gateway.workers()) and len(now) == 2)  # noqa: B023
    await gateway.until_metric("llmop_gateway_worker_restarts_total", 2.0)
    await open_streams(gateway, 20)
    assert [30, 10] == [len(engine.calls) for engine in engines]
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 20.0)
    await gateway.control.acknowledged(gateway.control.publish([one.endpoint()], [model("m")]))


async def test_what_the_dead_have_counted_stays(gateway: Gateway, engines: list[Engine], held: Held) -> None:
    held.go_on.set()
    for _ in range(20):
        assert 200 == await gateway.status()
    series = 'llmop_gateway_requests_total{code="2xx",dialect="openai",model="m"}'
    await gateway.until_metric(series, 20.0)
    await asyncio.wait_for(_told_again(gateway), PATIENCE_S)
    for dead in gateway.workers():
        os.kill(dead, signal.SIGKILL)
    await gateway.until_metric("llmop_gateway_worker_restarts_total", 2.0)
    await gateway.until_metric(series, 20.0)


async def _told_again(gateway: Gateway) -> None:
    """Returns once both workers have told their counts: each answers from its own and what the other told."""
    series = 'llmop_gateway_requests_total{code="2xx",dialect="openai",model="m"}'
    same = 0
    while same < 40:
        same = same + 1 if await gateway.metric(series) == 20.0 else 0


async def test_open_streams_are_finished_before_the_workers_end(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    wires = await open_streams(gateway, 10)
    gateway.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                (await gateway.wire()).close()
            except OSError:
                break
            await asyncio.sleep(0.01)
    held.go_on.set()
    for wire in wires:
        assert [b"data: 2\n\n", b""] == [await wire.chunk(), await wire.chunk()]
        assert b"" == await wire.ended()
    async with asyncio.timeout(PATIENCE_S):
        assert 0 == await gateway.process.wait()


async def test_workers_do_not_outlive_their_parent(gateway: Gateway, engines: list[Engine]) -> None:
    workers = gateway.workers()
    gateway.process.kill()
    await gateway.process.wait()
    await until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


async def test_a_second_gateway_does_not_join_in_quietly(gateway: Gateway, folder: Path) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", PROGRAM, str(folder), f"127.0.0.1:{gateway.port}"],
        env=child.environment(),
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert ended.returncode
    assert b"Address already in use" in ended.stderr


def test_a_worker_that_keeps_dying_is_started_less_and_less_often() -> None:
    assert [0.0, 0.1, 0.2, 0.4] == [pause(failures) for failures in range(4)]
    assert 5.0 == pause(100)


# Waiting


QUEUED = 'llmop_gateway_queued{model="m",priority="default"}'


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def single(gate: Gate) -> AsyncIterator[Engine]:
    engine = Engine("r1", gate)
    await engine.start()
    yield engine
    gate.let(1000)
    await engine.stop()


async def ask_many(gateway: Gateway, number: int) -> list[Wire]:
    """So many that both workers have some."""
    wires = [await gateway.wire() for _ in range(number)]
    for wire in wires:
        await wire.send(gateway.request())
    return wires


async def test_those_that_wait_at_all_workers_share_one_replica(
    gateway: Gateway, gate: Gate, single: Engine
) -> None:
    models = [model("m", max_in_flight=3, queue=waits())]
    await gateway.control.acknowledged(gateway.control.publish([single.endpoint()], models))
    first = await ask_many(gateway, 1)
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 1.0)
    wires = first + await ask_many(gateway, 39)
    # One more than its bound for each further worker, at most.
    busy = await eventually(
        lambda: gateway.metric('llmop_gateway_in_flight{model="m"}'), lambda seen: seen >= 3
    )
    assert busy <= 4
    await eventually(lambda: gateway.metric(QUEUED), lambda queued: queued + gate.now == 40)
    await gateway.control.loads(lambda loads: loads[0].in_flight + loads[0].queued == 40)
    gate.let(40)
    assert {(await wire.answer()).status for wire in wires} == {200}
    assert gate.most <= 4
    await gateway.until_metric(QUEUED, 0.0)


async def test_the_bounds_of_the_queue_are_those_of_the_whole_gateway(gateway: Gateway) -> None:
    await gateway.control.acknowledged(gateway.control.publish([], [model("m", queue=waits(7))]))
    wires = await ask_many(gateway, 30)
    await gateway.until_metric('llmop_gateway_dropped_total{model="m",reason="queue_full"}', 23.0)
    await gateway.until_metric(QUEUED, 7.0)
    await gateway.control.loads(lambda loads: [7] == [each.queued for each in loads])
    for wire in wires:
        wire.close()
    await gateway.until_metric(QUEUED, 0.0)
    await gateway.control.loads(lambda loads: [0] == [each.queued for each in loads])


async def test_the_first_who_waits_at_any_worker_is_reported_at_once(gateway: Gateway) -> None:
    await gateway.control.acknowledged(gateway.control.publish([], [model("m", queue=waits())]))
    gateway.control.period_ms = 600_000  # a report that nothing but time calls for would come too late
    assert (await gateway.control.report()).loads[0].queued == 0
    wires = await ask_many(gateway, 1)
    assert (await gateway.control.report()).loads[0].queued == 1
    wires[0].close()


async def test_the_dead_do_not_wait(gateway: Gateway, gate: Gate, single: Engine) -> None:
    await gateway.control.acknowledged(gateway.control.publish([], [model("m", queue=waits())]))
    wires = await ask_many(gateway, 40)
    await gateway.until_metric(QUEUED, 40.0)
    victim = gateway.workers()[0]
    os.kill(victim, signal.SIGKILL)
    await gateway.until_metric("llmop_gateway_worker_restarts_total", 1.0)
    # The new worker knows at first of none that wait, and those of the dead one may still be counted.
    left = await eventually(lambda: gateway.metric(QUEUED), lambda seen: 0 < seen < 40)
    models = [model("m", max_in_flight=2, queue=waits())]
    gateway.control.publish([single.endpoint()], models)
    gate.let(40)
    await gateway.until_metric('llmop_gateway_requests_total{code="2xx",dialect="openai",model="m"}', left)
    assert len(single.calls) == left
    await gateway.until_metric(QUEUED, 0.0)
    for wire in wires:
        wire.close()


async def test_a_replica_that_dies_takes_nobody_with_it_who_waits_at_any_worker(
    gateway: Gateway, gate: Gate, single: Engine
) -> None:
    models = [model("m", max_in_flight=2, queue=waits())]
    await gateway.control.acknowledged(gateway.control.publish([single.endpoint()], models))
    wires = await ask_many(gateway, 1)
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 1.0)
    wires += await ask_many(gateway, 29)

    async def there() -> tuple[float, float]:
        return await gateway.metric(QUEUED), await gateway.metric('llmop_gateway_in_flight{model="m"}')

    queued, busy = await eventually(there, lambda seen: sum(seen) == 30)
    assert busy in (2.0, 3.0)  # two workers may take the last place at the same moment
    await single.stop()
    await gateway.until_metric('llmop_gateway_in_flight{model="m"}', 0.0)
    heir = Engine("r2", answer_any)
    await heir.start()
    try:
        gateway.control.publish([heir.endpoint()], models)
        statuses = [(await wire.answer()).status for wire in wires]
    finally:
        await heir.stop()
    assert statuses.count(200) == len(heir.calls) == queued
    assert statuses.count(502) == 30 - queued
    await gateway.until_metric(QUEUED, 0.0)


async def test_who_waits_at_a_worker_when_the_gateway_ends_is_told_so(gateway: Gateway) -> None:
    await gateway.control.acknowledged(gateway.control.publish([], [model("m", queue=waits())]))
    wires = await ask_many(gateway, 10)
    await gateway.until_metric(QUEUED, 10.0)
    gateway.process.send_signal(signal.SIGTERM)
    for wire in wires:
        answer = await wire.answer()
        assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (503, "shutting_down")
    async with asyncio.timeout(PATIENCE_S):
        assert 0 == await gateway.process.wait()


async def _counting(call: Call) -> None:
    await call.answer(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}')


async def grant(gateway: Gateway, engines: list[Engine], granted: gateway_pb2.ClientKey) -> None:
    endpoints = [engine.endpoint() for engine in engines]
    version = gateway.control.publish(endpoints, [model("m")], keys=[granted])
    await gateway.control.acknowledged(version)
    gateway.key = SECRET


async def test_requests_are_counted_over_all_workers(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    held.go_on.set()
    await grant(gateway, engines, key(requests_per_minute=2))  # the next one in half a minute
    # Each on a connection of its own, which the kernel gives to one of the workers.
    assert [200] * 2 + [429] * 20 == [await gateway.status() for _ in range(22)]
    assert 2 == sum(len(engine.calls) for engine in engines)


async def test_places_of_a_dead_worker_are_free_again(
    gateway: Gateway, engines: list[Engine], held: Held
) -> None:
    await grant(gateway, engines, key(parallel_requests=12))
    await open_streams(gateway, 12)
    assert [429] * 6 == [await gateway.status() for _ in range(6)]
    workers = gateway.workers()
    os.kill(workers[0], signal.SIGKILL)
    held.go_on.set()
    # Streams of the other worker end by themselves; those of the dead one are nobody's.
    await eventually(gateway.status, lambda status: status == 200)
    assert [200] * 12 == [await gateway.status() for _ in range(12)]


async def test_a_worker_that_is_killed_loses_nothing_that_was_answered(gateway: Gateway) -> None:
    engine = Engine("r1", _counting)
    await engine.start()
    await gateway.control.acknowledged(gateway.control.publish([engine.endpoint()], [model("m")]))
    asked = 0
    try:
        for _ in range(2):
            before = gateway.workers()
            for _ in range(30):
                assert 200 == await gateway.status()
            asked += 30
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: len(set(gateway.workers()) - {before[0]}) == 2)  # noqa: B023
            await gateway.control.acknowledged(gateway.control.publish([engine.endpoint()], [model("m")]))
        await gateway.control.until_used("test", "m", asked)
    finally:
        await engine.stop()
