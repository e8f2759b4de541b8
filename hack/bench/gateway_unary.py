"""Requests per second through the gateway (keys and metrics on, one worker) against nginx as a plain reverse proxy.

Both stand before the same engine, an nginx that answers every request with the same 280 bytes, and are driven by the same wrk with
64 connections in alternating rounds. nginx: one worker, a named upstream with keep-alive, no access log.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import bench

T = TypeVar("T")

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 64
ANSWER = (
    '{"id":"cmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello there, how can I help?"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}'
)
BODY = (
    '{"model":"m","messages":[{"role":"user","content":"Say hello, please, and tell me something about yourself."}],'
    '"max_tokens":64,"temperature":0.2}'
)

_NGINX = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {body}
}}
"""
_ENGINE = "server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{answer}'; }} }}"
_PROXY = (
    "upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 100000000; }}"
    " server {{ listen 127.0.0.1:{port}; location / {{"
    ' proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}'
)


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-bench-tools")], check=True)
    conditions = bench.machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user where root runs this
        engine, proxy = free_port(), free_port()
        stack.enter_context(nginx(folder, "engine", _ENGINE.format(port=engine, answer=ANSWER)))
        peer = stack.enter_context(nginx(folder, "proxy", _PROXY.format(port=proxy, engine=engine)))
        ours, port, key = stack.enter_context(gateway(folder, engine))
        script = folder / "post.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{BODY}'\nwrk.headers['Content-Type'] = 'application/json'\n"
            f"wrk.headers['Authorization'] = 'Bearer {key}'\n"
        )
        cpu: dict[str, list[float]] = {"ours": [], "nginx": []}

        def contestant(name: str, pid: int, at: int) -> float:
            before = cpu_seconds(pid)
            rate, requests = wrk(script, at)
            cpu[name].append((cpu_seconds(pid) - before) / requests * 1e6)
            return rate

        for at in (port, proxy):
            wrk(script, at)
        values = bench.interleave(
            ROUNDS,
            {
                "ours": lambda: contestant("ours", ours, port),
                "nginx": lambda: contestant("nginx", peer, proxy),
            },
        )
    rates = bench.medians(values)
    used = bench.medians(cpu)
    return bench.Result(
        name="gateway_unary",
        unit="requests/s",
        ours=rates["ours"],
        peers={"nginx": rates["nginx"]},
        higher_is_better=True,
        more={
            "rounds": values,
            "cpu_us_per_request": used,
            "cpu_ratio": {"nginx": used["nginx"] / used["ours"]},
        },
        conditions=conditions
        | {
            "connections": CONNECTIONS,
            "seconds_per_round": SECONDS,
            "gateway": "one worker; keys, metrics and model look-up on; plain HTTP on loopback",
            "nginx": "one worker, upstream with keep-alive, no access log",
            "request_bytes": len(BODY),
            "answer_bytes": len(ANSWER),
            "load_average_after": round(os.getloadavg()[0], 2),
        },
    )


def wrk(script: Path, port: int) -> tuple[float, int]:
    """Requests per second and their number. Raises RuntimeError where one of them failed."""
    output = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{SECONDS}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}/v1/chat/completions",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    number = re.search(r"(\d+) requests in", output)
    if rate is None or number is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk met failures:\n{output}")
    return float(rate[1]), int(number[1])


@contextlib.contextmanager
def nginx(folder: Path, name: str, body: str) -> Iterator[int]:
    """The pid of the worker, which does the work."""
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, body=body))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    with started([program, "-e", "stderr", "-c", str(config)]) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pid = until(lambda: children.read_text().split(), f"nginx {name} has no worker")
        yield int(pid[0])


@contextlib.contextmanager
def gateway(folder: Path, engine: int) -> Iterator[tuple[int, int, str]]:
    """Pid, port and a key of a gateway that serves the model "m" from its table on disk."""
    from llmop.domain.endpoint import Endpoint, EndpointState, EndpointTable, RoutedModel
    from llmop.gateway import keys
    from llmop.gateway.table import ReceivedTable
    from llmop.gateway.table_file import TableFile

    state = folder / "state"
    state.mkdir(mode=0o700)
    endpoint = Endpoint(
        replica="r-1",
        uid="u-1",
        host="127.0.0.1",
        port=engine,
        api_key="replica-key",
        state=EndpointState.READY,
        deployment="default/d",
    )
    model = RoutedModel(name="m", deployment="default/d", protocols=("openai",), created_at=0.0)
    table = EndpointTable(version=1, endpoints=(endpoint,), models=(model,))
    TableFile(state).save(ReceivedTable(installation="bench", received_at=0.0, table=table))
    key = keys.create(state / "keys", "bench")
    port = free_port()
    code = (
        "from pathlib import Path; from llmop.gateway.main import serve; from llmop.gateway.settings import GatewaySettings;"
        f"serve(GatewaySettings(controller='unix://{state}/none', listen='127.0.0.1:{port}',"
        f" keys_file=Path('{state}/keys'), state_dir=Path('{state}')))"
    )
    with started([sys.executable, "-c", code]) as process:
        until(lambda: answers(port), "the gateway does not listen")
        yield process.pid, port, key


@contextlib.contextmanager
def started(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(look: Callable[[], T], otherwise: str) -> T:
    """What `look` found, once it is true."""
    limit = time.monotonic() + 20
    while not (found := look()):
        if time.monotonic() > limit:
            raise RuntimeError(otherwise)
        time.sleep(0.02)
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (fields 14 and 15 of proc(5) stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
