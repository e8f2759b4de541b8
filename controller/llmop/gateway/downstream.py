"""A client's connection: uvicorn's own protocol, with the hot routes answered before ASGI.

Here is what a client sends: the bounds (heads, bodies, slow clients), keys, heads that come again, and the handing over of requests to their
exchanges. When it is whose turn, and how a connection ends, is the business of `turns`.
"""

import asyncio
import functools
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from llmop.domain.client import ClientKey
from llmop.gateway import access, answers, errors, patience
from llmop.gateway.errors import Refusal
from llmop.gateway.exchange import Exchange
from llmop.gateway.faults import guarded
from llmop.gateway.heads import Headers, RequestHead, head_size, read_request_head
from llmop.gateway.page import serve as page
from llmop.gateway.patience import BODY, HEAD, IDLE, LINGER, Lull, Verdict
from llmop.gateway.repeats import shape_of
from llmop.gateway.routes import Route, find_route, is_target
from llmop.gateway.settings import HEAD_LIMIT
from llmop.gateway.turns import Turns
from llmop.gateway.worker import Worker

_KEYLESS_PATHS = frozenset({b"/healthz", page.ROOT})
_KEYLESS_METHODS = frozenset({b"GET", b"HEAD"})
_MOST_HELD = 64 * 1024  # bytes of pipelined requests kept while another one is answered


class GatewayProtocol(Turns):
    __slots__ = (
        "_body",
        "_cold",
        "_key",
        "_last_head",
        "_last_headers",
        "_last_version",
        "_length",
        "_quiet",
        "_received",
        "_refusal",
        "_repeatable",
        "_shape_key",
        "_shape_keys",
        "_shape_route",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        worker: Worker,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, worker=worker)
        self._quiet = 0
        self._received = 0
        # The request that is being read
        self._last_headers: Headers | None = None
        self._last_version = ""
        self._last_head: RequestHead
        self._length: int | None = None
        self._key: ClientKey | None = None
        self._refusal: Refusal | None = None
        self._cold = False
        self._body: bytes | bytearray = b""
        # The keys that what may come again was let in with
        self._repeatable = False
        self._shape_route: Route
        self._shape_keys = 0
        self._shape_key: ClientKey

    def data_received(self, data: bytes) -> None:
        try:
            if self._last:
                return
            if self._busy and not self._cold_open:
                self._held += data
                if len(self._held) > _MOST_HELD:
                    self.flow.pause_reading()
                return
            shape = self._shape
            if shape is not None:
                start = shape.body(data)
                worker = self._worker
                if start >= 0 and len(data) <= worker.body_limit and self._shape_keys == worker.keys.version:
                    self._repeat(data[start:])
                    return
            self._feed(data)
        except Exception:  # noqa: BLE001  # it is logged there
            self.fault(reading=True)

    # Reading requests

    def _repeat(self, body: bytes) -> None:
        """The last request's head again, with another body; the parser, between two messages, does not see it."""
        exchange = self._spare
        if exchange is not None:
            self._spare = None
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
            # The parser is between two messages now, and stays there for as long as this is set.
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
            self._waiting.append(functools.partial(self._start_late, exchange))
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
        if self._busy:
            assert self._head is not None
            self._waiting.append(functools.partial(self._start_cold_late, cycle, app, self._head))
        else:
            self._busy = True
            self._start_cold(cycle, app)

    # Bounds

    def _body_too_large(self) -> None:
        self._worker.counts.refused["body_too_large"] += 1
        self._reject(errors.body_too_large(self._worker.body_limit), self._route)

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
