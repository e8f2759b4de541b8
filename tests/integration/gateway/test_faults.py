"""Exceptions that nobody foresaw, put into every place where the event loop enters: the client is answered, and nothing stays held."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.test_client_keys import bearer, key
from tests.integration.gateway.upstreams import Call, Engine, Gate, answer_any, model, waits
from tests.waiting import PATIENCE_S

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
QUEUED = 'llmop_gateway_queued{model="m",priority="default"}'
ONE_AT_A_TIME = key(parallel_requests=1, tokens_per_minute=100_000)
FORESEEN_BY_NOBODY = "nobody foresaw this"
FAULTS = "llmop_gateway_faults_total"


class Broken:
    """`name` of `owner` raises: once it is told to, and then the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, late: bool = False) -> None:
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
        raise RuntimeError(FORESEEN_BY_NOBODY)


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
    await rig.until_metric(QUEUED, 0)
    await rig.until_metric('llmop_gateway_queued_bytes{model="m"}', 0)
    page = (await rig.ask("/metrics", b"", method="GET")).body.decode()
    assert {"0.0"} == set(re.findall(r"^llmop_gateway_replica_in_flight\{.*\} (.*)$", page, re.MULTILINE))
    assert await rig.metric(FAULTS) >= 1


Breaks = Callable[..., Broken]
Told = Callable[[Wire], Awaitable[None]]


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Breaks:
    """Makes `Broken`."""
    return functools.partial(Broken, monkeypatch)


@pytest.fixture
def is_told(caplog: pytest.LogCaptureFixture) -> Told:
    """That a client gets a whole answer 500, and the end; the log has its id."""

    async def check(wire: Wire) -> None:
        answer = await wire.answer()
        assert (500, True, "internal") == (answer.status, answer.whole, answer.json()["error"]["code"])
        assert "close" == answer.headers["connection"]
        assert b"" == await wire.ended()
        assert answer.headers["x-request-id"] in caplog.text
        assert FORESEEN_BY_NOBODY in caplog.text

    return check


async def sent(rig: Rig, *broken: Broken, **options: Any) -> Wire:
    """A client that has asked, with the key that may do so once at a time; these are broken for its request."""
    wire = await rig.wire()
    for each in broken:
        each.due = True
    await wire.send(rig.request(**{"headers": bearer(), **options}))
    return wire


EARLY, LATE = False, True


def places(*rows: tuple[Any, ...]) -> list[Any]:
    """Parameters `owner, name, late` of each (owner, name, and how it breaks: early where nothing is said)."""
    return [
        pytest.param(
            owner, name, late, id=f"{getattr(owner, '__name__', owner)}.{name}-{'late' if late else 'early'}"
        )
        for owner, name, *ways in rows
        for late in ways or [EARLY]
    ]


BEFORE_THE_ANSWER = places(
    (access, "whose", EARLY, LATE),
    (downstream, "read_request_head"),
    (attempts, "admit", EARLY, LATE),
    (Bill, "reserve"),
    (Deployment, "choose", EARLY, LATE),
    (Pool, "take", EARLY, LATE),
    (Pool, "connect"),
    (UpstreamConnection, "send", EARLY, LATE),
    (upstream, "read_response_head", EARLY, LATE),
    (Exchange, "progress"),
    (usage, "read", EARLY, LATE),
    (Bill, "answered", LATE),
    (Entry, "used", EARLY, LATE),
    (ModelCounts, "answered_whole", EARLY, LATE),
    (Pool, "give_back", EARLY, LATE),
    (Exchange, "let_go", LATE),
)


@pytest.mark.parametrize("owner, name, late", BEFORE_THE_ANSWER)
async def test_a_client_is_told_of_a_fault_before_its_answer(
    rig: Rig, breaks: Breaks, is_told: Told, owner: Any, name: str, late: bool
) -> None:
    await serve(rig, answer_any)
    broken = breaks(owner, name, late=late)
    wire = await sent(rig, broken)
    await is_told(wire)
    await nothing_stays(rig)


REPEATED = places(
    (Exchange, "renew"),
    (Exchange, "start"),
    (Pool, "take"),
    (Exchange, "whole"),
    (Entry, "used"),
)


