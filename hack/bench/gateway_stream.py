"""512 streams of 50 events per second through the gateway (key, limits, metrics and usage on, one worker), its peers, and no proxy at all.

The engine and the clients are programs of our own that do little but `send` and `recv`; their CPU shares and what they reach without
a pace are among the figures. What counts: the share of a direct connection's events that arrives, and the time to the first event that
a proxy adds while all streams run.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
from gateways import contestants
from gateways.contestants import Contestant
from gateways.processes import answers, cpu_seconds, free_port, started, until

ROUNDS = 3
SECONDS = 5
STREAMS = 512
PER_SECOND = 50
EVENTS = 100

_PROGRAMS = Path(__file__).parent / "gateways"


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-bench-tools")], check=True)
    conditions = bench.machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user where root runs this
        engine = stack.enter_context(engine_of(EVENTS, PER_SECOND))
        field = {
            "direct": engine,
            "ours": stack.enter_context(contestants.gateway(folder, engine.port)),
            "nginx": stack.enter_context(contestants.nginx(folder, engine.port)),
            "sglang-router": stack.enter_context(contestants.sglang_router(folder, engine.port)),
            "aiohttp": stack.enter_context(contestants.aiohttp(folder, engine.port)),
        }
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in field}

        def round_of(name: str) -> float:
            before, at_engine = field[name].cpu_seconds(), cpu_seconds(engine.pids[0])
            found = load(field[name], STREAMS, SECONDS)
            found["cpu_us_per_event"] = (field[name].cpu_seconds() - before) / found["events"] * 1e6
            found["engine_cpu_share"] = (cpu_seconds(engine.pids[0]) - at_engine) / found["wall"]
            seen[name].append(found)
            return float(found["events_per_s"])

        values = bench.interleave(ROUNDS, {name: lambda name=name: round_of(name) for name in field})
        unpaced = stack.enter_context(engine_of(EVENTS, 0))
        most = load(unpaced, 64, 2)["events_per_s"]
    rates = bench.medians(values)
    middle = {name: _median(found, "first_p50_ms") for name, found in seen.items()}
    return bench.Result(
        name="gateway_stream",
        unit="events/s",
        ours=rates.pop("ours"),
        peers=rates,
        higher_is_better=True,
        more={
            "rounds": values,
            "first_event_p50_ms": middle,
            "first_event_p99_ms": {name: _median(found, "first_p99_ms") for name, found in seen.items()},
            "added_first_event_p50_ms": {
                name: value - middle["direct"] for name, value in middle.items() if name != "direct"
            },
            "cpu_us_per_event": {
                name: _median(found, "cpu_us_per_event") for name, found in seen.items() if name != "direct"
            },
            "failed": {name: sum(one["failed"] for one in found) for name, found in seen.items()},
            "clients_cpu_share": {name: _median(found, "cpu_share") for name, found in seen.items()},
            "engine_cpu_share": {name: _median(found, "engine_cpu_share") for name, found in seen.items()},
            "events_per_s_of_engine_and_clients_without_pace": most,
        },
        conditions=conditions
        | {
            "streams": STREAMS,
            "events_per_stream": EVENTS,
            "events_per_s_and_stream": PER_SECOND,
            "asked_for_per_s": STREAMS * PER_SECOND,
            "seconds_per_round": SECONDS,
            "gateway": "one worker; keys, limits, metrics and usage on: the usage event is asked for and cut out",
            "load_average_after": round(os.getloadavg()[0], 2),
        },
    )


def _median(found: list[dict[str, Any]], name: str) -> float:
    return statistics.median(one[name] for one in found)


@contextlib.contextmanager
def engine_of(events: int, per_second: int) -> Iterator[Contestant]:
    port = free_port()
    argv = [sys.executable, str(_PROGRAMS / "stream_engine.py"), str(port), str(events), str(per_second)]
    with started(argv) as process:
        until(lambda: answers(port), "the engine does not listen")
        yield Contestant(port=port, pids=(process.pid,))


def load(contestant: Contestant, streams: int, seconds: float) -> dict[str, Any]:
    """What `stream_load.py` says, and more of the same. Raises RuntimeError where a stream got nothing."""
    argv = [sys.executable, str(_PROGRAMS / "stream_load.py"), str(contestant.port), contestant.key]
    output = subprocess.run([*argv, str(streams), str(seconds)], check=True, capture_output=True).stdout
    found: dict[str, Any] = json.loads(output)
    first = found.pop("first_ms")
    if not first:
        raise RuntimeError(f"no stream began: {found}")
    return found | {
        "first_p50_ms": first[len(first) // 2],
        "first_p99_ms": first[len(first) * 99 // 100],
    }
