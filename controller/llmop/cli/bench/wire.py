"""HTTP/1.1 of many streams in one thread: an asyncio protocol with httptools' parser, which looks at the clock once for all that one read
of a socket gave. Times are `time.monotonic()`: an event loop's own clock may be one of milliseconds (uvloop's is).
"""

import asyncio
import ssl
from array import array
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

from llmop.cli.bench.dialects import Heard
from llmop.cli.bench.measures import Sample

_ERROR_LIMIT = 4096  # bytes of an error's body that are kept
_LINE_LIMIT = 4 * 1024 * 1024  # bytes of one event


class Tally:
    """What has come in a window, and the gaps between the pieces of the requests that count."""

    def __init__(self, opens_at: float, closes_at: float) -> None:
        self.opens_at = opens_at
        self.closes_at = closes_at
        self.pieces = 0
        self.answers = 0
        self.gaps = array("f")

    def is_open(self, now: float) -> bool:
        return self.opens_at <= now < self.closes_at


class Exchange:
    """One request and what is heard of it, written into its sample."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sample: Sample,
        tally: Tally,
        hear: Callable[[Mapping[str, Any]], Heard],
        *,
        counts: bool,
    ) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.has_begun = False  # a byte of the answer has come
        self.is_over = False  # the stream has said that it is complete
        self._sample = sample
        self._tally = tally
        self._hear = hear
        self._counts = counts
        self._status = 0
        self._rest = b""

    def head(self, status: int) -> None:
        self._status = status

    def body(self, data: bytes, now: float) -> None:
        if self._status != 200:
            self._rest += data[: _ERROR_LIMIT - len(self._rest)]
            return
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)
        if len(self._rest) > _LINE_LIMIT:
            self.fail("protocol", f"an event has more than {_LINE_LIMIT} bytes", now)

    def _event(self, data: bytes, now: float) -> None:
        sample = self._sample
        if data == b"[DONE]":
            self.is_over = True
            return
        try:
            heard = self._hear(orjson.loads(data))
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            self.fail("protocol", f"an event is not the JSON of this API: {data[:100]!r}", now)
            return
        if heard.error:
            self.fail("error event", heard.error, now)
            return
        if heard.output_tokens is not None:
            sample.output_tokens, sample.prompt_tokens = heard.output_tokens, heard.prompt_tokens
        if not heard.is_piece:
            return
        tally = self._tally
        if sample.pieces == 0:
            sample.first_at = now
        elif self._counts:
            tally.gaps.append(now - sample.last_at)
        sample.last_at = now
        sample.pieces += 1
        if tally.is_open(now):
            tally.pieces += 1

    def complete(self, now: float) -> None:
        """The answer has ended as HTTP has it."""
        sample = self._sample
        if sample.error or self.done.done():
            return
        if self._status != 200:
            self.fail(f"status {self._status}", self._rest.decode("utf-8", "replace").strip(), now)
        elif not sample.pieces:
            self.fail(
                "no token",
                self._rest.decode("utf-8", "replace").strip()[:200] or "the answer has no text",
                now,
            )
        else:
            sample.ended_at = now
            if self._tally.is_open(now):
                self._tally.answers += 1
            self.done.set_result(None)

    def lost(self, now: float) -> None:
        """The connection is gone."""
        if self.is_over and self._status == 200:
            self.complete(now)
        else:
            words = (
                f"the connection was lost after {self._sample.pieces} pieces"
                if self.has_begun
                else "the connection was closed without an answer"
            )
            self.fail("cut off", words, now)

    def fail(self, kind: str, message: str, now: float) -> None:
        """The first error is what counts."""
        sample = self._sample
        if not sample.error and not sample.ended_at:
            sample.error, sample.message, sample.ended_at = kind, message[:300], now
        if not self.done.done():
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser: Any = None
        self._keeps = False
        self._now = 0.0
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.is_usable = True
        self.is_used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's have no such base class

    def send(self, data: bytes, exchange: Exchange) -> None:
        assert self.transport is not None
        self.exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # nobody has asked
            return
        exchange.has_begun = True
        self._now = monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            exchange.fail("protocol", f"the answer is not HTTP/1.1: {error}", self._now)
            self.close()

    def on_headers_complete(self) -> None:
        self._keeps = self._parser.should_keep_alive()
        if self.exchange is not None:
            self.exchange.head(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.body(data, self._now)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        exchange, self.exchange = self.exchange, None
        if not self._keeps:
            self.close()
        self.is_used = True
        if exchange is not None:
            exchange.complete(self._now)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost(monotonic())

    def close(self) -> None:
        self.is_usable = False
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """Connections to one address (http://, https:// or unix:/path), as many as are wanted at once; those that are free are used again."""

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.url = url
        self._timeout_s = timeout_s
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        parts = urlsplit(url)
        self._socket = url.removeprefix("unix:") if url.startswith("unix:") else ""
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = "" if self._socket else parts.path.rstrip("/")
        self._headers = (
            f"Host: {'localhost' if self._socket else parts.netloc.rpartition('@')[2]}\r\n"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\n"
            + (f"Authorization: Bearer {key}\r\n" if key else "")
        )
        self.opened = 0

    def request(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The bytes of a POST."""
        text = orjson.dumps(body)
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}Content-Length: {len(text)}\r\n\r\n"
        return head.encode("latin-1", "replace") + text

    async def ask(self, data: bytes, exchange: Exchange, sample: Sample) -> None:
        """Sends a request and waits for the end of its answer; what comes of it stands in `sample` afterwards, errors too.

        The timeout counts from the moment that the request was due.
        """
        try:
            async with asyncio.timeout_at(sample.due_at + self._timeout_s):
                await self._ask(data, exchange, sample)
        except TimeoutError:
            exchange.fail("timeout", f"no complete answer within {self._timeout_s:g}s", monotonic())
        except OSError as error:
            exchange.fail("connect", error.strerror or str(error), monotonic())

    async def _ask(self, data: bytes, exchange: Exchange, sample: Sample) -> None:
        connection = self._take()
        while True:
            sample.sent_at = sample.sent_at or monotonic()
            if connection is None:
                connection = await self._connect()
            try:
                is_reused = connection.is_used
                connection.send(data, exchange)
                await exchange.done
            except asyncio.CancelledError:
                connection.exchange = None
                connection.close()
                raise
            if sample.error == "cut off" and is_reused and not exchange.has_begun:
                # The server had closed it before it saw the request (RFC 9112, 9.3.1): asked again on a new one.
                sample.error, sample.message, sample.ended_at = "", "", 0.0
                exchange.done = self._loop.create_future()
                connection = None
                continue
            if connection.exchange is not None:
                # It has failed before its answer was over: what is still to come belongs to nobody's next request.
                connection.exchange = None
                connection.close()
            if connection.is_usable:
                self._free.append(connection)
            return

    def _take(self) -> _Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.is_usable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        self._all = {each for each in self._all if each.is_usable}
        if self._socket:
            _, made = await self._loop.create_unix_connection(_Connection, self._socket)
        else:
            _, made = await self._loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        self.opened += 1
        self._all.add(made)
        return made

    async def close(self) -> None:
        for connection in self._all:
            connection.close()
        self._all.clear()
        await asyncio.sleep(0)  # their transports end in the loop
