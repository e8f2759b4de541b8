"""An answer that does not come as a whole: copied to the client as it comes."""

import logging

from llmop.gateway import errors, usage
from llmop.gateway.errors import Refusal
from llmop.gateway.heads import ResponseHead
from llmop.gateway.request import Request
from llmop.gateway.retry import Failure
from llmop.gateway.upstream import UpstreamConnection

LOG = logging.getLogger(__name__)

LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset((204, 304))
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def as_chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Relay:
    """The reader of a connection whose answer goes to the client. What it has taken is known at its end: a meter looks at the bytes that
    pass. `has_begun` says that something of it has gone to the client.
    """

    __slots__ = ("_chunked", "_connection", "_meter", "_paused", "_request", "_status", "_tail", "has_begun")

    def __init__(self, request: Request, connection: UpstreamConnection, status: int) -> None:
        self._request = request
        self._connection: UpstreamConnection | None = connection
        self._status = status
        self._meter: usage.Answer | usage.Stream | None = None
        self._tail: bytes | None = None  # the last bytes of a stream
        self._chunked = False
        self._paused = False
        self.has_begun = False

    def begin(self, head: ResponseHead, queue_ms: int) -> None:
        """The head, and what has come of the body."""
        request, connection = self._request, self._connection
        assert connection is not None and request.upstream is not None
        body = self._first_part(connection, head)
        status = self._status
        if status in _BODILESS:
            framing = b""
        elif connection.length is not None and not (head.stream and request.usage_asked):
            framing = b"content-length: %d\r\n" % connection.length
        elif connection.complete:
            framing = b"content-length: %d\r\n" % len(body)
        elif request.http11:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        else:
            framing = b""
            request.keep_alive = False
        lines = [
            head.start,
            framing,
            b"" if request.keep_alive else b"connection: close\r\n",
            b"x-llmop-queue-ms: %d\r\nx-request-id: " % queue_ms,
            request.request_id,
            request.upstream.tail,
        ]
        self._copy(connection, lines, body)

    def go_on(self, head: ResponseHead, *, chunked: bool) -> None:
        """The client's stream has begun before: its head is written."""
        assert self._connection is not None
        self.has_begun = True
        self._tail = _ENDS[0]  # of a comment
        self._chunked = chunked
        self._copy(self._connection, [], self._first_part(self._connection, head))

    def _first_part(self, connection: UpstreamConnection, head: ResponseHead) -> bytes:
        request = self._request
        pieces, connection.pieces = connection.pieces, []
        body = b"".join(pieces)
        counted = self._status == 200 and request.route.generates
        if head.stream:
            if counted:
                self._meter = meter = usage.Stream(cut=request.usage_asked)
                body = meter.feed(body)
                if connection.complete:
                    body += meter.finish()
            self._tail = body
        elif counted and head.usage is not None:
            request.spent(head.usage)
        elif counted:
            self._meter = usage.Answer()
            self._meter.feed(body)
        return body

    def _copy(self, connection: UpstreamConnection, parts: list[bytes], body: bytes) -> None:
        if not self._chunked:
            parts.append(body)
        elif body:
            parts.append(as_chunk(body))
        request = self._request
        complete = connection.complete
        if complete:
            if self._chunked:
                parts.append(LAST_CHUNK)
            # What a client has got is written down, also where the process is killed in the next moment.
            self._settle()
            self._let_go(connection)
            request.close()
        data = b"".join(parts)
        if data:
            self.has_begun = True
            request.client.write(data)
        if complete:
            request.client.response_done(request.keep_alive)
        elif request.client.reading_stalled():
            self.pause()

    def _let_go(self, connection: UpstreamConnection) -> None:
        """Before the last piece is written: if this fails, the client's answer is one that breaks off."""
        request = self._request
        upstream = request.upstream
        assert upstream is not None
        if self._paused:
            self.resume()
        self._connection = None
        upstream.pool.give_back(connection)
        request.let_go()
        request.model.counts.answered(request.route.dialect, self._status)

    def _settle(self) -> None:
        """Counts what was spent, also on an answer that did not come to its end."""
        meter, self._meter = self._meter, None
        if meter is not None:
            self._request.spent(meter.usage(self._request.asked))

    def cancel(self) -> None:
        """The client is gone, or gets no more of it: the engine must not go on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._settle()

    # What the connection to the engine calls

    def whole(self, connection: UpstreamConnection, head: ResponseHead, body: bytes) -> bool:
        return False  # of a whole answer there is nothing left to copy

    def progress(self, connection: UpstreamConnection) -> None:
        pieces = connection.pieces
        if len(pieces) == 1:
            body = pieces.pop()
        else:
            connection.pieces = []
            body = b"".join(pieces)
        meter = self._meter
        if meter is not None:
            body = meter.feed(body)
            if connection.complete:
                body += meter.finish()
        if body and self._tail is not None:
            self._tail = body
        if body and self._chunked and not connection.complete:
            client = self._request.client
            client.write(b"%x\r\n%b\r\n" % (len(body), body))
            if client.reading_stalled():
                self.pause()
        else:
            self._copy(connection, [], body)

    def failed(self, connection: UpstreamConnection, failure: Failure, problem: str) -> None:
        """The answer ends in the middle. A stream says so in its last event where that can be said; its framing always does."""
        self._connection = None
        request = self._request
        assert request.upstream is not None
        LOG.warning(
            "answer of replica %s broken off: %s (request %s)",
            request.upstream.endpoint.replica,
            problem,
            request.request_id.decode(),
        )
        counts = request.model.counts
        counts.failures[failure] += 1
        counts.answered(request.route.dialect, self._status)
        self._settle()
        request.let_go()
        if last := self.last_words(errors.stream_broken(problem)):
            request.client.write(last)
        request.client.break_off(visible=request.http11)

    def last_words(self, refusal: Refusal) -> bytes:
        """What can still be said in the middle of the answer: an event between two others."""
        tail = self._tail
        if not self._chunked or tail is None or not tail.endswith(_ENDS):
            return b""
        return as_chunk(errors.event(refusal, self._request.route.dialect))

    def fault(self) -> None:
        self._request.fault()

    # What the client's connection calls

    def pause(self) -> None:
        """The client reads slower than the engine writes."""
        if self._connection is not None and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        if self._connection is not None and self._paused:
            self._paused = False
            self._connection.last_at = self._request.worker.loop.time()
            self._connection.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        connection = self._connection
        idle = self._request.worker.timeouts.stream_idle
        if connection is None or now - connection.last_at <= idle:
            return
        if self._paused:
            self._request.client.stalled()
            return
        connection.close()
        self.failed(connection, Failure.IDLE, f"silent for {idle:.0f} s")
