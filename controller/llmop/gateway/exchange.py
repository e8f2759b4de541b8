"""One request on the hot path, from the complete request to the last byte of the answer, over as many attempts as it takes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from llmop.domain import client
from llmop.domain.client import ClientKey
from llmop.gateway import errors, retry, routing, usage, waiting
from llmop.gateway.admission import admit
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Refusal
from llmop.gateway.fleet import ModelRoute, Upstream
from llmop.gateway.heads import RequestHead, ResponseHead, status_line
from llmop.gateway.limiter import Exceeded, Reservation
from llmop.gateway.metrics import REFUSED, SHADOWED
from llmop.gateway.queue import Priority, Ticket
from llmop.gateway.retry import RETRYABLE_STATUSES, Failure
from llmop.gateway.routes import Route
from llmop.gateway.sse import FirstBlock, says_overloaded
from llmop.gateway.upstream import UpstreamConnection
from llmop.gateway.usage import Usage
from llmop.gateway.worker import Worker

LOG = logging.getLogger(__name__)

_LAST_CHUNK = b"0\r\n\r\n"
_NOT_QUEUED = b"x-llmop-queue-ms: 0\r\n"
_LONGEST_ERROR = 64 * 1024
_REMINDER = 10.0  # seconds after which the same comment is sent again to a client that waits
_BANDS = {
    client.Priority.SYSTEM: Priority.SYSTEM,
    client.Priority.INTERACTIVE: Priority.INTERACTIVE,
    client.Priority.DEFAULT: Priority.DEFAULT,
    client.Priority.BULK: Priority.BULK,
}
_BODILESS = frozenset((204, 304))


class Client(Protocol):
    """The connection the request came from."""

    @property
    def write(self) -> Callable[[bytes], None]: ...

    def reading_stalled(self) -> bool:
        """Whether the client takes less than it is sent."""
        ...

    def refuse(self, refusal: Refusal, route: Route, keep_alive: bool, request_id: bytes) -> None:
        """Answers with an error of our own, and is done."""
        ...

    def response_done(self, keep_alive: bool) -> None: ...

    def break_off(self, visible: bool) -> None:
        """Ends the connection in the middle of an answer; `visible` says that its framing shows what is missing."""
        ...

    def stalled(self) -> None:
        """Ends the connection of a client that has not read for too long."""
        ...


class Exchange:
    """Until `committed`, nothing of an answer has gone to the client and the request may be made again elsewhere; afterwards bytes are
    copied as they come. `_begun_early` says that a stream has begun nevertheless, with comments about the queue.
    """

    # What most exchanges never set
    _connection: UpstreamConnection | None = None
    _task: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _tried: tuple[Upstream, ...] = ()
    _retries = 0
    _problem = ""
    _stale_spent = False
    _first: FirstBlock | None = None
    _paused = False
    _chunked = False
    _stream_tail: bytes | None = None
    _meter: usage.Answer | usage.Stream | None = None
    _reservation: Reservation | None = None
    _used: Usage | None = None
    # Of those that wait, or have waited
    _ticket: Ticket | None = None
    _waits = False
    _queued_at = 0.0
    _queued_s = 0.0
    _queued_header = _NOT_QUEUED
    _begun_early = False
    _comment = b""
    _commented_at = 0.0

    def __init__(
        self,
        worker: Worker,
        client: Client,
        route: Route,
        head: RequestHead,
        body: bytes,
        key: ClientKey,
        *,
        keep_alive: bool,
        http11: bool,
    ) -> None:
        self._worker = worker
        self._client = client
        self._route = route
        self._head = head
        self._body = body
        self._key = key
        self._asked = len(body)
        self._keep_alive = keep_alive
        self._http11 = http11
        self._request_id = head.request_id or worker.request_id()
        self._model: ModelRoute
        self._upstream: Upstream | None = None
        self._usage_asked = False
        self._status = 0
        self._started_at = 0.0
        self.committed = False

    def start(self) -> None:
        worker = self._worker
        admission = (
            admit(self._route, self._head.model, self._body, worker.fleet.models_for(self._key))
            if worker.fleet.received is not None
            else errors.NO_TABLE
        )
        if isinstance(admission, Refusal):
            worker.counts.unknown.answered(self._route.dialect, admission.status)
            self._client.refuse(admission, self._route, self._keep_alive, self._request_id)
            return
        self._body = admission.body
        self._usage_asked = admission.usage_asked
        model = self._model = worker.fleet.routes[admission.model]
        now = self._started_at = worker.loop.time()
        reservation = worker.limiter.reserve(
            self._key, self._body, model.lengths, now, generates=self._route.generates
        )
        if isinstance(reservation, Exceeded):
            outcome = SHADOWED if reservation.shadow else REFUSED
            worker.counts.limited[reservation.limit][outcome] += 1
            worker.accounts.limited(self._key.name, model.model.name)
            if not reservation.shadow:
                self._refuse(errors.over_limit(self._key, reservation.limit, reservation.wait))
                return
        else:
            self._reservation = reservation
        worker.budget.earn()
        self._attempt()

    # Attempts

    def _attempt(self) -> None:
        self._timer = None
        worker = self._worker
        model = self._model = worker.fleet.routes.get(self._model.model.name, self._model)
        deployment = model.deployment
        if deployment.waiters.number:
            self._queue_up(again=self._ticket is not None)
            return
        upstream = deployment.choose(self._tried, worker.loop.time(), worker.random())
        if upstream is not None:
            self._use(upstream)
        elif model.model.virtual and not self._problem:
            self._refuse(errors.workloads_away(model.model.name))
        elif self._problem and not deployment.is_full(self._tried):
            self._refuse(errors.upstream_failed(model.model.name, self._problem))
        else:
            self._queue_up(again=self._ticket is not None)

    def _use(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.begin()
        self._model.counts.in_flight += 1
        connection = upstream.pool.take()
        if connection is None:
            self._connect(upstream)
        else:
            self._send(upstream, connection)

    def _connect(self, upstream: Upstream) -> None:
        self._task = self._worker.loop.create_task(self._connecting(upstream))

    async def _connecting(self, upstream: Upstream) -> None:
        try:
            connection = await upstream.pool.connect(self._worker.timeouts.connect)
        except (OSError, ValueError) as error:  # ValueError: a host name that is none
            self._task = None
            self._connect_failed(upstream, f"no connection ({error or type(error).__name__})")
            return
        self._task = None
        if upstream.pool.draining:  # the table changed meanwhile: nothing new goes there
            upstream.pool.give_back(connection)
            self._let_go()
            self._attempt()
            return
        if self._ticket is not None:
            self._worker.desk.reached(self._model.deployment.name, upstream.endpoint.uid)
        self._send(upstream, connection)

    def _send(self, upstream: Upstream, connection: UpstreamConnection) -> None:
        self._connection = connection
        body = self._body
        connection.send(
            self,
            b"".join(
                (
                    self._route.method,
                    b" ",
                    self._route.target,
                    b" HTTP/1.1\r\n",
                    upstream.head,
                    self._head.forward,
                    b"x-request-id: ",
                    self._request_id,
                    b"\r\ncontent-length: %d\r\n\r\n" % len(body),
                    body,
                )
            ),
        )

    def _connect_failed(self, upstream: Upstream, problem: str) -> None:
        if self._model.model.virtual:  # there is no other one to go to, so it is not left alone either
            self._model.counts.failures[Failure.CONNECT] += 1
            self._let_go()
            self._refuse(errors.workloads_away(self._model.model.name))
            return
        self._blame(upstream)
        self._fail(Failure.CONNECT, problem)

    def _blame(self, upstream: Upstream) -> None:
        worker = self._worker
        before = upstream.breaker
        upstream.breaker = routing.after_connect_failure(before, worker.loop.time(), worker.random())
        self._model.deployment.look_again()
        worker.desk.failed(self._model.deployment.name, upstream.endpoint.uid)
        if upstream.breaker.ejections > before.ejections:
            self._model.counts.ejections += 1
            LOG.warning(
                "replica %s left alone for a while: no connection %d times in a row",
                upstream.endpoint.replica,
                upstream.breaker.failures,
            )

    def _fail(self, failure: Failure, problem: str) -> None:
        """Nothing has gone to the client yet."""
        self._problem = problem
        if self._may_retry(failure):
            self._retry()
        elif failure is Failure.CONNECT and self._may_wait:
            # It was not even sent. Who waits must not be lost, one after the other, to a replica that is gone.
            self._let_go()
            self._queue_up(again=True)
        else:
            self._let_go()
            self._refuse(errors.upstream_failed(self._model.model.name, problem))

    def _may_retry(self, failure: Failure) -> bool:
        """Counts the failure; True has taken one retry out of the budget."""
        assert self._upstream is not None
        worker = self._worker
        model = self._model
        model.counts.failures[failure] += 1
        now = worker.loop.time()
        return (
            self._retries < model.model.retry_attempts
            and model.deployment.has_other((*self._tried, self._upstream), now)
            and worker.budget.spend(now)
        )

    def _retry(self) -> None:
        assert self._upstream is not None
        self._tried = (*self._tried, self._upstream)
        self._let_go()
        self._first = None
        self._retries += 1
        self._model.counts.retries += 1
        worker = self._worker
        self._timer = worker.loop.call_later(retry.pause(self._retries, worker.random()), self._attempt)

    def _drop(self, connection: UpstreamConnection) -> None:
        """Lets go of an answer that is not wanted."""
        self._connection = None
        if connection.complete and self._upstream is not None:
            self._upstream.pool.give_back(connection)
        else:
            connection.close()

    def _let_go(self) -> None:
        upstream = self._upstream
        if upstream is not None:
            self._upstream = None
            upstream.end()
            self._model.counts.in_flight -= 1
            deployment = self._model.deployment
            if deployment.waiters.number:
                self._worker.desk.freed(deployment.name)

    def _refuse(self, refusal: Refusal) -> None:
        self._model.counts.answered(self._route.dialect, refusal.status)
        if self._begun_early:
            self._end_early(errors.event(refusal, self._route.dialect))
        else:
            self._client.refuse(refusal, self._route, self._keep_alive, self._request_id)

    # Waiting

    @property
    def _may_wait(self) -> bool:
        """It has waited before, or others do."""
        return self._ticket is not None or self._model.deployment.waiters.number > 0

    def _queue_up(self, *, again: bool) -> None:
        worker, head = self._worker, self._head
        wishes = head.wishes
        ticket = self._ticket = Ticket(
            worker.desk.number(),
            owner=self._key.name,
            # A client may let others pass; to go before others is its key's to allow.
            priority=max(_BANDS[self._key.priority], wishes.priority),
            size=len(self._body) + len(head.forward),
            arrived_at=self._started_at,
            patience=wishes.patience,
        )
        self._waits = True
        self._queued_at = worker.loop.time()
        self._model.counts.begins_to_wait(ticket)
        worker.desk.enter(self, self._model.deployment.name, ticket, again=again)
        if self._waits and wishes.progress and not self._begun_early:
            self._begin_early()

    def _stop_waiting(self) -> None:
        assert self._ticket is not None
        self._waits = False
        waited = self._worker.loop.time() - self._queued_at
        self._queued_s += waited
        self._queued_header = b"x-llmop-queue-ms: %d\r\n" % round(self._queued_s * 1000)
        self._model.counts.has_waited(self._ticket, waited)

    def released(self, uid: str) -> None:
        worker, ticket = self._worker, self._ticket
        assert ticket is not None
        self._stop_waiting()
        model = self._model = worker.fleet.routes.get(self._model.model.name, self._model)
        upstream = model.deployment.named(uid, self._tried, worker.loop.time(), worker.random())
        if upstream is not None:
            self._use(upstream)
            worker.desk.begun(ticket)
        else:  # this process cannot use it
            worker.desk.failed(model.deployment.name, uid)
            worker.desk.begun(ticket)
            self._queue_up(again=True)

    def dropped(self, why: Dropped, retry_after: int) -> None:
        self._stop_waiting()
        model = self._worker.fleet.routes.get(self._model.model.name, self._model)
        model.counts.dropped[why] += 1
        self._refuse(
            errors.upstream_failed(model.model.name, self._problem)
            if self._problem
            else waiting.refusal(
                model.model,
                why,
                has_endpoints=bool(model.deployment.upstreams),
                retry_after=retry_after,
                now=self._worker.clock.now(),
            )
        )

    def _begin_early(self) -> None:
        """The client wants to hear what it waits for: its stream begins now."""
        if not waiting.wants_stream(self._route, self._body):
            return
        self._begun_early = True
        self._chunked = self._http11
        self._keep_alive = self._keep_alive and self._http11
        self._client.write(
            b"".join(
                (
                    status_line(200),
                    b"content-type: text/event-stream\r\ncache-control: no-cache\r\n",
                    b"transfer-encoding: chunked\r\n" if self._chunked else b"",
                    b"" if self._keep_alive else b"connection: close\r\n",
                    b"x-request-id: ",
                    self._request_id,
                    b"\r\n\r\n",
                )
            )
        )
        self._tell()

    def _tell(self) -> None:
        worker = self._worker
        model = worker.fleet.routes.get(self._model.model.name, self._model)
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
        ) and not self._client.reading_stalled():
            self._comment = text
            self._commented_at = now
            self._write_piece(text)

    def _write_piece(self, piece: bytes) -> None:
        self._client.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def _end_early(self, last: bytes) -> None:
        self._write_piece(last)
        if self._chunked:
            self._client.write(_LAST_CHUNK)
        self._client.response_done(self._keep_alive)

    # What the connection to the engine calls

    def progress(self, connection: UpstreamConnection) -> None:
        if self.committed:
            self._forward(connection)
        else:
            self._judge(connection)

    def failed(self, connection: UpstreamConnection, failure: Failure, problem: str) -> None:
        self._connection = None
        upstream = self._upstream
        assert upstream is not None
        if self.committed:
            self._broken(failure, problem)
            return
        if failure is Failure.STALE and not self._stale_spent:
            # It was closed while the request was on its way: says nothing about the engine.
            self._stale_spent = True
            self._model.counts.failures[Failure.STALE] += 1
            if upstream.pool.draining:
                self._let_go()
                self._attempt()
            else:
                self._connect(upstream)
            return
        if upstream.breaker.probing:
            self._blame(upstream)
        self._fail(failure, problem)

    def _judge(self, connection: UpstreamConnection) -> None:
        """Nothing was committed: is this the answer, or is another attempt better?"""
        upstream, head, status = self._upstream, connection.head, connection.status
        assert upstream is not None and head is not None
        if upstream.breaker is not routing.CLOSED:
            upstream.breaker = routing.CLOSED
            self._model.deployment.look_again()
        if self._ticket is not None:
            self._worker.desk.reached(self._model.deployment.name, upstream.endpoint.uid)
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
                self._let_go()
                self._refuse(
                    errors.upstream_failed(self._model.model.name, "it did not take the gateway's key for it")
                )
                return
        elif head.stream and status == 200 and not self._first_event_is_good(connection):
            return
        if self._begun_early and not (head.stream and status == 200):
            self._answer_as_event(connection, status)
            return
        self._commit(connection)

    def _answer_as_event(self, connection: UpstreamConnection, status: int) -> None:
        """What the engine says is no stream, and the client's has begun."""
        size = sum(map(len, connection.pieces))
        if not connection.complete and size <= _LONGEST_ERROR:
            return
        body = b"".join(connection.pieces)
        self._drop(connection)
        self._let_go()
        self._model.counts.answered(self._route.dialect, status)
        self._end_early(waiting.as_event(status, body, self._route))

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

    # The answer

    def _commit(self, connection: UpstreamConnection) -> None:
        upstream, head, status = self._upstream, connection.head, connection.status
        assert upstream is not None and head is not None
        self.committed = True
        self._status = status
        self._body = b""  # an answer may take hours
        body = b"".join(connection.pieces)
        if head.stream:
            body = self._begin_stream(body, connection.complete, counted=status == 200)
        elif status == 200 and self._route.generates:
            self._begin_answer(head, body, connection.complete)
        if status < 300:
            self._model.counts.first_byte(self._worker.loop.time() - self._started_at)
        if self._begun_early:
            connection.pieces = []
            self._copy(connection, [], body)
            return
        if status in _BODILESS:
            framing = b""
        elif connection.length is not None and not (head.stream and self._usage_asked):
            framing = b"content-length: %d\r\n" % connection.length
        elif connection.complete:
            framing = b"content-length: %d\r\n" % len(body)
        elif self._http11:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        else:
            framing = b""
            self._keep_alive = False
        parts = [
            status_line(status),
            head.forward,
            framing,
            b"" if self._keep_alive else b"connection: close\r\n",
            self._queued_header,
            b"x-request-id: ",
            self._request_id,
            b"\r\nx-llmop-replica: ",
            upstream.replica,
            b"\r\n\r\n",
        ]
        connection.pieces = []
        self._copy(connection, parts, body)

    def _begin_answer(self, head: ResponseHead, body: bytes, complete: bool) -> None:
        said = head.usage or (usage.read(body) if complete else None)
        if said is not None:
            self._spent(said)
        else:
            self._meter = usage.Answer()
            self._meter.feed(body)

    def _begin_stream(self, body: bytes, complete: bool, *, counted: bool) -> bytes:
        if counted and self._route.generates:
            self._meter = meter = usage.Stream(cut=self._usage_asked)
            body = meter.feed(body)
            if complete:
                body += meter.finish()
        self._stream_tail = body
        return body

    def _forward(self, connection: UpstreamConnection) -> None:
        pieces, connection.pieces = connection.pieces, []
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        meter = self._meter
        if meter is not None:
            body = meter.feed(body)
            if connection.complete:
                body += meter.finish()
        if self._stream_tail is not None and body:
            self._stream_tail = body
        if body and self._chunked and not connection.complete:
            self._client.write(b"%x\r\n%b\r\n" % (len(body), body))
            if self._client.reading_stalled():
                self.pause()
        else:
            self._copy(connection, [], body)

    def _settle(self) -> None:
        """Counts what was spent, also on an answer that did not come to its end."""
        meter, self._meter = self._meter, None
        if meter is not None:
            self._spent(meter.usage(self._asked))

    def _spent(self, used: Usage) -> None:
        self._used = used
        self._model.counts.spent(used)
        self._model.lengths.learn(used.completion)

    def close(self) -> None:
        """Nothing more is used, however it ended: what was reserved becomes what was used, and that is written down."""
        used, self._used = self._used, None
        if used is not None:
            self._worker.accounts.used(self._key.name, self._model.model.name, used)
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.settle(used.prompt + used.completion if used is not None else 0)

    def _copy(self, connection: UpstreamConnection, parts: list[bytes], body: bytes) -> None:
        if not self._chunked:
            parts.append(body)
        elif body:
            parts += (b"%x\r\n" % len(body), body, b"\r\n")
        complete = connection.complete
        if complete and self._chunked:
            parts.append(_LAST_CHUNK)
        data = b"".join(parts)
        if (
            complete
        ):  # what a client has got is written down, also where the process is killed in the next moment
            self._settle()
            self.close()
        if data:
            self._client.write(data)
        if complete:
            self._finish(connection)
        elif self._client.reading_stalled():
            self.pause()

    def _finish(self, connection: UpstreamConnection) -> None:
        assert self._upstream is not None
        if self._paused:
            self.resume()
        self._connection = None
        self._upstream.pool.give_back(connection)
        self._let_go()
        self._model.counts.answered(self._route.dialect, self._status)
        self._client.response_done(self._keep_alive)

    def _broken(self, failure: Failure, problem: str) -> None:
        """The answer ends in the middle. A stream says so in its last event where that can be said; its framing always does."""
        assert self._upstream is not None
        LOG.warning(
            "answer of replica %s broken off: %s (request %s)",
            self._upstream.endpoint.replica,
            problem,
            self._request_id.decode(),
        )
        self._model.counts.failures[failure] += 1
        self._model.counts.answered(self._route.dialect, self._status)
        self._settle()
        self._let_go()
        tail = self._stream_tail
        if self._chunked and tail is not None and tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
            last = errors.event(errors.stream_broken(problem), self._route.dialect)
            self._client.write(b"%x\r\n%b\r\n" % (len(last), last))
        self._client.break_off(visible=self._http11)

    # What the client's connection calls

    def pause(self) -> None:
        """The client reads slower than the engine writes."""
        if self._connection is not None and self.committed and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        if self._connection is not None and self._paused:
            self._paused = False
            self._connection.last_at = self._worker.loop.time()
            self._connection.transport.resume_reading()

    def cancel(self) -> None:
        """The client is gone: the engine must not go on."""
        if self._waits:
            assert self._ticket is not None
            self._stop_waiting()
            self._worker.desk.leave(self._ticket)
        if self._connection is not None and not self.committed and self._route.generates:
            self._used = usage.estimate(self._asked, 0)  # it has at least begun to read
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        upstream = self._upstream
        if upstream is not None and upstream.breaker.probing:
            upstream.breaker = routing.probe_abandoned(upstream.breaker)
        self._let_go()
        self._settle()
        self._model.counts.left(self._route.dialect)

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        if self._waits:
            if self._begun_early:
                self._tell()
            return
        connection = self._connection
        if (
            connection is None
            or not self.committed
            or now - connection.last_at <= self._worker.timeouts.stream_idle
        ):
            return
        if self._paused:
            self._client.stalled()
            return
        connection.close()
        self.failed(connection, Failure.IDLE, f"silent for {self._worker.timeouts.stream_idle:.0f} s")
