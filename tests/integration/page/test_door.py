"""The key: asked for by the page, kept where its owner says, taken back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from playwright.sync_api import Page, expect
from tests.integration.gateway.upstreams import model
from tests.integration.page.conftest import Visit
from tests.integration.page.site import Site, says

from llmop.api.v1 import gateway_pb2


def test_a_wrong_key_is_said_in_words_and_a_good_one_opens(
    visit: Visit, picture: Callable[[Page, str], None]
) -> None:
    visit.refused = {401}
    page = visit.page
    page.goto(visit.url)
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    picture(page, "chat-sign-in")
    page.keyboard.type("llmop-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This key is not known here, or no longer valid.")
    page.get_by_label("Key", exact=True).fill("ключ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("no characters beyond ASCII")
    page.get_by_label("Key", exact=True).fill(f" {visit.key} ")
    page.keyboard.press("Enter")
    expect(visit.model("m")).to_be_checked()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_the_key_stays_in_the_tab_unless_it_is_to_be_remembered(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("hello")
    visit.sign_in()
    visit.answer_to("a secret question")
    visit.page.reload()
    expect(visit.model("m")).to_be_checked()
    expect(visit.page.get_by_role("button", name="a secret question", exact=True)).to_be_visible()
    assert "{}" == visit.page.evaluate("JSON.stringify({...localStorage})")
    other = visit.watch(visit.context.new_page())
    other.goto(visit.url)
    expect(other.get_by_label("Key", exact=True)).to_be_visible()
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page.get_by_label("Key", exact=True)).to_be_visible()
    assert "{}" == visit.page.evaluate("JSON.stringify({...sessionStorage})")
    assert "secret" not in visit.page.content()


def test_a_remembered_key_opens_other_tabs_and_leaves_the_device_with_its_owner(
    visit: Visit, site: Site
) -> None:
    site.engine.behaviour = says("hello")
    visit.sign_in(remember=True)
    visit.answer_to("kept")
    other = visit.watch(visit.context.new_page())
    other.goto(visit.url)
    other.get_by_role("button", name="kept", exact=True).click()
    expect(other.locator(".answer .markdown")).to_have_text("hello")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_label("Key", exact=True)).to_be_visible()
    assert "{}" == other.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")


def test_a_key_that_is_taken_back_leads_to_the_door_and_the_next_one_back_to_the_chat(
    visit: Visit, site: Site
) -> None:
    visit.refused = {401}
    site.engine.behaviour = says("hello")
    secret = "llmop-soon-gone"
    site.publish(
        keys=[gateway_pb2.ClientKey(name="default/soon", digest=hashlib.sha256(secret.encode()).digest())]
    )
    visit.sign_in(secret)
    visit.answer_to("first")
    site.publish()
    visit.ask("second")
    expect(visit.page.get_by_role("alert").first).to_have_text("The key is no longer valid. Sign in again.")
    visit.page.get_by_label("Key", exact=True).fill(visit.key)
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("button", name="first", exact=True).click()
    expect(visit.page.locator(".question")).to_have_text(["first", "second"])


def test_a_key_sees_its_own_models_alone(visit: Visit, site: Site) -> None:
    secret = "llmop-restricted"
    restricted = gateway_pb2.ClientKey(
        name="default/r", digest=hashlib.sha256(secret.encode()).digest(), models=["b", "gone"]
    )
    site.publish(model("a"), model("b"), model("c"), keys=[restricted])
    visit.sign_in(secret)
    expect(visit.page.get_by_role("radio")).to_have_count(1)
    expect(visit.model("b")).to_be_checked()


def test_a_browser_that_keeps_nothing_will_do(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("hello")
    visit.page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); };")
    visit.sign_in(remember=True)
    assert "hello" == visit.answer_to("Hello?")
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page.get_by_label("Key", exact=True)).to_be_visible()
