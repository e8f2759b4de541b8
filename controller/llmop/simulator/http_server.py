"""A small HTTP/1.1 server on asyncio: keep-alive, pipelining, chunked bodies both ways, bounded heads and bodies.

One task per request. A client that goes away (also one that closes only its sending side, as with hyper)
cancels the task of its request.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

_MOST_HEAD = 64 * 1024
_MOST_AHEAD = 256 * 1024
_KEEP_ALIVE_SECONDS = 15.0
_LINGER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. Header names are lower case; of repeated headers the last one counts."""

    method: str
    path: str
    version: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        wish = self.headers.get("connection", "").lower()
        return "close" not in wish and (self.version == "HTTP/1.1" or "keep-alive" in wish)


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Stream:
    """An answer of server-sent events that is being written. A comment line goes out when it is quiet for 15 s."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._chunked = request.version == "HTTP/1.1"
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(_KEEP_ALIVE_SECONDS, self._comment)

    async def send(self, data: bytes) -> None:
        """Write; waits while the client does not read."""
        self._write(data)
        await self._connection.writable()

    def close(self) -> None:
        """The regular end."""
        self._timer.cancel()
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Drop the connection in the middle of the answer."""
        self._timer.cancel()
        self._connection.abort()

    def _write(self, data: bytes) -> None:
        self._last_write = self._loop.time()
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _comment(self) -> None:
        due = self._last_write + _KEEP_ALIVE_SECONDS
        if self._connection.closed:
            return
        if self._loop.time() >= due:
            self._write(b":\n\n")
            due = self._last_write + _KEEP_ALIVE_SECONDS
        self._timer = self._loop.call_at(due, self._comment)


