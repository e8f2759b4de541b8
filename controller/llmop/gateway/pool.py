"""Connections to one endpoint: those that wait for the next request, and the making of new ones."""

import asyncio
import socket
from pathlib import Path

from llmop.gateway.upstream import UpstreamConnection

MOST_IDLE = 512

# A node that vanishes without a word is noticed after about a minute, however long its answer takes.
_KEEP_ALIVE_IDLE, _KEEP_ALIVE_INTERVAL, _KEEP_ALIVE_PROBES = 30, 10, 3


class Closing:
    """Connections that were told to close and are not gone yet."""

    def __init__(self) -> None:
        self._connections: set[UpstreamConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, connection: UpstreamConnection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def discard(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def done(self) -> None:
        """Returns once all are gone."""
        await self._empty.wait()


class Pool:
    """Last in, first out, so that what a burst needed grows old and is closed."""

    def __init__(
        self,
        host: str,
        port: int,
        loop: asyncio.AbstractEventLoop,
        closing: Closing,
        path: Path | None = None,
    ) -> None:
        """`closing` is shared by all pools; with `path` connections are made to this Unix socket."""
        self._path = path
        self._host = host
        self._port = port
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._closing = closing
        self.draining = False

    def take(self) -> UpstreamConnection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """After an answer that is complete."""
        connection.reader = None
        if connection.pieces:
            connection.pieces = []
        idle = self._idle
        if (
            self.draining
            or not connection.reusable
            or len(idle) >= MOST_IDLE
            or connection.transport.get_write_buffer_size()
        ):
            self._close(connection)
        else:
            idle.append(connection)

    async def connect(self, timeout: float) -> UpstreamConnection:
        """A new connection. Raises OSError (TimeoutError after `timeout` seconds)."""
        connection = UpstreamConnection(self, self._loop)
        try:
            async with asyncio.timeout(timeout):
                if self._path is None:
                    await self._loop.create_connection(lambda: connection, self._host, self._port)
                else:
                    await self._loop.create_unix_connection(lambda: connection, str(self._path))
        except BaseException:
            connection.abandon()
            raise
        if connection.transport.is_closing():
            raise ConnectionResetError("it was closed at once")
        if self._path is None:
            keep_watch(connection.transport)
        return connection

    def close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def close_older(self, before: float) -> None:
        """Closes what has waited since before that moment of the loop's clock."""
        idle = self._idle
        keep = [connection for connection in idle if connection.last_at >= before]
        if len(keep) < len(idle):
            for connection in idle:
                if connection.last_at < before:
                    self._close(connection)
            self._idle = keep

    def closed(self, connection: UpstreamConnection) -> None:
        self._closing.discard(connection)
        if connection.reader is None and connection in self._idle:
            self._idle.remove(connection)

    def _close(self, connection: UpstreamConnection) -> None:
        if not connection.transport.is_closing():
            self._closing.add(connection)
            connection.close()


def keep_watch(transport: asyncio.Transport) -> None:
    """Turns on TCP keep-alive."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _KEEP_ALIVE_IDLE),
        ("TCP_KEEPINTVL", _KEEP_ALIVE_INTERVAL),
        ("TCP_KEEPCNT", _KEEP_ALIVE_PROBES),
    ):
        if hasattr(socket, option):  # each system has its own set
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
