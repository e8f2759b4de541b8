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
from llmop.workloads.outlook import Outlook
from llmop.workloads.refusals import Refused
from llmop.workloads.service import Service
from llmop.workloads.streams import Stream, send_json, while_heard
from llmop.workloads.telling import Teller
from llmop.workloads.tribunal import request as requests
from llmop.workloads.tribunal import runner, transcript
from llmop.workloads.tribunal.request import Asked
from llmop.workloads.tribunal.runner import Record
from llmop.workloads.tribunal.values import Answer, Failed, Heard, Phase, Reply

LOG = logging.getLogger(__name__)

_MOST_TRIALS = 256  # at once; each holds its drafts in memory and asks its members at once
_PIECE = re.compile(r"\s*\S+\s*|\s+")

Deliberate = Callable[..., Awaitable[Record]]  # with `tell`, as the runner has it


def answering(service: Service) -> Callable[[Tribunal, bytes, Outlook | None], Awaitable[Response]]:
    """What answers a request to a tribunal, given its body, and an outlook if its client wants to hear what is waited for. Raises Refused."""
    under_way = asyncio.Semaphore(_MOST_TRIALS)

    async def ask(tribunal: Tribunal, body: bytes, outlook: Outlook | None) -> Response:
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
        return _Sitting(name, service.clock.now(), tribunal, asked, deliberate, outlook, under_way)

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
        outlook: Outlook | None,
        under_way: asyncio.Semaphore,
    ) -> None:
        super().__init__()
        self._name = name
        self._now = now
        self._tribunal = tribunal
        self._asked = asked
        self._deliberate = deliberate
        self._outlook = outlook
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
        """Nothing goes out before somebody has answered, but for what is waited for: until then a failure can still be a status."""
        events: asyncio.Queue[Phase | Heard | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._deliberate(tell=events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        stream = Stream(send)
        teller = Teller(stream, self._outlook, "in session")
        held: list[Phase | Heard] = []
        try:
            while (event := await teller.over(events.get())) is not None:
                held.append(event)
                if isinstance(event, Phase):
                    teller.waiting = {call.member: call.model for call in event.calls}
                else:
                    teller.waiting.pop(event.call.member, None)
                is_answered = isinstance(event, Heard) and isinstance(event.result, Reply)
                if self._tribunal.shows_progress and (stream.has_begun or is_answered):
                    for each in held:
                        await stream.event(self._chunk({}, told=transcript.progress(each)))
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
