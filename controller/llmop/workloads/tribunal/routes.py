"""Answers clients of a tribunal, in one piece or as a stream."""

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmop.domain.tribunal import Tribunal
from llmop.workloads.refusals import Refused
from llmop.workloads.service import Service
from llmop.workloads.streams import Stream, send_json, while_heard
from llmop.workloads.tribunal import request as requests
from llmop.workloads.tribunal import runner, transcript
from llmop.workloads.tribunal.request import Asked
from llmop.workloads.tribunal.runner import Record
from llmop.workloads.tribunal.values import Answer, Failed

LOG = logging.getLogger(__name__)

_MOST_TRIALS = 256  # at once; each holds its drafts in memory and asks its members at once
_QUIET_S = 15.0  # a stream that says nothing for longer may look dead to what stands between
_PIECE = re.compile(r"\s*\S+\s*|\s+")

Deliberate = Callable[..., Awaitable[Record]]  # with `tell`, which gets every progress event


def answering(service: Service) -> Callable[[Tribunal, bytes], Awaitable[Response]]:
    """What answers a request to a tribunal, given its body. Raises Refused."""
    under_way = asyncio.Semaphore(_MOST_TRIALS)

    async def ask(tribunal: Tribunal, body: bytes) -> Response:
        asked = requests.read(body)
        if under_way.locked():
            raise Refused(429, "too_many_requests", f"{_MOST_TRIALS} tribunals are sitting: try again later")
        await under_way.acquire()
        seed = asked.question.options.get("seed")
        deliberate = functools.partial(
            runner.deliberate,
            tribunal,
            asked.question,
            seed if isinstance(seed, int) else int(service.clock.suffix(6), 36),
            caller=service.people,
            is_virtual=service.virtual.has,
        )
        name = f"chatcmpl-{service.clock.suffix(24)}"
        return _Sitting(name, service.clock.now(), tribunal, asked, deliberate, under_way)

    return ask


class _Sitting(Response):
    """The answer to a client; when the client is gone its tribunal ends."""

    def __init__(
        self,
        name: str,
        now: float,
        tribunal: Tribunal,
        asked: Asked,
        deliberate: Deliberate,
        under_way: asyncio.Semaphore,
    ) -> None:
        super().__init__()
        self._name = name
        self._now = now
        self._tribunal = tribunal
        self._asked = asked
        self._deliberate = deliberate
        self._under_way = under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._stream if self._asked.streams else self._whole
        try:
            await while_heard(answer(send), receive)
        finally:
            self._under_way.release()

    async def _whole(self, send: Send) -> None:
        record = await self._deliberate(tell=lambda event: None)
        await self._send_whole(record, send)

    async def _send_whole(self, record: Record, send: Send) -> None:
        verdict, spent = record.verdict, record.trial.spent
        if isinstance(verdict, Failed):
            LOG.warning("the tribunal %s failed: %s", self._tribunal.name, verdict.code)
            await send_json(
                send, verdict.status, transcript.error(verdict, record.told, spent), verdict.retry_after
            )
            return
        content = transcript.completion(
            self._name, self._tribunal.name, self._now, verdict, record.told, spent
        )
        await send_json(send, 200, content)

    async def _stream(self, send: Send) -> None:
        """Nothing goes out before somebody has answered: until then a failure can still be a status."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._deliberate(tell=events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        stream = Stream(send)
        held: list[dict[str, Any]] = []
        try:
            while (event := await self._next(events, stream)) is not None:
                held.append(event)
                if self._tribunal.shows_progress and (stream.has_begun or event.get("outcome") == "answered"):
                    for each in held:
                        await stream.event(self._chunk({}, told=each))
                    held.clear()
            record = await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if isinstance(record.verdict, Answer):
            await self._send_answer(record, record.verdict, stream)
        elif stream.has_begun:
            await stream.event(transcript.error(record.verdict, record.told, record.trial.spent))
            await stream.end()
        else:
            await self._send_whole(record, send)

    async def _next(
        self, events: "asyncio.Queue[dict[str, Any] | None]", stream: Stream
    ) -> dict[str, Any] | None:
        while True:
            try:
                async with asyncio.timeout(_QUIET_S):
                    return await events.get()
            except TimeoutError:
                if stream.has_begun:
                    await stream.write(b": in session\n\n")

    async def _send_answer(self, record: Record, answer: Answer, stream: Stream) -> None:
        await stream.event(self._chunk({"role": "assistant", "content": ""}))
        for piece in _PIECE.findall(answer.text):
            await stream.event(self._chunk({"content": piece}))
        await stream.event(self._chunk({}, finish_reason=answer.finish_reason, told=record.told))
        if self._asked.wants_usage:
            spent = record.trial.spent
            await stream.event(transcript.usage_chunk(self._name, self._tribunal.name, self._now, spent))
        await stream.write(b"data: [DONE]\n\n")
        await stream.end()

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, told: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return transcript.chunk(
            self._name, self._tribunal.name, self._now, delta, finish_reason=finish_reason, told=told
        )
