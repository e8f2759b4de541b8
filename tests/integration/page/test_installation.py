"""The page of a real installation: controller, gateway and workloads as `llmop up` starts them, replicas that are processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.installation import document, simulator
from tests.integration.laptop import Laptop
from tests.integration.page.conftest import Visit, window

REVIEWS = json.dumps(
    {
        "reviews": {
            "A": {"score": 7, "findings": ["right about the intent", "says nothing of adoption"]},
            "B": {"score": 5, "findings": ["names no reason"]},
        }
    }
)
ANSWER = "A job is submitted **once**: the intent is stored before `sbatch` runs, and what was lost is found again by its name."
SCRIPT = {
    "You are a critic": f"Let me see. {REVIEWS}",
    "Critics have read your answer": "The intent comes first, then `sbatch`, then the id; a lost id is looked up by name.",
    "Write the final answer": ANSWER,
    "": "The intent is stored first, then `sbatch` is called.",
}
PANEL = {
    "drafters": [{"model": "writer", "n": 2}],
    "critics": [{"model": "writer"}, {"model": "writer", "temperature": 0.7}],
    "judge": {"model": "writer"},
}

# Some of what is told while a model wakes is there for a moment only.
LISTEN = """() => {
  window.told = [];
  const look = () => window.told.push(document.querySelector(".progress")?.textContent);
  new MutationObserver(look).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("laptop")
    script = folder / "answers.json"
    script.write_text(json.dumps([{"contains": part, "text": text} for part, text in SCRIPT.items()]))
    made = Laptop(folder)
    try:
        made.up("--ephemeral", "--quiet")
        scaling = {"minReplicas": 0, "maxReplicas": 1, "metrics": [{"type": "InFlight", "target": 4}]}
        made.apply(
            simulator("writer", args=(f"--answers={script}", "--decode-base-ms=15")),
            simulator("sleeper", replicas=None, args=("--load-seconds=3",), scaling=scaling),
            document("Tribunal", "panel", PANEL),
            document("Tribunal", "sleepers", PANEL | {"judge": {"model": "sleeper"}}),
        )
        made.wait_ready("writer")
        made.llmctl("wait", "tb/panel", "tb/sleepers", "--for=condition=Ready", "--timeout=90s")
        yield made
    finally:
        made.clean()


@pytest.fixture
def visit(browser: Browser, laptop: Laptop) -> Iterator[Visit]:
    port, key = laptop.gateway
    yield from window(browser, f"http://127.0.0.1:{port}/", key)


def test_a_tribunals_steps_and_its_answer(visit: Visit, picture: Callable[[Page, str], None]) -> None:
    visit.sign_in()
    visit.choose("panel")
    expect(visit.page.locator(".model", has=visit.model("panel"))).to_have_text("paneltribunalready")
    answer = visit.ask("How is a replica submitted once only?")
    steps = answer.locator(".tribunal > ol > li > strong")
    titles = [
        "Drafts",
        "Critics read the drafts",
        "Authors refine, round 1",
        "Critics read the drafts, round 1",
        "The judge writes the answer",
    ]
    expect(answer.locator(".tribunal > summary")).to_contain_text(
        "The judge wrote the answer from drafts and critiques."
    )
    expect(answer.locator(".markdown strong")).to_have_text("once")
    expect(answer.locator(".markdown").last).to_contain_text("found again by its name")
    expect(steps.first).to_be_hidden()
    answer.locator(".tribunal > summary").click()
    expect(steps).to_have_text([*titles, "What was drafted", "What the critics found"])
    expect(answer.locator(".members").first.locator("li.answered")).to_have_text(
        [re.compile(r"drafter-1\.1 · writer · [\d.]+ s"), re.compile(r"drafter-1\.2 · writer · [\d.]+ s")]
    )
    answer.get_by_text("Draft A, refined 1x by writer").click()
    expect(answer.get_by_text("a lost id is looked up by name").first).to_be_visible()
    answer.get_by_text("critic-1, writer, round 1").click()
    expect(answer.get_by_text("right about the intent · says nothing of adoption").first).to_be_visible()
    visit.page.locator(".tribunal").evaluate("(it) => it.scrollIntoView({block: 'start'})")
    picture(visit.page, "chat-tribunal")


def test_operators_see_what_runs(browser: Browser, laptop: Laptop) -> None:
    key = laptop.llmctl("key", "create", "operator", "--operations").strip()
    laptop.wait(
        "the gateway to know the key", lambda: laptop.status("/v1/models", key=key) == 200, timeout=30
    )
    port, _ = laptop.gateway
    for visit in window(browser, f"http://127.0.0.1:{port}/", key):
        visit.sign_in()
        page = visit.page
        page.get_by_role("button", name="Operations").click()
        expect(page.locator("#clusters li")).to_have_text(
            re.compile(r"^default local: answers, looked at \d+ s ago$")
        )
        expect(page.locator("#deployments tr", has_text="writer")).to_contain_text("1 of 1Ready")
        (replica,) = [each for each in laptop.objects("rep") if each["spec"]["deployment"] == "writer"]
        row = page.locator("#replicas tr", has_text=replica["metadata"]["name"])
        expect(row).to_contain_text("Ready")
        expect(row).to_contain_text(replica["status"]["jobId"])
        expect(page.locator("#axis .lane .ready")).not_to_have_count(0)


def test_a_model_at_zero_is_woken_from_the_page(visit: Visit, laptop: Laptop) -> None:
    visit.sign_in()
    row = visit.page.locator(".model", has=visit.model("sleeper"))
    expect(row).to_contain_text("at zero, wakes on demand")
    judged = visit.page.locator(".model", has=visit.model("sleepers"))
    expect(judged).to_have_text("sleeperstribunalsleeper at zero, wakes on demand")
    visit.choose("sleeper")
    visit.page.evaluate(LISTEN)
    answer = visit.ask("Are you there?")
    expect(answer.locator("footer")).to_contain_text("first word after")
    told = visit.page.evaluate("window.told.join()")
    assert "The model is loading" in told
    expect(row).to_contain_text("ready")
    expect(judged).to_have_text("sleeperstribunalready")
