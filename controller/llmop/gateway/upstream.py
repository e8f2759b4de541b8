"""One connection to an engine: sends a request, reads its answer, tells the exchange once per read what has come."""

import asyncio
from typing import Protocol, cast

import httptools

from llmop.gateway.heads import Headers, ResponseHead, head_size, read_response_head
from llmop.gateway.repeats import Shape, shape_of
from llmop.gateway.retry import Failure
from llmop.gateway.settings import HEAD_LIMIT


class Owner(Protocol):
    """Where a connection belongs when it carries no request."""

    def closed(self, connection: "UpstreamConnection") -> None: ...


class Reader(Protocol):
    """Who the answer is for."""

    def whole(self, connection: "UpstreamConnection", head: ResponseHead, body: bytes) -> bool:
        """A whole answer has come at once, with the status 200 and no stream. False: look at it as at any other one (`progress`)."""
        ...

    def progress(self, connection: "UpstreamConnection") -> None:
        """Something of the answer has come: see `head`, `pieces`, `complete`."""
        ...

    def failed(self, connection: "UpstreamConnection", failure: Failure, problem: str) -> None:
        """No more of the answer will come, and it is not complete."""
        ...

    def fault(self) -> None:
        """Something that nobody foresaw was raised in the course of it; called where that is caught."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """`length` is the announced size of the body in bytes, None where it is not; `pieces` are the parts of the body since the reader
    last looked. These, `head` and `complete` are of the answer under way once `started`. `has_served` says that there was a complete answer.
    """

    __slots__ = (
        "_headers",
        "_informational",
        "_last_head",
        "_last_headers",
        "_loop",
        "_owner",
        "_parser",
        "_quiet",
        "_shape",
        "_surplus",
        "complete",
        "connected",
        "has_served",
        "head",
        "last_at",
        "length",
        "pieces",
        "reader",
        "reusable",
        "started",
        "status",
        "transport",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._last_headers: Headers | None = None
        self._last_head: ResponseHead
        self._informational = False
        self._shape: Shape | None = None
        self._surplus = False
        self._quiet = 0
        self.transport: asyncio.Transport
        self.connected = False
        self.reader: Reader | None = None
        self.status = 0
        self.head: ResponseHead | None = None
        self.length: int | None = None
        self.pieces: list[bytes] = []
        self.complete = False
        self.started = False
        self.reusable = False
        self.has_served = False
        self.last_at = loop.time()

    def send(self, reader: Reader, request: bytes, now: float) -> None:
        """The connection must be idle. `now` is the loop's time."""
        self.reader = reader
        self.started = False
        self.last_at = now
        self.transport.write(request)

    def close(self) -> None:
        """Ends the connection at once; an engine that still generates sees it."""
        self.reader = None
        self.pieces = []
        self.transport.abort()

    def abandon(self) -> None:
        """For whoever gave up while it was being made: closes it if it came to exist all the same."""
        if self.connected:
            self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        self.connected = True

    def data_received(self, data: bytes) -> None:
        reader = self.reader
        if reader is None:
            self.close()  # nothing was asked: whatever this is must not become the next answer
            return
        try:
            shape = self._shape
            if shape is not None and not self.started and (start := shape.body(data)) >= 0:
                # A whole answer; the parser, between two messages, does not see it.
                body = data[start:]
                self.last_at = self._loop.time()
                if not reader.whole(self, self._last_head, body):
                    self.started = self.complete = True
                    self.head = self._last_head
                    self.length = len(body)
                    self.pieces = [body]
                    reader.progress(self)
                return
            first = not self.started
            if first:
                self.started = True
                self.complete = self.reusable = False
                self.head = self._shape = None
                self._quiet = 0
            self._quiet += len(data)
            problem = ""
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserCallbackError:
                raise
            except httptools.HttpParserError as error:
                problem = f"not an HTTP answer ({error})"
            except httptools.HttpParserUpgrade:
                problem = "it switched protocols unasked"
            if self._quiet > HEAD_LIMIT and not self.complete:
                problem = f"head or trailer of its answer is longer than {HEAD_LIMIT} bytes"
            if self._surplus or problem:
                self.reusable = False
            if problem and not self.complete:
                self._fail(Failure.GARBAGE, problem)
            elif self.head is not None:
                self.last_at = self._loop.time()
                if first and self._may_repeat():
                    self._shape = shape_of(data)
                reader.progress(self)
        except Exception:  # noqa: BLE001  # it is logged there
            self._fault(reader)

    def _fault(self, reader: Reader) -> None:
        """Called where an exception is caught that nobody foresaw. By now the connection may carry another request, which goes on."""
        try:
            if self.reader is None or self.reader is reader:
                self.close()
        finally:
            reader.fault()

    def _may_repeat(self) -> bool:
        head = self.head
        return (
            self.complete
            and self.reusable
            and self.status == 200
            and self.length is not None
            and head is not None
            and not head.stream
        )

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self.reader
        try:
            self._owner.closed(self)
            if reader is not None:
                self._end(reader, exc)
        except Exception:
            if reader is None:
                raise
            self._fault(reader)

    def _end(self, reader: Reader, exc: Exception | None) -> None:
        if not self.started:
            failure = Failure.STALE if self.has_served else Failure.RESET
        elif self.head is None:
            failure = Failure.RESET
        elif self._framed() or exc is not None:
            failure = Failure.CUT
        else:
            self.complete = True
            self.reusable = False
            reader.progress(self)
            return
        self._fail(failure, f"it closed the connection ({exc or 'end of file'})")

    def _framed(self) -> bool:
        return self.length is not None or (self.head is not None and self.head.framed)

    def _fail(self, failure: Failure, problem: str) -> None:
        reader = self.reader
        self.close()
        if reader is not None:
            reader.failed(self, failure, problem)

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True
        else:
            self.length = None
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is not None:
            return  # a trailer, or what follows the answer
        name = name.lower()
        if name == b"content-length":
            self.length = int(value)
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._surplus:
            return
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200
        if self._informational:
            return
        if self._quiet > HEAD_LIMIT:  # what was read may hold more than the head
            self._quiet = head_size(b"", self._headers)
        # An engine's heads are the same for as long as its clock shows the same second.
        if status != self.status or self._headers != self._last_headers:
            self._last_headers = self._headers
            self._last_head = read_response_head(self._headers, status)
        self.status = status
        self.head = self._last_head

    def on_body(self, body: bytes) -> None:
        if not self._surplus:
            self._quiet = 0
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._informational or self._surplus:
            return
        self.complete = self.has_served = True
        self.reusable = self._parser.should_keep_alive()
