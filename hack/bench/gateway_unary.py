"""Requests per second through the gateway (keys, limits, metrics and usage on, one worker) against its peers as plain reverse proxies.

All stand before the same engine, an nginx that answers every request with the same 280 bytes, and are driven by the same wrk with
64 connections in alternating rounds.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import bench
from gateways import contestants
from gateways.contestants import Contestant
from gateways.processes import cpu_seconds

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 64
TWO = "ours with two workers"
ANSWER = (
    '{"id":"cmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello there, how can I help?"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}'
)
BODY = (
    '{"model":"m","messages":[{"role":"user","content":"Say hello, please, and tell me something about yourself."}],'
    '"max_tokens":64,"temperature":0.2}'
)


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-bench-tools")], check=True)
    conditions = bench.machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user where root runs this
        engine = stack.enter_context(contestants.static_engine(folder, ANSWER))
        field = {
            "ours": stack.enter_context(contestants.gateway(folder, engine)),
            TWO: stack.enter_context(contestants.gateway(folder, engine, "two", workers=2)),
            "nginx": stack.enter_context(contestants.nginx(folder, engine)),
            "sglang-router": stack.enter_context(contestants.sglang_router(folder, engine)),
            "aiohttp": stack.enter_context(contestants.aiohttp(folder, engine)),
            "litellm": stack.enter_context(contestants.litellm(folder, engine)),
        }
        cpu: dict[str, list[float]] = {name: [] for name in field}
        split: list[float] = []

        def round_of(name: str) -> float:
            before = [cpu_seconds(pid) for pid in field[name].pids]
            rate, requests = wrk(folder, field[name])
            used = [cpu_seconds(pid) - then for pid, then in zip(field[name].pids, before, strict=True)]
            cpu[name].append(sum(used) / max(requests, 1) * 1e6)
            if name == TWO:
                split.append(max(used) / sum(used))
            return rate

        for contestant in field.values():
            greet(contestant)
            wrk(folder, contestant)
        values = bench.interleave(ROUNDS, {name: lambda name=name: round_of(name) for name in field})
    rates = bench.medians(values)
    used = bench.medians(cpu)
    two_rate, two_cpu = rates.pop(TWO), used.pop(TWO)
    return bench.Result(
        name="gateway_unary",
        unit="requests/s",
        ours=rates.pop("ours"),
        peers=rates,
        higher_is_better=True,
        more={
            "rounds": values,
            "cpu_us_per_request": used,
            "two_workers": {
                "requests_per_s": two_rate,
                "cpu_us_per_request": two_cpu,
                "cpu_of_one": two_cpu / used["ours"],
                "share_of_the_busier": statistics.median(split),
            },
            "cpu_ratio": {name: value / used["ours"] for name, value in used.items() if name != "ours"},
        },
        conditions=conditions
        | {
            "connections": CONNECTIONS,
            "seconds_per_round": SECONDS,
            "gateway": "one worker; keys, limits, metrics, usage and model look-up on; plain HTTP on loopback",
            "nginx": "one worker, upstream with keep-alive, no access log",
            "request_bytes": len(BODY),
            "answer_bytes": len(ANSWER),
            "load_average_after": round(os.getloadavg()[0], 2),
        },
    )


def greet(contestant: Contestant) -> None:
    """One request, for those who do much at the first one. Raises RuntimeError where it fails."""
    connection = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=60)
    headers = {"content-type": "application/json", "authorization": f"Bearer {contestant.key}"}
    connection.request("POST", "/v1/chat/completions", BODY, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.read()!r}")
    connection.close()


def wrk(folder: Path, contestant: Contestant) -> tuple[float, int]:
    """Requests per second and their number. Raises RuntimeError where one of them failed."""
    script = folder / f"{contestant.port}.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{BODY}'\nwrk.headers['Content-Type'] = 'application/json'\n"
        f"wrk.headers['Authorization'] = 'Bearer {contestant.key}'\n"
    )
    address = f"http://127.0.0.1:{contestant.port}/v1/chat/completions"
    output = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "20s", "-s", str(script), address],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    number = re.search(r"(\d+) requests in", output)
    if rate is None or number is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk met failures:\n{output}")
    return float(rate[1]), int(number[1])
