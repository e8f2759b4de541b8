"""Clients that smuggle, flood or dawdle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.gateway.rig import Rig, gateway_rig
from tests.integration.gateway.upstreams import polite

from llmop.gateway.settings import Timeouts

HEAD = b"POST /generate HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
SECOND = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"

SMUGGLING = {
    "length and chunks": HEAD + b"content-length: 5\r\n" + CHUNKED + b"0\r\n\r\n" + SECOND,
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SECOND,
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": HEAD + b"content-length: 2, 2\r\n\r\n{}",
    "a signed length": HEAD + b"content-length: +2\r\n\r\n{}",
    "a negative length": HEAD + b"content-length: -2\r\n\r\n{}",
    "an endless length": HEAD + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "a folded line": HEAD + b"x-a: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"content-length: 2\n\n{}",
    "one bare line feed": HEAD + b"x-a: b\ncontent-length: 2\r\n\r\n{}",
    "a bare carriage return": HEAD + b"x-a: b\rx-b: c\r\ncontent-length: 2\r\n\r\n{}",
    "a blank before the colon": HEAD + b"content-length : 2\r\n\r\n{}",
    "NUL in a value": HEAD + b"x-a: a\0b\r\ncontent-length: 2\r\n\r\n{}",
    "NUL in a name": HEAD + b"x\0a: b\r\ncontent-length: 2\r\n\r\n{}",
    "an unknown coding": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked after gzip": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunks in HTTP/1.0": HEAD.replace(b"/1.1", b"/1.0") + CHUNKED + b"0\r\n\r\n",
    "a negative chunk": HEAD + CHUNKED + b"-1\r\n\r\n",
    "a chunk in 0x": HEAD + CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "an endless chunk": HEAD + CHUNKED + b"fffffffffffffffff\r\n{}",
    "a chunk with a bare line feed": HEAD + CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": HEAD + CHUNKED + b"2\r\n{}X\r\n0\r\n\r\n",
    "an extension with a line feed": HEAD + CHUNKED + b"2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "two hosts": HEAD + b"host: y\r\ncontent-length: 2\r\n\r\n{}",
    "no host": HEAD.replace(b"host: x\r\n", b"") + b"content-length: 2\r\n\r\n{}",
    "an upgrade": HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"POST /generate\r\n\r\n",
    "CONNECT": b"CONNECT engine:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path that is not ASCII": HEAD.replace(b"/generate", b"/\xff\xfe") + b"content-length: 2\r\n\r\n{}",
    "a target without a path": HEAD.replace(b"/generate", b"x:y:z") + b"content-length: 2\r\n\r\n{}",
    "a target with a bad port": HEAD.replace(b"/generate", b"http://a:99999999/")
    + b"content-length: 2\r\n\r\n{}",
    "an asterisk": HEAD.replace(b"POST /generate", b"POST *") + b"content-length: 2\r\n\r\n{}",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_ambiguous_requests_are_refused_and_end_the_connection(rig: Rig, name: str) -> None:
    (engine,) = await rig.serve(polite)
    text = SMUGGLING[name]
    wire = await rig.wire()
    await wire.send(text % rig.key.encode() if b"%b" in text else text)
    answer = await wire.answer()
    assert answer.status in (400, 501, 505)
    assert answer.json()["error"]["message"]
    assert b"" == await wire.ended()
    assert [] == engine.calls


async def test_heads_are_bounded(rig: Rig) -> None:
    for filler in (b"x-a: " + b"a" * 70_000, b"x-a: a\r\n" * 9_000):
        wire = await rig.wire()
        await wire.send(HEAD % rig.key.encode() + filler)
        assert 431 == (await wire.answer()).status
        assert b"" == await wire.ended()


@pytest.mark.parametrize("rest", [b"2\r\n{}\r\n0\r\nx-a: ", b"2;a=", b"2\r\n{}\r\n2;"])
async def test_trailers_and_extensions_of_chunks_are_bounded(rig: Rig, rest: bytes) -> None:
    wire = await rig.wire()
    await wire.send(HEAD % rig.key.encode() + CHUNKED + rest + b"a" * 500_000)
    assert 431 == (await wire.answer()).status


async def test_extensions_of_chunks_stop_at_the_gateway(rig: Rig) -> None:
    (engine,) = await rig.serve(polite)
    wire = await rig.wire()
    await wire.send(HEAD % rig.key.encode() + CHUNKED + b'2;a=b;c="d"\r\n{}\r\n0;e\r\n\r\n')
    assert 200 == (await wire.answer()).status
    (call,) = engine.calls
    assert (b"{}", "2", None) == (call.body, call.header("content-length"), call.header("transfer-encoding"))


async def test_bodies_are_bounded(folder: Path) -> None:
    async with gateway_rig(folder, body_limit=1000) as rig:
        (engine,) = await rig.serve(polite)
        assert 200 == (await rig.ask("/generate", b"x" * 1000)).status
        assert 413 == (await rig.ask("/generate", b"x" * 1001)).status
        wire = await rig.wire()
        await wire.send(HEAD % rig.key.encode() + CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n")
        assert 413 == (await wire.answer()).status
        assert 1 == len(engine.calls)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "slow_head"),
        (b"POST /gen", "slow_head"),
        (
            b"POST /generate HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ncontent-length: 10\r\n\r\nabc",
            "slow_body",
        ),
    ],
)
async def test_slow_clients_are_let_go(folder: Path, sent: bytes, reason: str) -> None:
    timeouts = Timeouts(head=0.3, body_idle=0.3, linger=0.3, shutdown=1)
    async with gateway_rig(folder, timeouts=timeouts) as rig:
        await rig.serve(polite)
        wire = await rig.wire()
        await wire.send(sent.replace(b"KEY", rig.key.encode()))
        assert 408 == (await wire.answer()).status
        assert b"" == await wire.ended()
        assert 1.0 == await rig.metric(f'llmop_gateway_refused_connections_total{{reason="{reason}"}}')


async def test_idle_connections_are_closed(folder: Path) -> None:
    async with gateway_rig(folder, timeouts=Timeouts(keep_alive=0.3, shutdown=1)) as rig:
        await rig.serve(polite)
        wire = await rig.wire()
        await wire.send(rig.request())
        assert 200 == (await wire.answer()).status
        assert b"" == await wire.ended()
