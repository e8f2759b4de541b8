"""The simulator as vLLM, beside what a real vLLM answered: the same statuses, types, fields, errors, events and series.

tests/data/engines/vllm-0.32.0.json holds requests and answers of a vLLM that ran on CPUs; texts and numbers differ, shapes do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.engines.simulator_process import SimulatorProcess, simulator_process

DATA = Path(__file__).parents[2] / "data" / "engines"
RECORDED: dict[str, Any] = json.loads((DATA / "vllm-0.32.0.json").read_text(encoding="utf-8"))
EXCHANGES: list[dict[str, Any]] = RECORDED["exchanges"]
SITUATIONS = {each["name"]: each for each in RECORDED["situations"]}
KEY = "Sesame-0123"
FLAGS = (
    *("--personality", "vllm", "--model-id", "/models/tiny", "--served-model-name", "org/tiny.a=b"),
    *("--max-total-tokens", "1024", "--max-concurrent-requests", "6", "--max-batch-size", "4"),
)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("key") / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return path


@pytest.fixture(scope="module")
def engine(key_file: Path) -> Iterator[SimulatorProcess]:
    with simulator_process(*FLAGS, "--api-key-file", str(key_file)) as engine:
        yield engine


def ask(engine: SimulatorProcess, exchange: dict[str, Any]) -> httpx.Response:
    headers = {"content-type": "application/json"} if exchange["method"] == "POST" else {}
    headers |= exchange.get("headers", {})
    if exchange["key"]:
        headers["authorization"] = f"Bearer {KEY}"
    content = exchange.get("raw", json.dumps(exchange["body"]) if "body" in exchange else None)
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.request(
            exchange["method"], engine.url + exchange["path"], content=content, headers=headers
        )


def shape(value: Any, name: str = "") -> Any:
    """Types in place of values. A list is what its items have in common; names that are tokens are left out."""
    if isinstance(value, dict) and name == "top_logprobs":
        return {"TOKEN": shape(next(iter(value.values())))}
    if name == "bytes":
        return "bytes"
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        shapes = [shape(item, name) for item in value]
        return [each for index, each in enumerate(shapes) if each not in shapes[:index]]
    return type(value).__name__


def events(text: str) -> list[Any]:
    """What a stream carries; the last one is the word [DONE]."""
    assert text.endswith("\n\n")
    lines = text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines]


def in_order(text: str) -> list[Any]:
    """The shapes of a stream's events, those of one choice behind those of another: how they mix is chance."""

    def choice(each: Any) -> int:
        return each["choices"][0]["index"] if isinstance(each, dict) and each.get("choices") else 99

    return [shape(each) for each in sorted(events(text), key=choice)]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["name"])
def test_an_answer_has_the_shape_of_a_real_one(engine: SimulatorProcess, exchange: dict[str, Any]) -> None:
    real = exchange["answer"]

    answer = ask(engine, exchange)

    assert (real["status"], real["type"]) == (answer.status_code, answer.headers.get("content-type"))
    if real["type"] is None:
        assert b"" == answer.content
    elif real["type"].startswith("text/event-stream"):
        assert in_order(real["text"]) == in_order(answer.text)
    elif real["status"] == 200:
        assert shape(json.loads(real["text"])) == shape(answer.json())
        assert list(json.loads(real["text"])) == list(answer.json())
    else:
        assert json.loads(real["text"]) == answer.json()


def test_a_full_engine_refuses_before_the_stream_begins(key_file: Path) -> None:
    situation = SITUATIONS["while --max-num-queued-reqs are unfinished"]
    with (
        simulator_process(*FLAGS, "--api-key-file", str(key_file), "--decode-base-ms", "60000") as engine,
        httpx.Client(trust_env=False, timeout=60) as client,
    ):
        body = {"model": "org/tiny.a=b", "prompt": ["x"] * 6, "max_tokens": 9, "stream": True}
        headers = {"authorization": f"Bearer {KEY}"}
        with client.stream("POST", f"{engine.url}/v1/completions", json=body, headers=headers) as stream:
            lines = stream.iter_lines()  # letting go of it would let go of the stream
            assert next(lines).startswith("data: ")
            answer = ask(engine, situation)
            assert (situation["answer"]["status"], json.loads(situation["answer"]["text"])) == (
                answer.status_code,
                answer.json(),
            )
            labels = 'engine="0",model_name="org/tiny.a=b"'
            assert (4, 2, 2, 1) == tuple(
                engine.metric(series)
                for series in (
                    f"vllm:num_requests_running{{{labels}}}",
                    f"vllm:num_requests_waiting{{{labels}}}",
                    f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}}',
                    'vllm:admission_rejections_total{model_name="org/tiny.a=b",reason="max_num_queued_reqs"}',
                )
            )


def test_a_draining_engine_finishes_its_stream_keeps_its_port_and_refuses_what_is_new(key_file: Path) -> None:
    situation = SITUATIONS["after SIGTERM with --shutdown-timeout"]
    flags = (*FLAGS, "--api-key-file", str(key_file), "--graceful-timeout", "60", "--decode-base-ms", "20")
    with simulator_process(*flags) as engine, httpx.Client(trust_env=False, timeout=60) as client:
        body = {"model": "org/tiny.a=b", "prompt": "x", "max_tokens": 100, "stream": True}
        headers = {"authorization": f"Bearer {KEY}"}
        with client.stream("POST", f"{engine.url}/v1/completions", json=body, headers=headers) as stream:
            lines = (line for line in stream.iter_lines() if line)
            assert next(lines).startswith("data: ")
            engine.terminate()
            engine.wait_until_says("draining")
            answer = ask(engine, situation)
            assert (situation["answer"]["status"], json.loads(situation["answer"]["text"])) == (
                answer.status_code,
                answer.json(),
            )
            with httpx.Client(trust_env=False, timeout=60) as other:
                assert 200 == other.get(f"{engine.url}/health").status_code
            *_, last, done = lines
        assert ("length", "data: [DONE]") == (
            json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"],
            done,
        )
        assert 0 == engine.wait()


def families(text: str) -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """Name -> type, names of labels, bounds of buckets."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = frozenset(name for sample in family.samples for name in sample.labels if name != "le")
        bounds = frozenset(sample.labels["le"] for sample in family.samples if "le" in sample.labels)
        found[family.name] = (family.type, labels, bounds)
    return found


def test_the_series_are_those_of_a_real_one(engine: SimulatorProcess) -> None:
    real = families((DATA / "vllm-0.32.0.metrics").read_text(encoding="utf-8"))

    mine = families(engine.get("/metrics").text)

    assert real == mine


def test_the_values_of_labels_are_those_of_a_real_one(engine: SimulatorProcess) -> None:
    def values(text: str) -> set[tuple[str, str, str]]:
        return {
            (sample.name, label, value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            for label, value in sample.labels.items()
            if label != "le"
        }

    real = values((DATA / "vllm-0.32.0.metrics").read_text(encoding="utf-8"))

    assert real == values(engine.get("/metrics").text)
