"""A client's connection: uvicorn's own protocol, with the hot routes answered before ASGI.

uvicorn keeps listening, TLS, shutdown and the few other routes. Here are the bounds (heads, bodies, slow clients), the order of
pipelined requests, keys, and the handing over of hot requests to their exchanges.
"""

import asyncio
import contextlib
import functools
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from llmop.domain.client import ClientKey
from llmop.gateway import access, answers, errors, patience
from llmop.gateway.bill import NOTHING
from llmop.gateway.errors import Refusal
from llmop.gateway.exchange import Exchange
from llmop.gateway.faults import guarded
from llmop.gateway.heads import Headers, RequestHead, head_size, read_request_head
from llmop.gateway.page import serve as page
from llmop.gateway.patience import BODY, CLOSING, HEAD, IDLE, LINGER, Lull, Verdict
from llmop.gateway.repeats import Shape, shape_of
from llmop.gateway.request import Request
from llmop.gateway.routes import Route, find_route, is_target
from llmop.gateway.settings import HEAD_LIMIT
from llmop.gateway.worker import Worker

_KEYLESS_PATHS = frozenset({b"/healthz", page.ROOT})
_KEYLESS_METHODS = frozenset({b"GET", b"HEAD"})
_MOST_HELD = 64 * 1024  # bytes of pipelined requests kept while another one is answered


