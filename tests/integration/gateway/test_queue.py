"""Requests that wait: for a replica with room, for the first replica, for their turn; and what becomes of them."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.gateway.rig import Answer, Rig, Wire
from tests.integration.gateway.upstreams import Call, Gate, answer_any, model, waits
from tests.waiting import PATIENCE_S

from llmop.api.v1 import gateway_pb2
from llmop.clock import SystemClock
from llmop.gateway import endpoints, keys

CHAT = ("/v1/chat/completions", b'{"model":"m","messages":[]}')
CHAT_STREAM = ("/v1/chat/completions", b'{"model":"m","messages":[],"stream":true}')
GENERATE = ("/generate", b'{"inputs":"x"}')
GENERATE_STREAM = ("/generate_stream", b'{"inputs":"x"}')
FORMS = pytest.mark.parametrize("path, body", [CHAT, CHAT_STREAM, GENERATE, GENERATE_STREAM])
QUEUED = 'llmop_gateway_queued{model="m",priority="default"}'
IN_FLIGHT = 'llmop_gateway_in_flight{model="m"}'
RARELY_S = 600.0  # a report that nothing but time calls for would come too late


def dropped(reason: str) -> str:
    return f'llmop_gateway_dropped_total{{model="m",reason="{reason}"}}'


async def sent(rig: Rig, path: str = CHAT[0], body: bytes = CHAT[1], **options: object) -> Wire:
    wire = await rig.wire()
    await wire.send(rig.request(path, body, **options))  # type: ignore[arg-type]
    return wire


async def waiting(rig: Rig, number: int) -> None:
    await rig.until_metric(QUEUED, number)


async def answers(*wires: Wire) -> list[Answer]:
    return await asyncio.gather(*(wire.answer() for wire in wires))


@FORMS
async def test_who_finds_all_replicas_full_waits(rig: Rig, path: str, body: bytes) -> None:
    gate = Gate()
    await rig.serve(gate, gate, max_in_flight=2, queue=waits())
    wires = [await sent(rig, path, body) for _ in range(12)]
    await waiting(rig, 8)
    assert await rig.metric(IN_FLIGHT) == 4
    gate.let(12)
    got = await answers(*wires)
    assert {answer.status for answer in got} == {200}
    assert gate.most == 4
    assert sorted(answer.headers["x-llmop-queue-ms"] == "0" for answer in got) == [False] * 8 + [True] * 4
    await waiting(rig, 0)
    assert await rig.metric('llmop_gateway_queue_wait_seconds_count{model="m"}') == 8


@FORMS
async def test_a_request_for_a_model_without_replicas_waits_for_the_first_one(
    rig: Rig, path: str, body: bytes
) -> None:
    await rig.publish(queue=waits())
    wire = await sent(rig, path, body)
    await waiting(rig, 1)
    engine = await rig.engine(answer_any)
    await rig.publish(engine, queue=waits())
    answer = await wire.answer()
    assert (answer.status, answer.whole) == (200, True)
    assert int(answer.headers["x-llmop-queue-ms"]) > 0
    assert len(engine.calls) == 1


async def test_the_controller_hears_at_once_of_who_waits_for_nobody(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "REPORT_PERIOD", RARELY_S)
    await rig.publish(queue=waits())
    rig.control.period_ms = int(RARELY_S * 1000)
    quiet = await rig.control.report()
    assert [(load.deployment, load.queued) for load in quiet.loads] == [("default/d", 0)]
    wire = await sent(rig)
    report = await rig.control.report()
    assert [(load.queued, load.in_flight, load.unserved) for load in report.loads] == [(1, 0, 0)]
    wire.close()


async def test_the_controller_hears_of_who_has_left(rig: Rig) -> None:
    await rig.publish(queue=waits())
    wire = await sent(rig)
    await rig.control.loads(lambda loads: loads[0].queued == 1)
    wire.close()
    await rig.control.loads(lambda loads: loads[0].queued == 0)


async def test_who_is_sent_away_counts_until_the_controller_knows(rig: Rig) -> None:
    await rig.publish()
    reports = len(rig.control.reports)
    assert {answer.status for answer in [await rig.ask() for _ in range(3)]} == {503}
    async with asyncio.timeout(PATIENCE_S):
        while sum(report.loads[0].unserved for report in rig.control.reports[reports:]) < 3:
            await rig.control.report()
    await rig.control.report()
    assert sum(report.loads[0].unserved for report in rig.control.reports[reports:]) == 3


async def test_requests_in_flight_are_reported(rig: Rig) -> None:
    gate = Gate()
    await rig.serve(gate, gate, max_in_flight=2, queue=waits())
    wires = [await sent(rig) for _ in range(7)]
    await waiting(rig, 3)
    await rig.control.loads(lambda loads: [(4, 3)] == [(each.in_flight, each.queued) for each in loads])
    gate.let(7)
    await answers(*wires)


async def test_a_full_queue_refuses_with_429_where_there_are_replicas(rig: Rig) -> None:
    gate = Gate()
    await rig.serve(gate, max_in_flight=1, queue=waits(2))
    wires = [await sent(rig) for _ in range(3)]
    await waiting(rig, 2)
    answer = await rig.ask()
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "saturated"
    assert await rig.metric(dropped("queue_full")) == 1
    gate.let(3)
    assert {answer.status for answer in await answers(*wires)} == {200}


async def test_a_full_queue_refuses_with_503_where_there_is_none_and_says_when_to_come_back(rig: Rig) -> None:
    following = gateway_pb2.NextReplica(
        stage=gateway_pb2.NextReplica.STAGE_PENDING,
        starts_at=int(SystemClock().now()) + 70,
        ready_at=int(SystemClock().now()) + 100,
    )
    await rig.publish(queue=waits(1), next_replica=following)
    wire = await sent(rig)
    await waiting(rig, 1)
    answer = await rig.ask(*GENERATE)
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (503, "queue_full")
    assert 80 < int(answer.headers["retry-after"]) <= 101
    assert answer.json()["error_type"] == "no_endpoint"
    assert "waits for its job to start" in answer.json()["error"]
    wire.close()


async def test_without_a_queue_a_full_replica_means_429_at_once(rig: Rig) -> None:
    gate = Gate()
    await rig.serve(gate, max_in_flight=1)
    wire = await sent(rig)
    await rig.until_metric(IN_FLIGHT, 1)
    answer = await rig.ask()
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (429, "saturated")
    gate.let(1)
    assert (await wire.answer()).status == 200


@FORMS
async def test_time_in_the_queue_is_bounded(rig: Rig, path: str, body: bytes) -> None:
    await rig.publish(queue=waits(ttl_s=1, no_endpoint_ttl_s=1))
    answer = await rig.ask(path, body)
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (503, "ttl_expired")
    gate = Gate()
    await rig.serve(gate, max_in_flight=1, queue=waits(ttl_s=1))
    wire = await sent(rig)
    await rig.until_metric(IN_FLIGHT, 1)
    answer = await rig.ask(path, body)
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (429, "ttl_expired")
    assert await rig.metric(dropped("ttl_expired")) == 2
    gate.let(1)
    assert (await wire.answer()).status == 200


async def test_a_client_says_how_long_it_waits(rig: Rig) -> None:
    await rig.publish(queue=waits())
    answer = await rig.ask(headers={"x-llmop-timeout": "0.3"})
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (503, "ttl_expired")


@pytest.mark.parametrize(
    "name, value", [("x-llmop-timeout", "soon"), ("x-llmop-timeout", "0"), ("x-llmop-priority", "system")]
)
async def test_wishes_that_cannot_be_are_refused(rig: Rig, name: str, value: str) -> None:
    await rig.serve(answer_any)
    answer = await rig.ask(headers={name: value})
    assert answer.status == 400
    assert name in answer.json()["error"]["message"]
    assert value in answer.json()["error"]["message"]


async def test_who_leaves_makes_room_and_is_never_sent(rig: Rig) -> None:
    gate = Gate()
    (engine,) = await rig.serve(gate, max_in_flight=1, queue=waits(2))
    first = await sent(rig)
    await rig.until_metric(IN_FLIGHT, 1)
    leaving = await sent(rig)
    await waiting(rig, 1)
    leaving.close()
    await waiting(rig, 0)
    last = [await sent(rig) for _ in range(2)]
    await waiting(rig, 2)
    gate.let(3)
    assert {answer.status for answer in await answers(first, *last)} == {200}
    assert len(engine.calls) == 3
    assert await rig.metric('llmop_gateway_requests_total{code="gone",dialect="openai",model="m"}') == 1


async def test_bulk_lets_everybody_pass(rig: Rig) -> None:
    gate = Gate()
    (engine,) = await rig.serve(gate, max_in_flight=1, queue=waits())
    wires = [await sent(rig)]
    await rig.until_metric(IN_FLIGHT, 1)
    for number in range(3):
        wires.append(await sent(rig, body=b'{"model":"m","n":"bulk"}', headers={"x-llmop-priority": "bulk"}))
        await rig.until_metric('llmop_gateway_queued{model="m",priority="bulk"}', number + 1)
    for number in range(3):
        wires.append(await sent(rig, body=b'{"model":"m","n":"now"}'))
        await waiting(rig, number + 1)
    gate.let(7)
    await answers(*wires)
    assert [b"bulk" in call.body for call in engine.calls] == [False] * 4 + [True] * 3


async def test_keys_take_turns(rig: Rig) -> None:
    gate = Gate()
    (engine,) = await rig.serve(gate, max_in_flight=1, queue=waits())
    other = keys.create(rig.settings.keys_file, "other")
    await rig.until_known(other)
    wires = [await sent(rig)]
    await rig.until_metric(IN_FLIGHT, 1)
    for number in range(6):
        wires.append(await sent(rig, body=b'{"model":"m","n":"flood"}'))
        await waiting(rig, number + 1)
    for number in range(2):
        wires.append(
            await sent(rig, body=b'{"model":"m","n":"small"}', headers={"authorization": f"Bearer {other}"})
        )
        await waiting(rig, 7 + number)
    gate.let(9)
    await answers(*wires)
    assert [b"small" in call.body for call in engine.calls[1:6]] == [False, True, False, True, False]


async def test_a_new_replica_gets_those_that_wait_little_by_little(rig: Rig) -> None:
    await rig.publish(queue=waits())
    wires = [await sent(rig) for _ in range(60)]
    await waiting(rig, 60)
    gate = Gate()
    (engine,) = await rig.serve(gate, queue=waits())
    await engine.until(lambda engine: len(engine.calls) >= 8)
    assert gate.most <= 16
    await engine.until(lambda engine: len(engine.calls) == 60)
    gate.let(60)
    assert {answer.status for answer in await answers(*wires)} == {200}


async def test_a_replica_that_dies_takes_nobody_with_it_who_waits(rig: Rig) -> None:
    gate = Gate()
    (dying,) = await rig.serve(gate, max_in_flight=2, queue=waits())
    wires = [await sent(rig) for _ in range(30)]
    await waiting(rig, 28)
    await dying.stop()
    await rig.until_metric('llmop_gateway_requests_total{code="5xx",dialect="openai",model="m"}', 2)
    # Those that were released meanwhile could not even be sent: they wait again.
    await rig.until_metric(IN_FLIGHT, 0)
    await waiting(rig, 28)
    late = await sent(rig)
    heir = await rig.engine(answer_any)
    await rig.publish(heir, max_in_flight=2, queue=waits())
    got = await answers(*wires, late)
    assert sorted(answer.status for answer in got) == [200] * 29 + [502] * 2
    assert len(heir.calls) == 29


async def test_a_replica_that_cannot_be_reached_for_a_moment_loses_nobody(rig: Rig) -> None:
    gate = Gate()
    (engine,) = await rig.serve(gate, max_in_flight=1, queue=waits())
    wires = [await sent(rig) for _ in range(5)]
    await waiting(rig, 4)
    await engine.stop()
    assert (await wires[0].answer()).status == 502
    await rig.until_at_least('llmop_gateway_upstream_errors_total{class="connect",model="m"}', 2)
    gate.let(10)
    await engine.start()
    assert {answer.status for answer in await answers(*wires[1:])} == {200}


async def test_when_the_last_replica_goes_those_that_wait_stay(rig: Rig) -> None:
    gate = Gate()
    (engine,) = await rig.serve(gate, max_in_flight=1, queue=waits(ttl_s=60))
    wires = [await sent(rig) for _ in range(3)]
    await waiting(rig, 2)
    gone = engine.endpoint(state=gateway_pb2.Endpoint.STATE_DRAINING)
    await rig.control.acknowledged(rig.control.publish([gone], [model("m", max_in_flight=1, queue=waits())]))
    gate.let(1)
    assert (await wires[0].answer()).status == 200
    assert await rig.metric(QUEUED) == 2
    heir = await rig.engine(answer_any)
    await rig.publish(heir, max_in_flight=1, queue=waits())
    assert {answer.status for answer in await answers(*wires[1:])} == {200}
    assert len(engine.calls) == 1


async def test_a_model_that_is_gone_keeps_nobody_waiting(rig: Rig) -> None:
    await rig.publish(queue=waits())
    wire = await sent(rig)
    await waiting(rig, 1)
    await rig.control.acknowledged(rig.control.publish([], []))
    assert (await wire.answer()).status == 503


async def test_while_the_controller_is_away_requests_wait_and_it_hears_of_them_afterwards(rig: Rig) -> None:
    await rig.publish(queue=waits())
    await rig.control.stop()
    await rig.until_metric("llmop_gateway_controller_connected", 0)
    wires = [await sent(rig, *form) for form in (CHAT, GENERATE_STREAM)]
    await waiting(rig, 2)
    await rig.control.start()
    await rig.control.loads(lambda loads: [2] == [each.queued for each in loads])
    engine = await rig.engine(answer_any)
    await rig.publish(engine, queue=waits())
    assert {answer.status for answer in await answers(*wires)} == {200}


@FORMS
async def test_who_waits_when_the_gateway_ends_is_told_so(rig: Rig, path: str, body: bytes) -> None:
    gate = Gate()
    await rig.serve(gate, max_in_flight=1, queue=waits())
    served = await sent(rig)
    await rig.until_metric(IN_FLIGHT, 1)
    wire = await sent(rig, path, body)
    await waiting(rig, 1)
    stopping = asyncio.create_task(rig.stop())
    answer = await wire.answer()
    assert (answer.status, answer.headers["x-llmop-dropped-reason"]) == (503, "shutting_down")
    assert await wire.ended() == b""
    gate.let(1)
    assert (await served.answer()).status == 200
    await stopping


# Progress

STREAM = b'data: {"token":1}\n\ndata: [DONE]\n\n'


async def rest(wire: Wire) -> bytes:
    """What still comes of a stream."""
    body = b""
    while piece := await wire.chunk():
        body += piece
    return body


async def test_a_stream_that_asks_for_it_is_told_what_it_waits_for(rig: Rig) -> None:
    now = int(SystemClock().now())
    pending = gateway_pb2.NextReplica(stage=gateway_pb2.NextReplica.STAGE_PENDING, starts_at=now + 40)
    await rig.publish(queue=waits(), next_replica=pending)
    wire = await sent(rig, *CHAT_STREAM, headers={"x-llmop-progress": "1"})
    status, headers = await wire.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    first = await wire.chunk()
    assert first.startswith(b": pending, starts in ~")
    assert first.endswith(b" s\n\n")
    loading = gateway_pb2.NextReplica(stage=gateway_pb2.NextReplica.STAGE_LOADING)
    await rig.publish(queue=waits(), next_replica=loading)
    while (comment := await wire.chunk()) != b": loading\n\n":
        assert comment.startswith(b": pending")
    engine = await rig.engine(answer_any)
    await rig.publish(engine, queue=waits())
    assert await rest(wire) == STREAM
    # The connection is as good as before.
    await wire.send(rig.request())
    assert (await wire.answer()).status == 200


async def test_the_place_in_the_queue_is_told(rig: Rig) -> None:
    gate = Gate()
    await rig.serve(gate, max_in_flight=1, queue=waits())
    served = await sent(rig)
    await rig.until_metric(IN_FLIGHT, 1)
    other = await sent(rig)
    await waiting(rig, 1)
    wire = await sent(rig, *GENERATE_STREAM, headers={"x-llmop-progress": "1"})
    await wire.head()
    assert await wire.chunk() == b": queued 2\n\n"
    gate.let(3)
    assert {answer.status for answer in await answers(served, other)} == {200}
    assert (await rest(wire)).endswith(STREAM)


@pytest.mark.parametrize(
    "form, error",
    [
        (CHAT_STREAM, b'data: {"error":{"message":"no replica of the model \'m\''),
        (GENERATE_STREAM, b'data: {"error":"no replica of the model \'m\''),
    ],
)
async def test_an_error_after_a_comment_is_an_event_of_the_dialect(
    rig: Rig, form: tuple[str, bytes], error: bytes
) -> None:
    await rig.publish(queue=waits(no_endpoint_ttl_s=1))
    wire = await sent(rig, *form, headers={"x-llmop-progress": "1"})
    answer = await wire.answer()
    assert (answer.status, answer.whole) == (200, True)
    comment, event, nothing = answer.body.split(b"\n\n")
    assert (comment, nothing) == (b": waiting for a replica", b"")
    assert event.startswith(error)


async def test_what_an_engine_refuses_after_a_comment_is_one_event_too(rig: Rig) -> None:
    async def refuses(call: Call) -> None:
        await call.answer(b'{"error": {"message": "too long"}}', "422 Unprocessable Entity")

    await rig.publish(queue=waits())
    wire = await sent(rig, *CHAT_STREAM, headers={"x-llmop-progress": "1"})
    await wire.head()
    engine = await rig.engine(refuses)
    await rig.publish(engine, queue=waits())
    assert await rest(wire) == b': waiting for a replica\n\ndata: {"error":{"message":"too long"}}\n\n'
    assert await rig.metric('llmop_gateway_requests_total{code="4xx",dialect="openai",model="m"}') == 1


async def test_nothing_is_sent_early_to_who_wants_one_answer_or_has_not_asked(rig: Rig) -> None:
    await rig.publish(queue=waits(no_endpoint_ttl_s=1))
    for form, headers in (
        (CHAT, {"x-llmop-progress": "1"}),
        (GENERATE, {"x-llmop-progress": "1"}),
        (CHAT_STREAM, {}),
    ):
        assert (await rig.ask(*form, headers=headers)).status == 503


async def test_a_client_of_http_1_0_gets_comments_too(rig: Rig) -> None:
    await rig.publish(queue=waits(no_endpoint_ttl_s=1))
    wire = await rig.wire()
    request = rig.request(*CHAT_STREAM, headers={"x-llmop-progress": "1"})
    await wire.send(request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"))
    answer = await wire.answer()
    assert answer.headers["connection"] == "close"
    assert answer.body.startswith(b": waiting for a replica\n\ndata: {")


async def test_who_leaves_while_it_is_told_leaves_the_queue(rig: Rig) -> None:
    await rig.publish(queue=waits())
    wire = await sent(rig, *CHAT_STREAM, headers={"x-llmop-progress": "1"})
    await wire.head()
    await waiting(rig, 1)
    wire.close()
    await waiting(rig, 0)


# Hostile


async def test_bytes_of_those_that_wait_are_bounded(rig: Rig) -> None:
    await rig.publish(queue=waits(megabytes=16))
    body = b'{"model":"m","p":"' + b"x" * (3 * 1024 * 1024) + b'"}'
    wires = [await sent(rig, body=body) for _ in range(12)]
    await waiting(rig, 5)
    assert await rig.metric('llmop_gateway_queued_bytes{model="m"}') <= 16 * 1024 * 1024
    refused = await answers(*wires[5:])
    assert {(answer.status, answer.headers["x-llmop-dropped-reason"]) for answer in refused} == {
        (503, "queue_full")
    }
    engine = await rig.engine(answer_any)
    await rig.publish(engine, queue=waits(megabytes=16))
    assert {answer.status for answer in await answers(*wires[:5])} == {200}
    assert {len(call.body) for call in engine.calls} == {len(body)}
    assert await rig.metric('llmop_gateway_queued_bytes{model="m"}') == 0


async def test_what_is_pipelined_behind_a_request_that_waits_stays_in_order(rig: Rig) -> None:
    await rig.publish(queue=waits())
    wire = await rig.wire()
    await wire.send(rig.request() + rig.request("/v1/models", b"", method="GET") + rig.request())
    await waiting(rig, 1)
    engine = await rig.engine(answer_any)
    await rig.publish(engine, queue=waits())
    got = [await wire.answer() for _ in range(3)]
    assert [answer.status for answer in got] == [200, 200, 200]
    assert got[1].json()["object"] == "list"


async def test_every_series_of_the_queue_is_there_from_the_beginning(rig: Rig) -> None:
    await rig.publish()
    for priority in ("system", "interactive", "default", "bulk"):
        assert await rig.metric(f'llmop_gateway_queued{{model="m",priority="{priority}"}}') == 0
    for reason in ("no_endpoint", "saturated", "queue_full", "ttl_expired", "shutting_down"):
        assert await rig.metric(dropped(reason)) == 0
    assert await rig.metric('llmop_gateway_queue_wait_seconds_bucket{le="+Inf",model="m"}') == 0
    assert await rig.metric('llmop_gateway_queued_bytes{model="m"}') == 0
