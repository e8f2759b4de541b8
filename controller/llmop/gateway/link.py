"""The line between a gateway's parent process and one of its workers: JSON, one message per line, over a socket that only the two have."""

import asyncio
import socket
from typing import Any

import orjson

TELL_PERIOD = 1.0  # seconds between what the parent and each worker tell each other
_LONGEST = 256 * 1024 * 1024  # a table of very many endpoints


class Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Link":
        """Takes the socket over."""
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_LONGEST))

    def send(self, message: dict[str, Any]) -> None:
        """Never waits; what is sent to an end that is gone is lost."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message, option=orjson.OPT_NON_STR_KEYS) + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = orjson.loads(line)
        return message

    def close(self) -> None:
        self._writer.close()
