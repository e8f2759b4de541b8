"""What a tribunal and an assistant say besides their answers, from a workloads process that is played by hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from tests.integration.gateway.upstreams import Call, asks, model
from tests.integration.page.conftest import Visit
from tests.integration.page.site import Site, event, piece, says

from llmop.api.v1 import gateway_pb2
from llmop.clock import SystemClock

CITATIONS: list[dict[str, Any]] = [
    {
        "index": 1,
        "file_id": "file-1",
        "filename": "handbook/slurm.pdf",
        "page": 12,
        "score": 0.834,
        "text": "Jobs that ask for more than four GPUs need the partition gpu-large, and have a walltime of at most 24 hours.",
    },
    {
        "index": 2,
        "file_id": "file-2",
        "filename": "faq.md",
        "page": None,
        "score": 0.61,
        "text": "Walltime is counted from the start of the job.",
    },
]


def told(**what: Any) -> bytes:
    return piece(llmop={"tribunal": what})


def test_an_assistants_citations_lead_to_their_sources(
    visit: Visit, site: Site, picture: Callable[[Page, str], None]
) -> None:
    site.publish(
        model("llama-3.1-8b"),
        model("handbook", "openai", deployment="assistant:default/handbook", virtual=True),
        model("panel", "openai", deployment="tribunal:default/panel", virtual=True),
    )
    site.workloads.behaviour = says(
        "Ask for the partition `gpu-large` [1]. The walltime counts from the start of the job ",
        "[2], not from when it was submitted [7].",
        llmop={"assistant": {"found": True, "citations": CITATIONS}},
    )
    visit.sign_in()
    visit.choose("handbook")
    page = visit.page
    answer = visit.ask("Which partition do I need for 8 GPUs?")
    links = answer.locator("a.citation")
    expect(links).to_have_text(["[1]", "[2]"])
    cards = answer.get_by_role("region", name="Sources").get_by_role("listitem")
    expect(cards).to_contain_text(["slurm.pdfpage 12 · score 0.83", "faq.mdscore 0.61"])
    links.first.press("Enter")
    expect(cards.first).to_be_focused()
    assert site.url == page.url
    picture(page, "chat-sources")
    page.reload()
    page.locator("#chats .title").click()
    expect(page.locator("a.citation")).to_have_count(2)
    hostile = {"index": 3, "filename": "<script>x</script>.md", "text": "<b>Always.</b>"}
    site.workloads.behaviour = says("Yes [3].", llmop={"assistant": {"found": True, "citations": [hostile]}})
    expect(visit.ask("Sure?").get_by_role("listitem")).to_have_text("[3]<script>x</script>.md<b>Always.</b>")
    site.workloads.behaviour = says("I do not know.", llmop={"assistant": {"found": False, "citations": []}})
    expect(visit.ask("And for 9?")).to_contain_text("Nothing that fits was found in the documents.")


def test_the_state_of_a_virtual_model_is_that_of_what_it_asks(visit: Visit, site: Site) -> None:
    visit.page.clock.install()
    panel = model("panel", "openai", deployment="tribunal:default/panel", virtual=True)
    judge = "judge-70b"
    row = visit.page.locator(".model", has=visit.model("panel"))
    pending = gateway_pb2.NextReplica(stage=gateway_pb2.NextReplica.STAGE_PENDING)
    needs = {"panel": asks("m", judge)}

    site.publish(model("m"), model(judge, deployment="default/j", wakes=True), panel, needs=needs)
    visit.sign_in()
    expect(row).to_have_text("paneltribunaljudge-70b at zero, wakes on demand")
    expect(row).to_have_attribute("data-state", "asleep")

    pending.starts_at = int(SystemClock().now()) + 3000
    coming = model(judge, deployment="default/j", wakes=True, next_replica=pending)
    site.publish(model("m"), coming, panel, needs=needs)
    visit.page.clock.fast_forward(16_000)
    expect(row).to_have_text(
        re.compile(r"^paneltribunalwaits for the job of judge-70b, starts in ~(49|50) min$")
    )

    site.publish(model("m"), panel, needs=needs)
    visit.page.clock.fast_forward(16_000)
    expect(row).to_have_text("paneltribunalno deployment serves judge-70b")

    site.publish(model("m"), model(judge), panel, needs=needs)
    visit.page.clock.fast_forward(16_000)
    expect(row).to_have_text("paneltribunalready")


def test_a_virtual_model_is_not_ready_while_nothing_answers_for_it(visit: Visit, site: Site) -> None:
    visit.page.clock.install()
    published = (model("m"), model("panel", "openai", deployment="tribunal:default/panel", virtual=True))
    site.publish(*published)
    visit.sign_in()
    row = visit.page.locator(".model", has=visit.model("panel"))
    expect(row).to_have_text("paneltribunalready")
    site.run(site.workloads.stop())
    site.publish(*published)
    visit.page.clock.fast_forward(16_000)
    expect(row).to_have_text("paneltribunalllmop workloads does not answer")
    site.run(site.workloads.start(site.rig.settings.workloads))
    site.publish(*published)
    visit.page.clock.fast_forward(16_000)
    expect(row).to_have_text("paneltribunalready")


def test_an_engine_cannot_pretend_to_be_a_tribunal(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says(
        "just words [1]",
        llmop={"tribunal": {"outcome": "judged", "drafts": 3}, "assistant": {"citations": 7}},
    )
    visit.sign_in()
    assert "just words [1]" == visit.answer_to("Hello?")
    expect(visit.page.locator(".tribunal")).to_have_count(0)
    expect(visit.page.locator("a.citation")).to_have_count(0)


def test_a_tribunal_that_fails_shows_how_far_it_came(visit: Visit, site: Site) -> None:
    went_on = asyncio.Event()

    async def fails(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(told(event="step", step="draft", round=0, members=["drafter-1", "drafter-2"]))
        first = {"event": "call", "step": "draft", "round": 0, "seconds": 1.25}
        await call.chunk(told(**first, member="drafter-1", model="alpha", outcome="answered"))
        await went_on.wait()
        await call.chunk(told(**first, member="drafter-2", model="beta", outcome="timeout"))
        transcript = {"outcome": "failed", "reason": "too_few_drafts: 1 of 2", "drafts": [], "critiques": []}
        await call.chunk(
            event(
                {
                    "error": {"message": "1 draft came", "code": "too_few_drafts"},
                    "llmop": {"tribunal": transcript},
                }
            )
        )
        await call.end_stream()

    site.publish(model("panel", "openai", deployment="tribunal:default/panel", virtual=True))
    site.workloads.behaviour = fails
    visit.sign_in()
    answer = visit.ask("Hello?")
    members = answer.locator(".members li")
    expect(members).to_have_text(["drafter-1 · alpha · 1.3 s", "drafter-2 …"])
    expect(answer.locator(".tribunal > summary")).to_contain_text("writing drafts")

    async def go_on() -> None:
        went_on.set()

    site.run(go_on())
    expect(answer.get_by_role("alert")).to_contain_text("1 draft came")
    answer.locator(".tribunal > summary").click()
    expect(members.last).to_have_text("drafter-2 · beta · timeout")
    expect(answer.locator(".outcome")).to_contain_text("The tribunal found no answer. too_few_drafts: 1 of 2")


def test_what_members_wait_for_is_shown_until_they_work(visit: Visit, site: Site) -> None:
    steps = [asyncio.Event() for _ in range(3)]

    async def waits(call: Call) -> None:
        await call.begin_stream()
        await call.chunk(
            b": drafter-1, drafter-2 qwen/7b: pending, starts in ~40 s; drafter-3 llama: loading\n\n"
        )
        await steps[0].wait()
        await call.chunk(told(event="step", step="critique", round=0, members=["critic-1"]))
        await call.chunk(b": critic-1 qwen/7b: waiting for a replica\n\n")
        await steps[1].wait()
        await call.chunk(b": in session\n\n")
        await steps[2].wait()
        await call.chunk(piece("Yes."))
        await call.chunk(piece(finish="stop"))
        await call.end_stream()

    async def let(step: asyncio.Event) -> None:
        step.set()

    site.publish(model("panel", "openai", deployment="tribunal:default/panel", virtual=True))
    site.workloads.behaviour = waits
    visit.sign_in()
    answer = visit.ask("Hello?")
    progress = answer.locator(".progress")
    both = (
        "drafter-1, drafter-2: waiting for the job of qwen/7b to start, in ~40 s; drafter-3: llama is loading"
    )
    expect(progress).to_contain_text(f"{both} … ")
    site.run(let(steps[0]))
    expect(progress).to_contain_text("critic-1: waking qwen/7b … ")
    expect(answer.locator(".members li")).to_have_text(["critic-1 …"])
    site.run(let(steps[1]))
    expect(progress).to_be_hidden()
    site.run(let(steps[2]))
    expect(answer.locator(".markdown")).to_have_text("Yes.")
    assert "1" == site.workloads.calls[-1].header("x-llmop-progress")
