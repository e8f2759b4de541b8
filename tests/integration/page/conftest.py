"""The page in a real headless Chromium, in front of a real gateway."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)
from tests.integration.page.site import Site, running_site

PATIENCE = 45_000  # milliseconds; a busy machine draws slowly
PICTURES = Path(__file__).resolve().parents[3] / "docs" / "images"
# As root there is no sandbox of the browser's own; the rest keeps it from calling its maker.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program is not None, "there is no Chromium: run hack/install-test-tools"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="package")
def whole_site() -> Iterator[Site]:
    with running_site() as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Site:
    """With one model, "m", that is ready."""
    whole_site.publish()
    return whole_site


@dataclasses.dataclass(kw_only=True)
class Visit:
    """A person's window. `refused` are the statuses of answers that a test means to see: browsers call them errors by themselves."""

    page: Page
    context: BrowserContext
    url: str
    key: str
    refused: set[int] = dataclasses.field(default_factory=set)
    complaints: list[str] = dataclasses.field(default_factory=list)
    strangers: list[str] = dataclasses.field(default_factory=list)

    def watch(self, page: Page) -> Page:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"thrown: {error}"))
        page.on("request", self._asked)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.set_default_timeout(PATIENCE)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            f"status of {code}" in message.text for code in self.refused
        ):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.strangers.append(request.url)

    def sign_in(self, key: str | None = None, *, remember: bool = False) -> None:
        self.page.goto(self.url)
        self.page.get_by_label("Key", exact=True).fill(key or self.key)
        if remember:
            self.page.get_by_label("Remember").check()
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_label("Message", exact=True).wait_for()

    def model(self, name: str) -> Locator:
        return self.page.locator(f'input[name="model"][value="{name}"]')

    def choose(self, name: str) -> None:
        self.page.locator(".model", has=self.model(name)).click()

    def ask(self, text: str) -> Locator:
        """The element of the answer."""
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_role("button", name="Send").click()
        return self.page.locator(".answer").last

    def answer_to(self, text: str) -> str:
        """What stands there when it is over."""
        self.ask(text)
        self.page.get_by_role("button", name="Send").wait_for()
        return self.page.locator(".answer .markdown").last.inner_text()

    def violations(self) -> list[str]:
        found: list[str] = self.page.evaluate("window.violations")
        return found


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    with_window = window(browser, site.url, site.key)
    yield from with_window


def window(browser: Browser, url: str, key: str, **options: Any) -> Iterator[Visit]:
    """Afterwards nothing was complained about, and nobody but the gateway was asked."""
    context = browser.new_context(viewport={"width": 1180, "height": 760}, **options)
    context.add_init_script(WATCH)
    visit = Visit(page=context.new_page(), context=context, url=url, key=key)
    visit.watch(visit.page)
    try:
        yield visit
        assert [] == visit.complaints
        assert [] == visit.strangers
        assert [] == visit.violations()
    finally:
        context.close()


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keeps a picture for the docs, where those are made anew."""

    def take(page: Page, name: str) -> None:
        if os.environ.get("UPDATE_PICTURES"):
            PICTURES.mkdir(exist_ok=True)
            page.mouse.move(0, 0)
            page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", caret="hide")

    return take
