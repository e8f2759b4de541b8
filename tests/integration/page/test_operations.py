"""The second page, for keys that may see operations: what is there, how fresh it is, and that nobody else gets it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.integration.gateway.test_client_keys import SECRET, bearer, key
from tests.integration.gateway.upstreams import model
from tests.integration.page.conftest import Visit, window
from tests.integration.page.site import Site
from tests.integration.page.test_keyboard_and_looks import CONTRAST, FOCUSED, OUTLINE, WIDER
from tests.waiting import eventually

NOW = 1_795_875_600  # 2026-11-28 14:20 UTC
MINUTE, HOUR = 60, 3600
LANE = "#axis .lane:has(.lane-name:text-is('{}'))"


def replica(name: str, phase: str = "Ready", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": "hpc",
        "phase": phase,
        "is_ready": phase == "Ready",
        "reason": "",
        "job_id": None,
        "node": "",
        "restarts": 0,
        "created_at": NOW - HOUR,
        "estimated_start_at": None,
        "started_at": None,
        "ready_at": None,
        "ends_at": None,
        "ended_at": None,
    } | facts


def serving(name: str, job: str, node: str, since: int, left: int, **facts: Any) -> dict[str, Any]:
    """`since` and `left` are minutes."""
    started = NOW - since * MINUTE
    times = {"created_at": started - 9 * MINUTE, "started_at": started, "ready_at": started + 6 * MINUTE}
    return replica(name, job_id=job, node=node, ends_at=NOW + left * MINUTE, **(times | facts))


def deployment(name: str, *replicas: dict[str, Any], **facts: Any) -> dict[str, Any]:
    ready = sum(each["is_ready"] for each in replicas)
    return {
        "namespace": "default",
        "name": name,
        "model": name,
        "runtime": "vllm",
        "ready": ready,
        "desired": len(replicas),
        "is_ready": True,
        "is_stalled": False,
        "reason": "AllReplicasReady",
        "message": "",
        "next": None,
        "load": {"in_flight": 0, "queued": 0, "tokens_per_second": 0.0, "is_whole": True},
        "scaling": None,
        "replicas": list(replicas),
    } | facts


def overview(*deployments: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "now": NOW,
        "clusters": [
            {
                "name": "hpc",
                "driver": "slurm",
                "reachable": "True",
                "reason": "Answers",
                "message": "",
                "seen_at": NOW - 4,
            }
        ],
        "deployments": list(deployments),
        "left_out": {"clusters": 0, "deployments": 0, "replicas": 0},
    } | facts


def a_day() -> dict[str, Any]:
    """An installation in the middle of its day."""
    llama = deployment(
        "llama-3.1-8b",
        serving("llama-3-1-8b-6kd2p", "48213", "gpu-07", 225, 135),
        serving("llama-3-1-8b-x9w4t", "48377", "gpu-11", 96, 264),
        replica(
            "llama-3-1-8b-m2v8c",
            "Loading",
            job_id="48460",
            node="gpu-02",
            created_at=NOW - 17 * MINUTE,
            started_at=NOW - 3 * MINUTE,
            ends_at=NOW + 357 * MINUTE,
        ),
        is_ready=False,
        reason="WaitingForReplicas",
        message="2 of 3 replicas are available",
        load={"in_flight": 41, "queued": 3, "tokens_per_second": 1874.2, "is_whole": True},
        scaling={
            "min": 1,
            "max": 6,
            "steps": [
                {
                    "at": NOW - 17 * MINUTE,
                    "from": 2,
                    "to": 3,
                    "reason": "LoadRose",
                    "message": "the load is more than the replicas are meant for (InFlight 38.5, target 16)",
                }
            ],
        },
    )
    mixtral = deployment(
        "mixtral-8x22b",
        replica(
            "mixtral-8x22b-q7r3z",
            "Pending",
            reason="Resources",
            job_id="48455",
            created_at=NOW - 52 * MINUTE,
            estimated_start_at=NOW + 95 * MINUTE,
        ),
        is_ready=False,
        reason="Resources",
        message="Slurm: the job is waiting for resources to become available",
        next={"starts_at": NOW + 95 * MINUTE, "source": "Slurm", "ready_at": NOW + 107 * MINUTE},
        load={"in_flight": 0, "queued": 5, "tokens_per_second": 0.0, "is_whole": True},
    )
    qwen = deployment(
        "qwen-coder-32b",
        serving(
            "qwen-coder-32b-c5n1h",
            "48102",
            "gpu-04",
            238,
            122,
            phase="Ended",
            is_ready=False,
            reason="OutOfMemory",
            ready_at=None,
            ended_at=NOW - 71 * MINUTE,
        ),
        serving("qwen-coder-32b-t8j6y", "48391", "gpu-04", 66, 294, restarts=1),
        namespace="coding",
        desired=1,
        load={"in_flight": 6, "queued": 0, "tokens_per_second": 212.9, "is_whole": True},
    )
    gemma = deployment(
        "gemma-9b",
        runtime="tgi",
        scaling={
            "min": 0,
            "max": 2,
            "steps": [
                {
                    "at": NOW - 190 * MINUTE,
                    "from": 1,
                    "to": 0,
                    "reason": "Idle",
                    "message": "there was no request for 10 min",
                }
            ],
        },
    )
    return overview(gemma, llama, mixtral, qwen)


@pytest.fixture
def site(whole_site: Site) -> Site:
    """With a key that may see operations, and an installation that has something to show."""
    allow(whole_site)
    show(whole_site, a_day())
    return whole_site


def allow(site: Site, *, operations: bool = True) -> None:
    site.publish(model("llama-3.1-8b"), keys=[key(operations=operations)])


def show(site: Site, what: dict[str, Any]) -> None:
    """Returns once the gateway has it: it keeps an answer for a moment."""
    text = site.rig.control.overview = json.dumps(what, separators=(",", ":"))

    async def until_known() -> None:
        await eventually(
            lambda: site.rig.ask("/v1/operations", b"", bearer(), method="GET"),
            lambda answer: answer.body.decode() == text,
        )

    site.run(until_known())


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    yield from window(browser, site.url, SECRET, timezone_id="UTC")


@pytest.fixture(params=["light", "dark"])
def tinted(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    yield from window(browser, site.url, SECRET, timezone_id="UTC", color_scheme=request.param)


@pytest.fixture
def phone(browser: Browser, site: Site) -> Iterator[Visit]:
    options = {"has_touch": True, "is_mobile": True, "device_scale_factor": 1.5, "timezone_id": "UTC"}
    for visit in window(browser, site.url, SECRET, color_scheme="dark", **options):
        visit.page.set_viewport_size({"width": 390, "height": 760})
        yield visit


def enter(visit: Visit) -> Page:
    visit.sign_in()
    visit.page.get_by_role("button", name="Operations").click()
    expect(visit.page.locator("#operations-time")).to_have_text("as of 14:20:00")
    return visit.page


def cells(page: Page, table: str) -> list[list[str]]:
    found: list[list[str]] = page.locator(f"#{table} tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => [...cell.childNodes].map((it) => it.textContent).filter(Boolean).join(' | ')))"
    )
    return found


def test_it_is_there_for_keys_that_may_see_it_alone(visit: Visit, site: Site) -> None:
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    visit.sign_in(site.key)
    visit.model("llama-3.1-8b").wait_for()
    expect(visit.page.get_by_role("navigation", name="Pages")).to_be_hidden()
    assert "/v1/operations" not in asked
    visit.page.get_by_role("button", name="Sign out").click()
    enter(visit)
    expect(visit.page.get_by_role("button", name="Operations")).to_have_attribute("aria-current", "page")
    assert "/v1/operations" in asked
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page.get_by_label("Key", exact=True)).to_be_visible()
    assert "gpu-07" not in visit.page.content()


def test_a_right_that_is_taken_back_leads_to_the_chat(visit: Visit, site: Site) -> None:
    visit.refused = {403}
    visit.page.clock.install()
    page = enter(visit)
    allow(site, operations=False)
    page.clock.fast_forward(5_000)
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages")).to_be_hidden()


def test_everything_is_said_in_tables(visit: Visit) -> None:
    page = enter(visit)
    expect(page.locator("#clusters li")).to_have_text(["hpc slurm: answers, looked at 4 s ago"])
    assert [
        ["gemma-9b | default", "gemma-9b | tgi", "0 of 0", "Ready", "–", "0", "0", "0", "0 to 2 | wants 0"],
        [
            "llama-3.1-8b | default",
            "llama-3.1-8b | vllm",
            "2 of 3",
            "WaitingForReplicas | 2 of 3 replicas are available",
            "–",
            "41",
            "3",
            "1874.2",
            "1 to 6 | wants 3",
        ],
        [
            "mixtral-8x22b | default",
            "mixtral-8x22b | vllm",
            "0 of 1",
            "Resources | Slurm: the job is waiting for resources to become available",
            "starts 15:55 | says Slurm, ready about 16:07",
            "0",
            "5",
            "0",
            "fixed | at 1",
        ],
        [
            "qwen-coder-32b | coding",
            "qwen-coder-32b | vllm",
            "1 of 1",
            "Ready",
            "–",
            "6",
            "0",
            "212.9",
            "fixed | at 1",
        ],
    ] == cells(page, "deployments")
    assert [
        ["llama-3-1-8b-6kd2p | default/llama-3.1-8b", "Ready", "48213", "gpu-07",
         "10:26", "10:35", "10:41", "16:35 | 2 h 15 min left"],
        ["llama-3-1-8b-x9w4t | default/llama-3.1-8b", "Ready", "48377", "gpu-11",
         "12:35", "12:44", "12:50", "18:44 | 4 h 24 min left"],
        ["llama-3-1-8b-m2v8c | default/llama-3.1-8b", "Loading", "48460", "gpu-02",
         "14:03", "14:17", "–", "20:17 | 5 h 57 min left"],
        ["mixtral-8x22b-q7r3z | default/mixtral-8x22b", "Pending | Resources", "48455", "–",
         "13:28", "15:55 | expected", "–", "–"],
        ["qwen-coder-32b-c5n1h | coding/qwen-coder-32b", "Ended | OutOfMemory", "48102", "gpu-04",
         "10:13", "10:22", "–", "13:09 | over"],
        ["qwen-coder-32b-t8j6y | coding/qwen-coder-32b", "Ready", "48391", "gpu-04 | restarts: 1",
         "13:05", "13:14", "13:20", "19:14 | 4 h 54 min left"],
    ] == cells(page, "replicas")  # fmt: skip
    assert [
        [
            "14:03",
            "default/llama-3.1-8b",
            "2 to 3",
            "LoadRose | the load is more than the replicas are meant for (InFlight 38.5, target 16)",
        ],
        ["11:10", "default/gemma-9b", "1 to 0", "Idle | there was no request for 10 min"],
    ] == cells(page, "steps")


PLACES = """(it) => {
  const width = it.parentElement.clientWidth;
  return [it.className, Math.round(720 * it.offsetLeft / width), Math.round(720 * (it.offsetLeft + it.offsetWidth) / width)];
}"""


def test_replicas_lie_on_a_time_axis_with_the_end_of_their_walltime(visit: Visit) -> None:
    """In minutes from the left: twelve hours are shown, four of them before now."""
    page = enter(visit)

    def drawn(name: str) -> list[tuple[str, int, int]]:
        return [
            tuple(each.evaluate(PLACES))
            for each in page.locator(LANE.format(name)).locator(".track > *").all()
        ]  # type: ignore[misc]

    def near(name: str, *expected: tuple[str, int | None, int | None]) -> None:
        found = drawn(name)
        assert [kind for kind, *_ in expected] == [kind for kind, *_ in found]
        for (_, *wanted), (_, *seen) in zip(expected, found, strict=True):
            for one, other in zip(wanted, seen, strict=True):
                assert one is None or abs(one - other) <= 4, (name, found)

    near(
        "llama-3-1-8b-6kd2p",
        ("bar waiting", 6, 15),
        ("bar loading", 15, 21),
        ("bar ready", 21, 240),
        ("bar ahead", 240, 375),
        ("mark", None, 375),
    )
    near("mixtral-8x22b-q7r3z", ("bar waiting", 188, 240), ("bar ahead", 240, 335))
    near("qwen-coder-32b-c5n1h", ("bar waiting", 0, 2), ("bar over", 2, 169))
    expect(page.locator("#axis")).to_have_attribute("aria-hidden", "true")
    page.get_by_label("Shown").select_option("2 hours")
    near("llama-3-1-8b-6kd2p", ("bar ready", 0, 240), ("bar ahead", 240, 720))
    expect(page.locator(LANE.format("qwen-coder-32b-c5n1h"))).to_have_count(0)
    page.get_by_label("Shown").select_option("2 weeks")
    expect(page.locator(LANE.format("qwen-coder-32b-c5n1h"))).to_have_count(1)


RUNS = {"started_at": NOW - 60, "ends_at": NOW + 60}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, ["waiting -3600 0"], id="nobody-knows-when"),
        pytest.param(
            {"estimated_start_at": NOW + 9}, ["waiting -3600 0", "ahead 0 9"], id="slurm-has-an-estimate"
        ),
        pytest.param({"estimated_start_at": NOW - 9}, ["waiting -3600 0"], id="it-should-have-started"),
        pytest.param(RUNS, ["waiting -3600 -60", "loading -60 0", "ahead 0 60"], id="loading"),
        pytest.param(
            RUNS | {"reason": "Unhealthy"},
            ["waiting -3600 -60", "unready -60 0", "ahead 0 60"],
            id="ill",
        ),
        pytest.param(
            RUNS | {"phase": "Ready", "is_ready": True, "ready_at": NOW - 70},
            ["waiting -3600 -60", "ready -60 0", "ahead 0 60"],
            id="heard-before-it-was-seen-to-start",
        ),
        pytest.param(
            RUNS | {"phase": "Draining", "ready_at": NOW - 30},
            ["waiting -3600 -60", "loading -60 -30", "ready -30 0", "ahead 0 60"],
            id="finishing",
        ),
        pytest.param(
            RUNS | {"phase": "Unreachable", "ready_at": NOW - 30},
            ["waiting -3600 -60", "loading -60 -30", "unready -30 0", "ahead 0 60"],
            id="silent",
        ),
        pytest.param(
            RUNS | {"ends_at": None}, ["waiting -3600 -60", "loading -60 0", "ahead 0 ?"], id="no-walltime"
        ),
        pytest.param(RUNS | {"ends_at": NOW - 1}, ["waiting -3600 -60", "loading -60 0"], id="overdue"),
        pytest.param({"ended_at": NOW - 9}, ["waiting -3600 -9"], id="cancelled-while-it-waited"),
    ],
)
def test_what_is_drawn_of_a_replica(visit: Visit, facts: dict[str, Any], expected: list[str]) -> None:
    visit.page.goto(visit.url)
    found = visit.page.evaluate(
        "([each, now]) => import(new URL('page/axis.js', document.baseURI)).then(({ spans }) => spans(each, now))",
        [replica("r", **{"phase": "Loading", **facts}), NOW],
    )

    def at(time: int | None) -> str:
        return "?" if time is None else str(time - NOW)

    assert expected == [f"{each['kind']} {at(each['from'])} {at(each['to'])}" for each in found]


def test_it_is_looked_at_again_only_while_it_is_seen(visit: Visit, site: Site) -> None:
    page = visit.page
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "operations" in request.url else None)
    enter(visit)
    row = page.locator("#deployments tr").filter(has_text="llama-3.1-8b")
    row.evaluate("(it) => (window.kept = it)")
    changed = a_day() | {"now": NOW + 5}
    changed["deployments"][3]["load"]["in_flight"] = 7
    show(site, changed)
    page.clock.fast_forward(5_000)
    expect(page.locator("#operations-time")).to_have_text("as of 14:20:05")
    expect(page.locator("#deployments tr").last).to_contain_text("7")
    assert page.evaluate("window.kept.isConnected")  # what is the same is left alone
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    seen = len(asked)
    page.clock.fast_forward(60_000)
    assert seen == len(asked)
    statuses: list[int] = []
    page.on("response", lambda got: statuses.append(got.status) if "operations" in got.url else None)
    show(site, changed | {"now": NOW + 65})
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#operations-time")).to_have_text("as of 14:21:05")
    expect(page.locator("#deployments tr").last).to_contain_text("7")
    assert [304] == statuses  # nothing is different but the time
    page.get_by_role("button", name="Chat", exact=True).click()
    seen = len(asked)
    page.clock.fast_forward(60_000)
    visit.model("llama-3.1-8b").wait_for()
    assert seen == len(asked)


def test_a_controller_that_is_away_is_said_and_what_was_seen_stays(visit: Visit, site: Site) -> None:
    visit.refused = {503}
    page = visit.page
    page.clock.install()
    enter(visit)
    site.run(site.rig.control.stop())
    try:
        alert = page.locator("#operations-problem")
        for _ in range(20):
            page.clock.fast_forward(5_000)
            page.wait_for_timeout(100)
            if alert.is_visible():
                break
        expect(alert).to_have_text(
            "The controller does not answer. Models are served as before. What you see is from 14:20:00."
        )
        assert 4 == len(cells(page, "deployments"))
    finally:
        site.run(site.rig.control.start())
    for _ in range(20):
        page.clock.fast_forward(5_000)
        page.wait_for_timeout(100)
        if not alert.is_visible():
            break
    expect(alert).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("The controller answers again.")


def test_texts_of_others_never_become_markup(visit: Visit, site: Site) -> None:
    evil = "<img src=x onerror=alert(1)>"
    hostile = deployment(
        evil,
        serving(evil, evil, evil, 30, 60, phase=evil, reason=evil),
        namespace=evil,
        runtime=evil,
        is_ready=False,
        reason=evil,
        message=evil,
        next={"starts_at": NOW, "source": "constructor", "ready_at": None},
        scaling={
            "min": 0,
            "max": 1,
            "steps": [{"at": NOW, "from": 0, "to": 1, "reason": evil, "message": evil}],
        },
    )
    lost = {"name": evil, "driver": evil, "reachable": evil, "reason": evil, "message": evil, "seen_at": None}
    show(site, overview(hostile, clusters=[lost]))
    page = enter(visit)
    assert 0 == page.locator("#operations img").count()
    assert [f"{evil} {evil}: {evil}: {evil}, not looked at yet"] == page.locator(
        "#clusters li"
    ).all_inner_texts()
    assert f"{evil} | {evil}" == cells(page, "deployments")[0][0]
    assert "starts 14:20" == cells(page, "deployments")[0][4]
    assert [evil] == page.locator(".lane-name").all_inner_texts()


def test_an_empty_installation_and_one_that_is_too_large(visit: Visit, site: Site) -> None:
    show(site, overview(clusters=[]))
    page = visit.page
    page.clock.install()
    enter(visit)
    assert [["None."]] == cells(page, "deployments") == cells(page, "replicas") == cells(page, "steps")
    many = [serving(f"r{number}", str(number), "n1", 30, 60) for number in range(1000)]
    show(site, overview(deployment("big", *many), left_out={"clusters": 0, "deployments": 2, "replicas": 17}))
    page.clock.fast_forward(5_000)
    expect(page.locator("#operations-time")).to_have_text(
        "as of 14:20:00, without 2 more deployments, without 17 more replicas"
    )
    expect(page.locator("#replicas tr")).to_have_count(1000)
    expect(page.locator("#axis .lane")).to_have_count(1000)


def test_it_can_be_reached_and_read_with_the_keyboard(visit: Visit) -> None:
    visit.sign_in()
    page, keys = visit.page, visit.page.keyboard
    visit.model("llama-3.1-8b").wait_for()
    page.locator("#skip").focus()
    for name in ("Chat", "Operations"):
        keys.press("Tab")
        assert name == page.evaluate(FOCUSED)
        assert "solid" == page.evaluate(OUTLINE), name
    keys.press("Enter")
    expect(page.locator("#operations-time")).to_have_text("as of 14:20:00")
    expect(page.get_by_role("button", name="Operations")).to_be_focused()
    expect(page).to_have_title("Operations – llmop")
    page.locator("#skip").focus()
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Operations")).to_be_focused()
    for name in ("deployments-title", "axis-span", "replicas-title", "steps-title"):
        keys.press("Tab")
        focused = "document.activeElement.getAttribute('aria-labelledby') ?? document.activeElement.id"
        assert name == page.evaluate(focused)
        assert "solid" == page.evaluate("getComputedStyle(document.activeElement).outlineStyle"), name
    for table in ("Deployments", "Replicas", "Scaling"):
        expect(page.get_by_role("region", name=table).get_by_role("table")).to_be_visible()
    page.reload()
    expect(page.locator("#operations-time")).to_have_text("as of 14:20:00")
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.get_by_role("button", name="Chat", exact=True)).to_have_attribute("aria-current", "page")


def test_it_can_be_read_in_light_and_dark(tinted: Visit, picture: Callable[[Page, str], None]) -> None:
    page = enter(tinted)
    assert [] == page.evaluate(CONTRAST)
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.get_by_role("button", name="Operations").blur()
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    picture(page, "operations-dark" if is_dark else "operations-light")


def test_a_phone_has_room_for_it(phone: Visit, picture: Callable[[Page, str], None]) -> None:
    phone.sign_in()
    page = phone.page
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Operations").click()
    expect(page.get_by_role("heading", name="Operations")).to_be_focused()
    expect(page.locator("#operations-time")).to_have_text("as of 14:20:00")
    expect(page.locator("#bar-model")).to_have_text("Operations")
    assert 0 == page.evaluate(WIDER)
    assert [] == page.evaluate(CONTRAST)
    page.locator("#axis-title").evaluate("(it) => it.scrollIntoView({block: 'start'})")
    picture(page, "operations-phone")
    page.set_viewport_size({"width": 320, "height": 560})
    assert 0 == page.evaluate(WIDER)
