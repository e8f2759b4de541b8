"""Exceptions that nobody foresaw, put into every place where the event loop enters: the client is answered, and nothing stays held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.test_client_keys import bearer, key
from tests.integration.gateway.upstreams import Call, Engine, Gate, answer_any, model, waits

from llmop.gateway import access, attempts, downstream, faults, routing, turns, upstream, usage
from llmop.gateway.attempts import Attempts
from llmop.gateway.bill import Bill
from llmop.gateway.dispatch import Dispatcher
from llmop.gateway.exchange import Exchange
from llmop.gateway.fleet import Deployment
from llmop.gateway.keys import KeyRing
from llmop.gateway.metrics import ModelCounts
from llmop.gateway.pool import Pool
from llmop.gateway.relay import Relay
from llmop.gateway.sse import FirstBlock
from llmop.gateway.stay import Stay
from llmop.gateway.tally import Entry
from llmop.gateway.upstream import UpstreamConnection

CHAT = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","messages":[],"stream":true}'
ONE_AT_A_TIME = key(parallel_requests=1, tokens_per_minute=100_000)
FAULTS = "llmop_gateway_faults_total"


class Broken:
    """`name` of `owner` raises: once it is told to, and then the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, late: bool) -> None:
        """`late`: it does what it always does before."""
        self.original = getattr(owner, name)
        self.late = late
        self.due = False
        broken = self

        def call(*args: Any, **options: Any) -> Any:
            return broken.call(*args, **options)

        monkeypatch.setattr(owner, name, call)

    def call(self, *args: Any, **options: Any) -> Any:
        if not self.due:
            return self.original(*args, **options)
        self.due = False
        if self.late:
            self.original(*args, **options)
        raise RuntimeError("nobody foresaw this")


async def serve(rig: Rig, *behaviours: Callable[[Call], Awaitable[None]], **options: Any) -> None:
    engines = [await rig.engine(each) for each in behaviours]
    await publish(rig, *engines, **options)


async def publish(rig: Rig, *engines: Engine, **options: Any) -> None:
    options = {"queue": waits()} | options
    version = rig.control.publish(
        [each.endpoint() for each in engines], [model("m", **options)], keys=[ONE_AT_A_TIME]
    )
    await rig.control.acknowledged(version)


async def nothing_stays(rig: Rig) -> None:
    """A key with one request at a time may ask again, nobody waits, and no replica is taken for busy."""
    for _ in range(2):
        answer = await rig.ask(headers=bearer())
        assert (200, True) == (answer.status, answer.whole)
    await rig.until_metric('llmop_gateway_in_flight{model="m"}', 0)
    await rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 0)
    await rig.until_metric('llmop_gateway_queued_bytes{model="m"}', 0)
    page = (await rig.ask("/metrics", b"", method="GET")).body.decode()
    assert {"0.0"} == set(re.findall(r"^llmop_gateway_replica_in_flight\{.*\} (.*)$", page, re.MULTILINE))
    assert await rig.metric(FAULTS) >= 1


async def is_told(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """A whole answer 500, and the end; the log has its id."""
    answer = await wire.answer()
    assert (500, True, "internal") == (answer.status, answer.whole, answer.json()["error"]["code"])
    assert "close" == answer.headers["connection"]
    assert b"" == await wire.ended()
    assert answer.headers["x-request-id"] in caplog.text
    assert "nobody foresaw this" in caplog.text


BEFORE_THE_ANSWER = [
    pytest.param(owner, name, late, id=f"{getattr(owner, '__name__', owner)}.{name}-{'late' if late else 'early'}")
    for owner, name, lates in [
        (access, "whose", (False, True)),
        (downstream, "read_request_head", (False,)),
        (attempts, "admit", (False, True)),
        (Bill, "reserve", (False,)),
        (Deployment, "choose", (False, True)),
        (Pool, "take", (False, True)),
        (Pool, "connect", (False,)),
        (UpstreamConnection, "send", (False, True)),
        (upstream, "read_response_head", (False, True)),
        (Exchange, "progress", (False,)),
        (usage, "read", (False, True)),
        (ModelCounts, "spent", (False, True)),
        (Entry, "used", (False, True)),
        (ModelCounts, "answered_whole", (False, True)),
        (Pool, "give_back", (False, True)),
        (Exchange, "let_go", (True,)),
    ]
    for late in lates
]  # fmt: skip


@pytest.mark.parametrize("owner, name, late", BEFORE_THE_ANSWER)
async def test_a_client_is_told_of_a_fault_before_its_answer(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    late: bool,
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, owner, name, late=late)
    wire = await rig.wire()
    broken.due = True
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    await nothing_stays(rig)


REPEATED = [
    pytest.param(owner, name, id=f"{getattr(owner, '__name__', owner)}.{name}")
    for owner, name in [
        (Exchange, "renew"),
        (Exchange, "start"),
        (Pool, "take"),
        (Exchange, "progress"),
        (Entry, "used"),
    ]
]


@pytest.mark.parametrize("owner, name", REPEATED)
async def test_a_client_is_told_also_where_its_head_came_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: Any, name: str
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, owner, name, late=False)
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request(headers=bearer()))
        assert 200 == (await wire.answer()).status
    broken.due = True
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    await nothing_stays(rig)


