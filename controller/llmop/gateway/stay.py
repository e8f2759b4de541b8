"""A request's stay in the queue, and what its client hears of it."""

from llmop.domain import client
from llmop.gateway import errors, waiting
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Refusal
from llmop.gateway.heads import status_line
from llmop.gateway.queue import Priority, Ticket
from llmop.gateway.relay import LAST_CHUNK, as_chunk
from llmop.gateway.request import Request

_REMINDER = 10.0  # seconds after which the same comment is sent again to a client that waits
_BANDS = {
    client.Priority.SYSTEM: Priority.SYSTEM,
    client.Priority.INTERACTIVE: Priority.INTERACTIVE,
    client.Priority.DEFAULT: Priority.DEFAULT,
    client.Priority.BULK: Priority.BULK,
}


class Stay:
    """Of a request that waits or has waited, perhaps several times. `has_begun` says that its stream has begun nevertheless, with comments
    about the queue.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.ticket: Ticket
        self.waits = False
        self.has_begun = False
        self.chunked = False
        self._since = 0.0
        self._seconds = 0.0
        self._comment = b""
        self._commented_at = 0.0

    def begin(self) -> None:
        """It waits from now on, under a new ticket."""
        request = self._request
        worker, head = request.worker, request.head
        self.ticket = Ticket(
            worker.desk.number(),
            owner=request.key.name,
            # A client may let others pass; to go before others is its key's to allow.
            priority=max(_BANDS[request.key.priority], head.wishes.priority),
            size=len(request.body) + len(head.forward),
            arrived_at=request.started_at,
            patience=head.wishes.patience,
        )
        self.waits = True
        self._since = worker.loop.time()
        request.model.counts.begins_to_wait(self.ticket)

    def end(self) -> None:
        self.waits = False
        waited = self._request.worker.loop.time() - self._since
        self._seconds += waited
        self._request.model.counts.has_waited(self.ticket, waited)

    @property
    def milliseconds(self) -> int:
        return round(self._seconds * 1000)

    def refusal(self, why: Dropped, retry_after: int) -> Refusal:
        """What a client hears that has waited, or would have had to, in vain. Counted."""
        worker, model = self._request.worker, self._request.model
        model.counts.dropped[why] += 1
        return waiting.refusal(
            model.model,
            why,
            has_endpoints=bool(model.deployment.upstreams),
            retry_after=retry_after,
            now=worker.clock.now(),
        )

    # Comments

    def begin_early(self) -> None:
        """The client wants to hear what it waits for: its stream begins now."""
        request = self._request
        if not waiting.wants_stream(request.route, request.body):
            return
        self.has_begun = True
        self.chunked = request.http11
        request.keep_alive = request.keep_alive and request.http11
        request.client.write(
            b"".join(
                (
                    status_line(200),
                    b"content-type: text/event-stream\r\ncache-control: no-cache\r\n",
                    b"transfer-encoding: chunked\r\n" if self.chunked else b"",
                    b"" if request.keep_alive else b"connection: close\r\n",
                    b"x-request-id: ",
                    request.request_id,
                    b"\r\n\r\n",
                )
            )
        )
        self.tell()

    def tell(self) -> None:
        """At most once in a while, and not to a client that does not read."""
        request = self._request
        worker = request.worker
        model = worker.fleet.routes.get(request.model.model.name, request.model)
        deployment = model.deployment
        text = waiting.comment(
            model.model.next_replica,
            deployment.waiters.number,
            has_endpoints=bool(deployment.upstreams),
            now=worker.clock.now(),
        )
        now = worker.loop.time()
        if (
            text != self._comment or now - self._commented_at > _REMINDER
        ) and not request.client.reading_stalled():
            self._comment = text
            self._commented_at = now
            self._write(text)

    def last_words(self, refusal: Refusal) -> bytes:
        """What can still be said in a stream that has begun, and of which only comments were sent."""
        last = errors.event(refusal, self._request.route.dialect)
        return as_chunk(last) if self.chunked else last

    def finish(self, last: bytes) -> None:
        """Ends a stream that has begun with an event of our own."""
        self._write(last)
        if self.chunked:
            self._request.client.write(LAST_CHUNK)
        self._request.client.response_done(self._request.keep_alive)

    def _write(self, piece: bytes) -> None:
        self._request.client.write(as_chunk(piece) if self.chunked else piece)
