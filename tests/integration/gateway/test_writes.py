"""What the gateway relies on: a transport writes at once, not at the end of the loop's iteration, which is long with hundreds of streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from tests.waiting import PATIENCE_S


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
        pieces = [b"%06d" % number * 5_000 for number in range(100)]
        for piece in pieces:
            transport.write(piece)
        assert transport.get_write_buffer_size()
        received = b""
        async with asyncio.timeout(PATIENCE_S):
            while len(received) < sum(map(len, pieces)):
                received += await asyncio.get_running_loop().sock_recv(far, 1 << 20)
        assert b"".join(pieces) == received


async def test_a_small_write_is_there_at_once() -> None:
    async with pair() as (transport, far):
        transport.write(b"x")
        assert b"x" == far.recv(10)