@pytest.mark.parametrize("owner, name, late", REPEATED)
async def test_a_client_is_told_also_where_its_head_came_again(
    rig: Rig, breaks: Breaks, is_told: Told, owner: Any, name: str, late: bool
) -> None:
    await serve(rig, answer_any)
    broken = breaks(owner, name, late=late)
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request(headers=bearer()))
        assert 200 == (await wire.answer()).status
    broken.due = True
    await wire.send(rig.request(headers=bearer()))
    await is_told(wire)
    await nothing_stays(rig)


async def test_a_fault_after_an_answer_costs_the_connection_alone(rig: Rig, breaks: Breaks) -> None:
    await serve(rig, answer_any)
    broken = breaks(downstream.GatewayProtocol, "_rest")
    wire = await sent(rig, broken)
    answer = await wire.answer()
    assert (200, True) == (answer.status, answer.whole)
    assert b"" == await wire.ended()
    await nothing_stays(rig)


async def test_of_pipelined_requests_those_before_the_fault_are_answered(
    rig: Rig, breaks: Breaks, is_told: Told
) -> None:
    gate = Gate()
    await serve(rig, gate)
    broken = breaks(Exchange, "start")
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer()) * 2)
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    broken.due = True
    gate.let(3)
    assert 200 == (await wire.answer()).status
    await is_told(wire)
    await nothing_stays(rig)


async def test_a_dialect_keeps_its_form(rig: Rig, breaks: Breaks) -> None:
    await serve(rig, answer_any)
    broken = breaks(Deployment, "choose")
    broken.due = True
    answer = await rig.ask("/generate", b'{"inputs":"x"}')
    assert (500, "internal") == (answer.status, answer.json()["error_type"])
    assert 1 == await rig.metric('llmop_gateway_requests_total{code="5xx",dialect="tgi",model="m"}')


async def test_a_fault_between_two_attempts_is_told(rig: Rig, breaks: Breaks, is_told: Told) -> None:
    async def full(call: Call) -> None:
        await call.answer(status="503 Busy")

    await serve(rig, full, full)
    for engine in rig.engines:
        engine.behaviour = full
    broken = breaks(Attempts, "_again")
    wire = await sent(rig, broken)
    await is_told(wire)
    for engine in rig.engines:
        engine.behaviour = answer_any
    await nothing_stays(rig)


@pytest.mark.parametrize("owner, name", [(routing, "after_connect_failure"), (Dispatcher, "failed")])
async def test_a_fault_about_a_replica_that_cannot_be_reached_is_told_or_survived(
    rig: Rig, breaks: Breaks, owner: Any, name: str
) -> None:
    await serve(rig, answer_any, answer_any)
    await rig.engines[0].stop()
    broken = breaks(owner, name)
    broken.due = True
    statuses = set()
    async with asyncio.timeout(PATIENCE_S):
        while broken.due:
            statuses.add((await rig.ask(headers=bearer())).status)
    assert ({200, 500} if owner is routing else {200}) >= statuses
    await nothing_stays(rig)


IN_A_STREAM = places(
    (Relay, "progress"),
    (usage.Stream, "feed"),
    (Relay, "sweep", EARLY, LATE),
)


@pytest.mark.parametrize("owner, name, late", IN_A_STREAM)
async def test_a_stream_that_has_begun_ends_with_one_event(
    rig: Rig, breaks: Breaks, caplog: pytest.LogCaptureFixture, owner: Any, name: str, late: bool
) -> None:
    goes_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b'data: {"token":1}\n\n')
        await goes_on.wait()
        await call.chunk(b'data: {"token":2}\n\n')
        await call.gone()

    await serve(rig, slow)
    broken = breaks(owner, name, late=late)
    wire = await sent(rig, body=STREAM)
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
    assert FORESEEN_BY_NOBODY in caplog.text
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


AT_THE_BEGIN_OF_A_STREAM = places(
    (FirstBlock, "feed"),
    (ModelCounts, "first_byte"),
    (Relay, "begin"),
    (usage.Stream, "feed"),
)


