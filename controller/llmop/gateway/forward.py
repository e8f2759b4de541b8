"""The reverse proxy to `llmop workloads`: files, batches, vector stores and bulk requests, streamed in both directions.

Off the hot path, so the HTTP client may be a comfortable one; it is imported when somebody first comes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from llmop.gateway import errors
from llmop.gateway.errors import Dialect, Refusal
from llmop.gateway.heads import bearer
from llmop.gateway.keys import KEYLESS

if TYPE_CHECKING:
    import aiohttp

LOG = logging.getLogger(__name__)

PATHS = (
    *(
        path + end
        for path in ("/v1/files", "/v1/batches", "/v1/vector_stores")
        for end in ("", "/{rest:path}")
    ),
    "/v1/bulk",
)
_SENT = frozenset((b"content-type", b"content-length", b"accept", b"x-request-id"))
_RETURNED = frozenset(
    ("content-type", "content-length", "content-disposition", "retry-after", "x-llmop-dropped-reason")
)
_AWAY = Refusal(
    status=503,
    code="workloads_away",
    message="files, batches, vector stores and bulk requests are not served at the moment: llmop workloads does not answer",
    retry_after=5,
    dropped="workloads_away",
)
_READ_S = 2.0  # for what people wait for while they look at a list
_SLOW = Refusal(status=408, code="request_timeout", message="the request did not arrive in time")


class Forward:
    """An ASGI application. `idle_s` is how long a client may be silent in the middle of its body."""

    def __init__(self, socket: Path | None, idle_s: float) -> None:
        self._socket = socket
        self._idle_s = idle_s
        self._session: aiohttp.ClientSession | None = None
        self._is_away = False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, path: str) -> bytes | None:
        """What it says itself to a GET; None where it does not."""
        if self._socket is None:
            return None
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=_READ_S)
            async with self._open(self._socket).get(f"http://workloads{path}", timeout=timeout) as answer:
                text = await answer.read()
                if answer.status != 200:
                    self._missed(f"GET {path} gets {answer.status}")
                    return None
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError among them
            self._missed(error)
            return None
        self._is_away = False
        return text

    def _open(self, path: Path) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            # A connection each: one that was kept open would be stale after a restart of the other side.
            connector = aiohttp.UnixConnector(str(path), force_close=True, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
                skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            )
        return self._session

    def _missed(self, why: Exception | str) -> None:
        """Told once until it answers again: somebody may ask every second."""
        if not self._is_away:
            LOG.warning("llmop workloads does not answer: %s", str(why) or type(why).__name__)
        self._is_away = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: asyncio.Queue[bytes] = asyncio.Queue(1)
        answering = _Answering(send)
        exchange = asyncio.create_task(self._exchange(scope, body, answering))
        reader = asyncio.create_task(self._read(receive, body))
        try:
            await asyncio.wait((exchange, reader), return_when=asyncio.FIRST_COMPLETED)
            if exchange.done():
                await exchange
            elif reader.exception() is not None:
                await answering.refuse(_SLOW)
        finally:
            for task in (exchange, reader):
                task.cancel()
            await asyncio.gather(exchange, reader, return_exceptions=True)

    async def _read(self, receive: Receive, body: asyncio.Queue[bytes]) -> None:
        """The body, piece by piece, b"" at its end; returns when the client is gone. Raises TimeoutError for a slow one."""
        more = True
        while more:
            async with asyncio.timeout(self._idle_s):
                message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                await body.put(piece)
        await body.put(b"")
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _exchange(self, scope: Scope, body: asyncio.Queue[bytes], answering: "_Answering") -> None:
        if self._socket is None:
            await answering.refuse(_AWAY)
            return
        import aiohttp
        from yarl import URL

        session = self._open(self._socket)
        target = (scope["raw_path"] or scope["path"].encode()).decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        url = URL(f"http://workloads{target}" + (f"?{query}" if query else ""), encoded=True)
        headers = _headers(scope["headers"], is_keyless=scope["state"]["key"] is KEYLESS)
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        try:
            async with session.request(
                scope["method"],
                url,
                headers=headers,
                data=_pieces(body) if has_body else None,
                allow_redirects=False,
            ) as answer:
                self._is_away = False
                await answering.begin(
                    answer.status,
                    [
                        (name.lower().encode("latin-1"), value.encode("latin-1"))
                        for name, value in answer.headers.items()
                        if name.lower() in _RETURNED
                    ],
                )
                async for piece in answer.content.iter_any():
                    await answering.more(piece)
                await answering.end()
        except (aiohttp.ClientError, OSError) as error:
            self._missed(error)
            if answering.has_begun:
                raise  # and the framing shows the client that something is missing
            await answering.refuse(_AWAY)


class _Answering:
    """What goes to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": last})

    async def refuse(self, refusal: Refusal) -> None:
        if self.has_begun:
            return
        content = errors.payload(refusal, Dialect.OPENAI)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        if refusal.retry_after is not None:
            headers.append((b"retry-after", b"%d" % refusal.retry_after))
        if refusal.dropped:
            headers.append((b"x-llmop-dropped-reason", refusal.dropped.encode()))
        await self.begin(refusal.status, headers)
        await self.end(content)


async def _pieces(body: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while piece := await body.get():
        yield piece


def _headers(given: list[tuple[bytes, bytes]], *, is_keyless: bool) -> list[tuple[str, str]]:
    """Those that go on. The client's key does too, in one form: it says whose files these are. Where none is asked for, what came as one
    was not looked at, and says nothing.
    """
    # Whoever refuses in the middle of a body reads on: with a close its answer could be lost with the connection. We close it all the same.
    headers: dict[str, Any] = {"connection": "keep-alive"}
    # As `heads.read_request_head` reads them: a key that was not checked must not be the owner.
    key = api_key = None
    for name, value in given:
        if name in _SENT:
            headers[name.decode()] = value.decode("latin-1")
        elif name == b"authorization":
            key = bearer(value)
        elif name == b"x-api-key":
            api_key = value
    key = key or api_key
    if key is not None and not is_keyless:
        headers["authorization"] = f"Bearer {key.decode('latin-1')}"
    return list(headers.items())
