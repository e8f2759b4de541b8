"""Heads of requests and answers: what is read from them, what is passed on. Pure.

Header names are lower case here. Hop-by-hop fields (RFC 9110, 7.6.1) end at this hop, in both directions.
"""

import dataclasses
import math
import re
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from llmop.gateway.errors import Refusal, bad_request
from llmop.gateway.queue import Priority
from llmop.gateway.routes import Route
from llmop.gateway.usage import Usage

Headers = list[tuple[bytes, bytes]]

(
    _DROP,
    _CONNECTION,
    _AUTHORIZATION,
    _API_KEY,
    _MODEL,
    _REQUEST_ID,
    _EXPECT,
    _ENCODING,
    _TRANSFER,
    _HOST,
    _PROGRESS,
    _TIMEOUT,
    _PRIORITY,
    _FOR,
) = range(14)
_REQUEST_ACTIONS = {
    b"connection": _CONNECTION,
    b"authorization": _AUTHORIZATION,
    b"x-api-key": _API_KEY,
    b"x-model": _MODEL,
    b"x-request-id": _REQUEST_ID,
    b"expect": _EXPECT,
    b"content-encoding": _ENCODING,
    b"transfer-encoding": _TRANSFER,
    b"host": _HOST,
    b"x-llmop-for": _FOR,
    b"x-llmop-progress": _PROGRESS,
    b"x-llmop-timeout": _TIMEOUT,
    b"x-llmop-priority": _PRIORITY,
} | dict.fromkeys(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"cookie",
        b"accept-encoding",  # engines answer us uncompressed: the first event of a stream is read
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    ),
    _DROP,
)
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
_LONGEST_REQUEST_ID = 128
_SECONDS = re.compile(rb"\d{1,7}(\.\d{1,6})?")
_PRIORITIES = {b"default": Priority.DEFAULT, b"bulk": Priority.BULK}


class Wishes(NamedTuple):
    """How a request is to wait where no endpoint can take it: for `patience` seconds at most, and telling the client of its `progress`.
    `owner` is the hash of the key that it is made for.
    It lets pass whoever goes before `priority`, and before what its key allows; the first of all is no wish.
    """

    progress: bool = False
    patience: float = math.inf
    priority: Priority = Priority.SYSTEM
    owner: bytes | None = None

    @property
    def passed_on(self) -> bytes:
        """Lines for `llmop workloads`, whose calls wait where this request does not."""
        patience = b"x-llmop-timeout: %f\r\n" % self.patience if math.isfinite(self.patience) else b""
        return patience + (b"x-llmop-progress: 1\r\n" if self.progress else b"")


_NO_WISHES = Wishes()


@dataclasses.dataclass(slots=True)
class RequestHead:
    """`forward` holds the lines that go on to the engine. `opening` is what was last written before a request's own id, with this head
    for this endpoint on this route.
    """

    forward: bytes
    key: bytes | None
    model: str | None
    request_id: bytes | None
    expects_continue: bool
    problem: Refusal | None
    wishes: Wishes
    opening: bytes = b""
    opened_for: object = None
    opened_on: Route | None = None

    def open(self, endpoint: object, route: Route, lines: bytes) -> None:
        """`lines` are the endpoint's own."""
        self.opening = b"".join(
            (route.method, b" ", route.target, b" HTTP/1.1\r\n", lines, self.forward, b"x-request-id: ")
        )
        self.opened_for = endpoint
        self.opened_on = route


def read_request_head(headers: Headers, version: str) -> RequestHead:
    """What a head says, Content-Length apart: it differs from request to request where the others do not. `problem` is set
    where the framing or the meaning cannot be trusted.

    The parser has refused already: both lengths, several lengths, folded lines, bare CR or LF, control characters, blanks
    before the colon. Here follow the ambiguities that it lets through.
    """
    forward: list[bytes] = []
    key = api_key = request_id = connection = None
    model: str | None = None
    expects_continue = False
    wishes = _NO_WISHES
    problem: Refusal | None = None
    hosts = 0
    actions = _REQUEST_ACTIONS
    for name, value in headers:
        action = actions.get(name)
        if action is None:
            forward += (name, b": ", value, b"\r\n")
        elif action == _DROP:
            continue
        elif action == _HOST:
            hosts += 1
        elif action == _AUTHORIZATION:
            key = bearer(value)
        elif action == _API_KEY:
            api_key = value
        elif action == _CONNECTION:
            if value not in _PLAIN_CONNECTION:
                connection = value if connection is None else connection + b"," + value
        elif action == _REQUEST_ID:
            request_id = value if is_request_id(value) else None
        elif action == _MODEL:
            model = value.decode(errors="replace")
        elif action == _EXPECT:
            expects_continue = value.lower() == b"100-continue"
            if not expects_continue:
                problem = Refusal(
                    status=417, code="expectation_failed", message="only 'Expect: 100-continue' is known"
                )
        elif action >= _PROGRESS:
            wishes, fault = _read_wish(wishes, action, value)
            problem = fault or problem
        else:
            problem = _coding_problem(action, value, version) or problem
    problem = _line_problem(version, hosts) or problem
    joined = b"".join(forward) if connection is None else _without_listed(headers, connection)
    return RequestHead(
        forward=joined,
        key=key or api_key,
        model=model,
        request_id=request_id,
        expects_continue=expects_continue and version == "1.1",
        problem=problem,
        wishes=wishes,
    )