class Exchange:
    """One request and its answer, as a handler sees it."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self.request = request
        self.stream_started: Stream | None = None

    def start_stream(self, headers: Mapping[str, str]) -> Stream:
        """Send status 200 and the head of an event stream; the handler then returns None."""
        fixed = {"content-type": "text/event-stream", "cache-control": "no-cache"}
        if self.request.version == "HTTP/1.1":
            fixed["transfer-encoding"] = "chunked"
        self._connection.write_head(200, {**fixed, **headers})
        self.stream_started = Stream(self._connection, self.request)
        return self.stream_started


Handler = Callable[[Exchange], Awaitable[Response | None]]


class HttpServer:
    """Listens, and knows its connections."""

    def __init__(self, handler: Handler, *, most_body: int) -> None:
        self.handler = handler
        self.most_body = most_body
        self.draining = False
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()

    async def start(self, hostname: str, port: int) -> int:
        """Open the port and return its number. Raises OSError if it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), hostname, port, backlog=2048)
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self) -> None:
        """Close the port and idle connections, and wait until every request under way has been answered."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        while self.connections:
            self._idle.clear()
            await self._idle.wait()

    def cut(self) -> int:
        """Drop all connections; returns how many requests were cut."""
        busy = [connection for connection in self.connections if connection.busy]
        for connection in list(self.connections):
            connection.abort()
        return len(busy)

    def closed(self, connection: Connection) -> None:
        """Called by a connection that is gone."""
        self.connections.discard(connection)
        self._idle.set()


class _BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection(asyncio.Protocol):
    """One TCP connection: a buffer, at most one request under way, and the rest of a pipeline waiting."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: Request | None = None
        self._chunks: bytearray | None = None
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[Response | None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._refused = False
        self.closed = False

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._task is not None

    # The protocol's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._refused:
            return
        self._buffer += data
        if self._task is None:
            self._advance()
        elif len(self._buffer) > _MOST_AHEAD and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.closed = True
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._server.closed(self)

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

    # The handlers' side

    def write(self, data: bytes) -> None:
        """Send bytes, if somebody is there."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def write_head(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a status line, headers and a body; adds `connection: close` where this answer is the last one."""
        lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self._stays_open():
            lines.append("connection: close")
        self.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    async def writable(self) -> None:
        """Wait until the client has read enough."""
        if not self._writable.is_set():
            await self._writable.wait()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is under way or has begun to arrive."""
        if self._task is None and not self._buffer and self._head is None and self._transport is not None:
            self._transport.close()

    def _stays_open(self) -> bool:
        return self._exchange is not None and self._exchange.request.keep_alive and not self._server.draining

    def _advance(self) -> None:
        """Start the next request if it is complete."""
        try:
            request = self._take_request()
        except _BadRequest as error:
            self._exchange = None
            self._refuse(error)
            return
        if request is None:
            return
        self._exchange = Exchange(self, request)
        self._task = asyncio.ensure_future(self._handle(self._exchange))
        self._task.add_done_callback(self._done)

    def _refuse(self, error: _BadRequest) -> None:
        """Answer and close, but not before the client had time to read: closing unread input resets the line."""
        self._refused = True
        self._answer(Response(error.status, error.message.encode(), "text/plain; charset=utf-8"))
        if self._transport is not None:
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)

    async def _handle(self, exchange: Exchange) -> Response | None:
        return await self._server.handler(exchange)

    def _done(self, task: asyncio.Task[Response | None]) -> None:
        exchange, self._task = self._exchange, None
        if self.closed or task.cancelled() or exchange is None or self._transport is None:
            self.abort()
            return
        error = task.exception()
        if error is not None:
            traceback.print_exception(error)
            if exchange.stream_started is not None:
                exchange.stream_started.cut()
                return
            self._answer(Response(500, b"Internal Server Error", "text/plain; charset=utf-8"))
        else:
            response = task.result()
            if response is not None:
                self._answer(response)
        stays = self._stays_open() and not (
            exchange.stream_started and exchange.request.version == "HTTP/1.0"
        )
        self._exchange = None
        if not stays:
            self._transport.close()
            return
        self._transport.resume_reading()
        if self._buffer:
            self._advance()

    def _answer(self, response: Response) -> None:
        headers = {**response.headers, "content-length": str(len(response.body))}
        if response.content_type:
            headers["content-type"] = response.content_type
        bodiless = self._exchange is not None and self._exchange.request.method == "HEAD"
        self.write_head(response.status, headers, b"" if bodiless else response.body)

    # Parsing

    def _take_request(self) -> Request | None:
        """The next complete request out of the buffer, or None while it is still arriving. Raises _BadRequest."""
        if self._head is None:
            self._head = self._take_head()
            if self._head is None:
                return None
            if "100-continue" in self._head.headers.get("expect", "").lower():
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        body = self._take_chunks() if self._chunks is not None else self._take_body(head)
        if body is None:
            return None
        self._head = self._chunks = None
        return Request(head.method, head.path, head.version, head.headers, body)

    def _take_head(self) -> Request | None:
        while self._buffer.startswith(b"\r\n"):  # an empty line before a request is allowed (RFC 9112, 2.2)
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end > _MOST_HEAD or (end < 0 and len(self._buffer) > _MOST_HEAD):
            raise _BadRequest(431, "the request head is larger than 64 KiB")
        if end < 0:
            return None
        text = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        head = _parse_head(text)
        length, encoding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
        if encoding is not None:
            if length is not None or encoding.lower() != "chunked":
                raise _BadRequest(400, f"cannot read a body with transfer-encoding {encoding!r}")
            self._chunks = bytearray()
        elif length is not None and not (length.isascii() and length.isdigit()):
            raise _BadRequest(400, f"content-length {length!r} is not a number")
        elif length is not None and int(length) > self._server.most_body:
            raise _too_large()
        return head

    def _take_body(self, head: Request) -> bytes | None:
        length = int(head.headers.get("content-length", "0"))
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _take_chunks(self) -> bytes | None:
        assert self._chunks is not None
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                if len(self._buffer) > _MOST_HEAD:
                    raise _BadRequest(400, "a chunk size line is too long")
                return None
            size_text = bytes(self._buffer[:line_end]).partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                size = -1
            if size < 0 or not size_text.isalnum():
                raise _BadRequest(400, "a chunk size is not a hexadecimal number")
            if len(self._chunks) + size > self._server.most_body:
                raise _too_large()
            if size == 0:
                return self._take_trailers(line_end)
            if len(self._buffer) < line_end + 2 + size + 2:
                return None
            start = line_end + 2
            if self._buffer[start + size : start + size + 2] != b"\r\n":
                raise _BadRequest(400, "a chunk is longer than its size says")
            self._chunks += self._buffer[start : start + size]
            del self._buffer[: start + size + 2]

    def _take_trailers(self, line_end: int) -> bytes | None:
        assert self._chunks is not None
        end = self._buffer.find(b"\r\n\r\n", line_end)
        if end < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise _BadRequest(431, "the trailers are larger than 64 KiB")
            return None
        del self._buffer[: end + 4]
        return bytes(self._chunks)


def _parse_head(text: str) -> Request:
    first, *lines = text.split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0") or not parts[0].isalpha():
        raise _BadRequest(400, "the request line is not METHOD PATH HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise _BadRequest(400, "a header line is not Name: value")
        value = value.strip()
        if name in ("content-length", "transfer-encoding") and headers.get(name, value) != value:
            raise _BadRequest(400, f"{name} is given twice")
        headers[name] = value
    return Request(parts[0], parts[1].partition("?")[0], parts[2], headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _too_large() -> _BadRequest:
    return _BadRequest(413, "Failed to buffer the request body: length limit exceeded")