class GatewayProtocol(HttpToolsProtocol):
    """`_busy` says that a request is being answered; `_waiting` holds, in order, what starts the answers of those behind it."""

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
        self._quiet = 0
        self._received = 0
        # The request that is being read
        self._head: RequestHead | None = None
        self._last_headers: Headers | None = None
        self._last_version = ""
        self._last_head: RequestHead
        # What may come again, and the keys it was let in with
        self._shape: Shape | None = None
        self._spare: Exchange | None = None  # of the last request, for the next one with its head
        self._repeatable = False
        self._shape_route: Route
        self._shape_keys = 0
        self._shape_key: ClientKey
        self._length: int | None = None
        self._route: Route | None = None
        self._key: ClientKey | None = None
        self._refusal: Refusal | None = None
        self._cold = False
        self._cold_open = False
        self._continue_due = False
        self._body: bytes | bytearray = b""

    # What asyncio calls

    @guarded
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._worker.connections.add(self)
        self._worker.counts.connections += 1
        self.transport = transport  # what ends it needs nothing else
        self.write: Callable[[bytes], None] = transport.write
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

    def data_received(self, data: bytes) -> None:
        try:
            if self._last:
                return
            if self._busy and not self._cold_open:
                self._held += data
                if len(self._held) > _MOST_HELD:
                    self.flow.pause_reading()
                return
            if self._shape is not None and self._phase == IDLE and not self._quiet:
                start = self._shape.body(data)
                if (
                    start >= 0
                    and len(data) <= self._worker.body_limit
                    and self._shape_keys == self._worker.keys.version
                ):
                    self._repeat(data[start:])
                    return
            self._feed(data)
        except Exception:  # noqa: BLE001  # it is logged there
            self.fault(reading=True)

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

    # Reading requests

    def _repeat(self, body: bytes) -> None:
        """The last request's head again, with another body; the parser, between two messages, does not see it."""
        exchange, self._spare = self._spare, None
        if exchange is not None:
            exchange.renew(body)
        else:
            exchange = Exchange(
                self._worker,
                self,
                self._shape_route,
                self._last_head,
                body,
                self._shape_key,
                True,
                True,
            )
        self._busy = True
        self._exchange = exchange
        exchange.start()

    def _feed(self, data: bytes) -> None:
        self._shape = None
        self._spare = None
        self._repeatable = False
        fresh = not self._quiet and self._phase <= HEAD
        self._quiet += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            self.fault(reading=True)
        except httptools.HttpParserError as error:
            self._worker.counts.refused["malformed"] += 1
            self._reject(errors.bad_request(f"the request is not valid HTTP/1.1: {error}", "malformed"))
        except httptools.HttpParserUpgrade:
            return  # refused when its head was complete
        if self._quiet > HEAD_LIMIT and not self._last:
            self._worker.counts.refused["head_too_large"] += 1
            self._reject(errors.head_too_large(HEAD_LIMIT))
        elif fresh and self._repeatable:
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        shape = shape_of(data)
        if shape is not None and shape.body(data) >= 0:
            self._shape = shape
            self._shape_keys = self._worker.keys.version

    def on_message_begin(self) -> None:
        if self._last:
            return
        self.url = b""
        self.headers = []
        self._length = None
        self._phase = HEAD
        self._since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._last:
            return
        headers: Headers = self.headers
        self.headers = []  # a chunked body's trailer must not look like headers
        if self._quiet > HEAD_LIMIT and head_size(self.url, headers) > HEAD_LIMIT:
            self._worker.counts.refused["head_too_large"] += 1
            self._reject(errors.head_too_large(HEAD_LIMIT))
            return
        self._quiet = 0
        version = self.parser.get_http_version()
        # A client's heads are mostly the same for the life of its connection.
        if headers != self._last_headers or version != self._last_version:
            self._last_headers = headers
            self._last_version = version
            self._last_head = read_request_head(headers, version)
        head = self._last_head
        problem = head.problem
        if problem is None and self.parser.should_upgrade():
            problem = errors.bad_request(
                "protocol upgrades are not supported: send the request without Upgrade", "upgrade"
            )
        if problem is None and not is_target(self.url):
            problem = errors.bad_request("the request's target must be a path", "malformed")
        if problem is not None:
            self._reject(problem)
            return
        route = find_route(self.parser.get_method(), self.url)
        self._head = head
        self._route = route
        self._body = b""
        self._received = 0
        self._refusal = None
        self._phase = BODY
        self._progress = self._since
        self._key = self._whose(head, route)
        if self._refusal is None and route is not None and (self._length or 0) > self._worker.body_limit:
            self._body_too_large()
            return
        self._cold = route is None and self._refusal is None
        if self._cold:
            self._begin_cold(headers)
        elif head.expects_continue:
            if self._refusal is not None:
                self._reject(self._refusal, route)
            elif self._busy:
                self._continue_due = True
            else:
                self.write(answers.CONTINUE)

    def _whose(self, head: RequestHead, route: Route | None) -> ClientKey | None:
        """None sets the refusal, but where no key is asked for."""
        worker = self._worker
        has_table = worker.fleet.received is not None  # with which keys come
        found = access.whose(head, worker.keys, keyless=self._keyless, has_table=has_table)
        if not isinstance(found, Refusal):
            return found
        if head.wishes.owner is not None or not self._is_keyless(route):
            self._refusal = found
        return None

    def on_body(self, body: bytes) -> None:
        self._quiet = 0
        if self._last:
            return
        if self._cold:
            if not self.cycle.response_complete:
                super().on_body(body)
            return
        self._progress = self.loop.time()
        self._received += len(body)
        if self._received > self._worker.body_limit:
            self._body_too_large()
        elif self._refusal is None:
            if not self._body:
                self._body = body
            else:
                if type(self._body) is bytes:
                    self._body = bytearray(self._body)
                self._body += body

    def on_message_complete(self) -> None:
        self._quiet = 0
        if self._last:
            return
        self._phase = IDLE
        if self._cold:
            self._cold_open = False
            super().on_message_complete()
            return
        self._continue_due = False
        keep_alive = self.parser.should_keep_alive()
        http11 = self.parser.get_http_version() == "1.1"
        head, self._head = self._head, None
        assert head is not None
        refusal = self._refusal
        route = self._route
        if refusal is not None or route is None:
            assert refusal is not None
            self._enqueue(
                functools.partial(
                    self._answer_refusal,
                    refusal,
                    route,
                    keep_alive and http11,
                    head,
                    body=self.parser.get_method() != b"HEAD",
                )
            )
            return
        self._repeatable = keep_alive and http11 and not head.expects_continue
        self._shape_route = route
        key = self._key
        assert key is not None
        self._shape_key = key
        body, self._body = self._body, b""
        exchange = Exchange(
            self._worker,
            self,
            route,
            head,
            body if type(body) is bytes else bytes(body),
            key,
            keep_alive and http11,
            http11,
        )
        if self._busy:
            self._waiting.append(functools.partial(self._start_exchange, exchange))
        else:
            self._busy = True
            self._start_exchange(exchange)

    def _is_keyless(self, route: Route | None) -> bool:
        """The page asks for a key itself, and nothing of an installation is in its files."""
        path = self.url.partition(b"?")[0]
        return (
            route is None
            and (path in _KEYLESS_PATHS or path.startswith(page.FOLDER))
            and self.parser.get_method() in _KEYLESS_METHODS
        )

    def _begin_cold(self, headers: Headers) -> None:
        """Hands a request to uvicorn, which builds its cycle; the order of the answers stays ours."""
        self.headers = list(headers)
        if self._length is not None:
            self.headers.append((b"content-length", b"%d" % self._length))
        self.expect_100_continue = self._head is not None and self._head.expects_continue
        self.scope = {  # type: ignore[typeddict-item]  # uvicorn adds the rest
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state | {"key": self._key},
        }
        self.cycle = None  # type: ignore[assignment]  # else uvicorn would queue it behind a cycle of its own
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._enqueue(functools.partial(self._start_cold, cycle, app))

    # Answering, in order

    def _enqueue(self, start: Callable[[], None]) -> None:
        if self._busy:
            self._waiting.append(start)
        else:
            self._busy = True
            start()

    @guarded
    def _start_exchange(self, exchange: Exchange) -> None:
        self._exchange = exchange
        exchange.start()

    def _end_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _start_cold(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._cold_open = cycle.more_body
        super()._start_asgi_task(cycle, app)

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

    def _body_too_large(self) -> None:
        self._worker.counts.refused["body_too_large"] += 1
        self._reject(errors.body_too_large(self._worker.body_limit), self._route)

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

    @guarded
    def sweep(self, now: float) -> None:
        """Called about once a second: whoever is too slow goes."""
        if self._phase < LINGER and self._busy:
            if self._exchange is not None:
                self._exchange.sweep(now)
            return
        lull = Lull(
            phase=self._phase,
            waited=now - self._since,
            silent=now - self._progress,
            received=self._received,
            farewell=self._stopping and self._tls and not self.flow.write_paused,
        )
        match patience.judge(lull, self._worker.timeouts):
            case Verdict.FINE:
                pass
            case Verdict.OVER:
                self.transport.abort()
            case Verdict.SLOW_READER:
                self.stalled()
            case Verdict.SLOW_HEAD | Verdict.SLOW_BODY as slow:
                self._too_slow(slow.value)

    def _too_slow(self, reason: str) -> None:
        self._worker.counts.refused[reason] += 1
        self._reject(
            Refusal(status=408, code="request_timeout", message="the request did not arrive in time"),
            self._route,
        )
