"""The life of the process: loading, faults, draining, collisions, and starting it as a bare folder."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.engines.simulator_process import SOURCE, SimulatorProcess, simulator_process, started_simulator

SLOW = ("--decode-base-ms", "20")


@contextmanager
def open_stream(engine: SimulatorProcess, tokens: int) -> Iterator[Iterator[str]]:
    """A stream of which the first token has come; gives the lines that follow."""
    body = {"inputs": "stream", "parameters": {"max_new_tokens": tokens}}
    with httpx.stream("POST", f"{engine.url}/generate_stream", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines).startswith('data:{"index":1,')
        yield (line for line in lines if line)


def refuses_connections(engine: SimulatorProcess) -> bool:
    try:
        socket.create_connection(("127.0.0.1", engine.port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_refusing(engine: SimulatorProcess) -> None:
    limit = time.monotonic() + 60
    while not refuses_connections(engine):
        assert time.monotonic() < limit, engine.output
        time.sleep(0.01)


def ask(engine: SimulatorProcess, tokens: int = 2) -> httpx.Response:
    body = {"inputs": "hello", "parameters": {"max_new_tokens": tokens}}
    return engine.post("/generate", json=body, timeout=60)


def test_the_port_opens_only_after_loading() -> None:
    flags = ("--load-seconds", "2", "--fault", "slow-load:2")
    with started_simulator(*flags) as engine:
        engine.wait_until_says("loading model simulated")
        assert "listening" not in engine.output
        engine.wait_until_ready()


def test_settings_come_from_the_environment_too() -> None:
    with simulator_process(environment={"LLMOP_SIM_MODEL_ID": "from-env"}) as engine:
        assert "from-env" == engine.get("/info").json()["model_id"]


def test_the_folder_alone_can_be_started_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(SOURCE / "llmop" / "simulator", folder, ignore=shutil.ignore_patterns("__pycache__"))
    # -I and -S: no site packages, no PYTHONPATH, nothing but the standard library.
    for target in (folder, folder / "__main__.py"):
        with started_simulator(command=[sys.executable, "-I", "-S", str(target)]) as engine:
            engine.wait_until_ready()
            assert 200 == ask(engine).status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_engine_ends_at_once(number: signal.Signals) -> None:
    with simulator_process() as engine, httpx.Client(timeout=60) as client:
        client.get(f"{engine.url}/health")  # the connection stays open, idle
        engine.process.send_signal(number)
        assert 0 == engine.wait()


def test_a_signal_ends_loading() -> None:
    with started_simulator("--load-seconds", "3600") as engine:
        engine.wait_until_says("loading model")
        engine.terminate()
        assert 0 == engine.wait()


def test_requests_under_way_are_finished_and_new_ones_refused() -> None:
    with simulator_process(*SLOW) as engine, open_stream(engine, 50) as events:
        engine.terminate()
        wait_until_refusing(engine)
        last = list(events)[-1]
        assert '"index":50,' in last
        assert 0 == engine.wait()
    assert "drained" in engine.output.splitlines()[-1]


def test_requests_are_cut_when_the_time_is_over() -> None:
    with simulator_process(*SLOW, "--graceful-timeout", "0.1") as engine, open_stream(engine, 4000) as events:
        engine.terminate()
        with pytest.raises(httpx.TransportError):
            list(events)
        assert 1 == engine.wait()
    assert "requests cut: 1" in engine.output


def test_a_second_signal_cuts_at_once() -> None:
    with simulator_process(*SLOW) as engine, open_stream(engine, 4000) as events:
        engine.terminate()
        engine.wait_until_says("draining")
        engine.terminate()
        with pytest.raises(httpx.TransportError):
            list(events)
        assert 1 == engine.wait()


@pytest.mark.parametrize(("fault", "says"), [("crash@load", "loading"), ("crash@ready", "listening")])
def test_it_crashes_on_its_way_up_when_told_to(fault: str, says: str) -> None:
    with started_simulator("--fault", fault, "--fault", "exit-code:7") as engine:
        assert 7 == engine.wait()
    assert says in engine.output


def test_it_hangs_while_loading_when_told_to() -> None:
    with started_simulator("--fault", "hang@load") as engine:
        engine.wait_until_says("loading")
        engine.terminate()
        assert 0 == engine.wait()
    assert "listening" not in engine.output


def test_it_crashes_at_the_request_it_was_told() -> None:
    with simulator_process("--fault", "crash@request:2") as engine:
        assert 200 == ask(engine).status_code
        with pytest.raises(httpx.TransportError):
            ask(engine)
        assert 1 == engine.wait()


def test_one_request_fails_when_told_to() -> None:
    with simulator_process("--fault", "fail@request:1") as engine:
        failed = ask(engine)
        assert (
            424,
            {"error": "Request failed during generation: simulated fault", "error_type": "generation"},
        ) == (failed.status_code, failed.json())
        assert 200 == ask(engine).status_code
        assert 1 == engine.metric('tgi_request_failure{err="generation"}')


def test_a_stream_is_cut_at_the_token_it_was_told() -> None:
    with simulator_process("--fault", "cut-stream@token:3") as engine:
        for path, body in (
            ("/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 9}}),
            ("/v1/chat/completions", {"messages": [], "max_tokens": 9, "stream": True}),
        ):
            data = ""
            with (
                httpx.stream("POST", engine.url + path, json=body, timeout=60) as answer,
                pytest.raises(httpx.RemoteProtocolError),
            ):
                for text in answer.iter_text():
                    data += text
            assert 3 == data.count("data:{")
        assert 200 == ask(engine).status_code


def test_generation_hangs_but_health_answers_when_told_to() -> None:
    with simulator_process("--fault", "hang@request:2", "--admin") as engine:
        assert 200 == ask(engine).status_code
        body = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}
        with pytest.raises(httpx.ReadTimeout):
            engine.post("/generate", json=body, timeout=0.3)
        assert 200 == engine.get("/health").status_code
        assert {"faults": []} == engine.delete("/simulator/fault").json()
        assert 200 == ask(engine).status_code


def test_health_is_bad_when_told_so() -> None:
    with started_simulator("--fault", "unhealthy@ready") as engine:
        engine.wait_until_says("listening")
        engine.port = int(engine.output.rstrip().rpartition(":")[2])
        answer = engine.get("/health")
        assert (503, {"error": "unhealthy", "error_type": "healthcheck"}) == (
            answer.status_code,
            answer.json(),
        )


def test_a_fault_can_be_set_while_it_runs() -> None:
    with simulator_process("--admin") as engine:
        path = "/simulator/fault"
        assert 200 == ask(engine).status_code
        assert {"faults": ["unhealthy@request:1"]} == engine.post(
            path, json={"fault": "unhealthy@request:1"}
        ).json()
        assert 200 == engine.get("/health").status_code
        ask(engine)
        assert 503 == engine.get("/health").status_code
        for spec, words in (("melt", "want one of"), ("hang@load", "the model is loaded already")):
            refused = engine.post(path, json={"fault": spec})
            assert (422, True) == (refused.status_code, words in refused.text)
        with pytest.raises(httpx.TransportError):
            engine.post(path, json={"fault": "crash@ready"})
        assert 1 == engine.wait()


def test_setting_faults_needs_the_key(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text("sesame")
    with simulator_process("--admin", "--api-key-file", str(key_file)) as engine:
        path = "/simulator/fault"
        assert 401 == engine.post(path, json={"fault": "crash@ready"}).status_code
        allowed = engine.post(
            path, json={"fault": "fail@request:1"}, headers={"authorization": "Bearer sesame"}
        )
        assert 200 == allowed.status_code


@pytest.mark.parametrize("flag", ["--port", "--prometheus-port", "--master-port"])
def test_a_port_that_is_taken_is_named(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with started_simulator(flag, port) as engine:
            assert 1 == engine.wait()
        assert f"{flag} {port}:" in engine.output
        assert "Address already in use" in engine.output


def test_two_engines_cannot_share_what_each_needs_alone(tmp_path: Path) -> None:
    socket_path = tmp_path / "shard"
    with simulator_process("--master-port", "0", "--shard-uds-path", str(socket_path)) as engine:
        assert (tmp_path / "shard-0").is_socket()
        engine.terminate()
        assert 0 == engine.wait()
    assert [] == list(tmp_path.iterdir())


def test_time_passes_as_the_physics_says() -> None:
    """20 decode steps of 10 ms: the engine's own clock cannot be faster, however loaded the machine is."""
    with simulator_process("--decode-base-ms", "10", "--prefill-tokens-per-second", "100") as engine:
        answer = ask(engine, tokens=21)
        assert int(answer.headers["x-inference-time"]) >= 200
        print(f"inference took {answer.headers['x-inference-time']} ms")
