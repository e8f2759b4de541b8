"""Engines that fail, and what the client sees of it: nothing, where another one can answer."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import Behaviour, Call, polite

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
OVERLOADED = b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n'


async def cut_before_an_answer(call: Call) -> None:
    call.close()


async def cut_in_the_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-")
    call.close()


async def garbage(call: Call) -> None:
    await call.send(b"220 mail.example.org ESMTP\r\n")


async def endless_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 100_000)
    await call.gone()


async def both_lengths(call: Call) -> None:
    await call.send(HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}")


async def switching(call: Call) -> None:
    await call.send(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc")


async def full(call: Call) -> None:
    await call.answer(b'{"error":"Model is overloaded","error_type":"overloaded"}', "429 Too Many Requests")


async def broken(call: Call) -> None:
    await call.answer(b'{"error":"x"}', "500 Internal Server Error")


async def wrong_key(call: Call) -> None:
    await call.answer(b"", "401 Unauthorized")


async def overloaded_stream(call: Call) -> None:
    await call.begin_stream()
    await call.chunk(OVERLOADED[:20])
    await call.chunk(OVERLOADED[20:])
    await call.end_stream()


async def stream_cut_before_its_first_event(call: Call) -> None:
    await call.begin_stream()
    await call.chunk(b"data: {")
    call.close()


BAD: list[Behaviour] = [
    cut_before_an_answer,
    cut_in_the_head,
    garbage,
    endless_head,
    both_lengths,
    switching,
    full,
    broken,
    wrong_key,
    overloaded_stream,
    stream_cut_before_its_first_event,
]


@pytest.mark.parametrize("bad", BAD)
async def test_a_failed_attempt_is_made_again_on_another_replica(rig: Rig, bad: Behaviour) -> None:
    first, second = await rig.serve(bad, bad)
    second.behaviour = first.behaviour = _bad_first(bad)
    answer = await rig.ask()
    assert (200, b"{}") == (answer.status, answer.body)
    assert [1, 1] == [len(first.calls), len(second.calls)]
    assert 1.0 == await rig.metric('llmop_gateway_retries_total{model="m"}')


def _bad_first(bad: Behaviour) -> Behaviour:
    spent: list[Call] = []

    async def behave(call: Call) -> None:
        if not spent:
            spent.append(call)
            await bad(call)
        else:
            await call.answer()

    return behave


@pytest.mark.parametrize(
    ("bad", "status"), [(full, 429), (broken, 500), (wrong_key, 502), (garbage, 502), (cut_in_the_head, 502)]
)
async def test_where_nobody_else_can_answer_the_client_hears_what_happened(
    rig: Rig, bad: Behaviour, status: int
) -> None:
    (engine,) = await rig.serve(bad)
    answer = await rig.ask()
    assert status == answer.status
    assert 1 == len(engine.calls)


async def test_an_overloaded_stream_is_passed_on_where_nobody_else_can_answer(rig: Rig) -> None:
    await rig.serve(overloaded_stream)
    answer = await rig.ask("/generate_stream", b"{}")
    assert (200, OVERLOADED) == (answer.status, answer.body)


async def test_a_replica_that_is_not_there_is_passed_over_and_left_alone(rig: Rig) -> None:
    dead, alive = await rig.serve(polite, polite)
    await dead.stop()
    for _ in range(12):
        assert 200 == (await rig.ask()).status
    assert 12 == len(alive.calls) + len(dead.calls)
    assert 3.0 == await rig.metric('llmop_gateway_upstream_errors_total{class="connect",model="m"}')
    assert 1.0 == await rig.metric('llmop_gateway_ejections_total{model="m"}')
    assert 1.0 == await rig.metric('llmop_gateway_endpoints{deployment="default/d",state="Ejected"}')


async def test_a_single_replica_is_never_left_alone(rig: Rig) -> None:
    (engine,) = await rig.serve(polite)
    await engine.stop()
    for _ in range(5):
        assert 502 == (await rig.ask()).status
    await engine.start()
    assert 200 == (await rig.ask()).status


async def test_a_connection_that_went_stale_costs_the_client_nothing(rig: Rig) -> None:
    async def one_answer_then_close_at_the_next(call: Call) -> None:
        if call.number > 1:
            call.close()
        else:
            await call.answer()

    (engine,) = await rig.serve(one_answer_then_close_at_the_next)
    assert [200, 200] == [(await rig.ask()).status for _ in range(2)]
    assert [1, 2, 1] == [call.number for call in engine.calls]
    assert 0.0 == await rig.metric('llmop_gateway_retries_total{model="m"}')
    assert 1.0 == await rig.metric('llmop_gateway_upstream_errors_total{class="stale",model="m"}')


async def test_retries_stop_where_the_budget_ends(rig: Rig) -> None:
    await rig.serve(broken, broken, broken)
    for _ in range(20):
        assert 500 == (await rig.ask()).status
    assert await rig.metric('llmop_gateway_retries_total{model="m"}') < 20


async def test_an_answer_that_stops_in_the_middle_is_visibly_incomplete(rig: Rig) -> None:
    async def half(call: Call) -> None:
        await call.send(HEAD + b"content-length: 10\r\n\r\n12345")
        await asyncio.sleep(0)
        call.close()

    (engine,) = await rig.serve(half)
    answer = await rig.ask()
    assert (200, b"12345", False) == (answer.status, answer.body, answer.whole)
    assert 1 == len(engine.calls)
    assert 1.0 == await rig.metric('llmop_gateway_upstream_errors_total{class="cut",model="m"}')


async def test_a_stream_that_stops_in_the_middle_says_so_and_is_incomplete(rig: Rig) -> None:
    async def half(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        call.close()

    await rig.serve(half)
    answer = await rig.ask("/generate_stream", b"{}")
    assert not answer.whole
    first, last = answer.body.split(b"\n\n")[:2]
    assert b"data: 1" == first
    assert b'"error_type":"stream_broken"' in last


async def test_answers_with_other_framings(rig: Rig) -> None:
    async def until_close(call: Call) -> None:
        await call.send(HEAD + b"\r\n{")
        await call.send(b"}")
        call.close()

    async def trailers(call: Call) -> None:
        await call.send(
            HEAD + b"transfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2;a=b\r\n{}\r\n0\r\nx-t: 1\r\n\r\n"
        )

    async def early_hints(call: Call) -> None:
        await call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        await call.answer()

    async def old(call: Call) -> None:
        await call.send(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        call.close()

    (engine,) = await rig.serve(polite)
    for behaviour in (until_close, trailers, early_hints, old):
        engine.behaviour = behaviour
        answer = await rig.ask()
        assert (200, b"{}", True) == (answer.status, answer.body, answer.whole)
        assert not {"link", "trailer", "x-t"} & set(answer.headers)

    async def nothing(call: Call) -> None:
        await call.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    engine.behaviour = nothing
    wire = await rig.wire()
    await wire.send(rig.request() + rig.request())
    assert [204, 204] == [(await wire.answer()).status for _ in range(2)]


async def test_bytes_after_an_answer_never_become_the_next_answer(rig: Rig) -> None:
    async def surplus(call: Call) -> None:
        await call.send(HEAD + b"content-length: 2\r\n\r\n{}" + HEAD + b"content-length: 4\r\n\r\nevil")

    (engine,) = await rig.serve(surplus)
    assert [b"{}", b"{}"] == [(await rig.ask()).body for _ in range(2)]
    assert 2 == engine.opened


async def test_an_answer_may_come_before_the_request_was_read(rig: Rig) -> None:
    async def early(call: Call) -> None:
        await call.answer(b"too much", "413 Payload Too Large")
        call.close()

    await rig.serve(early)
    assert 413 == (await rig.ask(body=b'{"model":"m","x":"%b"}' % (b"x" * 3_000_000))).status


async def _flood(call: Call, piece: bytes) -> None:
    while True:
        await call.send(piece)


async def endless_hints(call: Call) -> None:
    await _flood(call, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100)


async def endless_extension(call: Call) -> None:
    await call.send(HEAD + b"transfer-encoding: chunked\r\n\r\n2;")
    await _flood(call, b"a" * 10_000)


async def endless_trailer(call: Call) -> None:
    await call.send(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    await _flood(call, b"x-a: a\r\n" * 1000)


@pytest.mark.parametrize("bad", [endless_hints, endless_extension, endless_trailer])
async def test_what_an_engine_sends_beside_the_answer_is_bounded(rig: Rig, bad: Behaviour) -> None:
    (engine,) = await rig.serve(bad)
    answer = await rig.ask()
    assert answer.status == 502 or not answer.whole
    await engine.until(lambda engine: engine.connections == 0)
    engine.behaviour = polite
    assert 200 == (await rig.ask()).status


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\n{}\r\n", b"-2\r\n{}\r\n", b"2\n{}\r\n", b"2\r\n{}X\r\n", b"fffffffffffffffff\r\n{}"],
)
async def test_a_stream_that_stops_to_be_http_is_visibly_incomplete(rig: Rig, rest: bytes) -> None:
    async def derailed(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(b"data: 1\n\n")
        await asyncio.sleep(0)
        await call.send(rest)
        await call.gone()

    (engine,) = await rig.serve(derailed)
    answer = await rig.ask("/generate_stream", b"{}")
    assert not answer.whole
    assert answer.body.startswith(b"data: 1\n\n")
    await engine.until(lambda engine: engine.connections == 0)
    assert 1.0 == await rig.metric('llmop_gateway_upstream_errors_total{class="garbage",model="m"}')
