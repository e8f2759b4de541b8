"""Answers that go out as server-sent events, and end when nobody hears them any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
from starlette.types import Receive, Send


class Stream:
    """The head goes out with the first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def event(self, content: Any) -> None:
        await self.write(b"data: " + orjson.dumps(content) + b"\n\n")

    async def write(self, data: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


async def send_json(send: Send, status: int, content: Any, retry_after: float | None = None) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(retry_after))))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def while_heard(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Does the work; when the client is gone it is cancelled. Raises what it raises."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
