"""The HTTP surface below the clients: framing, headers, errors, information, metrics."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.engines.simulator_process import SimulatorProcess, simulator_process

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def engine() -> Iterator[SimulatorProcess]:
    with simulator_process("--model-id", "org/model", "--kv-tokens", "5000") as engine:
        yield engine


@pytest.fixture
def client(engine: SimulatorProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.url, trust_env=False, timeout=60) as client:
        yield client


@contextmanager
def connected(engine: SimulatorProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=20) as line:
        yield line


def read_all(line: socket.socket) -> bytes:
    data = b""
    while part := line.recv(65536):
        data += part
    return data


def raw_request(body: bytes, *headers: str, path: str = "/generate") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    if not any(line.startswith(("transfer-encoding", "content-length")) for line in headers):
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def generate_body(inputs: str = "hello", **parameters: Any) -> bytes:
    return json.dumps({"inputs": inputs, "parameters": parameters}).encode()


def test_a_stream_is_framed_as_tgi_frames_it(client: httpx.Client) -> None:
    answer = client.post("/generate_stream", content=generate_body(max_new_tokens=2), headers=JSON)
    assert (200, "text/event-stream", "no") == (
        answer.status_code,
        answer.headers["content-type"],
        answer.headers["x-accel-buffering"],
    )
    first, second, end = answer.text.split("\n\n")
    assert first.startswith('data:{"index":1,"token":{"id":')
    assert first.endswith('"special":false},"generated_text":null,"details":null}')
    assert second.startswith('data:{"index":2,')
    assert ("", False) == (end, "[DONE]" in answer.text)
    assert json.loads(second.removeprefix("data:"))["details"] is None


def test_details_come_only_when_asked_for(client: httpx.Client) -> None:
    plain = client.post("/generate", content=generate_body(max_new_tokens=2), headers=JSON).json()
    assert ["generated_text"] == list(plain)
    asked = client.post(
        "/generate", content=generate_body(max_new_tokens=2, details=True), headers=JSON
    ).json()
    assert ("length", 2, []) == tuple(
        asked["details"][name] for name in ("finish_reason", "generated_tokens", "prefill")
    )
    stream = client.post(
        "/generate_stream", content=generate_body(max_new_tokens=1, details=True), headers=JSON
    ).text
    event = json.loads(stream.removeprefix("data:"))
    assert {"finish_reason": "length", "generated_tokens": 1, "seed": None, "input_length": 1} == event[
        "details"
    ]


def test_the_compatible_route_answers_with_a_list_or_a_stream(client: httpx.Client) -> None:
    alone = client.post("/generate", json={"inputs": "hello", "parameters": {"max_new_tokens": 2}}).json()
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}
    assert [alone] == client.post("/", json=body).json()
    stream = client.post("/", json={**body, "stream": True})
    assert "text/event-stream" == stream.headers["content-type"]
    assert alone["generated_text"] == json.loads(stream.text.split("data:")[-1])["generated_text"]


def test_an_answer_tells_its_times_and_counts(client: httpx.Client) -> None:
    answer = client.post("/generate", content=generate_body("two words", max_new_tokens=3), headers=JSON)
    assert ("2", "3", "9") == tuple(
        answer.headers[name] for name in ("x-prompt-tokens", "x-generated-tokens", "x-compute-characters")
    )
    for name in ("total", "validation", "queue", "inference"):
        assert answer.headers[f"x-{name}-time"].isdigit()
    assert answer.headers["x-time-per-token"].isdigit()


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        (
            "/generate",
            {"inputs": ""},
            422,
            {"error": "Input validation error: `inputs` cannot be empty", "error_type": "validation"},
        ),
        (
            "/v1/completions",
            {"prompt": ["a"] * 5},
            422,
            {
                "error": "Number of prompts exceeds the maximum allowed batch size of 4",
                "error_type": "batch size exceeded",
            },
        ),
        (
            "/v1/completions",
            {"prompt": "a", "suffix": "b"},
            422,
            {
                "error": "Suffix is not supported and can be achieved by preprocessing the prompt.",
                "error_type": "suffix not supported",
            },
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
                ]
            },
            422,
            {"error": "Input validation error: image modality is not supported", "error_type": "validation"},
        ),
    ],
)
def test_bad_values_are_answered_in_json(
    client: httpx.Client, path: str, body: object, status: int, answer: object
) -> None:
    response = client.post(path, json=body)
    assert (status, answer) == (response.status_code, response.json())


@pytest.mark.parametrize(
    ("content", "content_type", "status", "words"),
    [
        (b"{", "application/json", 400, "Failed to parse the request body as JSON"),
        (b"{}", "application/json", 422, "missing field `inputs`"),
        (b"{}", "text/plain", 415, "Expected request with `Content-Type: application/json`"),
    ],
)
def test_bad_bodies_are_answered_in_plain_text(
    client: httpx.Client, content: bytes, content_type: str, status: int, words: str
) -> None:
    response = client.post("/generate", content=content, headers={"content-type": content_type})
    assert (status, True) == (response.status_code, words in response.text)
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(("path", "marker"), [("/generate_stream", ""), ("/v1/chat/completions", "[DONE]")])
def test_an_error_in_a_stream_is_an_event_with_status_200(
    client: httpx.Client, path: str, marker: str
) -> None:
    body = {
        "inputs": "a",
        "parameters": {"top_p": 1.0},
        "messages": [{"role": "user", "content": "a"}],
        "top_p": 1.0,
        "stream": True,
    }
    response = client.post(path, json=body)
    message = "Input validation error: `top_p` must be > 0.0 and < 1.0"
    native = {"error": message, "error_type": "validation"}
    expected = native if not marker else {"error": {"message": message, "http_status_code": 422}}
    first, *rest = [event.removeprefix("data:") for event in response.text.split("\n\n") if event]
    assert (200, expected) == (response.status_code, json.loads(first))
    assert ([marker] if marker else []) == rest


def test_information_is_given_without_a_body(client: httpx.Client) -> None:
    for path in ("/health", "/ping", "/"):
        response = client.get(path)
        assert (200, b"") == (response.status_code, response.content)
    info = client.get("/info").json()
    assert ("org/model", 128, 4095, 4096, 4) == tuple(
        info[name]
        for name in (
            "model_id",
            "max_concurrent_requests",
            "max_input_tokens",
            "max_total_tokens",
            "max_client_batch_size",
        )
    )
    models = client.get("/v1/models").json()
    assert {
        "object": "list",
        "data": [{"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}],
    } == models


def test_prompts_are_tokenized_with_their_places(client: httpx.Client) -> None:
    tokens = client.post("/tokenize", json={"inputs": "two words"}).json()
    assert [("two", 0, 3), (" words", 3, 9)] == [
        (each["text"], each["start"], each["stop"]) for each in tokens
    ]
    chat = client.post("/chat_tokenize", json={"messages": [{"role": "user", "content": "hello"}]}).json()
    assert chat["templated_text"] == "".join(token["text"] for token in chat["tokenize_response"])


def test_unknown_paths_and_methods_are_refused(client: httpx.Client) -> None:
    assert 404 == client.get("/nowhere").status_code
    refused = client.get("/generate")
    assert (405, "POST") == (refused.status_code, refused.headers["allow"])
    assert 404 == client.post("/simulator/fault", json={"fault": "crash@ready"}).status_code
    head = client.head("/info")
    assert (200, b"") == (head.status_code, head.content)


def test_metrics_count_what_happened() -> None:
    with simulator_process() as engine:
        engine.post("/generate", json={"inputs": "a", "parameters": {"max_new_tokens": 3}})
        engine.post("/generate", json={"inputs": ""})
        assert (2, 1, 1, 1, 3) == tuple(
            engine.metric(series)
            for series in (
                "tgi_request_count",
                "tgi_request_success",
                'tgi_request_failure{err="validation"}',
                "tgi_request_generated_tokens_count",
                "tgi_request_generated_tokens_sum",
            )
        )
        engine.post("/v1/chat/completions", json={"messages": []})
        assert 4 == engine.metric("tgi_request_count"), "TGI counts a chat twice"


def test_waiting_requests_show_in_the_queue() -> None:
    flags = ("--kv-tokens", "100", "--decode-base-ms", "60000")
    with simulator_process(*flags) as engine, connected(engine) as first, connected(engine) as second:
        first.sendall(raw_request(generate_body(max_new_tokens=60)))
        engine.wait_for_metric("tgi_batch_current_size", 1)
        second.sendall(raw_request(generate_body(max_new_tokens=60)))
        engine.wait_for_metric("tgi_queue_size", 1)
        assert (1, 61, 100) == tuple(
            engine.metric(f"tgi_batch_{name}")
            for name in ("current_size", "current_max_tokens", "max_total_tokens")
        )


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_a_client_that_goes_away_frees_its_place(path: str) -> None:
    flags = ("--max-concurrent-requests", "1", "--decode-base-ms", "100")
    with simulator_process(*flags) as engine:
        with connected(engine) as line:
            line.sendall(raw_request(generate_body(max_new_tokens=4000), path=path))
            engine.wait_for_metric("tgi_batch_current_size", 1)
        engine.wait_for_metric('tgi_request_failure{err="dropped"}', 1)
        assert 0 == engine.metric("tgi_batch_current_size")
        answer = engine.post("/generate", content=generate_body(max_new_tokens=1), headers=JSON)
        assert 200 == answer.status_code


def test_requests_in_a_pipeline_are_answered_in_order(engine: SimulatorProcess) -> None:
    with connected(engine) as line:
        requests = [
            raw_request(generate_body(f"prompt {number}", max_new_tokens=3)) for number in range(5)
        ] + [b"GET /info HTTP/1.1\r\nconnection: close\r\n\r\n"]
        line.sendall(b"".join(requests))
        answers = read_all(line).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert 6 == len(answers)
    for number in range(5):
        alone = engine.post(
            "/generate",
            content=generate_body(f"prompt {number}", max_new_tokens=3),
            headers=JSON,
        )
        assert alone.content in answers[number]
    assert b"model_id" in answers[5]


def test_a_body_may_come_in_chunks_and_in_pieces(engine: SimulatorProcess) -> None:
    body = generate_body(max_new_tokens=2)
    chunked = b"%x;note=1\r\n%b\r\n%x\r\n%b\r\n0\r\ntrailer: 1\r\n\r\n" % (
        10,
        body[:10],
        len(body) - 10,
        body[10:],
    )
    request = raw_request(chunked, "transfer-encoding: chunked", "connection: close")
    with connected(engine) as line:
        for index in range(len(request)):
            line.sendall(request[index : index + 1])
        answer = read_all(line)
    alone = engine.post("/generate", content=body, headers=JSON)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(alone.content)


def test_a_client_that_asks_first_is_told_to_go_on(engine: SimulatorProcess) -> None:
    body = generate_body(max_new_tokens=2)
    request = raw_request(body, "expect: 100-continue", "connection: close")
    with connected(engine) as line:
        line.sendall(request.removesuffix(body))
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == line.recv(1000)
        line.sendall(body)
        assert read_all(line).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_old_client_gets_a_stream_without_chunks(engine: SimulatorProcess) -> None:
    request = raw_request(generate_body(max_new_tokens=2), path="/generate_stream")
    with connected(engine) as line:
        line.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = read_all(line).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body.startswith(b'data:{"index":1,')


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nspace : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
        (raw_request(b"", "content-length: 5", "content-length: 6"), 400),
        (raw_request(b"", "content-length: -1"), 400),
        (raw_request(b"", "content-length: 2000001"), 413),
        (raw_request(b"zz\r\n", "transfer-encoding: chunked"), 400),
        (raw_request(b"-1\r\n", "transfer-encoding: chunked"), 400),
        (raw_request(b"2\r\nabcd\r\n", "transfer-encoding: chunked"), 400),
        (raw_request(b"ffffff\r\n", "transfer-encoding: chunked"), 413),
        (raw_request(b"0\r\n\r\n", "transfer-encoding: chunked", "content-length: 5"), 400),
        (raw_request(b"", "transfer-encoding: gzip"), 400),
    ],
)
def test_what_is_not_http_is_refused_and_the_line_closed(
    engine: SimulatorProcess, request_bytes: bytes, status: int
) -> None:
    with connected(engine) as line:
        line.sendall(request_bytes)
        assert read_all(line).startswith(b"HTTP/1.1 %d " % status)


async def test_places_and_memory_are_all_given_back_whatever_the_clients_do() -> None:
    """Thirty clients at once: some stay, some leave while they wait, some in the middle of a stream."""
    flags = ("--max-concurrent-requests", "30", "--kv-tokens", "500", "--decode-base-ms", "2")
    with simulator_process(*flags) as engine:
        async with httpx.AsyncClient(
            base_url=engine.url, limits=httpx.Limits(max_connections=30), timeout=60
        ) as client:

            async def stay(number: int) -> str:
                body = {"inputs": f"prompt {number}", "parameters": {"max_new_tokens": 40}}
                answer = await client.post("/generate", json=body, timeout=60)
                assert 200 == answer.status_code
                return str(answer.json()["generated_text"])

            async def leave(number: int) -> None:
                body = {"inputs": f"prompt {number}", "parameters": {"max_new_tokens": 400}}
                async with client.stream("POST", "/generate_stream", json=body, timeout=60) as answer:
                    if number % 2:
                        async for _ in answer.aiter_lines():
                            break

            stayed, _ = await asyncio.gather(
                asyncio.gather(*[stay(number) for number in range(20)]),
                asyncio.gather(*[leave(number) for number in range(10)]),
            )
            assert stayed == [await stay(number) for number in range(20)], "a batch does not change answers"
        engine.wait_for_metric('tgi_request_failure{err="dropped"}', 10)
        assert (0, 0, 0) == tuple(
            engine.metric(series)
            for series in ("tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens")
        )
        assert 40 == engine.metric("tgi_request_success")
        async with httpx.AsyncClient(base_url=engine.url, timeout=60) as client:
            body = {"inputs": "again", "parameters": {"max_new_tokens": 5}}
            answers = await asyncio.gather(*[client.post("/generate", json=body) for _ in range(30)])
        assert {200} == {answer.status_code for answer in answers}
