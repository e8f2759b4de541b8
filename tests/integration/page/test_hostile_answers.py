"""An answer is a stranger's text: it is shown, and it does nothing."""

from __future__ import annotations

import time

from playwright.sync_api import expect
from tests.integration.page.conftest import Visit
from tests.integration.page.site import Site, says

ELEMENTS = frozenset(
    "a blockquote br button code div h3 li ol p pre span table tbody td th thead tr ul".split()  # noqa: SIM905  # a row of words
)
HOSTILE = """<script>window.owned = 1</script><img src=x onerror="window.owned = 2">

[a](javascript:window.owned=3) [b](data:text/html,<script>owned</script>) [c](//evil.example) [d]( javascript:alert(1)) <javascript:alert(1)>

![pixel](https://evil.example/pixel.png) <iframe src="https://evil.example"></iframe> <style>body{display:none}</style>

[x](https://good.example/"onmouseover="window.owned=4) https://good.example/'><script>window.owned=5</script>

```html"><script>window.owned=6</script>
</code></pre><script>window.owned = 7</script>
```

| <b>head</b> | [t](javascript:window.owned=8) |
|---|---|
| <svg onload=window.owned=9> | &lt;script&gt; |

# <a href="javascript:window.owned=10">title</a>
> <base href="https://evil.example/">

- <form action="https://evil.example"><button>go</button></form>
1. &#106;avascript:alert(1) \\<b>
"""


def test_nothing_in_an_answer_runs_loads_or_becomes_markup(visit: Visit, site: Site) -> None:
    pieces = [HOSTILE[start : start + 5] for start in range(0, len(HOSTILE), 5)]
    site.engine.behaviour = says(*pieces)
    visit.sign_in()
    shown = visit.answer_to("Be evil")
    for part in (
        "<script>window.owned = 1</script>",
        "<iframe",
        "<style>",
        "javascript:window.owned=3",
        "&lt;script&gt;",
    ):
        assert part in shown
    answer = visit.page.locator(".answer .markdown")
    made = answer.evaluate("(node) => [...node.querySelectorAll('*')].map((each) => each.localName)")
    assert set(made) <= ELEMENTS
    links = answer.locator("a").evaluate_all(
        "(all) => all.map((each) => [each.protocol, each.target, each.rel])"
    )
    assert links
    assert all(["https:", "_blank", "noopener noreferrer nofollow"] == each for each in links)
    names = answer.evaluate(
        "(node) => [...node.querySelectorAll('*')].flatMap((each) => each.getAttributeNames())"
    )
    assert set(names) <= {"class", "href", "title", "target", "rel", "type", "tabindex", "aria-label", "role"}
    assert visit.page.evaluate("window.owned === undefined")
    visit.page.reload()
    visit.page.locator("#chats .title").click()
    assert shown == visit.page.locator(".answer .markdown").inner_text()
    assert visit.page.evaluate("window.owned === undefined")


def test_titles_and_failures_are_texts_too(visit: Visit, site: Site) -> None:
    site.engine.behaviour = says("fine")
    visit.sign_in()
    visit.answer_to("<img src=x onerror=window.owned=1>")
    expect(visit.page.locator("#chats .title")).to_have_text("<img src=x onerror=window.owned=1>")
    assert visit.page.evaluate("window.owned === undefined")


HARD = {
    "stars": "*" * 150_000,
    "ticks": "`" * 150_001,
    "brackets": "[" * 150_000,
    "half links": "[a](http://" * 15_000,
    "quotes in quotes": "> " * 75_000,
    "lists in lists": "".join(f"{' ' * (2 * (each % 400))}- x\n" for each in range(700)),
    "headings": "# x\n" * 10_000,
    "a wide table": "|" * 60_000 + "\n|-|\n" + "|a" * 60_000,
    "a long table": "|a|\n|-|\n" + "|b|\n" * 8_000,
    "fences": "~" * 150_000 + "`",
    "marks that never end": "*a **b " * 20_000,
    "spaces": "# x" + " " * 150_000 + "y",
    "one word": "a" * 300_000,
    "addresses": "http://" * 20_000,
    "padded code": "` x" * 50_001 + "`",
}


def test_texts_that_are_hard_to_lay_out_do_not_hang_the_page(visit: Visit, site: Site) -> None:
    """The deadline is the one of every look at the page."""
    visit.sign_in()
    for name, text in HARD.items():
        half = len(text) // 2
        site.engine.behaviour = says(text[:half], text[half:], "\n\nThe end.")
        began = time.monotonic()
        answer = visit.ask(name)
        visit.page.get_by_role("button", name="Send").wait_for()
        expect(answer.locator(".markdown"), name).to_contain_text("The end.")
        print(f"{name}: {time.monotonic() - began:.1f} s")
        visit.page.get_by_role("button", name="New chat").last.click()
        expect(visit.page.locator(".answer"), name).to_have_count(0)
