"""Writing past the loop's iteration: nothing is lost, nothing changes places, and nothing goes to a descriptor's next owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from llmop.gateway.direct import DirectWriter


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    far.setblocking(False)
    try:
        yield transport, far
    finally:
        transport.abort()
        far.close()


async def test_what_the_socket_does_not_take_follows_in_order() -> None:
    async with pair() as (transport, far):
        writer = DirectWriter(transport).write
        pieces = [b"%06d" % number * 5_000 for number in range(100)]
        for piece in pieces:
            writer(piece)
        assert transport.get_write_buffer_size()
        received = b""
        async with asyncio.timeout(20):
            while len(received) < sum(map(len, pieces)):
                received += await asyncio.get_running_loop().sock_recv(far, 1 << 20)
        assert b"".join(pieces) == received


async def test_a_small_write_is_there_at_once() -> None:
    async with pair() as (transport, far):
        DirectWriter(transport).write(b"x")
        assert b"x" == far.recv(10)


async def test_what_somebody_else_has_written_goes_first() -> None:
    async with pair() as (transport, far):
        writer = DirectWriter(transport)
        transport.write(b"first ")
        writer.is_behind = True
        writer.write(b"second")
        writer.write(b" third")
        received = b""
        async with asyncio.timeout(20):
            while len(received) < len(b"first second third"):
                received += await asyncio.get_running_loop().sock_recv(far, 100)
        assert b"first second third" == received
        writer.write(b"x")
        assert b"x" == far.recv(10)


async def test_a_peer_that_is_gone_ends_the_connection() -> None:
    lost = asyncio.Event()

    class Watch(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(Watch, sock=near)
    far.close()
    DirectWriter(transport).write(b"x")
    async with asyncio.timeout(10):
        await lost.wait()


async def test_the_next_owner_of_a_descriptor_gets_nothing() -> None:
    async with pair() as (transport, far):
        writer = DirectWriter(transport).write
        descriptor = transport.get_extra_info("socket").fileno()
        transport.abort()
        far.setblocking(True)
        assert b"" == await asyncio.to_thread(far.recv, 10)  # closed
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if descriptor not in (ours.fileno(), theirs.fileno()):
                pytest.fail("the descriptor was not given to the next socket")
            theirs.setblocking(False)
            ours.setblocking(False)
            writer(b"secret")
            for end in (ours, theirs):
                with pytest.raises(BlockingIOError):
                    end.recv(10)
