"""Without a mouse, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.integration.gateway.upstreams import model
from tests.integration.page.conftest import Visit, window
from tests.integration.page.site import Site, says
from tests.integration.page.test_answers import Held

ANSWER = """A replica passes through **four** stages; each has a reason in words:

1. *Pending*: its job waits, and Slurm says why.
2. *Loading*: the engine reads its weights.
3. *Ready*: it has generated a token, see `llmctl get rep`.
4. *Draining*: it finishes what it has.

```python
def is_routed(replica):
    return replica.phase in {Phase.READY, Phase.SUSPECT}
```

| stage | takes requests |
|---|---|
| Loading | no, they wait |
| Ready | yes |

> An answer that has begun is finished first.
"""
# Contrast as WCAG 2 has it, of every element with words of its own against the nearest ground that is painted.
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.checkVisibility({ visibilityProperty: true }) && !each.closest(".hidden-text, option"))
    .filter((each) => each.placeholder || [...each.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .map((each) => {
      const words = numbers(getComputedStyle(each, each.placeholder && !each.value ? "::placeholder" : null).color);
      const [one, two] = [light(words), light(ground(each))].sort((a, b) => b - a);
      const said = (each.placeholder || each.textContent.trim()).slice(0, 40);
      return { ratio: (one + 0.05) / (two + 0.05), what: each.localName + "." + each.className + ": " + said };
    })
    .filter(({ ratio }) => ratio < 4.5);
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  if (element.type === "radio") return element.value;
  return element.getAttribute("aria-label") || (element.matches("section, textarea") ? element.id : element.textContent);
}"""
OUTLINE = "getComputedStyle(document.activeElement.closest('label') ?? document.activeElement).outlineStyle"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(params=["light", "dark"])
def tinted(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    yield from window(browser, site.url, site.key, color_scheme=request.param)


@pytest.fixture
def phone(browser: Browser, site: Site) -> Iterator[Visit]:
    for visit in window(
        browser,
        site.url,
        site.key,
        color_scheme="dark",
        has_touch=True,
        is_mobile=True,
        device_scale_factor=1.5,
    ):
        visit.page.set_viewport_size({"width": 390, "height": 760})
        yield visit


def some_models(site: Site) -> None:
    site.publish(
        model("llama-3.1-8b"),
        model("gemma-9b", deployment="default/e", wakes=True),
        model("old", deployment="default/o"),
        model("panel", "openai", deployment="tribunal:default/panel", virtual=True),
    )


def test_everything_can_be_done_with_the_keyboard(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("Hello to you.")
    some_models(site)
    page, keys = visit.page, visit.page.keyboard
    page.emulate_media(reduced_motion="reduce")
    question = page.get_by_label("Message", exact=True)
    page.goto(visit.url)
    keys.type(visit.key)
    keys.press("Enter")
    expect(question).to_be_focused()
    keys.type("one")
    keys.press("Shift+Enter")
    keys.type("two")
    keys.press("Enter")
    expect(page.locator(".question")).to_have_text("one\ntwo")
    expect(page.locator(".answer .markdown")).to_have_text("Hello to you.")
    expect(question).to_be_focused()
    page.reload()
    visit.model("llama-3.1-8b").wait_for()
    page.locator(".skip").focus()
    expect(page.locator(".skip")).to_be_in_viewport()
    for name in (
        "New chat",
        "llama-3.1-8b",
        "one two",
        "Delete chat: one two",
        "Sign out",
        "log",
        "Settings",
        "question",
        "Send",
    ):
        keys.press("Tab")
        assert name == page.evaluate(FOCUSED)
        assert "solid" == page.evaluate(OUTLINE), name
    page.locator(".skip").focus()
    keys.press("Enter")
    expect(question).to_be_focused()
    visit.model("llama-3.1-8b").focus()
    keys.press("ArrowDown")
    expect(visit.model("gemma-9b")).to_be_checked()
    expect(question).to_have_attribute("placeholder", "Ask gemma-9b")
    held = Held("", "So far")
    site.engine.behaviour = held
    keys.press("ArrowUp")
    question.focus()
    keys.type("Go on")
    keys.press("Enter")
    expect(page.locator(".progress").last).to_be_visible()
    assert 0 == page.evaluate("document.getAnimations().length")
    keys.press("Escape")
    site.until(lambda _: held.is_gone)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Stopped.")


def test_words_can_be_read_in_light_and_dark(
    tinted: Visit, site: Site, picture: Callable[[Page, str], None]
) -> None:
    site.engine.behaviour = says(*(ANSWER[start : start + 9] for start in range(0, len(ANSWER), 9)))
    some_models(site)
    page = tinted.page
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.goto(tinted.url)
    page.get_by_label("Key", exact=True).wait_for()
    assert [] == page.evaluate(CONTRAST)
    tinted.sign_in()
    tinted.model("llama-3.1-8b").wait_for()
    tinted.answer_to("What stages does a replica have?")
    assert [] == page.evaluate(CONTRAST)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert is_dark == (int(ground[4:].split(",")[0]) < 128)
    page.get_by_label("Message", exact=True).blur()
    picture(page, "chat-dark" if is_dark else "chat-light")
    page.get_by_text("Settings").click()
    tinted.choose("old")
    tinted.refused = {503}
    expect(tinted.ask("Anybody?").get_by_role("alert")).to_be_visible()
    assert [] == page.evaluate(CONTRAST)


def test_a_phone_has_room_for_everything(
    phone: Visit, site: Site, picture: Callable[[Page, str], None]
) -> None:
    wide = f"```\n{'x' * 300}\n```\n\n|{'a|' * 12}\n|{'-|' * 12}\n\n{'w' * 300}"
    site.engine.behaviour = says(wide)
    some_models(site)
    page = phone.page
    phone.sign_in()
    phone.answer_to("Show me something wide")
    assert 0 == page.evaluate(WIDER)
    menu = page.get_by_role("button", name="Menu")
    expect(menu).to_have_attribute("aria-expanded", "false")
    expect(phone.model("panel")).to_be_hidden()
    menu.press("Enter")
    expect(menu).to_have_attribute("aria-expanded", "true")
    expect(phone.model("llama-3.1-8b")).to_be_focused()
    expect(page.get_by_label("Message", exact=True)).to_be_hidden()
    assert 0 == page.evaluate(WIDER)
    assert [] == page.evaluate(CONTRAST)
    picture(page, "chat-phone-menu")
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    site.engine.behaviour = says(ANSWER)
    page.get_by_role("button", name="New chat").first.click()
    phone.answer_to("What stages does a replica have?")
    page.locator("#log").evaluate("(log) => (log.scrollTop = 0)")
    page.get_by_label("Message", exact=True).blur()
    picture(page, "chat-phone")
    page.set_viewport_size({"width": 320, "height": 560})
    assert 0 == page.evaluate(WIDER)
    expect(page.get_by_label("Message", exact=True)).to_be_in_viewport(ratio=1)
