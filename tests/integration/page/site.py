"""A gateway with hand-written engines that tests of the page drive from outside of its loop: browsers are driven without asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from tests.integration.gateway.rig import Rig, gateway_rig
from tests.integration.gateway.upstreams import Behaviour, Call, Engine, Workloads, asks, model
from tests.waiting import PATIENCE_S

from llmop.api.v1 import gateway_pb2

T = TypeVar("T")


class Site:
    """`engine` answers for the model "m", `workloads` for all virtual models. What they do is set by `engine.behaviour`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rig: Rig, engine: Engine, workloads: Workloads
    ) -> None:
        self._loop = loop
        self.rig = rig
        self.engine = engine
        self.workloads = workloads

    @property
    def url(self) -> str:
        return self.rig.address + "/"

    @property
    def key(self) -> str:
        return self.rig.key

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE_S)

    def publish(
        self,
        *models: gateway_pb2.Model,
        endpoints: Sequence[gateway_pb2.Endpoint] | None = None,
        keys: list[gateway_pb2.ClientKey] | None = None,
        needs: dict[str, dict[str, list[str]]] | None = None,
    ) -> None:
        """Without `models` there is "m"; without `endpoints` it has its engine; without `needs` virtual models ask nobody. Returns when the
        gateway acts on it.
        """
        self.workloads.needs = needs or {each.name: asks() for each in models if each.virtual}

        async def publish() -> None:
            ends = [self.engine.endpoint()] if endpoints is None else list(endpoints)
            version = self.rig.control.publish(ends, list(models or [model("m")]), keys=keys or [])
            await self.rig.control.acknowledged(version)

        self.run(publish())

    def until(self, true: Callable[[Engine], bool]) -> None:
        self.run(self.engine.until(true))


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """The loop that a gateway process has, in a thread of its own."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="site")
    thread.start()
    stack = contextlib.AsyncExitStack()

    async def begin(folder: Path) -> Site:
        workloads = Workloads()
        await workloads.start(folder / "workloads.sock")
        stack.push_async_callback(workloads.stop)
        rig = await stack.enter_async_context(gateway_rig(folder, workloads=folder / "workloads.sock"))
        return Site(loop, rig, await rig.engine(), workloads)

    try:
        with tempfile.TemporaryDirectory(prefix="llmop-page-") as folder:
            site = asyncio.run_coroutine_threadsafe(begin(Path(folder)), loop).result(PATIENCE_S)
            try:
                yield site
            finally:
                asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def piece(text: str = "", *, finish: str | None = None, **more: Any) -> bytes:
    """A chunk of OpenAI's chat as an event; `more` stands beside its choices."""
    delta = {"content": text} if text else {}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def says(*texts: str, **last: Any) -> Behaviour:
    """Streams these and ends well; `last` stands in the last chunk."""

    async def answer(call: Call) -> None:
        await call.begin_stream()
        for text in texts:
            await call.chunk(piece(text))
        await call.chunk(piece(finish="stop", **last))
        await call.chunk(
            event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(texts)}})
        )
        await call.chunk(b"data: [DONE]\n\n")
        await call.end_stream()

    return answer


def refuses(status: str, code: str, message: str, *headers: bytes) -> Behaviour:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()

    async def answer(call: Call) -> None:
        await call.answer(body, status, b"".join(headers))

    return answer
