"""A request under way: what is known of it and what it holds, for those who carry it (`exchange`), wait with it (`stay`) and copy its
answer (`relay`).
"""

import abc
import math
from collections.abc import Callable
from typing import Protocol

from llmop.domain.client import ClientKey
from llmop.gateway.bill import NOTHING, Bill
from llmop.gateway.errors import Refusal
from llmop.gateway.fleet import ModelRoute, Upstream
from llmop.gateway.heads import RequestHead
from llmop.gateway.routes import Route
from llmop.gateway.usage import Usage
from llmop.gateway.worker import Worker


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

    def failed(self, request: "Request", last: bytes | None) -> None:
        """A fault of ours ends this request. `last` is what can still be said in its answer, None where nothing of one has gone out. Of a
        request whose answer is out, or which nobody waits for any more, only the connection ends.
        """
        ...


class Request(abc.ABC):
    """`asked` is the size of what the client sent, in bytes; `upstream` is the endpoint where it is; `usage_asked` says that the engine
    was asked for a usage that the client does not want to see. `model` and `bill` are there once it is admitted.
    """

    __slots__ = (
        "asked",
        "bill",
        "body",
        "client",
        "head",
        "http11",
        "keep_alive",
        "key",
        "model",
        "request_id",
        "reserved",
        "route",
        "started_at",
        "upstream",
        "usage_asked",
        "used",
        "worker",
    )

    model: ModelRoute
    bill: Bill

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
        self.worker = worker
        self.client = client
        self.route = route
        self.head = head
        self.body = body
        self.key = key
        self.asked = len(body)
        self.keep_alive = keep_alive
        self.http11 = http11
        self.request_id = head.request_id or worker.request_id()
        self.upstream: Upstream | None = None
        self.usage_asked = False
        self.started_at = -math.inf
        self.reserved = NOTHING
        self.used: Usage | None = None

    @abc.abstractmethod
    def fault(self) -> None:
        """Something that nobody foresaw was raised in the course of it; called where that is caught."""

    def let_go(self) -> None:
        """Of the endpoint, if it has one."""
        upstream = self.upstream
        if upstream is not None:
            self.upstream = None
            upstream.end()
            model = self.model
            model.counts.in_flight -= 1
            deployment = model.deployment
            if deployment.waiters.number:
                self.worker.desk.freed(deployment.name)

    def spent(self, used: Usage) -> None:
        self.used = used
        self.bill.spent(used)

    def close(self) -> None:
        """Nothing more is used, however it ended."""
        used, reserved = self.used, self.reserved
        if used is not None or reserved != NOTHING:
            self.used = None
            self.reserved = NOTHING
            self.bill.settle(reserved, used)