@pytest.mark.parametrize("owner, name, late", AT_THE_BEGIN_OF_A_STREAM)
async def test_a_stream_that_has_not_begun_is_an_answer_500(
    rig: Rig, breaks: Breaks, is_told: Told, owner: Any, name: str, late: bool
) -> None:
    await serve(rig, answer_any)
    broken = breaks(owner, name, late=late)
    wire = await sent(rig, broken, body=STREAM)
    await is_told(wire)
    await nothing_stays(rig)


@pytest.mark.parametrize("name", ["_settle", "_let_go"])
async def test_a_stream_whose_end_fails_is_not_taken_for_complete(
    rig: Rig, breaks: Breaks, name: str
) -> None:
    ends = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b'data: {"token":1}\n\n')
        await ends.wait()
        await call.end_stream()

    await serve(rig, slow)
    broken = breaks(Relay, name)
    wire = await sent(rig, body=STREAM)
    assert 200 == (await wire.head())[0]
    assert b'data: {"token":1}\n\n' == await wire.chunk()
    broken.due = True
    ends.set()
    assert b'"code":"internal"' in await wire.chunk()
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.chunk()
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


IN_THE_QUEUE = places(
    (Stay, "end", EARLY, LATE),
    (Deployment, "named", EARLY, LATE),
    (access, "objection"),
    (KeyRing, "find"),
    (UpstreamConnection, "send"),
)


@pytest.mark.parametrize("owner, name, late", IN_THE_QUEUE)
async def test_who_fails_at_its_release_is_told_and_harms_neither_the_one_before_nor_the_next(
    rig: Rig, breaks: Breaks, is_told: Told, owner: Any, name: str, late: bool
) -> None:
    gate = Gate()
    await serve(rig, gate, max_in_flight=1)
    first = await sent(rig, headers={})
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    second = await sent(rig)
    await rig.until_metric(QUEUED, 1)
    third = await sent(rig, headers={})
    await rig.until_metric(QUEUED, 2)
    broken = breaks(owner, name, late=late)
    broken.due = True
    gate.let(10)
    await is_told(second)
    for wire in (first, third):
        answer = await wire.answer()
        assert (200, True) == (answer.status, answer.whole)
    await nothing_stays(rig)


@pytest.mark.parametrize("name", ["freed", "tick", "begun"])
async def test_a_fault_of_the_queue_is_nobodys_and_the_next_look_mends_it(
    rig: Rig, breaks: Breaks, name: str
) -> None:
    gate = Gate()
    await serve(rig, gate, max_in_flight=1)
    first = await sent(rig, headers={})
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    second = await sent(rig, headers={})
    await rig.until_metric(QUEUED, 1)
    broken = breaks(Dispatcher, name, late=name == "begun")
    broken.due = True
    if name == "tick":
        await rig.until_metric(FAULTS, 1)
    gate.let(10)
    assert [200, 200] == [(await wire.answer()).status for wire in (first, second)]
    assert not broken.due
    await nothing_stays(rig)


async def test_a_stream_that_waits_and_has_begun_is_told_in_an_event(rig: Rig, breaks: Breaks) -> None:
    await publish(rig)
    wire = await sent(rig, body=STREAM, headers=bearer() | {"x-llmop-progress": "1"})
    assert 200 == (await wire.head())[0]
    assert b": " == (await wire.chunk())[:2]
    broken = breaks(Deployment, "named")
    broken.due = True
    await publish(rig, await rig.engine(answer_any))
    assert b'"code":"internal"' in await wire.chunk()
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.chunk()
    await nothing_stays(rig)


