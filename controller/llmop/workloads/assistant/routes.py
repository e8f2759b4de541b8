"""Answers clients of an assistant: finds passages, asks the model, and says what the answer stands on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmop.domain.assistant import Assistant
from llmop.workloads import failures, refusals
from llmop.workloads.answers import Answer, says
from llmop.workloads.assistant import answers, prompts
from llmop.workloads.assistant.answers import Asked, Head, Tokens
from llmop.workloads.calls import BrokenOff
from llmop.workloads.judgement import Outcome, Overdue
from llmop.workloads.outlook import Outlook
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.search import Results
from llmop.workloads.retrieval.values import Found, Store
from llmop.workloads.service import Service
from llmop.workloads.streams import Stream, send_json, while_heard
from llmop.workloads.telling import Teller

_URL = "/v1/chat/completions"
_MOST_ANSWERS = 256  # at once
_KEY_TRIES, _KEY_AGAIN_S = 3, 1.0  # the gateway reads its keys once a second, and ours may be new
_DONE = b"[DONE]"
_PASSED_ON = (400, 404, 413, 422, 429, 503)  # what they mean, they mean for the client too


def answering(service: Service) -> Callable[[Assistant, bytes, Outlook | None], Awaitable[Response]]:
    """What answers a request to an assistant, given its body, and an outlook if its client wants to hear what is waited for. Raises Refused."""
    under_way = asyncio.Semaphore(_MOST_ANSWERS)

    async def ask(assistant: Assistant, body: bytes, outlook: Outlook | None) -> Response:
        asked = answers.read(body)
        if under_way.locked():
            raise Refused(
                429, "too_many_requests", f"{_MOST_ANSWERS} assistants are answering: try again later"
            )
        await under_way.acquire()
        head = Head(f"chatcmpl-{service.clock.suffix(24)}", assistant.name, service.clock.now())
        return _Conversation(service, assistant, asked, head, outlook, under_way)

    return ask


class _Conversation(Response):
    """One answer; when the client is gone everything that is under way for it ends."""

    def __init__(
        self,
        service: Service,
        assistant: Assistant,
        asked: Asked,
        head: Head,
        outlook: Outlook | None,
        under_way: asyncio.Semaphore,
    ) -> None:
        super().__init__()
        self._service = service
        self._assistant = assistant
        self._asked = asked
        self._head = head
        self._outlook = outlook if asked.streams else None
        self._under_way = under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_heard(self._answer(send), receive)
        finally:
            self._under_way.release()

    async def _answer(self, send: Send) -> None:
        stream = Stream(send)
        teller = Teller(stream, self._outlook, "still here")
        try:
            results = await teller.over(self._search(teller.waiting))
            if not self._asked.streams:
                await self._whole(send, results)
            elif results.found:
                await self._stream(stream, teller, results)
            else:
                await self._nothing(stream, Tokens(results.tokens))
        except (Refused, *failures.KINDS) as error:  # nothing of an answer has gone out yet
            refused = error if isinstance(error, Refused) else failures.refusal(error, "a search")
            if stream.has_begun:
                await stream.event(refusals.payload(refused))
                await stream.end()
            else:
                await send_json(send, refused.status, refusals.payload(refused), refused.retry_after)

    async def _search(self, waiting: dict[str, str]) -> Results:
        """`waiting` gets who is waited for."""
        assistant = self._assistant
        texts = prompts.looked_for(self._asked.messages)
        if not texts:
            return Results([], 0)
        stores: list[Store] = []
        for name in assistant.vector_stores:
            store = await self._service.stores.find(name)
            if store is None:
                message = (
                    f"the assistant '{assistant.name}' needs the vector store {name}, which is not there"
                )
                raise Refused(502, "vector_store_missing", message)
            stores.append(store)
        waiting["search"] = stores[0].model  # all have one, or it is refused
        return await self._service.search.find(
            stores, texts, assistant.top_k, assistant.min_score, wanted=assistant.filters
        )

    @property
    def _not_found(self) -> str:
        """The model is not asked: it would answer from what it has learned, or make something up."""
        return self._assistant.not_found or answers.NOT_FOUND

    async def _nothing(self, stream: Stream, tokens: Tokens) -> None:
        await stream.event(answers.chunk(self._head, answers.said(self._not_found)))
        await stream.event(answers.chunk(self._head, answers.said("", "stop")))
        await self._end(stream, (), tokens)

    def _body(self, found: Sequence[Found]) -> dict[str, Any]:
        messages = prompts.conversation(self._asked.messages, found, self._assistant.instructions)
        return {**self._asked.body, "model": self._assistant.model, "messages": messages}

    async def _whole(self, send: Send, results: Results) -> None:
        if not results.found:
            content = answers.completion(self._head, self._not_found, (), Tokens(results.tokens))
            await send_json(send, 200, content)
            return
        body = self._body(results.found)
        body.pop("stream", None)
        body.pop("stream_options", None)
        for _ in range(_KEY_TRIES):
            outcome = await self._service.people.ask(_URL, body)
            if not _is_new_key(outcome):
                break
            await asyncio.sleep(_KEY_AGAIN_S)
        if not isinstance(outcome, Answer) or outcome.status != 200:
            raise self._refusal(outcome)
        asked = self._asked._replace(body=body)
        content = answers.of_model(self._head, outcome.body, asked, results.found, results.tokens)
        await send_json(send, 200, content)

    async def _stream(self, stream: Stream, teller: Teller, results: Results) -> None:
        body = self._body(results.found) | {"stream": True, "stream_options": {"include_usage": True}}
        teller.waiting = {"answer": self._assistant.model}
        async with contextlib.aclosing(self._events(body)) as events:
            await self._relay(stream, teller, events, self._asked._replace(body=body), results)

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[bytes]:
        """The data of the model's events. Raises Refused before the first, BrokenOff afterwards."""
        for attempt in range(1, _KEY_TRIES + 1):
            async with self._service.people.stream(_URL, body) as outcome:
                if isinstance(outcome, AsyncIterator):
                    async for data in outcome:
                        yield data
                    return
                if attempt == _KEY_TRIES or not _is_new_key(outcome):
                    raise self._refusal(outcome)
            await asyncio.sleep(_KEY_AGAIN_S)

    async def _relay(
        self,
        stream: Stream,
        teller: Teller,
        events: AsyncIterator[bytes],
        asked: Asked,
        results: Results,
    ) -> None:
        """The model's words as they come. A stream that breaks off has an error as its last event, and no end."""
        tokens: Tokens | None = None
        number = 0
        try:
            while (data := await teller.over(anext(events, None))) is not None:
                teller.waiting.clear()
                if data == _DONE:
                    tokens = tokens or answers.estimate(asked, results.tokens, number)
                    await self._end(stream, results.found, tokens)
                    return
                event = orjson.loads(data)
                if not isinstance(event, dict) or "error" in event:
                    raise BrokenOff(says(data) or "the model broke off with an error")
                tokens = answers.added(event.get("usage"), results.tokens) or tokens
                if event.get("choices"):
                    number += 1
                    await stream.event(answers.chunk(self._head, event["choices"]))
            raise BrokenOff("the model's stream ended too early")
        except (BrokenOff, orjson.JSONDecodeError) as error:
            broken = Refused(502, "stream_broken", f"the model '{self._assistant.model}': {error}")
            await stream.event(refusals.payload(broken))
            await stream.end()

    async def _end(self, stream: Stream, found: Sequence[Found], tokens: Tokens) -> None:
        await stream.event(answers.chunk(self._head, ()) | {"llmop": answers.told(found, tokens.estimated)})
        if self._asked.wants_usage:
            await stream.event(answers.chunk(self._head, ()) | {"usage": answers.usage(tokens)})
        await stream.write(b"data: [DONE]\n\n")
        await stream.end()

    def _refusal(self, outcome: Outcome) -> Refused:
        who = f"the model '{self._assistant.model}'"
        if isinstance(outcome, Overdue):
            return Refused(504, "model_failed", f"{who} gave no answer in {outcome.seconds:g} s")
        if not isinstance(outcome, Answer):
            return Refused(502, "model_failed", f"{who} could not be asked: {outcome.message}")
        status = outcome.status if outcome.status in _PASSED_ON else 502
        words = says(outcome.body) or f"it answered {outcome.status}"
        return Refused(status, "model_failed", f"{who}: {words}", retry_after=outcome.retry_after)


def _is_new_key(outcome: Outcome) -> bool:
    return isinstance(outcome, Answer) and outcome.status == 401
