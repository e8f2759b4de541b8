"""Requests to the gateway: the one place that knows the HTTP client."""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol

import aiohttp
import orjson

from llmop.workloads.answers import Answer
from llmop.workloads.judgement import Broken, Outcome, Overdue, Unreachable

ANSWER_LIMIT = 4 * 1024 * 1024  # bytes
_LONGEST_S = 3600.0  # no answer takes longer; the gateway's own bound is on silence
_CONNECT_S = 10.0
_LOOK_S = 1.0
_TIMEOUT = "x-llmop-timeout"
# How long a client cares to wait for replicas, in its own words: all that is asked for it has that patience and no more.
_patience: contextvars.ContextVar[str] = contextvars.ContextVar("patience", default="")


def as_patient_as(headers: Mapping[str, str]) -> None:
    """Of a client's request, in whose task everything is asked for it. The gateway has read the value."""
    _patience.set(headers.get(_TIMEOUT, ""))


class Caller(Protocol):
    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        """One attempt. `key` None = that of this process, which may ask for the key with the hash `owner`. Cancelled, it takes its request
        back.
        """
        ...


class Talker(Caller, Protocol):
    def stream(
        self, url: str, body: dict[str, Any]
    ) -> AbstractAsyncContextManager[Outcome | AsyncIterator[bytes]]:
        """The data of each server-sent event as it comes, or what came instead of a stream. The iterator raises BrokenOff when it does."""
        ...


class BrokenOff(Exception):
    """A stream that had begun came to no good end; the text says why."""


class Gateway:
    """At `http://host:port`, `https://...` or `unix:/path`. The proxies of the environment are for the world outside, and redirects are
    not followed.
    """

    def __init__(self, address: str, key: str, priority: str) -> None:
        """Where requests have to wait, those of the priority `bulk` let those of people (`default`) go first."""
        self._key = key
        if address.startswith("unix:"):
            path = "/" + address.removeprefix("unix:").lstrip("/")
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(path, limit=0)
            self._base = "http://gateway"
        else:
            connector = aiohttp.TCPConnector(limit=0)
            self._base = address.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=_LONGEST_S, sock_connect=_CONNECT_S),
            headers={"content-type": "application/json", "x-llmop-priority": priority},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        headers = _headers(self._key if key is None else key)
        if owner is not None:
            headers["x-llmop-for"] = owner
        content = orjson.dumps(body)
        try:
            async with self._session.post(
                self._base + url, data=content, headers=headers, allow_redirects=False
            ) as answer:
                return await _whole(answer)
        except aiohttp.ConnectionTimeoutError:
            return Unreachable(f"it did not take the connection in {_CONNECT_S:g} s")
        except aiohttp.ClientConnectorError as error:
            return Unreachable(error.os_error.strerror or str(error.os_error))
        except TimeoutError:
            return Overdue(_LONGEST_S)
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            return Broken(str(error) or type(error).__name__)

    async def look(self, path: str) -> bytes | None:
        """What a GET gives at once; None for everything but an answer of 200."""
        try:
            async with (
                asyncio.timeout(_LOOK_S),
                self._session.get(
                    self._base + path, headers=_headers(self._key), allow_redirects=False
                ) as answer,
            ):
                found = await _whole(answer)
        except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError, OSError):
            return None
        return found.body if isinstance(found, Answer) and found.status == 200 else None

    @contextlib.asynccontextmanager
    async def stream(self, url: str, body: dict[str, Any]) -> AsyncIterator[Outcome | AsyncIterator[bytes]]:
        headers = _headers(self._key)
        try:
            answer = await self._session.post(
                self._base + url, data=orjson.dumps(body), headers=headers, allow_redirects=False
            )
        except aiohttp.ClientConnectorError as error:
            yield Unreachable(error.os_error.strerror or str(error.os_error))
            return
        except TimeoutError:
            yield Overdue(_LONGEST_S)
            return
        except (aiohttp.ClientError, OSError) as error:
            yield Broken(str(error) or type(error).__name__)
            return
        async with answer:
            if answer.status == 200 and answer.content_type == "text/event-stream":
                yield _events(answer.content)
                return
            try:
                outcome = await _whole(answer)
            except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError, OSError) as error:
                outcome = Broken(str(error) or type(error).__name__)
            yield outcome


def _headers(key: str) -> dict[str, str]:
    patience = _patience.get()
    return {"authorization": f"Bearer {key}"} | ({_TIMEOUT: patience} if patience else {})


async def _whole(answer: aiohttp.ClientResponse) -> Answer | Broken:
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > ANSWER_LIMIT:
            return Broken(f"the answer is larger than {ANSWER_LIMIT} bytes")
        pieces.append(piece)
    return Answer(
        answer.status,
        b"".join(pieces),
        answer.headers.get("x-request-id", ""),
        _seconds(answer.headers.get("retry-after")),
    )


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    try:
        async for piece in content.iter_any():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()
            if len(rest) > ANSWER_LIMIT:
                raise BrokenOff(f"an event is larger than {ANSWER_LIMIT} bytes")
    except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError, OSError) as error:
        raise BrokenOff(str(error) or type(error).__name__) from error


def _seconds(text: str | None) -> float | None:
    try:
        found = math.inf if text is None else float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None  # no clock goes to "nan"
