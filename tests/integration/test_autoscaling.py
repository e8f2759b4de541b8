"""Replicas follow the load of a real gateway: a step and back, to zero and up again. Real processes, on this machine."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.installation import simulator
from tests.integration.laptop import Laptop

# Requests take a second and a half; two at a time are what a replica is meant for.
SCALING = {
    "minReplicas": 1,
    "maxReplicas": 3,
    "metrics": [{"type": "InFlight", "target": 2}],
    "stableWindow": "8s",
    "behavior": {"scaleDown": {"stabilizationWindow": "6s"}},
}
BODY = {"inputs": "Hello", "parameters": {"max_new_tokens": 30}}


@pytest.fixture
def laptop(laptop: Laptop) -> Laptop:
    """It is up."""
    laptop.up("--ephemeral")
    return laptop


def slow(name: str, **scaling: Any) -> dict[str, Any]:
    return simulator(name, replicas=None, args=("--decode-base-ms=50",), scaling={**SCALING, **scaling})


def status(laptop: Laptop, name: str) -> dict[str, Any]:
    (found,) = [each for each in laptop.objects("md") if each["metadata"]["name"] == name]
    shown: dict[str, Any] = found.get("status") or {}
    return shown


def history(laptop: Laptop, name: str) -> list[tuple[int, int, str]]:
    steps = status(laptop, name).get("scalingHistory") or []
    return [(each["from"], each["to"], each["reason"]) for each in steps]


@contextlib.contextmanager
def clients(laptop: Laptop, name: str, number: int) -> Iterator[list[str]]:
    """So many, each with one request under way at a time; gives what went wrong."""
    over = threading.Event()
    problems: list[str] = []

    def ask() -> None:
        while not over.is_set():
            try:
                laptop.post(f"/models/{name}/generate", BODY)
            except OSError as error:
                problems.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for each in threads:
        each.start()
    try:
        yield problems
    finally:
        over.set()
        for each in threads:
            each.join(60)


def test_replicas_follow_a_step_of_the_load_and_back(laptop: Laptop) -> None:
    laptop.apply(slow("step"))
    laptop.wait_ready("step")
    assert [] == history(laptop, "step")

    with clients(laptop, "step", 6) as problems:
        laptop.wait("three ready", lambda: status(laptop, "step").get("readyReplicas") == 3, timeout=90)
    laptop.wait("one again", lambda: status(laptop, "step").get("replicas") == 1, timeout=90)

    assert [] == problems, laptop.report()
    steps = history(laptop, "step")
    assert (1, 1) == (steps[0][0], steps[-1][1])
    moves = [after - before for before, after, _ in steps]
    assert moves == sorted(moves, key=lambda move: move < 0), steps  # up, then down: no flapping
    assert {"LoadRose", "LoadFell"} == {reason for _, _, reason in steps}
    shown = laptop.llmctl("autoscale", "md/step")
    assert "Bounds:        1 to 3 replicas" in shown and "LoadFell" in shown
    assert "Scaled" in laptop.llmctl("events")


def test_what_waits_inside_the_engines_asks_for_replicas(laptop: Laptop) -> None:
    """The gateway queues nothing: it gives an engine all it has, and the engine works on one request at a time."""
    wanted = slow("inside", metrics=[{"type": "QueueDepth", "target": 2}], maxReplicas=2)
    wanted["spec"]["args"].append("--max-batch-size=1")
    laptop.apply(wanted)
    laptop.wait_ready("inside")

    with clients(laptop, "inside", 5) as problems:
        laptop.wait("two ready", lambda: status(laptop, "inside").get("readyReplicas") == 2, timeout=90)
        laptop.wait(
            "a word of both engines",
            lambda: re.findall(
                r"^  inside-\S+ +\d+ +1 +\d+% +\d+s$", laptop.llmctl("autoscale", "md/inside"), re.MULTILINE
            ),
            timeout=60,
        )
    laptop.wait("one again", lambda: status(laptop, "inside").get("replicas") == 1, timeout=120)

    assert [] == problems, laptop.report()
    (rose, *_, fell) = status(laptop, "inside")["scalingHistory"]
    assert ("LoadRose", "LoadFell") == (rose["reason"], fell["reason"])
    assert 0 == rose["inputs"]["queued"]
    assert rose["inputs"]["engines"]["queued"] >= 3
    assert {"queued": 0, "silent": 0} == {key: fell["inputs"]["engines"][key] for key in ("queued", "silent")}


def test_a_model_at_zero_is_woken_by_its_first_request(laptop: Laptop) -> None:
    laptop.apply(slow("zero", minReplicas=0, scaleToZeroAfter="4s"))
    laptop.wait("a decision", lambda: status(laptop, "zero").get("scaling"), timeout=60)
    assert 0 == status(laptop, "zero")["scaling"]["desiredReplicas"]
    laptop.wait_ready("zero")
    assert "the first one starts one" in laptop.llmctl("why", "md/zero")

    def answered() -> bool:
        try:
            return "generated_text" in laptop.post("/models/zero/generate", BODY)
        except urllib.error.HTTPError as error:
            assert error.code in (503, 404), error  # 404: the gateway has not heard of the model yet
            return False

    laptop.wait("an answer", answered, timeout=90)
    assert (0, 1, "Woken") == history(laptop, "zero")[0]
    laptop.wait("zero again", lambda: status(laptop, "zero").get("replicas") == 0, timeout=90)
    assert "Idle" == history(laptop, "zero")[-1][2]
