"""How busy the engine says it is, with the heartbeat; and that nothing an engine does there touches its probes."""

from __future__ import annotations

import dataclasses
import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.engines.simulator_process import SOURCE
from tests.integration.agent.controller import FakeController, Json
from tests.integration.agent.rig import KEY, Rig, eventually
from tests.integration.agent.test_llamacpp import MAKE_GGUF, STARTER
from tests.unit.agent.test_load import SGLANG

from llmop.manifest import admit, convert, load
from llmop.runtimes import builtin, render

NAMES = {"path": "/metrics", "queueDepth": "q", "running": "r", "kvCacheUsage": "u / t"}


def say(rig: Rig, text: str) -> None:
    temporary = rig.faults / ".metrics"
    temporary.write_text(text)
    temporary.replace(rig.faults / "metrics")


def told(**values: object) -> Callable[[Json], bool]:
    def look(beat: Json) -> bool:
        return {name: (beat["load"] or {}).get(name) for name in values} == values

    return look


def test_what_the_engine_says_comes_with_the_heartbeats(rig: Rig, controller: FakeController) -> None:
    rig.engine["metrics"] = NAMES
    say(rig, "q 3\nr 2\nu 30\nt 40\n")
    rig.start()
    beat = controller.wait_for_beat(told(queueDepth=3, running=2, kvCacheUsage=0.75))

    assert "ready" == beat["phase"]
    assert 0 <= beat["load"]["age"] < 30
    say(rig, "q 4\nr NaN\nu 30\n")
    controller.wait_for_beat(told(queueDepth=4, running=None, kvCacheUsage=None))
    assert "/metrics: r, u / t cannot be used" in rig.log()


def test_an_engine_that_is_not_asked_has_no_load(rig: Rig, controller: FakeController) -> None:
    say(rig, "q 3\n")
    rig.start()

    assert controller.wait_for_phase("ready")["load"] is None


@pytest.mark.parametrize(
    "fault", ["no-metrics", "metrics-hang", "metrics-trickle", "metrics-endless", "metrics-liar"]
)
def test_what_cannot_be_read_is_not_known_and_no_fault_of_the_engine(
    fault: str, rig: Rig, controller: FakeController
) -> None:
    rig.engine["metrics"] = NAMES
    say(rig, "q 3\nr 2\nu 1\nt 2\n")
    rig.fault(fault)
    rig.start()
    controller.wait_for_phase("ready")
    eventually(lambda: "agent: /metrics: " in rig.log(), what="a word about the metrics")
    seen = len(controller.beats)
    controller.wait_for_beat(lambda beat: beat["seq"] > controller.beats[seen - 1]["seq"] + 5, after=seen)
    assert {None} == {beat["load"] and beat["load"]["queueDepth"] for beat in controller.beats}
    assert ["ready"] == sorted({beat["phase"] for beat in controller.beats[seen:]})
    assert {0} == {beat["engineRestarts"] for beat in controller.beats}

    (rig.faults / fault).unlink()
    controller.wait_for_beat(told(queueDepth=3))
    eventually(lambda: "agent: /metrics: can be read again" in rig.log(), what="a word about the metrics")


def test_what_was_known_becomes_older_while_the_engine_does_not_answer(
    rig: Rig, controller: FakeController
) -> None:
    rig.engine["metrics"] = NAMES
    say(rig, "q 3\nr 2\nu 1\nt 2\n")
    rig.start()
    controller.wait_for_beat(told(queueDepth=3))
    rig.fault("metrics-hang")

    late = controller.wait_for_beat(lambda beat: bool(beat["load"]) and beat["load"]["age"] > 1.0)
    assert (3, "ready") == (late["load"]["queueDepth"], late["phase"])


def test_an_engine_that_is_started_again_has_no_load_before_it_says_one(
    rig: Rig, controller: FakeController
) -> None:
    rig.engine["metrics"] = NAMES
    say(rig, "q 3\n")
    rig.start()
    port = controller.wait_for_beat(told(queueDepth=3))["endpoint"]["port"]
    say(rig, "")
    with pytest.raises(http.client.RemoteDisconnected):
        rig.ask(port, "/crash")
    again = controller.wait_for_beat(lambda beat: beat["phase"] == "ready" and beat["engineRestarts"] == 1)

    loads = [beat["load"] for beat in controller.beats if beat["seq"] >= again["seq"]]
    assert {None} == {load and load["queueDepth"] for load in loads}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Personality:
    """A built-in runtime, and the simulator as its engine."""

    runtime: str
    args: tuple[str, ...]
    path: str
    body: Json


