"""The gateway and its peers, each in front of one engine on 127.0.0.1, each with one worker and plain HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import bench

from gateways import processes
from gateways.processes import answers, free_port, started, until

PEERS = bench.ROOT / "build" / "bench-peers" / "bin" / "python"

_NGINX = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.log; worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {body}
}}
"""
_ENGINE = "server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{answer}'; }} }}"
_PROXY = (
    "upstream engine {{ server 127.0.0.1:{engine}; keepalive 1024; keepalive_requests 100000000; }}"
    " server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ proxy_buffering off;"
    ' proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}'
)
_LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{engine}/v1", api_key: x}}
general_settings: {{master_key: {key}}}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """`pids` are the processes that do the work; `key` is empty where none is asked for."""

    port: int
    pids: tuple[int, ...]
    key: str = "x"

    def cpu_seconds(self) -> float:
        return sum(processes.cpu_seconds(pid) for pid in self.pids)

    def resident_kb(self) -> int:
        return sum(processes.resident_kb(pid) for pid in self.pids)


@contextlib.contextmanager
def _nginx(folder: Path, name: str, body: str) -> Iterator[int]:
    """The pid of the worker, which does the work."""
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, body=body))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    with started([program, "-e", "stderr", "-c", str(config)]) as process:
        (pid, *_) = until(lambda: processes.children(process.pid), f"nginx {name} has no worker")
        yield pid


@contextlib.contextmanager
def static_engine(folder: Path, answer: str) -> Iterator[int]:
    """The port of an nginx that gives every request the same answer."""
    port = free_port()
    with _nginx(folder, "engine", _ENGINE.format(port=port, answer=answer)):
        until(lambda: answers(port), "the engine does not listen")
        yield port


@contextlib.contextmanager
def nginx(folder: Path, engine: int) -> Iterator[Contestant]:
    """A named upstream with keep-alive, no access log, no buffering."""
    port = free_port()
    with _nginx(folder, "proxy", _PROXY.format(port=port, engine=engine)) as pid:
        until(lambda: answers(port), "nginx does not listen")
        yield Contestant(port=port, pids=(pid,))


@contextlib.contextmanager
def gateway(
    folder: Path, engine: int, name: str = "gateway", workers: int = 1, workloads: Path | None = None
) -> Iterator[Contestant]:
    """Serves the model "m" from its table on disk; keys, limits (that are not reached), metrics and usage are on. Of several processes
    the workers are measured.
    """
    from llmop.domain.client import ClientKey, Limits, digest
    from llmop.domain.endpoint import Endpoint, EndpointState, EndpointTable, QueueBounds, RoutedModel
    from llmop.gateway import keys
    from llmop.gateway.table import ReceivedTable
    from llmop.gateway.table_file import TableFile

    state = folder / name
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
    model = RoutedModel(
        name="m",
        deployment="default/d",
        protocols=("openai",),
        created_at=0.0,
        usage_in_stream=True,
        max_in_flight=10_000,
        queue=QueueBounds(
            max_requests=1000, max_bytes=2**26, request_ttl_s=60, no_endpoint_request_ttl_s=600
        ),
    )
    key = keys.create(state / "keys", "bench")
    client = ClientKey(
        name="default/bench",
        digest=digest(key.encode()).hex(),
        limits=Limits(requests_per_minute=10**9, tokens_per_minute=10**12, parallel_requests=10**6),
    )
    table = EndpointTable(version=1, endpoints=(endpoint,), models=(model,), keys=(client,))
    TableFile(state).save(ReceivedTable(installation="bench", received_at=0.0, table=table))
    port = free_port()
    socket = None if workloads is None else f"Path('{workloads}')"
    code = (
        "from pathlib import Path; from llmop.gateway.main import serve; from llmop.gateway.settings import GatewaySettings;"
        f"serve(GatewaySettings(controller='unix://{state}/none', listen='127.0.0.1:{port}',"
        f" workloads={socket}, workers={workers}, keys_file=Path('{state}/keys'), state_dir=Path('{state}')))"
    )
    with started([sys.executable, "-c", code], log=folder / f"{name}.out") as process:
        until(lambda: answers(port), "the gateway does not listen")
        pids = [process.pid]
        if workers > 1:
            until(
                lambda: len(processes.children(process.pid)) == workers, "the gateway's workers do not start"
            )
            pids = processes.children(process.pid)
        yield Contestant(port=port, pids=tuple(pids), key=key)


@contextlib.contextmanager
def sglang_router(folder: Path, engine: int) -> Iterator[Contestant]:
    """The router of SGLang (Rust), as its package starts it, with its own checks of the engine."""
    port, metrics = free_port(), free_port()
    argv = [str(PEERS), "-m", "sglang_router.launch_router", "--worker-urls", f"http://127.0.0.1:{engine}"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin", "--log-level", "error"]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
    argv += ["--max-concurrent-requests", "20000"]
    with started(argv, log=folder / "sglang-router.out") as process:
        until(lambda: answers(port), "sglang-router does not listen", 60)
        yield Contestant(port=port, pids=(process.pid,))


@contextlib.contextmanager
def aiohttp(folder: Path, engine: int) -> Iterator[Contestant]:
    """The plain proxy that one would write with aiohttp, on uvloop."""
    port = free_port()
    program = Path(__file__).with_name("aiohttp_proxy.py")
    with started([str(PEERS), str(program), str(port), str(engine)], log=folder / "aiohttp.out") as process:
        until(lambda: answers(port), "the aiohttp proxy does not listen")
        yield Contestant(port=port, pids=(process.pid,))


@contextlib.contextmanager
def litellm(folder: Path, engine: int) -> Iterator[Contestant]:
    """LiteLLM's proxy with one worker and no database."""
    port = free_port()
    config = folder / "litellm.yaml"
    key = "sk-" + "bench" * 8
    config.write_text(_LITELLM.format(engine=engine, key=key))
    argv = [
        str(PEERS.with_name("litellm")),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    with started([*argv, "--telemetry", "False"], offline, folder / "litellm.out") as process:
        until(lambda: answers(port), "LiteLLM does not listen", 120)
        yield Contestant(port=port, pids=(process.pid,), key=key)
