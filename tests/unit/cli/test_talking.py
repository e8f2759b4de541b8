"""What llmctl makes of a gateway's answers: streams that break, errors of both dialects, silence, Unix sockets, keys."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmop.cli import contexts
from llmop.cli.errors import CliError, ConfigError, ExitCode, UsageError
from llmop.cli.session import Session
from llmop.cli.talking import Gateway, GatewayError, gateway, model, under
from llmop.testing.clock import FakeClock

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def whole_request(connection: socket.socket) -> bytes:
    """What is left unread when a connection is closed resets it, and the answer is lost."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head.lower())
    while found and len(body) < int(found[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def answering(listener: socket.socket, answer: bytes | None) -> Iterator[list[bytes]]:
    """Every connection gets `answer`; None = nothing until it is closed by the other side. Yields what was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    asked.append(whole_request(connection))
                    if answer is None:
                        connection.recv(65536)
                    else:
                        connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextlib.contextmanager
def served(answer: bytes | None, timeout_s: float = 10.0) -> Iterator[Gateway]:
    listener = socket.create_server(("127.0.0.1", 0))
    with answering(listener, answer):
        yield Gateway(url=f"http://127.0.0.1:{listener.getsockname()[1]}", key="", timeout_s=timeout_s)


def refusal(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_events_are_read_up_to_their_end() -> None:
    events = b'data: {"a": 1}\n\n: a comment\n\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\ndata: {"c": 3}\n\n'
    with served(STREAM + events) as found:
        assert [{"a": 1}, {"b": 2}] == list(found.events("/x", {}))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ('{"error": "overloaded", "error_type": "overloaded"}', "error: overloaded"),
        ('{"error": {"message": "it broke off", "code": "stream_broken"}}', "error: it broke off"),
        ("{", "not JSON"),
    ],
)
def test_an_error_within_a_stream_ends_it(event: str, words: str) -> None:
    with served(STREAM + f'data: {{"a": 1}}\n\ndata: {event}\n\n'.encode()) as found:
        events = found.events("/x", {})
        assert {"a": 1} == next(events)
        with pytest.raises(GatewayError, match=words) as error:
            next(events)
    assert ExitCode.INTERNAL is error.value.code


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            "404 Not Found",
            '{"error": {"message": "no such model"}}',
            ExitCode.NOT_FOUND,
            r"\(404\): no such model",
        ),
        (
            "422 Unprocessable",
            '{"error": "bad", "error_type": "validation"}',
            ExitCode.BAD_REQUEST,
            r"\(422\): bad",
        ),
        ("429 Too Many", '{"message": "slow down"}', ExitCode.TOO_MANY_REQUESTS, r"\(429\): slow down"),
        ("503 Unavailable", "<html>no</html>", ExitCode.UNAVAILABLE, r"\(503\): <html>"),
        ("302 Found", "", ExitCode.BAD_REQUEST, r"\(302\): Found"),
        ("500 Oops", "", ExitCode.INTERNAL, r"\(500\): Oops"),
    ],
)
def test_an_answer_that_is_an_error_is_told_in_its_words(
    status: str, body: str, code: ExitCode, words: str
) -> None:
    with served(refusal(status, body)) as found, pytest.raises(GatewayError, match=words) as error:
        list(found.events("/x", {}))
    assert code is error.value.code


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (None, ExitCode.TIMEOUT, "was silent for 0.2s"),
        (b"", ExitCode.NETWORK, "cannot be reached"),
        (b"SSH-2.0-OpenSSH\r\n", ExitCode.NETWORK, "cannot be reached"),
        (
            STREAM.replace(b"Connection: close", b"Content-Length: 99") + b'data: {"a',
            ExitCode.INTERNAL,
            "not JSON",
        ),
    ],
)
def test_what_is_no_answer_is_one_sentence(answer: bytes | None, code: ExitCode, words: str) -> None:
    with served(answer, timeout_s=0.2) as found, pytest.raises(GatewayError, match=words) as error:
        list(found.events("/x", {}))
    assert code is error.value.code


def test_a_gateway_on_a_unix_socket_is_asked_with_its_key(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "g.sock"))
    listener.listen()
    models = '{"data": [{"id": "meta/llama"}]}'
    with answering(listener, refusal("200 OK", models)) as asked:
        found = Gateway(url=f"unix:{tmp_path}/g.sock", key="secret", timeout_s=10.0)
        assert "meta/llama" == model(found, None)
    assert asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in asked[0]


def test_the_only_model_is_taken_and_of_several_one_has_to_be_named() -> None:
    assert "x" == model(Gateway(url="http://nowhere", key="", timeout_s=1.0), "x")
    several = refusal("200 OK", '{"data": [{"id": "b"}, {"id": "a"}]}')
    none = refusal("200 OK", '{"data": []}')
    with served(several) as found, pytest.raises(UsageError, match="say which model with -m: b, a"):
        model(found, None)
    for answer in (none, refusal("200 OK", '{"data": "no list"}'), refusal("200 OK", "<html></html>")):
        with served(answer) as found, pytest.raises(CliError, match=f"{found.url} serves no model now"):
            model(found, None)


def test_a_name_with_a_slash_stays_one_part_of_the_path() -> None:
    assert "/models/meta%2Fllama/generate_stream" == under("meta/llama", "/generate_stream")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LLMOP_CONTEXT", raising=False)
    (tmp_path / "key").write_text("llmop-key\n")
    here = contexts.Context(
        name="here", controller="unix:///x", gateway="http://127.0.0.1:8080", key_file=str(tmp_path / "key")
    )
    contexts.save(contexts.default_path(os.environ), here)
    return Session(FakeClock(seed=1))


def test_gateway_and_key_are_those_of_the_context(session: Session) -> None:
    expected = Gateway(url="http://127.0.0.1:8080", key="llmop-key", timeout_s=5.0)
    assert expected == gateway(session, None, None, 5.0)


def test_another_gateway_gets_no_key_that_was_not_named_with_it(session: Session, tmp_path: Path) -> None:
    assert "" == gateway(session, "http://example.org", None, 5.0).key
    (tmp_path / "other").write_text("another")
    assert "another" == gateway(session, "http://example.org", str(tmp_path / "other"), 5.0).key


@pytest.mark.parametrize("content", ["", "a\nb\n", "kéy", None])
def test_a_file_that_holds_no_key_is_refused(session: Session, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "bad"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="bad"):
        gateway(session, None, str(file), 5.0)


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "ftp://x",
        "http://",
        "unix:x",
        "http://a..b",
        "http://[::1",
        "http://x:99999",
        "http://:80",
    ],
)
def test_an_address_that_is_none_is_refused(session: Session, url: str) -> None:
    with pytest.raises(UsageError, match="write http://HOST:PORT"):
        gateway(session, url, "", 5.0)


def test_without_a_context_a_gateway_has_to_be_named(session: Session, tmp_path: Path) -> None:
    (tmp_path / "llmop" / "contexts.yaml").unlink()
    with pytest.raises(ConfigError, match="no gateway is known"):
        gateway(session, None, None, 5.0)
    assert "http://x" == gateway(session, "http://x", None, 5.0).url
