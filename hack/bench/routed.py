"""How long it takes from the moment that an engine is healthy until the gateway has answered the first request with it.

The engine is a simulator that opens its port after a while. One thread asks its /health without a pause, and then for two tokens: that is
the yardstick, somebody who knows where the engine is. Another sends the same request to the gateway without a pause. In between lie
the agent's probe and its generation, a heartbeat, a pass, the table of endpoints.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
from embedded import place
from gateways.processes import until

from llmop.api.v1 import resources_pb2

ROUNDS = 9
LOAD_S = 2.0  # until the port opens; the port has to be known before
PAUSE_S = 0.004
PATIENCE_S = 60.0
_STARTED = re.compile(r"engine started on \{'http': (\d+)")


def run() -> bench.Result:
    conditions = bench.machine()
    with place.controller() as at, place.gateway(at) as front:
        rounds = [_round(at, front, number) for number in range(ROUNDS)]
    added = statistics.median(ours for ours, _ in rounds)
    direct = statistics.median(peer for _, peer in rounds)
    return bench.Result(
        name="routed",
        unit="ms from a healthy engine to the first answer through the gateway",
        ours=added,
        peers={"the engine asked directly": direct},
        higher_is_better=False,
        more={
            "added_ms": round(added - direct, 1),
            "worst_ms": round(max(ours for ours, _ in rounds), 1),
            "rounds_ms": [[round(value, 1) for value in each] for each in rounds],
        },
        conditions={**conditions, "load_average_after": round(os.getloadavg()[0], 2), "rounds": ROUNDS},
    )


def _round(at: place.Controller, front: place.Gateway, number: int) -> tuple[float, float]:
    """Milliseconds from the first 200 of /health to the first answer: through the gateway, and of the engine itself."""
    name = f"routed-{number}"
    known = set(at.shared.glob("replicas/*"))
    client = at.client()
    manifest = place.deployment(name, replicas=1, args=[f"--load-seconds={LOAD_S}"])
    request = resources_pb2.ApplyRequest(manifest_json=json.dumps(manifest), field_manager="bench")
    client.call(client.resources.Apply, request)
    port, key = until(lambda: _engine(at, known), f"{name}: its engine did not start", seconds=PATIENCE_S)
    answered: dict[str, float] = {}

    def ask(who: str, attempts: Iterator[bool]) -> None:
        if any(attempts):
            answered[who] = time.monotonic()

    through = threading.Thread(
        target=lambda: ask("gateway", _attempts(front.port, "POST", "/v1/chat/completions", front.key, name))
    )
    through.start()
    ask("health", _attempts(port, "GET", "/health", key))
    ask("engine", _attempts(port, "POST", "/v1/chat/completions", key, name))
    through.join()
    gone = resources_pb2.DeleteRequest(kind="ModelDeployment", namespace="default", name=name)
    client.call(client.resources.Delete, gone)
    until(lambda: not _exists(client, name), f"{name} is not gone", seconds=PATIENCE_S)
    client.close()
    missing = {"gateway", "health", "engine"} - answered.keys()
    if missing:
        raise RuntimeError(f"{name}: no answer from {', '.join(sorted(missing))} within {PATIENCE_S:g} s")
    return (answered["gateway"] - answered["health"]) * 1000, (answered["engine"] - answered["health"]) * 1000


def _engine(at: place.Controller, known: set[Path]) -> tuple[int, str] | None:
    """The port of the new replica's engine and its key, once the agent has started it."""
    for folder in set(at.shared.glob("replicas/*")) - known:
        log = folder / "job.log"
        started = _STARTED.search(log.read_text()) if log.exists() else None
        if started:
            return int(started[1]), str(json.loads((folder / "replica.json").read_text())["apiKey"])
    return None


def _attempts(port: int, method: str, path: str, key: str, model: str = "") -> Iterator[bool]:
    """One request after the other; True for an answer."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body if method == "POST" else None, headers)
            response = connection.getresponse()
            response.read()
            yield response.status == 200
        except (OSError, http.client.HTTPException):
            yield False
        finally:
            connection.close()
        time.sleep(PAUSE_S)


def _exists(client: Any, name: str) -> bool:
    rows, _ = client.list("ModelDeployment", "default")
    return any(row.object.metadata.name == name for row in rows)
