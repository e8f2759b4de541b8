"""Where a request goes: to an endpoint with room, into the queue, to another endpoint after a failure, or back to the client."""

import abc
import asyncio
import logging

from llmop.domain.client import ClientKey
from llmop.gateway import access, errors, retry, routing
from llmop.gateway.admission import admit
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Refusal
from llmop.gateway.faults import guarded
from llmop.gateway.fleet import Upstream
from llmop.gateway.heads import RequestHead, ResponseHead
from llmop.gateway.limiter import Exceeded
from llmop.gateway.request import Client, Request
from llmop.gateway.retry import Failure
from llmop.gateway.routes import Route
from llmop.gateway.sse import FirstBlock
from llmop.gateway.stay import Stay
from llmop.gateway.upstream import UpstreamConnection
from llmop.gateway.worker import Worker

LOG = logging.getLogger(__name__)


class Attempts(Request):
    """Those of one request, while nothing of an answer has gone to its client. `is_renewable` says, when it is over, that nothing has
    happened that would have to be forgotten.
    """

    __slots__ = (
        "_connection",
        "_first",
        "_problem",
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
        self._stay: Stay | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tried: tuple[Upstream, ...] = ()
        self._retries = 0
        self._problem = ""
        self._stale_spent = False
        self._first: FirstBlock | None = None
        self.is_renewable = True

    @abc.abstractmethod
    def whole(self, connection: UpstreamConnection, head: ResponseHead, body: bytes) -> bool:
        """As a reader of the connection to the engine."""

    @abc.abstractmethod
    def progress(self, connection: UpstreamConnection) -> None:
        """As a reader of the connection to the engine."""

    @abc.abstractmethod
    def failed(self, connection: UpstreamConnection, failure: Failure, problem: str) -> None:
        """As a reader of the connection to the engine."""

    def renew(self, body: bytes) -> None:
        """The same for the next request with the same head."""
        self.body = body
        self.asked = len(body)
        self.request_id = self.head.request_id or self.worker.request_id()

    def start(self) -> None:
        worker, key, route = self.worker, self.key, self.route
        fleet = worker.fleet
        models = fleet.models_for(key) if key.models else fleet.models
        admission = admit(route, self.head.model, self.body, models)
        if isinstance(admission, Refusal):
            if fleet.received is None:
                admission = errors.NO_TABLE
            worker.counts.unknown.answered(route.dialect, admission.status)
            self.client.refuse(admission, route, self.keep_alive, self.request_id)
            return
        name, body, self.usage_asked, asked = admission
        self.body = body
        model = self.model = fleet.routes[name]
        bill = self.bill = model.bills.get(key.name) or worker.bill(key, model)
        now = self.started_at = worker.loop.time()
        reserved = bill.reserve(body, asked, now, route.generates)
        if not isinstance(reserved, Exceeded):
            self.reserved = reserved
        elif not reserved.shadow:
            self._refuse(errors.over_limit(key, reserved.limit, reserved.wait))
            return
        if worker.budget.tokens < retry.CEILING:  # after some 1,000 requests it mostly is not
            worker.budget.earn()
        self._attempt(now)

    # Attempts

    def _again(self) -> None:
        """Another attempt, perhaps with another table."""
        worker = self.worker
        self.model = worker.fleet.routes.get(self.model.model.name, self.model)
        self._attempt(worker.loop.time())

    @guarded
    def _pause_over(self) -> None:
        self._timer = None
        self._again()

    def _attempt(self, now: float) -> None:
        model = self.model
        deployment = model.deployment
        if deployment.waiters.number:
            self._queue_up(again=self._stay is not None)
            return
        upstream = deployment.choose(self._tried, now, self.worker.random)
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
            await self._send_anew(upstream)
        except Exception:  # noqa: BLE001  # it is logged there
            self._task = None
            self.fault()

    async def _send_anew(self, upstream: Upstream) -> None:
        """Over a connection that has to be made."""
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
            lines = upstream.head
            if self.model.model.virtual:
                lines += head.wishes.passed_on
            head.open(upstream, route, lines)
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
        self._timer = worker.loop.call_later(retry.pause(self._retries, worker.random()), self._pause_over)

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

    @guarded
    def released(self, uid: str) -> None:
        worker, stay = self.worker, self._stay
        assert stay is not None
        stay.end()
        ticket = stay.ticket
        model = self.model = worker.fleet.routes.get(self.model.model.name, self.model)
        objection = access.objection(self.head, self.key, model.model.name, worker.keys)
        if objection is not None:
            worker.desk.leave(ticket)
            self._refuse(objection)
            return
        now = worker.loop.time()
        upstream = model.deployment.named(uid, self._tried, now, worker.random)
        if upstream is not None:
            self._use(upstream, now)
            worker.desk.begun(ticket)
        else:  # this process cannot use it
            worker.desk.failed(model.deployment.name, uid)
            worker.desk.begun(ticket)
            self._queue_up(again=True)

    @guarded
    def dropped(self, why: Dropped, retry_after: int) -> None:
        stay = self._stay
        assert stay is not None
        stay.end()
        self.model = self.worker.fleet.routes.get(self.model.model.name, self.model)
        refusal = stay.refusal(why, retry_after)
        self._refuse(
            errors.upstream_failed(self.model.model.name, self._problem) if self._problem else refusal
        )
