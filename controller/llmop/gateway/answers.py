"""Answers of the gateway's own, in bytes. Pure."""

from llmop.gateway import errors
from llmop.gateway.errors import Dialect, Refusal
from llmop.gateway.heads import status_line
from llmop.gateway.routes import Route

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def refusal(
    refused: Refusal, route: Route | None, request_id: bytes, *, keep_alive: bool, body: bool = True
) -> bytes:
    """In the form of the route's dialect; without `body` for HEAD."""
    content = errors.payload(refused, Dialect.OPENAI if route is None else route.dialect)
    lines = [
        status_line(refused.status),
        b"content-type: application/json\r\ncontent-length: %d\r\n" % len(content),
        b"x-request-id: ",
        request_id,
        b"\r\n",
    ]
    if refused.status == 401:
        lines.append(b"www-authenticate: Bearer\r\n")
    if refused.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % refused.retry_after)
    if refused.dropped:
        lines.append(b"x-llmop-dropped-reason: " + refused.dropped.encode() + b"\r\n")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    if body:
        lines.append(content)
    return b"".join(lines)
