"""Lets connections in one by one, and keeps only so many of those that have not shown a token.

asyncio's own server takes in everything that waits at once, and a TLS connection costs it a quarter of a MiB from the start (the buffer
of `asyncio.sslproto`). Ten thousand connections that said nothing took 3 GiB and 22 s in which no agent was heard. Here the buffer holds
one record of TLS: every agent has two connections.
"""

import asyncio
import asyncio.sslproto
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable

STRANGERS_MAX = 256
HANDSHAKE_S = 10.0
PAUSE_S = 0.1  # while descriptors or memory are used up
RECORD = 16 * 1024  # bytes; the longest that TLS has (RFC 8446, 5.1)

# accept(2) passes on what has become of the connection meanwhile.
_LEFT = frozenset(
    (
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    )
)
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Guest:
    """One connection. `made` and `gone` are for the protocol on it, `known` for whoever has seen its token."""

    def __init__(self, strangers: dict["Guest", None]) -> None:
        self._strangers = strangers
        self._strangers[self] = None
        self._transport: asyncio.BaseTransport | None = None
        self.entering: asyncio.Task[None] | None = None  # until TLS is agreed on

    def made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def known(self) -> None:
        """It stays, however many others come."""
        self._strangers.pop(self, None)

    def gone(self) -> None:
        self._strangers.pop(self, None)

    def send_away(self) -> None:
        self._strangers.pop(self, None)
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()
        elif self.entering is not None:
            self.entering.cancel()


class Gate:
    """Connections of the bound socket `door` until `run` is cancelled. When there are too many strangers the one that came first
    goes: an agent shows its token within milliseconds.
    """

    def __init__(
        self,
        door: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[Guest], asyncio.Protocol],
    ) -> None:
        self._door = door
        self._context = context
        self._make = make
        self._strangers: dict[Guest, None] = {}  # in the order they came

    async def run(self) -> None:
        """Raises OSError when the socket cannot be used any more."""
        # asyncio makes its end of a TLS connection itself and takes the size of the buffer from the class; longer messages come in pieces.
        asyncio.sslproto.SSLProtocol.max_size = RECORD
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._door)
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        self._make_room(0)
                        await asyncio.sleep(PAUSE_S)
                    elif error.errno not in _LEFT:
                        raise
                    continue
                self._make_room(STRANGERS_MAX - 1)
                guest = Guest(self._strangers)
                guest.entering = loop.create_task(self._let_in(connection, guest))
                # sock_accept does not wait while there are more: those that are in shall be heard in between.
                await asyncio.sleep(0)
        finally:
            for guest in list(self._strangers):
                if guest.entering is not None and not guest.entering.done():
                    guest.send_away()

    def _make_room(self, most: int) -> None:
        while len(self._strangers) > most:
            next(iter(self._strangers)).send_away()

    async def _let_in(self, connection: socket.socket, guest: Guest) -> None:
        entered = False
        try:
            with contextlib.suppress(OSError):  # not TLS, too slow, or it has left
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: self._make(guest),
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                )
                entered = True
        finally:
            if not entered:
                guest.gone()
                connection.close()