def _read_wish(wishes: Wishes, action: int, value: bytes) -> tuple[Wishes, Refusal | None]:
    """A client may let others pass; to go before others is nothing to ask for."""
    shown = value[:40].decode("latin-1")
    if action == _PROGRESS:
        return wishes._replace(progress=value == b"1"), None
    if action == _FOR:
        return wishes._replace(owner=value), None
    if action == _TIMEOUT:
        if _SECONDS.fullmatch(value) and float(value) > 0:
            return wishes._replace(patience=float(value)), None
        return wishes, bad_request(
            f"x-llmop-timeout: {shown!r} is not a number of seconds above 0, like 30 or 2.5"
        )
    priority = _PRIORITIES.get(value.lower())
    if priority is None:
        return wishes, bad_request(f"x-llmop-priority: {shown!r} is not one of default, bulk")
    return wishes._replace(priority=priority), None


def _line_problem(version: str, hosts: int) -> Refusal | None:
    if version not in ("1.1", "1.0"):
        return Refusal(status=505, code="http_version", message="HTTP/1.1 and HTTP/1.0 are spoken here")
    if hosts != 1 and (hosts or version == "1.1"):
        return bad_request("the request must have exactly one Host header", "invalid_host")
    return None


def _coding_problem(action: int, value: bytes, version: str) -> Refusal | None:
    if action == _TRANSFER:
        if value.lower() != b"chunked":
            return Refusal(
                status=501,
                code="transfer_coding",
                message="the only transfer coding known here is 'chunked'",
            )
        if version != "1.1":
            return bad_request("Transfer-Encoding needs HTTP/1.1", "transfer_coding")
        return None
    if value.lower() != b"identity":
        return Refusal(status=415, code="content_coding", message="send the body without Content-Encoding")
    return None


def _without_listed(headers: Headers, connection: bytes) -> bytes:
    listed = {token.strip().lower() for token in connection.split(b",")}
    return b"".join(
        name + b": " + value + b"\r\n"
        for name, value in headers
        if name not in _REQUEST_ACTIONS and name not in listed
    )


def bearer(value: bytes) -> bytes | None:
    """The token of an Authorization value, or None for another scheme."""
    if value[:7].lower() != b"bearer ":
        return None
    return value[7:].strip()


def is_request_id(value: bytes) -> bool:
    return (
        0 < len(value) <= _LONGEST_REQUEST_ID and value.isascii() and b" " not in value and b"\t" not in value
    )


def head_size(url: bytes, headers: Headers) -> int:
    """Bytes of a head, nearly: request line, names, values and what separates them."""
    return len(url) + 20 + sum(len(name) + len(value) + 4 for name, value in headers)


_RESPONSE_TYPE, _RESPONSE_CONNECTION, _RESPONSE_DROP, _RESPONSE_TRANSFER, _PROMPT, _GENERATED = range(6)
_RESPONSE_ACTIONS = {
    b"content-type": _RESPONSE_TYPE,
    b"connection": _RESPONSE_CONNECTION,
    b"transfer-encoding": _RESPONSE_TRANSFER,
    b"x-prompt-tokens": _PROMPT,
    b"x-generated-tokens": _GENERATED,
} | dict.fromkeys(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"upgrade",
        b"set-cookie",
        b"x-request-id",
        b"x-llmop-replica",
        b"x-llmop-queue-ms",
        b"x-llmop-dropped-reason",
    ),
    _RESPONSE_DROP,
)
_FORWARDED = frozenset((_RESPONSE_TYPE, _PROMPT, _GENERATED))


@dataclasses.dataclass(slots=True)
class ResponseHead:
    """`start` holds the status line and the lines that go on to the client. `framed` says whether the answer's end is known without its
    length and without the connection's end. `usage` is what TGI's unary answers say in their heads (`x-prompt-tokens` and
    `x-generated-tokens`, router/src/server.rs).
    """

    start: bytes
    framed: bool
    stream: bool
    usage: Usage | None


def read_response_head(headers: Headers, status: int) -> ResponseHead:
    """Content-Length is left to the caller, as above."""
    forward: list[bytes] = []
    chunked = stream = False
    connection = prompt = generated = b""
    actions = _RESPONSE_ACTIONS
    for name, value in headers:
        action = actions.get(name)
        if action is None:
            forward += (name, b": ", value, b"\r\n")
        elif action == _RESPONSE_TYPE:
            forward += (b"content-type: ", value, b"\r\n")
            stream = value[:17].lower() == b"text/event-stream"
        elif action == _RESPONSE_TRANSFER:
            chunked = value.lower().endswith(b"chunked")
        elif action == _RESPONSE_CONNECTION and value not in _PLAIN_CONNECTION:
            connection += b"," + value.lower()
        elif action >= _PROMPT:
            forward += (name, b": ", value, b"\r\n")
            if action == _PROMPT:
                prompt = value
            else:
                generated = value
    if connection:
        listed = {token.strip() for token in connection.split(b",")}
        forward = [
            name + b": " + value + b"\r\n"
            for name, value in headers
            if _RESPONSE_ACTIONS.get(name, _RESPONSE_TYPE) in _FORWARDED and name not in listed
        ]
    bodiless = status in (204, 304)
    return ResponseHead(
        start=status_line(status) + b"".join(forward),
        framed=bodiless or chunked,
        stream=stream,
        usage=_said(prompt, generated),
    )


def _said(prompt: bytes, generated: bytes) -> Usage | None:
    if prompt.isdigit() and generated.isdigit() and len(prompt) < 16 and len(generated) < 16:
        return Usage(int(prompt), int(generated))
    return None


def status_line(status: int) -> bytes:
    """With CRLF."""
    return STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
