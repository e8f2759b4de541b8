"""Answers as they come, and everything that can go wrong with them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from playwright.sync_api import expect
from tests.integration.gateway.upstreams import Call, model, waits
from tests.integration.page.conftest import Visit
from tests.integration.page.site import Site, event, piece, refuses, says

from llmop.api.v1 import gateway_pb2

Next = gateway_pb2.NextReplica
TEXT = "Grüße, 世界 🙂: *one*\n\n- two\n- three"


class Held:
    """Streams `before`, and `after` once it is let. `is_gone` says that the connection was closed meanwhile."""

    def __init__(self, before: str, after: str = "") -> None:
        self.before = before
        self.after = after
        self.let = asyncio.Event()
        self.is_gone = False

    async def __call__(self, call: Call) -> None:
        await call.begin_stream()
        if self.before:
            await call.chunk(piece(self.before))
        gone = asyncio.create_task(call.gone())
        letting = asyncio.create_task(self.let.wait())
        await asyncio.wait((gone, letting), return_when=asyncio.FIRST_COMPLETED)
        self.is_gone = gone.done()
        letting.cancel()
        if not self.is_gone:
            gone.cancel()
            await call.chunk(piece(self.after) + piece(finish="stop") + b"data: [DONE]\n\n")
            await call.end_stream()


def asked(site: Site) -> dict[str, Any]:
    """The last request's body, as the engine got it."""
    body: dict[str, Any] = json.loads(site.engine.calls[-1].body)
    return body


def test_words_are_there_before_the_answer_is_whole(visit: Visit, site: Site) -> None:
    held = Held("It *begins*", " and it ends.")
    site.engine.behaviour = held
    visit.sign_in()
    answer = visit.ask("Hello?")
    expect(answer.locator(".markdown em")).to_have_text("begins")
    expect(answer.get_by_role("button")).to_have_count(0)
    expect(visit.page.get_by_role("status")).not_to_contain_text("begins")
    site.run(_set(held.let))
    expect(answer.locator(".markdown")).to_have_text("It begins and it ends.")
    expect(visit.page.get_by_role("status")).to_have_text("m answers: It *begins* and it ends.")


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_pieces_may_end_anywhere(visit: Visit, site: Site) -> None:
    """In the middle of a character, of a line's end, of an event; a line may end in any of three ways."""

    async def torn(call: Call) -> None:
        await call.begin_stream()
        whole = b": a comment\r\n\r\n" + b"".join(
            b"data: " + json.dumps(_delta(letter), ensure_ascii=False).encode() + end + end
            for letter, end in zip(TEXT, [b"\r\n", b"\n", b"\r"] * len(TEXT), strict=False)
        )
        whole += b'event: x\ndata: {"choices":\ndata: [{"delta": {}, "finish_reason": "stop"}]}\r\n\r\ndata:[DONE]\n\n'
        for start in range(0, len(whole), 3):
            await call.chunk(whole[start : start + 3])
        await call.end_stream()

    site.engine.behaviour = torn
    visit.sign_in()
    visit.answer_to("Hello?")
    answer = visit.page.locator(".answer .markdown")
    expect(answer.locator("p")).to_have_text("Grüße, 世界 🙂: one")
    expect(answer.locator("li")).to_have_text(["two", "three"])


