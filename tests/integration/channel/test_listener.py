"""The listener over real HTTPS: what agents are told, and what whoever reaches the port can do."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.integration.channel.conftest import Agent, Door
from tests.unit.channel.desk_rig import job_name_of, token_of, uid_of

from llmop.channel import certificates, gate, listener, messages
from llmop.domain import errors
from llmop.domain.replica import AgentPhase, EndReason, EngineLoad

LONG_S = 30.0  # never waited out
END = {"reason": "Drained", "endedAt": 1_760_000_000, "exitCode": 0, "message": "", "logTail": ["bye"]}
HUGE = 10**400


async def claimed(door: Door, number: int = 1, job_id: str = "5") -> Agent:
    agent = await door.agent(number)
    reply = await agent.claim(jobId=job_id, holder={"jobId": job_id, "restartCount": 0})
    assert (200, {"verdict": "run", "takeOver": False}) == (reply.status, reply.body)
    return agent


async def test_claim_heartbeat_order_and_end_on_one_connection(door: Door) -> None:
    agent = await claimed(door)
    reply = await agent.beat()
    assert (200, {"period": 5.0, "orders": []}) == (reply.status, reply.body)
    beat = door.rig.known()
    assert beat is not None
    assert (AgentPhase.READY, "10.0.0.7", 8000) == (beat.phase, beat.host, beat.port)
    waiting = asyncio.create_task(agent.beat(seq=2, wait=LONG_S))
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    door.rig.desk.drain(uid_of(1), "a", "ScaledDown", door.rig.clock.now() + 60)
    ordered = await asyncio.wait_for(waiting, LONG_S)
    order = {"id": "a", "type": "drain", "reason": "ScaledDown", "deadline": 60.0}
    assert [order] == ordered.body["orders"]
    reply = await agent.beat(seq=3, phase="ended", endpoint=None, exit=END)
    assert 200 == reply.status
    end = door.rig.known().end  # type: ignore[union-attr]
    assert end is not None
    assert (EndReason.DRAINED, ("bye",)) == (end.reason, end.log_tail)


BAD: list[tuple[str, dict[str, Any]]] = [
    *(("replica:", {"replica": value}) for value in (None, 5, "", "x" * 301, "a\nb", ["u"])),
    *(("jobName:", {"jobName": value}) for value in (None, "", {})),
    *(("jobId:", {"jobId": value}) for value in (None, 5, "", "-u root", "1 2", "x" * 65, "5\u0000", "1;ls")),
    *(("restartCount:", {"restartCount": value}) for value in (None, -1, True, "0", 0.5, 2**31, HUGE)),
    *(("seq:", {"seq": value}) for value in (None, -1, "1", HUGE)),
    *(("phase:", {"phase": value}) for value in (None, "", "Ready", 1)),
    *(("endpoint:", {"endpoint": value}) for value in ("h:1", [], 5)),
    *(
        ("endpoint.host:", {"endpoint": {"host": value, "port": 1}})
        for value in (None, "", "a b", "a/b", "h@evil", "\ud800", 5)
    ),
    *(("endpoint.port:", {"endpoint": {"host": "h", "port": value}}) for value in (None, 0, -1, 65536, "80")),
    *(("engineRestarts:", {"engineRestarts": value}) for value in (-1, "0", HUGE)),
    *(("connections:", {"connections": value}) for value in (-1, "0")),
    *(
        ("progress:", {"progress": value})
        for value in (-0.1, 1.1, "half", True, float("nan"), float("inf"), HUGE)
    ),
    *(("wait:", {"wait": value}) for value in (-1, "5", True, float("nan"), float("inf"), HUGE, [])),
    *(("node:", {"node": value}) for value in (5, {})),
    *(("detail:", {"detail": value}) for value in (5, [])),
    ("exit:", {"exit": "Drained", "phase": "ended"}),
    ("exit:", {"exit": END}),
    ("ending:", {"ending": "Drained"}),
    ("ending:", {"ending": "Bored", "phase": "draining"}),
    ("ending:", {"ending": 3, "phase": "draining"}),
    ("exit.endedAt: is missing", {"exit": {"reason": "Drained"}, "phase": "ended"}),
    ("exit.reason: is missing", {"exit": {"endedAt": 1}, "phase": "ended"}),
    *(
        ("exit:", {"exit": {**END, **change}, "phase": "ended"})
        for change in (
            {"reason": "Bored"},
            {"endedAt": "soon"},
            {"endedAt": float("nan")},
            {"endedAt": float("inf")},
            {"endedAt": HUGE},
            {"endedAt": -1},
            {"exitCode": "0"},
            {"exitCode": HUGE},
            {"logTail": 5},
        )
    ),
]


async def test_a_bad_field_of_a_heartbeat_is_named_and_nothing_is_taken_in(door: Door) -> None:
    agent = await claimed(door)
    for field, change in BAD:
        reply = await agent.beat(**change)
        assert 400 == reply.status, (change, reply)
        assert reply.body["error"].startswith(field), (change, reply)
    assert door.rig.known() is None
    assert 200 == (await agent.beat()).status


SAID = {"queueDepth": 3, "running": 2, "kvCacheUsage": 0.75, "age": 1.5}
NO_NUMBERS = (None, "3", True, -1, float("nan"), float("inf"), HUGE, [3], {"value": 3})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (SAID, EngineLoad(queue_depth=3, running=2, kv_cache_usage=0.75, age_s=1.5)),
        ({"age": 0}, EngineLoad()),
        (
            {**SAID, "queueDepth": 3.0, "running": 2.5},
            EngineLoad(queue_depth=3, kv_cache_usage=0.75, age_s=1.5),
        ),
        ({**SAID, "kvCacheUsage": 1.01}, EngineLoad(queue_depth=3, running=2, age_s=1.5)),
        ({**SAID, "kvCacheUsage": 1}, EngineLoad(queue_depth=3, running=2, kv_cache_usage=1.0, age_s=1.5)),
        *(
            (
                {"queueDepth": value, "running": value, "kvCacheUsage": value, "age": 1.5},
                EngineLoad(age_s=1.5),
            )
            for value in NO_NUMBERS
        ),
        *(({**SAID, "age": value}, None) for value in NO_NUMBERS),
        *((value, None) for value in (None, 5, "busy", [], [SAID])),
    ],
)
async def test_what_an_engine_cannot_have_said_is_not_known_and_refuses_no_heartbeat(
    door: Door, said: object, expected: EngineLoad | None
) -> None:
    agent = await claimed(door)
    assert 200 == (await agent.beat(load=said)).status

    assert expected == door.rig.known().load  # type: ignore[union-attr]


async def test_an_agent_without_the_field_says_nothing_of_its_engine(door: Door) -> None:
    agent = await claimed(door)
    assert 200 == (await agent.beat()).status

    assert door.rig.known().load is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("replica:", {"replica": None}),
        ("jobName:", {"jobName": 5}),
        ("jobId:", {"jobId": "--full"}),
        ("restartCount:", {"restartCount": HUGE}),
        ("holder:", {"holder": "5"}),
        ("holder.jobId:", {"holder": {"restartCount": 0}}),
        ("holder.restartCount:", {"holder": {"jobId": "5"}}),
    ],
)
async def test_a_bad_field_of_a_claim_is_named(door: Door, field: str, change: dict[str, Any]) -> None:
    reply = await (await door.agent()).claim(**change)
    assert 400 == reply.status, reply
    assert reply.body["error"].startswith(field)
    assert (await door.rig.ledger()).submission.job_id is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"seq": ' + b"9" * 10_000 + b"}"],
    ids=["empty", "half", "list", "null", "text", "no UTF-8", "deep", "a long number"],
)
async def test_a_body_that_is_no_object_is_refused(door: Door, content: bytes) -> None:
    agent = await door.agent()
    reply = await agent.post("heartbeat", content)
    assert 400 == reply.status
    assert reply.body["error"].startswith("body: must be")
    assert 400 == (await agent.post("claim", content)).status


async def test_a_body_that_is_too_long_is_refused(door: Door) -> None:
    reply = await (await door.agent()).post("heartbeat", b" " * (messages.BODY_LIMIT + 1))
    assert (400, f"body: must be at most {messages.BODY_LIMIT} bytes") == (reply.status, reply.body["error"])


async def test_text_for_people_is_cut_and_made_harmless(door: Door) -> None:
    agent = await claimed(door)
    tail = ["\x1b[31mred\x1b[0m", "nul\x00", "half \ud800", "x" * 9999]
    reply = await agent.beat(
        phase="ended",
        endpoint=None,
        detail="a\nb\x1b]0;title\x07" + "x" * 9999,
        exit={**END, "logTail": tail},
    )
    assert 200 == reply.status
    beat = door.rig.known()
    assert beat is not None
    assert beat.end is not None
    assert ("red", "nul\ufffd", "half \ufffd", "x" * 500) == beat.end.log_tail
    assert beat.detail.startswith("a b\ufffd]0;title\ufffdx")
    assert messages.DETAIL_LENGTH == len(beat.detail)


@pytest.mark.parametrize("message", ["claim", "heartbeat"])
async def test_no_token_and_a_wrong_token_are_refused(door: Door, message: str) -> None:
    agent = await door.agent()
    for token in ("", "wrong", token_of(2)):
        reply = await agent.post(message, agent.message(), token=token)
        assert 401 == reply.status
        assert token_of(1) not in str(reply.body)


async def test_a_token_does_not_speak_for_another_replica(door: Door) -> None:
    agent = await claimed(door)
    other = await agent.post("heartbeat", agent.message(replica=uid_of(2)))
    assert 401 == other.status
    named = await agent.post("claim", agent.message(jobName=job_name_of(2)))
    assert 403 == named.status
    assert (await door.rig.ledger(2)).submission.job_id is None
    assert door.rig.known(2) is None


async def test_a_superseded_job_is_told_so(door: Door) -> None:
    await claimed(door)
    twin = await door.agent()
    reply = await twin.beat(jobId="6")
    assert (409, "superseded") == (reply.status, reply.body["verdict"])
    reply = await twin.claim(jobId="6")
    assert (200, "superseded") == (reply.status, reply.body["verdict"])


async def test_a_claim_that_is_replayed_changes_nothing(door: Door) -> None:
    agent = await claimed(door)
    revision = await door.rig.store.revision()
    replies = [await agent.claim() for _ in range(3)]
    assert [{"verdict": "run", "takeOver": False}] * 3 == [reply.body for reply in replies]
    assert revision == await door.rig.store.revision()


async def test_a_store_that_does_not_answer_means_try_again(door: Door) -> None:
    agent = await door.agent()

    async def away(*_: Any, **__: Any) -> Any:
        raise errors.Unavailable("the store does not answer")

    door.rig.store.ledgers = away  # type: ignore[method-assign]
    assert (503, 503) == ((await agent.claim()).status, (await agent.beat()).status)


async def test_a_deposed_controller_means_try_again(door: Door) -> None:
    await door.rig.store.take_over("another", 0.0)
    reply = await (await door.agent()).claim()
    assert 503 == reply.status


async def test_a_client_that_trusts_another_ca_does_not_talk_to_us(door: Door, tmp_path: Path) -> None:
    other, _, _ = certificates.ensure(tmp_path / "other", tmp_path / "other", door.rig.wall_clock())
    with pytest.raises(ssl.SSLCertVerificationError):
        await door.agent(ca=other)


async def test_garbage_is_answered_or_dropped_and_the_next_agent_served(door: Door) -> None:
    for noise in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", os.urandom(3000), b"POST"):
        agent = await door.agent()
        agent.writer.write(noise)
        agent.writer.write_eof() if agent.writer.can_write_eof() else agent.writer.close()
    _, plain = await asyncio.open_connection("127.0.0.1", door.listener.port)
    plain.write(b"POST /agent/v1/claim HTTP/1.1\r\n\r\n")
    assert 200 == (await (await door.agent()).claim()).status
    plain.close()


@pytest.mark.parametrize("path", ["", "nothing", "claim/", "../claim"])
async def test_other_paths_and_methods_do_nothing(door: Door, path: str) -> None:
    agent = await door.agent()
    assert (await agent.post(path, agent.message())).status in (404, 307)
    agent.writer.write(b"GET /agent/v1/claim HTTP/1.1\r\nHost: c\r\n\r\n")
    assert 405 == (await agent.reply()).status


async def test_a_head_without_end_is_cut_off(door: Door) -> None:
    agent = await door.agent()
    agent.writer.write(b"POST /agent/v1/claim HTTP/1.1\r\n")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        while True:
            agent.writer.write(b"X-Filler: " + b"x" * 1000 + b"\r\n")
            await agent.writer.drain()
            await asyncio.sleep(0)
            if agent.reader.at_eof():
                raise ConnectionResetError
    assert 200 == (await (await door.agent()).claim()).status


async def test_a_message_that_does_not_come_in_is_dropped(door: Door) -> None:
    """Whether nothing, half a head or half a body was sent; a held reply is no such thing."""
    agent = await claimed(door)
    await agent.beat()
    waiting = asyncio.create_task(agent.beat(seq=2, wait=LONG_S))
    begun = asyncio.get_running_loop().time()
    head = b"POST /agent/v1/claim HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer t\r\nContent-Length: 10\r\n"
    slow = [await door.agent() for _ in range(4)]
    assert 200 == (await slow[3].claim()).status
    for each, part in zip(slow, (b"", head, head + b"\r\n{", head), strict=True):
        each.writer.write(part)
    left = [await asyncio.wait_for(each.reader.read(), 3 * listener.REQUEST_S) for each in slow]
    print(f"dropped after {asyncio.get_running_loop().time() - begun:.1f} s")
    assert [b"", b"", b"", b""] == left
    assert not waiting.done()
    door.rig.desk.close()
    assert 200 == (await waiting).status


async def test_a_client_that_leaves_leaves_no_trace(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """While its reply is held, or in the middle of its message."""
    caplog.set_level(logging.WARNING)
    holding = await claimed(door)
    await holding.beat()
    waiting = asyncio.create_task(holding.beat(seq=2, wait=LONG_S))
    half = await door.agent()
    half.writer.write(
        b"POST /agent/v1/claim HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer t\r\nContent-Length: 99\r\n\r\n{"
    )
    await asyncio.wait([waiting], timeout=0.2)
    half.writer.transport.abort()
    holding.writer.transport.abort()
    await asyncio.gather(waiting, return_exceptions=True)
    door.rig.desk.drain(uid_of(1), "a", "ScaledDown", door.rig.clock.now() + 60)
    # The order was not lost with the reply.
    again = await (await door.agent()).beat(seq=3, wait=LONG_S)
    assert ["a"] == [order["id"] for order in again.body["orders"]]
    assert [] == [record.getMessage() for record in caplog.records]


async def test_strangers_are_bounded_and_shut_nobody_out(door: Door) -> None:
    """Whether they do not even speak TLS or send no token; whoever has shown one stays."""
    agent = await claimed(door)
    waiting = asyncio.create_task(agent.beat(wait=LONG_S))
    silent = [await asyncio.open_connection("127.0.0.1", door.listener.port) for _ in range(30)]
    speaking = [await door.agent() for _ in range(gate.STRANGERS_MAX)]
    # Those that came first have made room, one for each that came later.
    assert [b""] * 30 == [await reader.read() for reader, _ in silent]
    assert 401 == (await speaking[-1].post("claim", agent.message(), token="x")).status
    other = await claimed(door, 2)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await speaking[0].claim()
    assert 200 == (await other.beat()).status
    assert not waiting.done()
    door.rig.desk.drain(uid_of(1), "a", "ScaledDown", door.rig.clock.now() + 60)
    assert ["a"] == [order["id"] for order in (await waiting).body["orders"]]
    for _, writer in silent:
        writer.close()


async def test_a_connection_takes_little_memory(door: Door) -> None:
    """Of both ends, which are in this process: without a buffer of asyncio's own size, 256 KiB."""
    first = await door.agent()  # what is made once is there
    tracemalloc.start()
    try:
        agents = [await door.agent() for _ in range(20)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < len(agents) * 2 * 96 * 1024
    assert 401 == (await first.post("claim", agents[0].message(), token="x")).status


async def test_three_hundred_held_heartbeats_get_their_orders(door: Door) -> None:
    numbers = range(1, 301)
    for number in numbers[2:]:
        await door.rig.add(number)
    agents = [await claimed(door, number, str(number)) for number in numbers]
    begun = asyncio.get_running_loop().time()
    replies = await asyncio.gather(*(agent.beat(jobId=str(agent.number)) for agent in agents))
    assert {200} == {reply.status for reply in replies}
    waiting = [
        asyncio.create_task(agent.beat(jobId=str(agent.number), seq=2, wait=LONG_S)) for agent in agents
    ]
    await asyncio.wait(waiting, timeout=1.0)
    assert not any(each.done() for each in waiting)
    for number in numbers:
        door.rig.desk.drain(uid_of(number), str(number), "ScaledDown", door.rig.clock.now() + 60)
    ordered = await asyncio.gather(*waiting)
    print(f"300 agents took {asyncio.get_running_loop().time() - begun:.1f} s")
    assert [str(number) for number in numbers] == [reply.body["orders"][0]["id"] for reply in ordered]


async def test_the_end_of_the_listener_answers_what_is_held(door: Door) -> None:
    agent = await claimed(door)
    await agent.beat()
    waiting = asyncio.create_task(agent.beat(seq=2, wait=LONG_S))
    await asyncio.wait([waiting], timeout=0.2)
    door.rig.desk.close()
    await door.listener.stop()
    assert (200, []) == ((await waiting).status, waiting.result().body["orders"])


async def test_an_agent_between_two_heartbeats_does_not_hold_up_the_end(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not look at its connection then, so it does not answer the farewell of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=door.ca)

    def connect() -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", door.listener.port), timeout=10))

    connection = await asyncio.to_thread(connect)
    with contextlib.closing(connection), caplog.at_level(logging.INFO):
        await asyncio.to_thread(connection.sendall, b"GET / HTTP/1.1\r\nHost: c\r\n\r\n")
        assert (await asyncio.to_thread(connection.recv, 1000)).startswith(b"HTTP/1.1 404 ")
        await door.listener.stop()

        assert [] == [each.message for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("host", "port"), [("no such host.invalid", 0), ("192.0.2.1", 0), ("x" * 300, 0), ("127.0.0.1", -1)]
)
def test_an_address_that_cannot_be_had_is_named(host: str, port: int) -> None:
    with pytest.raises(errors.NeedsUser, match=f"--agent-listen {host}:{port}: "):
        listener.bind(host, port)


def test_a_port_that_is_taken_is_named() -> None:
    with listener.bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(errors.NeedsUser, match=f"--agent-listen 127.0.0.1:{port}: .*in use"):
            listener.bind("127.0.0.1", port)


async def test_a_certificate_that_cannot_be_used_ends_the_start(door: Door, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with listener.bind("127.0.0.1", 0) as bound:
        at = listener.Listener(door.rig.desk, door.rig.clock, broken, broken, bound)
        with pytest.raises(ssl.SSLError):
            await asyncio.wait_for(at.start(), LONG_S)
