"""How long llmctl takes to start: `version --client` and `get md` against a bare `python -c pass` of the same interpreter.

What a person waits for: wall time of the whole process, its output thrown away; and CPU time, which says the same on a machine that does
other things too. `import grpc` alone is beside it: nothing that talks gRPC can be quicker. `get` asks a control server in this process, which
holds ten deployments, over its Unix socket. The ratios of the medians count; the processes alternate.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import bench

from llmop.domain import resources
from llmop.domain.endpoint import EndpointTable
from llmop.rpc import server
from llmop.store import interface
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

ROUNDS = 25
DEPLOYMENTS = 10


class _NoEndpoints:
    """An EndpointSource that has nothing to tell."""

    def table(self) -> EndpointTable:
        return EndpointTable(version=1)

    async def changed(self, after_version: int) -> EndpointTable:
        await asyncio.Event().wait()
        return self.table()

    def acknowledge(self, gateway: str, version: int) -> None:
        pass


@contextlib.contextmanager
def controller() -> Iterator[str]:
    """The address of a control server with some deployments."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start(address: str) -> server.ControlServer:
        store = MemoryStore("k3v9qd")
        await store.commit(
            [
                interface.Create(
                    resource=resources.Resource(
                        kind=resources.MODEL_DEPLOYMENT,
                        name=f"chat-{number}",
                        namespace="default",
                        uid=f"uid-{number}",
                        created_at=1.0,
                        spec={"model": {"name": f"chat-{number}"}, "runtime": "simulator", "replicas": 2},
                    )
                )
                for number in range(DEPLOYMENTS)
            ]
        )
        control = server.build(
            address,
            store=store,
            clock=FakeClock(seed=1),
            objects=cast("Any", None),  # nobody looks at operations here
            endpoints=_NoEndpoints(),
            loads=cast("Any", None),  # no gateway reports here
            seen_at=lambda _name: None,
            hint=lambda kind, namespace, name: None,
            administration=cast("Any", None),  # nobody asks it anything here
        )
        await control.start()
        return control

    with tempfile.TemporaryDirectory(prefix="llmop-bench-") as folder:
        address = f"unix://{folder}/run/control.sock"
        control = asyncio.run_coroutine_threadsafe(start(address), loop).result(30)
        try:
            yield address
        finally:
            asyncio.run_coroutine_threadsafe(control.stop(0), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds."""

    wall: float
    cpu: float


def took(arguments: Sequence[str]) -> Took:
    """One process from start to end. Raises RuntimeError when it fails."""
    devnull = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    began = time.perf_counter()
    pid = os.posix_spawn(arguments[0], list(arguments), os.environ, file_actions=[devnull])
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"{arguments} ended with {os.waitstatus_to_exitcode(status)}")
    return Took(wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000)


def run() -> bench.Result:
    conditions = bench.machine()
    os.environ.pop("LLMOP_CONTEXT", None)
    llmctl = str(Path(sys.executable).with_name("llmctl"))
    with controller() as address:
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "version": [llmctl, "version", "--client"],
            "get": [llmctl, "--controller", address, "get", "md"],
            "import grpc": [sys.executable, "-c", "import grpc"],
        }
        series: dict[str, list[Took]] = {name: [] for name in commands}
        for number in range(ROUNDS):
            names = list(commands)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                series[name].append(took(commands[name]))
    wall = {name: statistics.median(each.wall for each in values) for name, values in series.items()}
    cpu = {name: statistics.median(each.cpu for each in values) for name, values in series.items()}
    return bench.Result(
        name="cli",
        unit="ms of llmctl version --client, start to end",
        ours=wall["version"],
        peers={"python -c pass": wall["python"]},
        higher_is_better=False,
        more={
            "version --client, times a bare python (at most 2.5)": round(wall["version"] / wall["python"], 2),
            "get md, times a bare python (at most 8)": round(wall["get"] / wall["python"], 2),
            "import grpc alone, times a bare python": round(wall["import grpc"] / wall["python"], 2),
            "get md, CPU time, times a bare python": round(cpu["get"] / cpu["python"], 2),
            "import grpc alone, CPU time, times a bare python": round(cpu["import grpc"] / cpu["python"], 2),
            "wall ms": {name: round(value, 1) for name, value in wall.items()},
            "CPU ms": {name: round(value, 1) for name, value in cpu.items()},
        },
        conditions={**conditions, "rounds": ROUNDS, "deployments": DEPLOYMENTS},
    )