async def test_a_fault_after_an_answer_costs_the_connection_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, downstream.GatewayProtocol, "_rest", late=False)
    wire = await rig.wire()
    broken.due = True
    await wire.send(rig.request(headers=bearer()))
    answer = await wire.answer()
    assert (200, True) == (answer.status, answer.whole)
    assert b"" == await wire.ended()
    await nothing_stays(rig)


async def test_of_pipelined_requests_those_before_the_fault_are_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    await serve(rig, gate)
    broken = Broken(monkeypatch, Exchange, "start", late=False)
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()) * 2)
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    broken.due = True
    gate.let(3)
    assert 200 == (await wire.answer()).status
    await is_told(wire, caplog)
    await nothing_stays(rig)


async def test_a_dialect_keeps_its_form(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, Deployment, "choose", late=False)
    broken.due = True
    answer = await rig.ask("/generate", b'{"inputs":"x"}')
    assert (500, "internal") == (answer.status, answer.json()["error_type"])
    assert 1 == await rig.metric('llmop_gateway_requests_total{code="5xx",dialect="tgi",model="m"}')


async def test_a_fault_between_two_attempts_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(call: Call) -> None:
        await call.answer(status="503 Busy")

    await serve(rig, full, full)
    for engine in rig.engines:
        engine.behaviour = full
    broken = Broken(monkeypatch, Attempts, "_again", late=False)
    wire = await rig.wire()
    broken.due = True
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    for engine in rig.engines:
        engine.behaviour = answer_any
    await nothing_stays(rig)


@pytest.mark.parametrize("owner, name", [(routing, "after_connect_failure"), (Dispatcher, "failed")])
async def test_a_fault_about_a_replica_that_cannot_be_reached_is_told_or_survived(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    await serve(rig, answer_any, answer_any)
    await rig.engines[0].stop()
    broken = Broken(monkeypatch, owner, name, late=False)
    broken.due = True
    statuses = set()
    async with asyncio.timeout(10):
        while broken.due:
            statuses.add((await rig.ask(headers=bearer())).status)
    assert ({200, 500} if owner is routing else {200}) >= statuses
    await nothing_stays(rig)


IN_A_STREAM = [
    pytest.param(owner, name, late, id=f"{getattr(owner, '__name__', owner)}.{name}-{'late' if late else 'early'}")
    for owner, name, lates in [
        (Relay, "progress", (False,)),
        (usage.Stream, "feed", (False,)),
        (Relay, "sweep", (False, True)),
    ]
    for late in lates
]  # fmt: skip


@pytest.mark.parametrize("owner, name, late", IN_A_STREAM)
async def test_a_stream_that_has_begun_ends_with_one_event(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    late: bool,
) -> None:
    goes_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b'data: {"token":1}\n\n')
        await goes_on.wait()
        await call.chunk(b'data: {"token":2}\n\n')
        await call.gone()

    await serve(rig, slow)
    broken = Broken(monkeypatch, owner, name, late=late)
    wire = await rig.wire()
    await wire.send(rig.request(body=STREAM, headers=bearer()))
    assert 200 == (await wire.head())[0]
    assert b'data: {"token":1}\n\n' == await wire.chunk()
    broken.due = True
    if name != "sweep":
        goes_on.set()
    event = await wire.chunk()
    assert b'"code":"internal"' in event
    assert event.startswith(b"data: ") and event.endswith(b"\n\n")
    with pytest.raises(asyncio.IncompleteReadError):  # no last chunk: it is not complete
        await wire.chunk()
    assert "nobody foresaw this" in caplog.text
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