PROMPT = {"model": "m", "prompt": "one two three", "max_tokens": 400, "ignore_eos": True}
SLOW = ("--decode-base-ms=50", "--max-batch-size=2", "--kv-tokens=2000", "--max-total-tokens=1000")
PERSONALITIES = [
    Personality(
        runtime="tgi",
        args=("--personality=tgi", *SLOW),
        path="/generate",
        body={"inputs": "one two three", "parameters": {"max_new_tokens": 400}},
    ),
    Personality(runtime="vllm", args=("--personality=vllm", *SLOW), path="/v1/completions", body=PROMPT),
]


@contextmanager
def asked(port: int, path: str, body: Json, times: int) -> Iterator[None]:
    """So many requests at once, which are given up at the end."""
    connections = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connections.append(connection)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)

    for _ in range(times):
        ask()
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


def names_of(runtime: str) -> Json:
    """What the agent is told of the metrics of a built-in runtime."""
    (document,) = load.load(builtin.runtimes()[f"{runtime}.yaml"], "runtime.yaml")
    return dict(render.metrics(convert.runtime(admit.admit(document.data, namespace=""))) or {})


@pytest.mark.parametrize("case", PERSONALITIES, ids=lambda case: case.runtime)
def test_the_simulator_as_an_engine_says_what_waits_and_how_full_it_is(
    case: Personality, rig: Rig, controller: FakeController
) -> None:
    rig.engine["argv"] = [
        sys.executable,
        str(SOURCE / "llmop/simulator"),
        *("--hostname={host}", "--port={port}", "--api-key-file={apiKeyFile}", "--served-model-name=m"),
        *case.args,
    ]
    rig.engine["warmup"] = {"method": "POST", "path": case.path, "body": {**case.body, "max_tokens": 1}}
    if case.runtime == "tgi":
        rig.engine["warmup"]["body"] = {"inputs": "one", "parameters": {"max_new_tokens": 1}}
    rig.engine["metrics"] = names_of(case.runtime)
    rig.start()
    idle = controller.wait_for_beat(told(queueDepth=0, running=0, kvCacheUsage=0.0))
    with asked(idle["endpoint"]["port"], case.path, case.body, 5):
        busy = controller.wait_for_beat(told(queueDepth=3, running=2))
        assert 0.3 < busy["load"]["kvCacheUsage"] < 0.6  # two of 400 tokens and some, of 2000


def test_metrics_in_the_form_of_sglang_are_read(rig: Rig, controller: FakeController) -> None:
    rig.engine["metrics"] = names_of("sglang")
    say(rig, SGLANG)
    rig.start()

    controller.wait_for_beat(told(queueDepth=3, running=12, kvCacheUsage=0.28))


def test_llama_cpp_says_what_waits(
    rig: Rig, controller: FakeController, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tmp_path_factory.mktemp("model") / "tiny.gguf"
    subprocess.run([sys.executable, str(MAKE_GGUF), str(model)], check=True)
    words = ["--model", str(model), "--host", "{host}", "--port", "{port}", "--alias", "tiny"]
    rig.engine["argv"] = [
        *STARTER,
        *words,
        "--api-key-file",
        "{apiKeyFile}",
        "--parallel",
        "2",
        "--ctx",
        "8192",
    ]
    rig.engine["warmup"] = {
        "method": "POST",
        "path": "/v1/completions",
        "body": {"prompt": "hello", "max_tokens": 1},
    }
    rig.engine["stop"] = {"signal": "TERM", "timeout": 20}
    rig.engine["metrics"] = names_of("llamacpp")
    rig.start()
    idle = controller.wait_for_beat(told(queueDepth=0, running=0, kvCacheUsage=None))
    long = {"prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    with asked(idle["endpoint"]["port"], "/v1/completions", long, 6):
        controller.wait_for_beat(told(queueDepth=4, running=2))
