"""A client's connection as its requests see it: whose turn it is to be answered, refusals, faults, and how it ends.

uvicorn keeps listening, TLS, shutdown and the few other routes; their answers wait for their turn too.
"""

import abc
import asyncio
import contextlib
import functools
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from llmop.domain.client import ClientKey
from llmop.gateway import access, answers, errors
from llmop.gateway.bill import NOTHING
from llmop.gateway.errors import Refusal
from llmop.gateway.exchange import Exchange
from llmop.gateway.faults import guarded
from llmop.gateway.heads import RequestHead
from llmop.gateway.patience import CLOSING, HEAD, LINGER
from llmop.gateway.repeats import Shape
from llmop.gateway.request import Request
from llmop.gateway.routes import Route
from llmop.gateway.worker import Worker


class Turns(HttpToolsProtocol, abc.ABC):
    """`_busy` says that a request is being answered; `_waiting` holds, in order, what starts the answers of those behind it, and `_held` what
    was not read meanwhile. `_head` and `_route` are those of the request that is being read.
    """

    # Here and below: beside uvicorn's attributes there are too many for the interpreter's fast way to those of a dictionary (30, in Python 3.11).
    __slots__ = (
        "_busy",
        "_cold_open",
        "_continue_due",
        "_exchange",
        "_head",
        "_held",
        "_keyless",
        "_last",
        "_phase",
        "_progress",
        "_route",
        "_shape",
        "_since",
        "_spare",
        "_stopping",
        "_tls",
        "_waiting",
        "_worker",
        "write",
    )

    _tls: bool
    write: Callable[[bytes], None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        worker: Worker,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._worker = worker
        self._keyless = False
        self._busy = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._held = bytearray()
        self._exchange: Exchange | None = None
        self._last = False  # no further request will be taken
        self._stopping = False
        self._phase = HEAD
        self._since = self._progress = self.loop.time()
        self._head: RequestHead | None = None
        self._route: Route | None = None
        self._cold_open = False
        self._continue_due = False
        # What may come again
        self._shape: Shape | None = None
        self._spare: Exchange | None = None  # of the last request, for the next one with its head

    @abc.abstractmethod
    def _feed(self, data: bytes) -> None:
        """Reads what the client has sent."""

    @abc.abstractmethod
    def sweep(self, now: float) -> None:
        """Called about once a second: whoever is too slow goes."""

    # What asyncio calls

    @guarded
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._worker.connections.add(self)
        self._worker.counts.connections += 1
        self.transport = transport  # what ends it needs nothing else
        self.write = transport.write
        super().connection_made(transport)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._keyless = transport.get_extra_info("socket").family == socket.AF_UNIX

    @guarded
    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.connections.discard(self)
        self._worker.counts.connections -= 1
        self._last = True
        self._waiting.clear()
        self._held.clear()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.cancel()
            self._end_exchange()

    @guarded
    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.pause()

    @guarded
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.resume()

    # Faults

    def fault(self, *, reading: bool = False) -> None:
        """Something that nobody foresaw was raised; called where that is caught. `reading`: in the course of what the client sends."""
        exchange = self._exchange
        if exchange is not None:
            exchange.fault()
            return
        request_id = (self._head and self._head.request_id) or self._worker.request_id()
        self._worker.faults.note("a client's connection", request_id)
        with self._in_the_end(request_id):
            if reading and not self._busy:
                self._reject(errors.INTERNAL, self._route, request_id)
            else:
                self._close()

    def failed(self, request: Request, last: bytes | None) -> None:
        with self._in_the_end(request.request_id):
            if self._exchange is not request:
                if self._exchange is None:
                    self._close()
            elif last is None:
                self.refuse(errors.INTERNAL, request.route, False, request.request_id)
            else:
                self.write(last)
                self.break_off(visible=request.http11)

    @contextlib.contextmanager
    def _in_the_end(self, request_id: bytes) -> Iterator[None]:
        """Whatever is left of the connection, the client does not wait for ever."""
        ended = False
        with self._worker.faults.guard("telling a client of a fault", request_id):
            yield
            ended = True
        if not ended:
            self._exchange = None
            self.transport.abort()

    # Answering, in order

    def _enqueue(self, start: Callable[[], None]) -> None:
        if self._busy:
            self._waiting.append(start)
        else:
            self._busy = True
            start()

    def _start_exchange(self, exchange: Exchange) -> None:
        self._exchange = exchange
        exchange.start()

    def _start_late(self, exchange: Exchange) -> None:
        """The answer before it may have taken hours."""
        found = self._whose_now(exchange.head)
        if isinstance(found, Refusal):
            self._answer_refusal(found, exchange.route, exchange.keep_alive, exchange.head, body=True)
        else:
            exchange.key = found
            self._start_exchange(exchange)

    def _whose_now(self, head: RequestHead) -> ClientKey | Refusal:
        """Of a request that was let in when its head was read."""
        return access.whose(head, self._worker.keys, keyless=self._keyless, has_table=True)

    def _end_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _start_cold(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._cold_open = cycle.more_body
        super()._start_asgi_task(cycle, app)

    def _start_cold_late(self, cycle: RequestResponseCycle, app: Any, head: RequestHead) -> None:
        state = cycle.scope["state"]
        if state["key"] is not None:  # else it needs none
            found = self._whose_now(head)
            if isinstance(found, Refusal):
                # Its body may still be on its way, for a cycle that never begins.
                self._answer_refusal(found, None, False, head, body=cycle.scope["method"] != "HEAD")
                return
            state["key"] = found
        self._start_cold(cycle, app)

    @guarded
    def on_response_complete(self) -> None:
        """uvicorn calls it after the answer to one of the other routes."""
        self._cold_open = False
        self.response_done(keep_alive=not self.transport.is_closing())

    def response_done(self, keep_alive: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exchange.reserved != NOTHING or exchange.used is not None:
                exchange.close()
            if exchange.is_renewable and self._shape is not None:
                exchange.body = b""
                self._spare = exchange
        if not keep_alive or self._stopping:
            self._close()
        elif self._waiting or self._held:
            self.loop.call_soon(self._next)
        else:
            self._rest()

    @guarded
    def _next(self) -> None:
        if self.transport.is_closing():
            return
        if self._waiting:
            self._waiting.popleft()()
            return
        self._rest()
        held = bytes(self._held)
        self._held.clear()
        if held:
            self._feed(held)

    def _rest(self) -> None:
        """Nothing is being answered: read on."""
        self._busy = False
        self._since = self._progress = self.loop.time()
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._continue_due:
            self._continue_due = False
            self.write(answers.CONTINUE)

    # Refusing

    def refuse(self, refusal: Refusal, route: Route | None, keep_alive: bool, request_id: bytes) -> None:
        self.write(answers.refusal(refusal, route, request_id, keep_alive=keep_alive))
        self.response_done(keep_alive)

    def _answer_refusal(
        self, refusal: Refusal, route: Route | None, keep_alive: bool, head: RequestHead, *, body: bool
    ) -> None:
        if route is not None:
            self._worker.counts.unknown.answered(route.dialect, refusal.status)
        request_id = head.request_id or self._worker.request_id()
        self.write(answers.refusal(refusal, route, request_id, keep_alive=keep_alive, body=body))
        self.response_done(keep_alive)

    def _reject(self, refusal: Refusal, route: Route | None = None, request_id: bytes = b"") -> None:
        """The rest of what the client sends cannot be trusted, or is not wanted: its turn comes, it is told, and that is all."""
        if not self._last:
            self._last = True
            self._enqueue(
                functools.partial(self._answer_last, refusal, route, request_id or self._worker.request_id())
            )

    def _answer_last(self, refusal: Refusal, route: Route | None, request_id: bytes) -> None:
        if route is not None:
            self._worker.counts.unknown.answered(route.dialect, refusal.status)
        self.write(answers.refusal(refusal, route, request_id, keep_alive=False))
        # A close with unread data would reset the connection and could take the answer away from the client.
        self._phase = LINGER
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # Ending

    def _close(self) -> None:
        """What was written still goes out."""
        self._last = True
        self._phase = CLOSING
        self._since = self.loop.time()
        self.transport.close()

    def break_off(self, visible: bool) -> None:
        self._end_exchange()
        if visible:
            self._close()
        else:
            self._last = True
            self.transport.abort()

    def stalled(self) -> None:
        self._worker.counts.refused["slow_reader"] += 1
        self.transport.abort()

    def abort(self) -> None:
        self.transport.abort()

    @guarded
    def shutdown(self) -> None:
        """uvicorn is stopping: what is being answered is finished, nothing else begins."""
        self._stopping = True
        if not self._busy:
            self._close()

    @property
    def is_answering(self) -> bool:
        return self._busy

    def reading_stalled(self) -> bool:
        return self.flow.write_paused