AT_THE_BEGIN_OF_A_STREAM = [
    pytest.param(owner, name, id=f"{owner.__name__}.{name}")
    for owner, name in [
        (FirstBlock, "feed"),
        (ModelCounts, "first_byte"),
        (Relay, "begin"),
        (usage.Stream, "feed"),
    ]
]


@pytest.mark.parametrize("owner, name", AT_THE_BEGIN_OF_A_STREAM)
async def test_a_stream_that_has_not_begun_is_an_answer_500(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: Any, name: str
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, owner, name, late=False)
    wire = await rig.wire()
    broken.due = True
    await wire.send(rig.request(body=STREAM, headers=bearer()))
    await is_told(wire, caplog)
    await nothing_stays(rig)


@pytest.mark.parametrize("name", ["_settle", "_let_go"])
async def test_a_stream_whose_end_fails_is_not_taken_for_complete(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ends = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b'data: {"token":1}\n\n')
        await ends.wait()
        await call.end_stream()

    await serve(rig, slow)
    broken = Broken(monkeypatch, Relay, name, late=False)
    wire = await rig.wire()
    await wire.send(rig.request(body=STREAM, headers=bearer()))
    assert 200 == (await wire.head())[0]
    assert b'data: {"token":1}\n\n' == await wire.chunk()
    broken.due = True
    ends.set()
    assert b'"code":"internal"' in await wire.chunk()
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.chunk()
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


IN_THE_QUEUE = [
    pytest.param(owner, name, late, id=f"{getattr(owner, '__name__', owner)}.{name}-{'late' if late else 'early'}")
    for owner, name, lates in [
        (Stay, "end", (False, True)),
        (Deployment, "named", (False, True)),
        (access, "objection", (False,)),
        (KeyRing, "find", (False,)),
        (UpstreamConnection, "send", (False,)),
    ]
    for late in lates
]  # fmt: skip


@pytest.mark.parametrize("owner, name, late", IN_THE_QUEUE)
async def test_who_fails_at_its_release_is_told_and_harms_neither_the_one_before_nor_the_next(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    late: bool,
) -> None:
    gate = Gate()
    await serve(rig, gate, max_in_flight=1)
    first, second, third = [await rig.wire() for _ in range(3)]
    await first.send(rig.request())
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    await second.send(rig.request(headers=bearer()))
    await rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 1)
    await third.send(rig.request())
    await rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 2)
    broken = Broken(monkeypatch, owner, name, late=late)
    broken.due = True
    gate.let(10)
    await is_told(second, caplog)
    for wire in (first, third):
        answer = await wire.answer()
        assert (200, True) == (answer.status, answer.whole)
    await nothing_stays(rig)


@pytest.mark.parametrize("name", ["freed", "tick", "begun"])
async def test_a_fault_of_the_queue_is_nobodys_and_the_next_look_mends_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gate = Gate()
    await serve(rig, gate, max_in_flight=1)
    first, second = await rig.wire(), await rig.wire()
    await first.send(rig.request())
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    await second.send(rig.request())
    await rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 1)
    broken = Broken(monkeypatch, Dispatcher, name, late=name == "begun")
    broken.due = True
    if name == "tick":
        await rig.until_metric(FAULTS, 1)
    gate.let(10)
    assert [200, 200] == [(await wire.answer()).status for wire in (first, second)]
    assert not broken.due
    await nothing_stays(rig)