async def test_a_fault_about_a_client_that_leaves_gives_back_what_it_held(rig: Rig, breaks: Breaks) -> None:
    async def never(call: Call) -> None:
        await call.gone()

    await serve(rig, never)
    broken = breaks(Exchange, "cancel")
    wire = await sent(rig)
    await rig.engines[0].until(lambda engine: len(engine.calls) == 1)
    broken.due = True
    wire.close()
    await rig.until_metric(FAULTS, 1)
    await rig.engines[0].until(lambda engine: engine.connections == 0)
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_replica_that_closes_into_a_fault_leaves_no_client_waiting(
    rig: Rig, breaks: Breaks, is_told: Told
) -> None:
    async def closes(call: Call) -> None:
        call.close()

    await serve(rig, closes)
    broken = breaks(Pool, "closed")
    wire = await sent(rig, broken)
    await is_told(wire)
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_fault_in_giving_back_stops_neither_the_rest_of_it_nor_the_answer(
    rig: Rig, breaks: Breaks, is_told: Told
) -> None:
    await serve(rig, answer_any)
    first = breaks(Exchange, "progress")
    second = breaks(UpstreamConnection, "close", late=True)
    wire = await sent(rig, first, second)
    await is_told(wire)
    await nothing_stays(rig)


async def test_other_clients_go_on_beside_a_fault_in_the_look_of_every_second(
    rig: Rig, breaks: Breaks
) -> None:
    await serve(rig, answer_any)
    broken = breaks(KeyRing, "refresh")
    broken.due = True
    await rig.until_metric(FAULTS, 1)
    await nothing_stays(rig)


async def test_the_log_is_told_of_the_first_faults_of_a_minute_and_all_are_counted(
    rig: Rig, breaks: Breaks, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(rig, answer_any)
    number = faults.MOST + 5
    broken = breaks(Deployment, "choose")
    for _ in range(number):
        broken.due = True
        assert 500 == (await rig.ask()).status
    assert number == await rig.metric(FAULTS)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert faults.MOST + 1 == len(told)


async def test_a_client_that_reads_slowly_is_told_by_the_end_of_its_connection(
    rig: Rig, breaks: Breaks
) -> None:
    async def much(call: Call) -> None:
        await call.begin_stream()
        with contextlib.suppress(OSError):
            for _ in range(300):
                await call.chunk(b"data: " + b"x" * 65536 + b"\n\n")
        await call.gone()

    await serve(rig, much)
    broken = breaks(Exchange, "pause")
    wire = await sent(rig, broken, body=STREAM)
    await rig.until_metric(FAULTS, 1)
    await rig.engines[0].until(lambda engine: engine.connections == 0)
    assert not (await wire.ended()).endswith(b"\r\n0\r\n\r\n")
    rig.engines[0].behaviour = answer_any
    await nothing_stays(rig)


async def test_a_connection_that_cannot_be_begun_is_closed(rig: Rig, breaks: Breaks) -> None:
    await serve(rig, answer_any)
    broken = breaks(turns.HttpToolsProtocol, "connection_made")
    broken.due = True
    wire = await rig.wire()
    assert b"" == await wire.ended()
    await nothing_stays(rig)
    await rig.until_metric("llmop_gateway_connections", 1)


async def test_a_fault_after_an_answer_of_another_route_costs_the_connection_alone(
    rig: Rig, breaks: Breaks
) -> None:
    await serve(rig, answer_any)
    broken = breaks(downstream.GatewayProtocol, "response_done")
    wire = await sent(rig, broken, path="/v1/models", body=b"", method="GET", headers={})
    assert 200 == (await wire.answer()).status
    assert b"" == await wire.ended()
    await nothing_stays(rig)


async def test_who_cannot_be_told_why_it_waited_in_vain_is_told_of_the_fault(
    rig: Rig, breaks: Breaks, is_told: Told
) -> None:
    await publish(rig, queue=waits(no_endpoint_ttl_s=1))
    broken = breaks(Stay, "refusal")
    wire = await sent(rig, broken)
    await is_told(wire)
    await publish(rig, await rig.engine(answer_any))
    await nothing_stays(rig)


async def test_a_fault_in_one_connection_does_not_keep_a_gateway_from_ending(
    rig: Rig, breaks: Breaks
) -> None:
    await serve(rig, answer_any)
    wires = [await sent(rig, headers={}) for _ in range(3)]
    for wire in wires:
        assert 200 == (await wire.answer()).status
    broken = breaks(downstream.GatewayProtocol, "_close")
    broken.due = True
    await rig.stop()
    assert not broken.due
    for wire in wires:
        assert b"" == await wire.ended()
