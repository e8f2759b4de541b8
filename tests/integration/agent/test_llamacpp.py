"""llama.cpp for real: the starter alone on a model made on the spot, and as the engine of an agent."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.agent.controller import FakeController
from tests.integration.agent.rig import KEY, Rig, eventually
from tests.rigs.ports import free_port

MAKE_GGUF = Path(__file__).parents[3] / "hack/make-gguf"
STARTER = [sys.executable, "-m", "llmop.runtimes.engines.llamacpp_server"]
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    subprocess.run([sys.executable, str(MAKE_GGUF), str(path)], check=True)
    return path


def chat(port: int, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(ASK), headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_the_same_seed_makes_the_same_model(model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gguf"
    subprocess.run([sys.executable, str(MAKE_GGUF), str(again), "--seed", "0"], check=True)

    assert model.read_bytes() == again.read_bytes()
    assert ["again.gguf"] == [path.name for path in tmp_path.iterdir()]


def test_an_agent_serves_a_model_with_llama_cpp(rig: Rig, controller: FakeController, model: Path) -> None:
    words = ["--model", str(model), "--host", "{host}", "--port", "{port}", "--alias", "tiny"]
    rig.engine["argv"] = [
        *STARTER,
        *words,
        "--api-key-file",
        "{apiKeyFile}",
        "--parallel",
        "2",
        "--ctx",
        "1024",
    ]
    rig.engine["requires"] = [str(model)]
    rig.engine["warmup"] = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "body": {**ASK, "max_tokens": 1},
    }
    rig.engine["stop"] = {"signal": "TERM", "timeout": 20}
    agent = rig.start()
    port = controller.wait_for_phase("ready")["endpoint"]["port"]

    status, answer = chat(port, KEY)
    assert 200 == status
    document = json.loads(answer)
    assert ("tiny", "length", 3) == (
        document["model"],
        document["choices"][0]["finish_reason"],
        document["usage"]["completion_tokens"],
    )
    assert 401 == chat(port, "another key")[0]

    controller.order(id="o1", type="drain", reason="Deleted", deadline=20)
    assert 0 == rig.end(agent)
    assert ("Drained", 0) == (rig.record()["reason"], rig.record()["engineExitCode"])
    log = (rig.directory / "engine.log").read_text()
    assert KEY not in log
    assert "hello" not in log


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "--model {model}: cannot be read: No such file or directory"),
        (b"junk and more", "--model {model}: is not a GGUF file: it begins with b'junk' instead of b'GGUF'"),
        (b"GGUF", "--model {model}: llama.cpp cannot load it; its own lines in this log say why"),
    ],
)
def test_a_model_that_cannot_be_served_is_named_in_one_line(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    (tmp_path / "key").write_text("the-key\n")
    words = ["--model", str(model), "--port", "1", "--alias", "x", "--api-key-file", str(tmp_path / "key")]
    done = subprocess.run([*STARTER, *words], capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    # A thread of llama.cpp may write at the same moment: what stands before it in its line is not ours.
    assert f"llamacpp_server: {said.format(model=model)}\n" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (" \n", "is empty: write the key into it")]
)
def test_it_never_serves_without_a_key(model: Path, tmp_path: Path, content: str | None, said: str) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
    words = ["--model", str(model), "--port", "1", "--alias", "x", "--api-key-file", str(key)]
    done = subprocess.run([*STARTER, *words], capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    assert f"--api-key-file {key}: {said}" in done.stderr


def test_a_taken_port_is_said_in_the_systems_words(model: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the-key")
    words = ["--model", str(model), "--alias", "x", "--api-key-file", str(tmp_path / "key")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*STARTER, *words, "--port", str(port)], capture_output=True, text=True, check=False
        )
    assert 1 == done.returncode
    assert f"llamacpp_server: --port {port}: Address already in use on 127.0.0.1" in done.stderr.splitlines()


def test_sigterm_ends_it_with_status_0(model: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the-key")
    port = free_port()
    words = [
        "--model",
        str(model),
        "--alias",
        "x",
        "--api-key-file",
        str(tmp_path / "key"),
        "--port",
        str(port),
    ]
    with subprocess.Popen([*STARTER, *words], stderr=subprocess.PIPE) as server:

        def ready() -> bool:
            try:
                return chat(port, "the-key")[0] == 200
            except OSError:
                return False

        eventually(ready, what="the first answer")
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert 0 == server.returncode
