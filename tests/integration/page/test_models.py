"""Models and their states, as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from tests.integration.gateway.upstreams import model
from tests.integration.page.conftest import Visit
from tests.integration.page.site import Site

from llmop.api.v1 import gateway_pb2
from llmop.clock import SystemClock

Next = gateway_pb2.NextReplica


def test_every_state_is_said_in_words(visit: Visit, site: Site, picture: Callable[[Page, str], None]) -> None:
    now = int(SystemClock().now())
    pending = Next(stage=Next.STAGE_PENDING, starts_at=now + 3000)
    whole = Next(stage=Next.STAGE_PENDING, starts_at=now + 100, ready_at=now + 1000)
    loading = Next(stage=Next.STAGE_LOADING, ready_at=now + 80)
    draining = site.engine.endpoint(gateway_pb2.Endpoint.STATE_DRAINING, "default/old")
    draining.uid = "uid-draining"
    second = site.engine.endpoint()
    second.uid = "uid-second"
    site.publish(
        model("llama-3.1-8b"),
        model("qwen-coder-32b", deployment="default/c", next_replica=loading),
        model("mixtral-8x22b", deployment="default/b", next_replica=pending),
        model("llama-3.1-70b", deployment="default/w", next_replica=whole),
        model("gemma-9b", deployment="default/e", wakes=True),
        model("org/old", deployment="default/old"),
        model("none", deployment="default/none"),
        model("bge-m3", "embeddings", deployment="default/emb"),
        model("panel", "openai", deployment="tribunal:default/panel", virtual=True),
        model("handbook", "openai", deployment="assistant:default/handbook", virtual=True),
        endpoints=[site.engine.endpoint(), second, draining],
    )
    visit.sign_in()
    rows = visit.page.locator(".model")
    expect(rows).to_have_text(
        [
            "llama-3.1-8bready, 2 replicas",
            re.compile(r"^qwen-coder-32bloading, ready in ~\d+ s$"),
            "mixtral-8x22bits job waits, starts in ~50 min",
            "llama-3.1-70bits job waits, ready in ~17 min",
            "gemma-9bat zero, wakes on demand",
            "org/oldstopping, takes nothing new",
            "noneno replica, none on its way",
            "paneltribunalready",
            "handbookassistantready",
        ]
    )
    picture(visit.page, "chat-models")


def test_states_are_looked_at_again_while_the_page_is_seen(visit: Visit, site: Site) -> None:
    visit.page.clock.install()
    site.publish(
        model("m", next_replica=Next(stage=Next.STAGE_LOADING)),
        model("n", deployment="default/n"),
        endpoints=[],
    )
    visit.sign_in()
    row = visit.page.locator(".model").first
    expect(row).to_have_text("mloading")
    visit.choose("n")
    site.publish(model("m"), model("n", deployment="default/n"))
    visit.page.clock.fast_forward(5_000)
    expect(row).to_have_text("mready")
    expect(visit.model("n")).to_be_checked()
    site.publish(model("later", deployment="default/d"), model("m"))
    visit.page.clock.fast_forward(16_000)
    expect(visit.page.locator(".model .name")).to_have_text(["later", "m"])
    expect(visit.model("later")).to_be_checked()


def test_no_model_and_no_gateway_are_said(visit: Visit, site: Site) -> None:
    visit.page.clock.install()
    site.publish(model("bge-m3", "embeddings"))
    visit.sign_in()
    expect(visit.page.get_by_text("There is no model that chats")).to_be_visible()
    visit.page.route("**/v1/models", lambda route: route.abort())
    visit.page.clock.fast_forward(16_000)
    expect(visit.page.get_by_text("The gateway does not answer")).to_be_visible()
    visit.page.unroute("**/v1/models")
    visit.page.clock.fast_forward(16_000)
    expect(visit.page.get_by_text("There is no model that chats")).to_be_visible()
    visit.complaints = [
        each for each in visit.complaints if "ERR_FAILED" not in each
    ]  # the browser's own word
