"""One request on the hot path, from the complete request to its answer, over as many attempts as it takes."""

import asyncio
import logging

from llmop.domain.client import ClientKey
from llmop.gateway import errors, retry, routing, usage, waiting
from llmop.gateway.admission import admit
from llmop.gateway.bill import NOTHING
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Refusal
from llmop.gateway.fleet import Upstream
from llmop.gateway.heads import RequestHead, ResponseHead
from llmop.gateway.limiter import Exceeded
from llmop.gateway.relay import Relay
from llmop.gateway.request import Client, Request
from llmop.gateway.retry import RETRYABLE_STATUSES, Failure
from llmop.gateway.routes import Route
from llmop.gateway.sse import FirstBlock, says_overloaded
from llmop.gateway.stay import Stay
from llmop.gateway.upstream import UpstreamConnection
from llmop.gateway.worker import Worker

LOG = logging.getLogger(__name__)

_LONGEST_ERROR = 64 * 1024
_BYTES_PER_TOKEN = 4


class Exchange(Request):
    """Until there is a relay, nothing of an answer has gone to the client and the request may be made again elsewhere. `is_renewable`
    says, when it is over, that nothing has happened that would have to be forgotten.
    """

    __slots__ = (
        "_connection",
        "_first",
        "_problem",
        "_relay",
        "_retries",
        "_stale_spent",
        "_stay",
        "_task",
        "_timer",
        "_tried",
        "is_renewable",
    )

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
        Request.__init__(self, worker, client, route, head, body, key, keep_alive, http11)
        self._connection: UpstreamConnection | None = None
        self._relay: Relay | None = None
        self._stay: Stay | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tried: tuple[Upstream, ...] = ()
        self._retries = 0
        self._problem = ""
        self._stale_spent = False
        self._first: FirstBlock | None = None
        self.is_renewable = True

    def renew(self, body: bytes) -> None:
        """The same for the next request with the same head."""
        self.body = body
        self.asked = len(body)
        self.request_id = self.head.request_id or self.worker.request_id()

    def start(self) -> None:
        worker, key, route = self.worker, self.key, self.route
        fleet = worker.fleet
        admission = (
            admit(route, self.head.model, self.body, fleet.models_for(key) if key.models else fleet.models)
            if fleet.received is not None
            else errors.NO_TABLE
        )
        if isinstance(admission, Refusal):
            worker.counts.unknown.answered(route.dialect, admission.status)
            self.client.refuse(admission, route, self.keep_alive, self.request_id)
            return
        name, self.body, self.usage_asked = admission
        model = self.model = fleet.routes[name]
        bill = self.bill = model.bills.get(key.name) or worker.bill(key, model)
        now = self.started_at = worker.loop.time()
        reserved = bill.reserve(self.body, now, route.generates)
        if not isinstance(reserved, Exceeded):
            self.reserved = reserved
        elif not reserved.shadow:
            self._refuse(errors.over_limit(key, reserved.limit, reserved.wait))
            return
        worker.budget.earn()
        self._attempt(now)

    # Attempts

    def _again(self) -> None:
        """Another attempt, perhaps with another table."""
        self._timer = None
        worker = self.worker
        self.model = worker.fleet.routes.get(self.model.model.name, self.model)
        self._attempt(worker.loop.time())

    def _attempt(self, now: float) -> None:
        model = self.model
        deployment = model.deployment
        if deployment.waiters.number:
            self._queue_up(again=self._stay is not None)
            return
        upstream = deployment.choose(self._tried, now, self.worker.random())
        if upstream is not None:
            self._use(upstream, now)
        elif model.model.virtual and not self._problem:
            self._refuse(errors.workloads_away(model.model.name))
        elif self._problem and not deployment.is_full(self._tried):
            self._refuse(errors.upstream_failed(model.model.name, self._problem))
        else:
            self._queue_up(again=self._stay is not None)

    def _use(self, upstream: Upstream, now: float) -> None:
        self.upstream = upstream
        upstream.begin()
        self.model.counts.in_flight += 1
        connection = upstream.pool.take()
        if connection is None:
            self._connect(upstream)
        else:
            self._send(upstream, connection, now)

    def _connect(self, upstream: Upstream) -> None:
        self._task = self.worker.loop.create_task(self._connecting(upstream))

    async def _connecting(self, upstream: Upstream) -> None:
        try:
            connection = await upstream.pool.connect(self.worker.timeouts.connect)
        except (OSError, ValueError) as error:  # ValueError: a host name that is none
            self._task = None
            self._connect_failed(upstream, f"no connection ({error or type(error).__name__})")
            return
        self._task = None
        if upstream.pool.draining:  # the table changed meanwhile: nothing new goes there
            upstream.pool.give_back(connection)
            self.let_go()
            self._again()
            return
        if self._stay is not None:
            self.worker.desk.reached(self.model.deployment.name, upstream.endpoint.uid)
        self._send(upstream, connection, self.worker.loop.time())

    def _send(self, upstream: Upstream, connection: UpstreamConnection, now: float) -> None:
        self._connection = connection
        head, route, body = self.head, self.route, self.body
        if head.opened_for is not upstream or head.opened_on is not route:
            head.open(upstream, route, upstream.head)
        connection.send(
            self,
            b"".join((head.opening, self.request_id, b"\r\ncontent-length: %d\r\n\r\n" % len(body), body)),
            now,
        )

    def _connect_failed(self, upstream: Upstream, problem: str) -> None:
        if self.model.model.virtual:  # there is no other one to go to, so it is not left alone either
            self.model.counts.failures[Failure.CONNECT] += 1
            self.let_go()
            self._refuse(errors.workloads_away(self.model.model.name))
            return
        self._blame(upstream)
        self._fail(Failure.CONNECT, problem)

    def _blame(self, upstream: Upstream) -> None:
        worker = self.worker
        before = upstream.breaker
        upstream.breaker = routing.after_connect_failure(before, worker.loop.time(), worker.random())
        self.model.deployment.look_again()
        worker.desk.failed(self.model.deployment.name, upstream.endpoint.uid)
        if upstream.breaker.ejections > before.ejections:
            self.model.counts.ejections += 1
            LOG.warning(
                "replica %s left alone for a while: no connection %d times in a row",
                upstream.endpoint.replica,
                upstream.breaker.failures,
            )

    def _fail(self, failure: Failure, problem: str) -> None:
        """Nothing has gone to the client yet."""
        self.is_renewable = False
        self._problem = problem
        if self._may_retry(failure):
            self._retry()
        elif failure is Failure.CONNECT and self._may_wait:
            # It was not even sent. Who waits must not be lost, one after the other, to a replica that is gone.
            self.let_go()
            self._queue_up(again=True)
        else:
            self.let_go()
            self._refuse(errors.upstream_failed(self.model.model.name, problem))

    def _may_retry(self, failure: Failure) -> bool:
        """Counts the failure; True has taken one retry out of the budget."""
        assert self.upstream is not None
        worker, model = self.worker, self.model
        model.counts.failures[failure] += 1
        now = worker.loop.time()
        return (
            self._retries < model.model.retry_attempts
            and model.deployment.has_other((*self._tried, self.upstream), now)
            and worker.budget.spend(now)
        )

    def _retry(self) -> None:
        assert self.upstream is not None
        self.is_renewable = False
        self._tried = (*self._tried, self.upstream)
        self.let_go()
        self._first = None
        self._retries += 1
        self.model.counts.retries += 1
        worker = self.worker
        self._timer = worker.loop.call_later(retry.pause(self._retries, worker.random()), self._again)

    def _drop(self, connection: UpstreamConnection) -> None:
        """Lets go of an answer that is not wanted."""
        self._connection = None
        if connection.complete and self.upstream is not None:
            self.upstream.pool.give_back(connection)
        else:
            connection.close()

    def _refuse(self, refusal: Refusal) -> None:
        self.model.counts.answered(self.route.dialect, refusal.status)
        if self._stay is not None and self._stay.has_begun:
            self._stay.finish(errors.event(refusal, self.route.dialect))
        else:
            self.client.refuse(refusal, self.route, self.keep_alive, self.request_id)

    # Waiting

    @property
    def _may_wait(self) -> bool:
        """It has waited before, or others do."""
        return self._stay is not None or self.model.deployment.waiters.number > 0

    def _queue_up(self, *, again: bool) -> None:
        self.is_renewable = False
        stay = self._stay
        if stay is None:
            stay = self._stay = Stay(self)
        stay.begin()
        self.worker.desk.enter(self, self.model.deployment.name, stay.ticket, again=again)
        if stay.waits and self.head.wishes.progress and not stay.has_begun:
            stay.begin_early()

    def released(self, uid: str) -> None:
        worker, stay = self.worker, self._stay
        assert stay is not None
        stay.end()
        ticket = stay.ticket
        model = self.model = worker.fleet.routes.get(self.model.model.name, self.model)
        now = worker.loop.time()
        upstream = model.deployment.named(uid, self._tried, now, worker.random())
        if upstream is not None:
            self._use(upstream, now)
            worker.desk.begun(ticket)
        else:  # this process cannot use it
            worker.desk.failed(model.deployment.name, uid)
            worker.desk.begun(ticket)
            self._queue_up(again=True)

    def dropped(self, why: Dropped, retry_after: int) -> None:
        stay = self._stay
        assert stay is not None
        stay.end()
        self.model = self.worker.fleet.routes.get(self.model.model.name, self.model)
        refusal = stay.refusal(why, retry_after)
        self._refuse(
            errors.upstream_failed(self.model.model.name, self._problem) if self._problem else refusal
        )

    # What the connection to the engine calls

    def progress(self, connection: UpstreamConnection) -> None:
        """Nothing has gone to the client: is this the answer, or is another attempt better?"""
        upstream, head, status = self.upstream, connection.head, connection.status
        assert upstream is not None and head is not None
        if upstream.breaker is not routing.CLOSED:
            upstream.breaker = routing.CLOSED
            self.model.deployment.look_again()
        stay = self._stay
        if stay is None and status == 200 and connection.complete and not head.stream:
            self._answer(upstream, connection, head)
            return
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

    def _answer(self, upstream: Upstream, connection: UpstreamConnection, head: ResponseHead) -> None:
        """What nearly all answers are: good, whole and no stream. One write, and all is over."""
        pieces = connection.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        model, route, reserved = self.model, self.route, self.reserved
        model.counts.first_byte(connection.last_at - self.started_at)
        # What a client has got is written down, also where the process is killed in the next moment.
        self.reserved = NOTHING
        if route.generates:
            self.bill.answered(
                reserved,
                head.usage or usage.read(body) or usage.estimate(self.asked, len(body) // _BYTES_PER_TOKEN),
            )
        else:
            self.bill.settle(reserved, None)
        self.client.write(
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
        self._connection = None
        upstream.pool.give_back(connection)
        self.let_go()
        model.counts.answered(route.dialect, 200)
        self.client.response_done(self.keep_alive)

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
        if self._stay is not None and self._stay.waits:
            self._stay.end()
            self.worker.desk.leave(self._stay.ticket)
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._relay is not None:
            self._relay.cancel()
        elif self._connection is not None:
            if self.route.generates:
                self.used = usage.estimate(self.asked, 0)  # it has at least begun to read
            self._connection.close()
            self._connection = None
        upstream = self.upstream
        if upstream is not None and upstream.breaker.probing:
            upstream.breaker = routing.probe_abandoned(upstream.breaker)
        self.let_go()
        self.model.counts.left(self.route.dialect)

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        if self._relay is not None:
            self._relay.sweep(now)
        elif self._stay is not None and self._stay.waits and self._stay.has_begun:
            self._stay.tell()