def _delta(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def test_stop_reaches_the_engine_and_keeps_what_came(visit: Visit, site: Site) -> None:
    held = Held("What came")
    site.engine.behaviour = held
    visit.sign_in()
    answer = visit.ask("Hello?")
    expect(answer.locator(".markdown")).to_have_text("What came")
    visit.page.get_by_role("button", name="Stop").click()
    expect(answer.locator("footer")).to_contain_text("stopped")
    site.until(lambda _: held.is_gone)
    site.engine.behaviour = says("More")
    assert "More" == visit.answer_to("And?")
    assert ["user", "assistant", "user"] == [each["role"] for each in asked(site)["messages"]]
    assert "What came" == asked(site)["messages"][1]["content"]
    site.engine.behaviour = left = Held("Half an")
    expect(visit.ask("And then?").locator(".markdown")).to_have_text("Half an")
    visit.page.reload()
    site.until(lambda _: left.is_gone)
    visit.page.locator("#chats .title").click()
    expect(visit.page.locator(".answer").last).to_have_text(re.compile("Half an.*stopped"))


def test_what_was_set_is_sent_and_an_answer_can_be_asked_for_again(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("one")
    visit.sign_in()
    page = visit.page
    page.get_by_text("Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Longest answer").fill("77")
    assert "one" == visit.answer_to("Hello?")
    first = asked(site)
    assert ("m", 0.3, 77, True) == tuple(
        first[name] for name in ("model", "temperature", "max_tokens", "stream")
    )
    assert [("system", "Be brief."), ("user", "Hello?")] == [
        (each["role"], each["content"]) for each in first["messages"]
    ]
    site.engine.behaviour = says("another")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .markdown")).to_have_text("another")
    assert first == asked(site)
    page.reload()
    page.get_by_text("Settings").click()
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    page.get_by_label("Longest answer").fill("0")
    page.get_by_label("Message", exact=True).fill("x")
    page.keyboard.press("Enter")
    expect(page.locator("#max-tokens:invalid")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("x")


def test_chats_are_kept_listed_and_deleted(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("an answer")
    visit.sign_in()
    page = visit.page
    visit.answer_to("the first")
    page.get_by_role("button", name="New chat").last.click()
    visit.answer_to("the second")
    assert 1 == len(asked(site)["messages"])
    expect(page.locator("#chats .title")).to_have_text(["the second", "the first"])
    page.get_by_role("button", name="the first", exact=True).click()
    expect(page.locator(".question")).to_have_text("the first")
    page.get_by_role("button", name="Delete chat: the first").click()
    expect(page.locator("#chats .title")).to_have_text("the second")
    expect(page.locator(".question")).to_have_count(0)


def test_refusals_are_said_in_words_with_the_time_to_wait(visit: Visit, site: Site) -> None:
    visit.refused = {429, 503, 400}
    page = visit.page
    page.clock.install()
    visit.sign_in()
    busy = refuses("429 Too Many Requests", "rate_limit_exceeded", "60 per minute", b"retry-after: 20\r\n")
    site.publish(model("m", retry_attempts=0))
    site.engine.behaviour = busy
    answer = visit.ask("Hello?")
    alert = answer.get_by_role("alert")
    expect(alert).to_contain_text("You have reached a limit of your key. Try again in")
    expect(alert).to_contain_text("60 per minute")
    page.clock.run_for(21_000)
    expect(alert).to_contain_text("You can try again now.")
    site.publish(model("m", next_replica=Next(stage=Next.STAGE_LOADING)), endpoints=[])
    answer.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("No replica of this model is running. Try again in")
    site.publish()
    site.engine.behaviour = refuses(
        "400 Bad Request", "context_length_exceeded", "at most <b>8192</b> tokens"
    )
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("The request failed. at most <b>8192</b> tokens")
    site.engine.behaviour = says("at last")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .markdown")).to_have_text("at last")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_streams_that_break_say_so_and_keep_what_came(visit: Visit, site: Site) -> None:
    shown = asyncio.Event()

    async def error(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(piece("half") + event({"error": {"message": "out of memory", "code": "internal"}}))
        await call.end_stream()

    async def cut(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(piece("half"))
        await shown.wait()  # what a browser has not handed over when a connection breaks, it forgets
        call.close()

    async def short(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(piece("half"))
        await call.end_stream()

    async def garbage(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(piece("half") + b"data: <oops>\n\n")
        await call.end_stream()

    async def empty(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(piece(finish="stop") + b"data: [DONE]\n\n")
        await call.end_stream()

    visit.sign_in()
    page = visit.page
    for behaviour, words in (
        (cut, "broke off"),
        (error, "out of memory"),
        (short, "before it was complete"),
        (garbage, "no part of an answer"),
    ):
        site.engine.behaviour = behaviour
        answer = visit.ask("Hello?")
        expect(answer.locator(".markdown")).to_have_text("half")
        site.run(_set(shown))
        expect(answer.get_by_role("alert")).to_contain_text(words)
        expect(answer.locator(".markdown")).to_have_text("half")
        page.get_by_role("button", name="New chat").last.click()
    site.engine.behaviour = empty
    expect(visit.ask("Hello?").get_by_role("alert")).to_contain_text("without a word")
    visit.complaints = [
        each for each in visit.complaints if "ERR_INCOMPLETE_CHUNKED" not in each
    ]  # of `cut`: the browser's own


def test_a_cold_start_is_watched_from_the_first_word_to_the_answer(visit: Visit, site: Site) -> None:
    queue = waits()
    where = {"queue": queue, "wakes": True}
    site.publish(model("m", **where), endpoints=[])
    site.engine.behaviour = says("awake")
    visit.sign_in()
    expect(visit.page.locator(".model")).to_have_text("mat zero, wakes on demand")
    answer = visit.ask("Hello?")
    progress = answer.locator(".progress")
    expect(progress).to_have_text(re.compile(r"^Waking the model … \d+ s$"))
    site.publish(
        model("m", next_replica=Next(stage=Next.STAGE_PENDING, starts_at=4_000_000_000), **where),
        endpoints=[],
    )
    expect(progress).to_contain_text("Waiting for the model's job to start, in ~")
    site.publish(model("m", next_replica=Next(stage=Next.STAGE_LOADING), **where), endpoints=[])
    expect(progress).to_contain_text("The model is loading")
    site.publish(model("m", **where))
    expect(answer.locator(".markdown")).to_have_text("awake")
    expect(progress).to_be_hidden()


def test_the_queue_is_shown_and_who_stops_has_left_it(visit: Visit, site: Site) -> None:
    held = Held("")
    site.engine.behaviour = held
    site.publish(model("m", queue=waits(), max_in_flight=1))
    other = site.rig.request(body=b'{"model":"m","messages":[],"stream":true}')

    async def occupy() -> None:
        before = len(site.engine.calls)
        wire = await site.rig.wire()
        await wire.send(other)
        await site.engine.until(lambda engine: len(engine.calls) > before)

    site.run(occupy())
    visit.sign_in()
    answer = visit.ask("Hello?")
    expect(answer.locator(".progress")).to_contain_text("All replicas are busy; your request is next")
    site.run(site.rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 1))
    visit.page.keyboard.press("Escape")
    expect(answer.locator("footer")).to_contain_text("stopped")
    site.run(site.rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 0))
    site.run(_set(held.let))


def test_thoughts_are_folded_away(visit: Visit, site: Site) -> None:
    async def thinks(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(event({"choices": [{"delta": {"reasoning_content": "so, <i>hm</i>"}}]}))
        await call.chunk(piece("42") + piece(finish="length") + b"data: [DONE]\n\n")
        await call.end_stream()

    site.engine.behaviour = thinks
    visit.sign_in()
    assert "42" == visit.answer_to("Why?")
    visit.page.get_by_text("Thinking").click()
    expect(visit.page.get_by_text("so, <i>hm</i>")).to_be_visible()
    expect(visit.page.locator(".answer footer")).to_contain_text("cut off at the longest answer")