async def test_a_stream_that_waits_and_has_begun_is_told_in_an_event(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(rig)
    wire = await rig.wire()
    await wire.send(rig.request(body=STREAM, headers=bearer() | {"x-llmop-progress": "1"}))
    assert 200 == (await wire.head())[0]
    assert b": " == (await wire.chunk())[:2]
    broken = Broken(monkeypatch, Deployment, "named", late=False)
    broken.due = True
    await publish(rig, await rig.engine(answer_any))
    assert b'"code":"internal"' in await wire.chunk()
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.chunk()
    await nothing_stays(rig)


async def test_a_fault_about_a_client_that_leaves_gives_back_what_it_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(call: Call) -> None:
        await call.gone()

    await serve(rig, never)
    broken = Broken(monkeypatch, Exchange, "cancel", late=False)
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()))
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    broken.due = True
    wire.close()
    await rig.until_metric(FAULTS, 1)
    await rig.engines[0].until(lambda engine: engine.connections == 0)
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_replica_that_closes_into_a_fault_leaves_no_client_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def closes(call: Call) -> None:
        call.close()

    await serve(rig, closes)
    broken = Broken(monkeypatch, Pool, "closed", late=False)
    broken.due = True
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_fault_in_giving_back_stops_neither_the_rest_of_it_nor_the_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(rig, answer_any)
    first = Broken(monkeypatch, Exchange, "progress", late=False)
    second = Broken(monkeypatch, UpstreamConnection, "close", late=True)
    wire = await rig.wire()
    first.due = second.due = True
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    await nothing_stays(rig)


async def test_other_clients_go_on_beside_a_fault_in_the_look_of_every_second(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, KeyRing, "refresh", late=False)
    broken.due = True
    await rig.until_metric(FAULTS, 1)
    await nothing_stays(rig)


async def test_the_log_is_told_of_the_first_faults_of_a_minute_and_all_are_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(rig, answer_any)
    number = faults.MOST + 5
    for _ in range(number):
        broken = Broken(monkeypatch, Deployment, "choose", late=False)
        broken.due = True
        assert 500 == (await rig.ask()).status
        monkeypatch.undo()
    assert number == await rig.metric(FAULTS)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert faults.MOST + 1 == len(told)


async def test_a_client_that_reads_slowly_is_told_by_the_end_of_its_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def much(call: Call) -> None:
        await call.begin_stream()
        with contextlib.suppress(OSError):
            for _ in range(300):
                await call.chunk(b"data: " + b"x" * 65536 + b"\n\n")
        await call.gone()

    await serve(rig, much)
    broken = Broken(monkeypatch, Exchange, "pause", late=False)
    broken.due = True
    wire = await rig.wire()
    await wire.send(rig.request(body=STREAM, headers=bearer()))
    await rig.until_metric(FAULTS, 1)
    await rig.engines[0].until(lambda engine: engine.connections == 0)
    assert not (await wire.ended()).endswith(b"\r\n0\r\n\r\n")
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_connection_that_cannot_be_begun_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, turns.HttpToolsProtocol, "connection_made", late=False)
    broken.due = True
    wire = await rig.wire()
    assert b"" == await wire.ended()
    await nothing_stays(rig)
    await rig.until_metric("llmop_gateway_connections", 1)


async def test_a_fault_after_an_answer_of_another_route_costs_the_connection_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(rig, answer_any)
    broken = Broken(monkeypatch, downstream.GatewayProtocol, "response_done", late=False)
    broken.due = True
    wire = await rig.wire()
    await wire.send(rig.request("/v1/models", b"", method="GET"))
    assert 200 == (await wire.answer()).status
    assert b"" == await wire.ended()
    await nothing_stays(rig)


async def test_who_cannot_be_told_why_it_waited_in_vain_is_told_of_the_fault(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(rig, queue=waits(no_endpoint_ttl_s=1))
    broken = Broken(monkeypatch, Stay, "refusal", late=False)
    broken.due = True
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire, caplog)
    await publish(rig, await rig.engine(answer_any))
    await nothing_stays(rig)


async def test_a_fault_in_one_connection_does_not_keep_a_gateway_from_ending(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(rig, answer_any)
    wires = [await rig.wire() for _ in range(3)]
    for wire in wires:
        await wire.send(rig.request())
        assert 200 == (await wire.answer()).status
    broken = Broken(monkeypatch, downstream.GatewayProtocol, "_close", late=False)
    broken.due = True
    await rig.stop()
    assert not broken.due
    for wire in wires:
        assert b"" == await wire.ended()
