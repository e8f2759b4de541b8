"""What is told while nothing comes, and how often the gateway is asked for it."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message

from llmop.workloads import telling
from llmop.workloads.outlook import Outlook, in_words
from llmop.workloads.streams import Stream
from llmop.workloads.telling import Teller


def says(state: str, starts_in: int | None = None, ready_in: int | None = None) -> bytes:
    facts = {"state": state, "starts_in_seconds": starts_in, "ready_in_seconds": ready_in}
    return json.dumps({"id": "m", "llmop": facts}).encode()


@pytest.mark.parametrize(
    "text, words",
    [
        (says("ready"), ""),
        (says("pending", 40, 100), "pending, starts in ~40 s"),
        (says("pending"), "pending"),
        (says("loading", None, 600), "loading, ready in ~10 min"),
        (says("asleep"), "waiting for a replica"),
        (says("draining"), "waiting for a replica"),
        (says("none"), "waiting for a replica"),
        (b"{", ""),
        (b'{"llmop": null}', ""),
        (b"[]", ""),
    ],
)
def test_what_the_gateway_says_of_a_model_in_words(text: bytes, words: str) -> None:
    assert words == in_words(text)


class Site:
    """A gateway that answers from `models`, at a time that a test sets, and a client that takes a stream."""

    def __init__(self, **models: bytes) -> None:
        self.models = models
        self.now = 0.0
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.told = asyncio.Event()
        self.stream = Stream(self._send)
        self.outlook = Outlook(self._read, lambda: self.now)

    async def _read(self, path: str) -> bytes | None:
        self.asked.append(path)
        return self.models.get(path.rpartition("/")[2])

    async def _send(self, message: Message) -> None:
        if "body" in message:
            self.sent.append(message["body"].decode())
            self.told.set()

    async def until_told(self) -> str:
        async with asyncio.timeout(20):
            await self.told.wait()
        self.told.clear()
        return self.sent[-1]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_LOOK_S", 0.01)


async def test_a_model_is_looked_at_once_a_second_whoever_waits_for_it() -> None:
    site = Site(qwen=says("loading"))
    words = await asyncio.gather(*(site.outlook.of("qwen") for _ in range(3)))
    assert ["loading"] * 3 == words
    site.models = {"qwen": says("ready")}
    assert "loading" == await site.outlook.of("qwen")
    site.now += 1.1
    assert "" == await site.outlook.of("qwen")
    assert ["/v1/models/qwen"] * 2 == site.asked
    assert "" == await site.outlook.of("a/b?c")
    assert "/v1/models/a%2Fb%3Fc" == site.asked[-1]


async def test_all_who_wait_are_told_of_and_that_nobody_waits_any_more() -> None:
    site = Site(qwen=says("pending", 40), llama=says("ready"))
    teller = Teller(site.stream, site.outlook, "in session")
    teller.waiting = {"critic-1": "qwen", "judge": "llama", "critic-2": "qwen"}
    come = asyncio.Event()
    waiting = asyncio.create_task(teller.over(come.wait()))
    assert ": critic-1, critic-2 qwen: pending, starts in ~40 s\n\n" == await site.until_told()
    site.models = {"qwen": says("loading")}
    site.now += 2
    assert ": critic-1, critic-2 qwen: loading\n\n" == await site.until_told()
    teller.waiting.clear()
    assert ": in session\n\n" == await site.until_told()
    come.set()
    assert await waiting
    assert 3 == len(site.sent)  # the same is not told twice


async def test_it_is_told_again_where_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_REMINDER_S", 0.0)
    site = Site(qwen=says("loading"))
    teller = Teller(site.stream, site.outlook, "in session")
    teller.waiting = {"judge": "qwen"}
    waiting = asyncio.create_task(teller.over(asyncio.Event().wait()))
    for _ in range(3):
        assert ": judge qwen: loading\n\n" == await site.until_told()
    waiting.cancel()


async def test_a_stream_that_has_not_begun_begins_for_something_to_say_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "_REMINDER_S", 0.0)
    site = Site(qwen=says("loading"))
    for outlook, waiting in ((None, {"judge": "qwen"}), (site.outlook, {"judge": "unknown"})):
        teller = Teller(site.stream, outlook, "in session")
        teller.waiting = waiting
        assert await teller.over(asyncio.sleep(0.1, result=True))
        assert not site.stream.has_begun
    await site.stream.event({})
    teller = Teller(site.stream, None, "in session")
    assert await teller.over(asyncio.sleep(0.1, result=True))
    assert ": in session\n\n" == site.sent[-1]


async def test_who_is_cancelled_takes_the_work_back() -> None:
    site = Site()
    begun, over = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    waiting = asyncio.create_task(Teller(site.stream, None, "").over(work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert over.is_set()


async def test_what_has_come_does_not_wait_for_a_gateway_that_is_slow_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "_LOOK_S", 0.01)
    site = Site()
    asked = asyncio.Event()

    async def never(path: str) -> bytes | None:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError(path)

    teller = Teller(site.stream, Outlook(never, lambda: 0.0), "still here")
    teller.waiting = {"answer": "m"}
    async with asyncio.timeout(30):
        assert await teller.over(asked.wait())
        asked.clear()
        assert await teller.over(asked.wait())  # nobody holds the outlook any more
    assert [] == site.sent
