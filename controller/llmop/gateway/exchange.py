"""One request on the hot path, from the complete request to its answer: which answers are good, and what becomes of them."""

from llmop.domain.client import ClientKey
from llmop.gateway import errors, routing, usage, waiting
from llmop.gateway.attempts import Attempts
from llmop.gateway.bill import NOTHING
from llmop.gateway.heads import RequestHead, ResponseHead
from llmop.gateway.relay import Relay
from llmop.gateway.request import Client
from llmop.gateway.retry import RETRYABLE_STATUSES, Failure
from llmop.gateway.routes import Route
from llmop.gateway.sse import FirstBlock, says_overloaded
from llmop.gateway.stay import Stay
from llmop.gateway.upstream import UpstreamConnection
from llmop.gateway.worker import Worker

_LONGEST_ERROR = 64 * 1024
_BYTES_PER_TOKEN = 4


class Exchange(Attempts):
    """Until there is a relay, nothing of an answer has gone to the client and the request may be made again elsewhere."""

    __slots__ = ("_relay",)

    def __init__(
        self,
        worker: Worker,
        client: Client,
        route: Route,
        head: RequestHead,
        body: bytes,
        key: ClientKey,
        keep_alive: bool,
        http11: bool,
    ) -> None:
        Attempts.__init__(self, worker, client, route, head, body, key, keep_alive, http11)
        self._relay: Relay | None = None

    # What the connection to the engine calls

    def fault(self) -> None:
        worker = self.worker
        worker.faults.note("a request", self.request_id)
        self.is_renewable = False
        stay, relay = self._stay, self._relay
        for step in (self._leave_queue, self._stop_trying, self._cut_off, self.let_go, self.close):
            with worker.faults.guard("giving back what a request held", self.request_id):
                step()
        begun = relay if relay is not None and relay.has_begun else stay
        last = None
        if begun is not None and begun.has_begun:
            last = begun.last_words(errors.INTERNAL)
        counts = self.model.counts if hasattr(self, "model") else worker.counts.unknown
        counts.answered(self.route.dialect, errors.INTERNAL.status if last is None else 200)
        self.client.failed(self, last)

    def progress(self, connection: UpstreamConnection) -> None:
        """Nothing has gone to the client: is this the answer, or is another attempt better?"""
        upstream, head, status = self.upstream, connection.head, connection.status
        assert upstream is not None and head is not None
        if upstream.breaker is not routing.CLOSED:
            upstream.breaker = routing.CLOSED
            self.model.deployment.look_again()
        if status == 200 and connection.complete and not head.stream:
            pieces = connection.pieces
            if self.whole(connection, head, pieces[0] if len(pieces) == 1 else b"".join(pieces)):
                return
        stay = self._stay
        if stay is not None:
            self.worker.desk.reached(self.model.deployment.name, upstream.endpoint.uid)
        if not 200 <= status <= 599:
            self._drop(connection)
            self._fail(Failure.GARBAGE, f"it answered with the status {status}")
            return
        if status in RETRYABLE_STATUSES:
            if self._may_retry(Failure.STATUS):
                self._problem = f"it answered with the status {status}"
                self._drop(connection)
                self._retry()
                return
            if status == 401:
                self._drop(connection)
                self.let_go()
                self._refuse(
                    errors.upstream_failed(self.model.model.name, "it did not take the gateway's key for it")
                )
                return
        elif head.stream and status == 200 and not self._first_event_is_good(connection):
            return
        if stay is not None and stay.has_begun and not (head.stream and status == 200):
            self._answer_as_event(stay, connection, status)
            return
        self._commit(connection, head, status)

    def whole(self, connection: UpstreamConnection, head: ResponseHead, body: bytes) -> bool:
        """What nearly all answers are: good, whole and no stream. One write, and all is over."""
        upstream = self.upstream
        assert upstream is not None
        if self._stay is not None or upstream.breaker is not routing.CLOSED:
            return False
        model, route, reserved = self.model, self.route, self.reserved
        # What a client has got is written down, also where the process is killed in the next moment.
        if route.generates:
            prompt, completion, estimated = (
                head.usage or usage.read(body) or usage.estimate(self.asked, len(body) // _BYTES_PER_TOKEN)
            )
            self.reserved = NOTHING
            self.bill.answered(reserved, prompt, completion, estimated)
        else:
            prompt, completion, estimated = 0, 0, False
            self.reserved = NOTHING
            self.bill.settle(reserved, None)
        # All comes before the client's bytes: if something of it fails, none have gone out.
        model.counts.answered_whole(
            route.dialect, connection.last_at - self.started_at, prompt, completion, estimated
        )
        self._connection = None
        upstream.pool.give_back(connection)
        self.let_go()
        write = self.client.write
        write(
            b"".join(
                (
                    head.start,
                    b"content-length: %d\r\nx-llmop-queue-ms: 0\r\nx-request-id: " % len(body)
                    if self.keep_alive
                    else b"content-length: %d\r\nconnection: close\r\nx-llmop-queue-ms: 0\r\nx-request-id: "
                    % len(body),
                    self.request_id,
                    upstream.tail,
                    body,
                )
            )
        )
        self.client.response_done(self.keep_alive)
        return True

    def failed(self, connection: UpstreamConnection, failure: Failure, problem: str) -> None:
        self._connection = None
        upstream = self.upstream
        assert upstream is not None
        if failure is Failure.STALE and not self._stale_spent:
            # It was closed while the request was on its way: says nothing about the engine.
            self._stale_spent = True
            self.is_renewable = False
            self.model.counts.failures[Failure.STALE] += 1
            if upstream.pool.draining:
                self.let_go()
                self._again()
            else:
                self._connect(upstream)
            return
        if upstream.breaker.probing:
            self._blame(upstream)
        self._fail(failure, problem)

    def _answer_as_event(self, stay: Stay, connection: UpstreamConnection, status: int) -> None:
        """What the engine says is no stream, and the client's has begun."""
        size = sum(map(len, connection.pieces))
        if not connection.complete and size <= _LONGEST_ERROR:
            return
        body = b"".join(connection.pieces)
        self._drop(connection)
        self.let_go()
        self.model.counts.answered(self.route.dialect, status)
        stay.finish(waiting.as_event(status, body, self.route))

    def _first_event_is_good(self, connection: UpstreamConnection) -> bool:
        """False: wait for more, or a retry is under way."""
        first = self._first
        if first is None:
            first = self._first = FirstBlock()
        pieces, connection.pieces = connection.pieces, []
        fed = 0
        found = False
        while not found and fed < len(pieces):
            found = first.feed(pieces[fed])
            fed += 1
        if not found and not connection.complete:
            return False
        if says_overloaded(first.so_far()) and self._may_retry(Failure.OVERLOADED):
            self._problem = "it is overloaded"
            self._drop(connection)
            self._retry()
            return False
        connection.pieces = [first.everything(), *pieces[fed:]]
        self._first = None
        return True

    def _commit(self, connection: UpstreamConnection, head: ResponseHead, status: int) -> None:
        """From here on the answer is copied."""
        self.is_renewable = False
        self.body = b""  # an answer may take hours
        if status < 300:
            self.model.counts.first_byte(self.worker.loop.time() - self.started_at)
        self._connection = None
        stay = self._stay
        relay = self._relay = Relay(self, connection, status)
        connection.reader = relay
        if stay is not None and stay.has_begun:
            relay.go_on(head, chunked=stay.chunked)
        else:
            relay.begin(head, 0 if stay is None else stay.milliseconds)

    def close(self) -> None:
        """They know this object too, so it would otherwise be left to the garbage collection."""
        Attempts.close(self)
        self._relay = self._stay = None

    # What the client's connection calls

    def pause(self) -> None:
        """The client reads slower than the engine writes."""
        if self._relay is not None:
            self._relay.pause()

    def resume(self) -> None:
        if self._relay is not None:
            self._relay.resume()

    def cancel(self) -> None:
        """The client is gone: the engine must not go on."""
        if self._relay is None and self._connection is not None and self.route.generates:
            self.used = usage.estimate(self.asked, 0)  # it has at least begun to read
        self._leave_queue()
        self._stop_trying()
        self._cut_off()
        self.let_go()
        self.model.counts.left(self.route.dialect)

    # Giving up: each once at most, whatever state the request is in

    def _leave_queue(self) -> None:
        stay = self._stay
        if stay is not None:
            self.worker.desk.leave(stay.ticket)  # also where it was released and has not begun
            if stay.waits:
                stay.end()

    def _stop_trying(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _cut_off(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        upstream = self.upstream
        if upstream is not None and upstream.breaker.probing:
            upstream.breaker = routing.probe_abandoned(upstream.breaker)
        if self._relay is not None:
            self._relay.cancel()

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        if self._relay is not None:
            self._relay.sweep(now)
        elif self._stay is not None and self._stay.waits and self._stay.has_begun:
            self._stay.tell()
