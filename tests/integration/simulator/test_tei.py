"""The simulator as Text Embeddings Inference: the `openai` SDK judges its OpenAI route, the texts are those of router/src/http/."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.engines.simulator_process import SimulatorProcess, simulator_process

KEY = "Sesame-0123"
FLAGS = ("--personality", "tei", "--model-id", "org/e", "--embedding-size", "64", "--max-input-tokens", "5")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    key_file: Path = tmp_path_factory.mktemp("key") / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    with simulator_process(*FLAGS, "--api-key-file", str(key_file)) as engine:
        yield engine


@pytest.fixture
def client(engine: SimulatorProcess) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=engine.url, headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def sdk(engine: SimulatorProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def nearness(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_sdk_gets_embeddings_in_order_with_their_tokens(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model="org/e", input=["a b", "c"])
    assert ("org/e", [0, 1], [64, 64], 3) == (
        answer.model,
        [each.index for each in answer.data],
        [len(each.embedding) for each in answer.data],
        answer.usage.prompt_tokens,
    )


def test_base64_and_numbers_are_the_same_vector(sdk: openai.OpenAI) -> None:
    in_base64 = sdk.embeddings.create(model="org/e", input="a b").data[0].embedding  # what the SDK asks for
    in_numbers = sdk.embeddings.create(model="org/e", input="a b", encoding_format="float").data[0].embedding
    assert in_numbers == pytest.approx(in_base64, abs=1e-6)


def test_a_vector_has_length_1_and_is_near_to_those_of_like_texts(client: httpx.Client) -> None:
    texts = ["red green blue", "Blue green red", "red green apple", "stone water wind"]
    vectors = client.post("/embed", json={"inputs": texts}).json()
    first, same, near, far = vectors
    assert all(math.isclose(1, nearness(each, each)) for each in vectors)
    assert first == pytest.approx(same)
    assert nearness(first, near) > nearness(first, far)


def test_a_vector_may_be_shorter_or_as_long_as_it_comes(client: httpx.Client, sdk: openai.OpenAI) -> None:
    (raw,) = client.post("/embed", json={"inputs": "a b", "normalize": False}).json()
    (short,) = client.post("/embed", json={"inputs": "a b", "dimensions": 8}).json()
    length = math.sqrt(nearness(raw[:8], raw[:8]))
    assert not math.isclose(1, nearness(raw, raw))
    assert [value / length for value in raw[:8]] == pytest.approx(short)
    assert 8 == len(sdk.embeddings.create(model="org/e", input="a b", dimensions=8).data[0].embedding)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"inputs": []}, 400, {"error": "`inputs` cannot be empty", "error_type": "Empty"}),
        (
            {"inputs": ""},
            400,
            {"error": "Input validation error: `inputs` cannot be empty", "error_type": "Empty"},
        ),
        (
            {"inputs": ["a"] * 33},
            422,
            {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"},
        ),
        (
            {"inputs": "a b c d e f", "truncate": False},
            422,
            {
                "error": "Input validation error: `inputs` must have less than 5 tokens. Given: 6",
                "error_type": "Validation",
            },
        ),
        (
            {"inputs": "a", "dimensions": 0},
            422,
            {
                "error": "Input validation error: `dimensions` should be positive",
                "error_type": "Validation",
            },
        ),
        (
            {"inputs": "a", "dimensions": 65},
            422,
            {
                "error": "Input validation error: `dimensions` should be smaller than the maximum embedding dimension.",
                "error_type": "Validation",
            },
        ),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_router(
    client: httpx.Client, body: dict[str, Any], status: int, error: dict[str, str]
) -> None:
    native = client.post("/embed", json=body)
    assert (status, error) == (native.status_code, native.json())
    if "truncate" in body:
        return
    values = {("input" if name == "inputs" else name): value for name, value in body.items()}
    openai_route = client.post("/v1/embeddings", json=values)
    assert (status, {"message": error["error"], "code": status, "type": error["error_type"]}) == (
        openai_route.status_code,
        openai_route.json(),
    )


def test_what_is_too_long_is_cut_unless_that_is_forbidden(client: httpx.Client) -> None:
    long, cut = client.post("/embed", json={"inputs": ["a b c d e f g", "a b c d e"]}).json()
    assert long == pytest.approx(cut)


@pytest.mark.parametrize("body", [{}, {"inputs": 3}, {"inputs": [3.5]}, {"inputs": [["a"]]}])
def test_another_shape_is_refused_in_plain_text(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/embed", json=body)
    assert (422, True) == (answer.status_code, answer.headers["content-type"].startswith("text/plain"))


def test_there_is_no_text_generation(client: httpx.Client) -> None:
    assert [404] * 3 == [
        client.post(path, json={}).status_code
        for path in ("/v1/chat/completions", "/v1/completions", "/generate")
    ]


def test_tokens_and_information_are_told(client: httpx.Client) -> None:
    ((first, second),) = client.post("/tokenize", json={"inputs": "two words"}).json()
    assert [("two", 0, 3, False), (" words", 3, 9, False)] == [
        (each["text"], each["start"], each["stop"], each["special"]) for each in (first, second)
    ]
    info = client.get("/info").json()
    assert [
        "model_id", "model_sha", "model_dtype", "served_model_name", "model_type", "max_concurrent_requests",
        "max_input_length", "max_batch_tokens", "max_batch_requests", "max_client_batch_size", "auto_truncate",
        "tokenization_workers", "version", "sha", "docker_label",
    ] == list(info)  # fmt: skip
    assert (512, 5, 32) == tuple(
        info[name] for name in ("max_concurrent_requests", "max_input_length", "max_client_batch_size")
    )


def test_the_key_guards_all_but_health_and_metrics(engine: SimulatorProcess) -> None:
    with httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as anybody:
        assert [200, 200, 200, 401, 401, 401] == [
            *(anybody.get(path).status_code for path in ("/health", "/", "/metrics", "/info")),
            anybody.post("/embed", json={"inputs": "a"}).status_code,
            anybody.post(
                "/embed", json={"inputs": "a"}, headers={"authorization": f"Bearer {KEY.lower()}"}
            ).status_code,
        ]


def test_a_full_or_broken_engine_says_so() -> None:
    flags = (*FLAGS, "--max-concurrent-requests", "1", "--prefill-tokens-per-second", "0.01", "--admin")
    with (
        simulator_process(*flags) as engine,
        httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as client,
    ):
        client.post("/simulator/fault", json={"fault": "fail@request:1"})
        broken = client.post("/embed", json={"inputs": "a"})
        assert (424, "Backend") == (broken.status_code, broken.json()["error_type"])

        def take_the_place() -> None:
            with pytest.raises(httpx.TransportError):
                engine.post("/embed", json={"inputs": "a"})

        holder = threading.Thread(target=take_the_place)
        holder.start()
        engine.wait_for_metric("te_batch_next_size_count", 1)
        full = client.post("/embed", json={"inputs": "b"})
        assert (429, {"error": "Model is overloaded", "error_type": "Overloaded"}) == (
            full.status_code,
            full.json(),
        )
        assert 1 == engine.metric('te_request_failure{err="overloaded"}')
        engine.process.kill()
        holder.join()


def test_metrics_count_what_happened_in_the_routers_buckets() -> None:
    """router/src/prometheus.rs: durations grow by half from 10 us on, sizes double."""
    with (
        simulator_process(*FLAGS) as engine,
        httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as client,
    ):
        client.post("/embed", json={"inputs": ["a b", "c d e"]})
        client.post("/embed", json={"inputs": "a"})
        client.post("/embed", json={"inputs": []})
        page = client.get("/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(page)}
        assert {
            "te_request_count", "te_request_success", "te_request_failure", "te_embed_count", "te_embed_success",
            "te_queue_size", "te_request_duration", "te_request_tokenization_duration", "te_request_queue_duration",
            "te_request_inference_duration", "te_embed_duration", "te_embed_tokenization_duration",
            "te_embed_queue_duration", "te_embed_inference_duration", "te_request_input_length",
            "te_batch_next_size", "te_batch_next_tokens",
        } == set(families)  # fmt: skip
        assert (2, 1, 1, 1, 1, 3, 3, 6) == tuple(
            engine.metric(series)
            for series in (
                'te_request_count{method="batch"}',
                'te_request_count{method="single"}',
                'te_request_success{method="batch"}',
                'te_request_success{method="single"}',
                'te_request_failure{err="validation"}',
                "te_embed_count",
                "te_embed_success",
                "te_request_input_length_sum",
            )
        )

        def bounds(name: str) -> list[str]:
            return [sample.labels["le"] for sample in families[name].samples if "le" in sample.labels]

        assert 36 == len(bounds("te_request_duration"))
        assert bounds("te_request_duration")[0].startswith("0.000015")
        assert ["1", "2", "4", "+Inf"] == bounds("te_request_input_length")
        assert (14, 22) == (len(bounds("te_batch_next_size")), len(bounds("te_batch_next_tokens")))
