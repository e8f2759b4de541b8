"""A worker process of a gateway: python -m llmop.gateway.worker_process LINK LISTENER MEMORY INDEX ROWS, started by its parent only.

The first three are descriptors that the process was given. It ends when its parent tells it to, or is gone.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import orjson
import uvloop

from llmop.clock import SystemClock
from llmop.gateway import serving, sums, table
from llmop.gateway.app import Presence
from llmop.gateway.cells import Cells, Row
from llmop.gateway.desk import ParentsDesk
from llmop.gateway.fleet import Fleet
from llmop.gateway.limiter import Board, Limiter
from llmop.gateway.link import TELL_PERIOD, Link
from llmop.gateway.metrics import Counts
from llmop.gateway.operations import Overview
from llmop.gateway.settings import from_values
from llmop.gateway.worker import Worker
from llmop.telemetry import logs

LOG = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds for the parent to say what the others count
_OVERVIEW_PATIENCE = 10.0  # and for what it has to ask the controller


class ParentLine:
    """Tables and presence come in, counts go out."""

    def __init__(
        self, link: Link, worker: Worker, desk: ParentsDesk, presence: Presence, stop: asyncio.Event
    ) -> None:
        self._link = link
        self._worker = worker
        self._desk = desk
        self._presence = presence
        self._stop = stop
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(self._listen())

    async def everybody(self) -> Counts:
        """The counts of all workers: this one's of now, the others' of the last second."""
        others: sums.Told | None = (await self._ask("counts", _PATIENCE)).get("counts")
        return self._worker.counts if others is None else sums.hear(sums.add(self._own(), others))

    async def overview(self) -> Overview:
        answer = await self._ask("overview", _OVERVIEW_PATIENCE)
        return Overview(*answer.get("overview", ()))

    async def _ask(self, what: str, patience: float) -> dict[str, Any]:
        """What the parent answers; {} if it does not."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = self._worker.loop.create_future()
        self._asked[number] = answer
        self._link.send({"ask": number, "what": what})
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            return {}
        finally:
            del self._asked[number]

    def _own(self) -> sums.Told:
        """In the form that comes over the line."""
        told: sums.Told = orjson.loads(
            orjson.dumps(sums.tell(self._worker.counts), option=orjson.OPT_NON_STR_KEYS)
        )
        return told

    async def _tell(self) -> None:
        while True:
            self._link.send({"counts": sums.tell(self._worker.counts)})
            await asyncio.sleep(TELL_PERIOD)

    async def _listen(self) -> None:
        while (message := await self._link.receive()) is not None:
            await self.take(message)
        LOG.error("the parent process is gone: ending")
        self._stop.set()
        await asyncio.Event().wait()  # until requests are taken no more

    async def take(self, message: dict[str, Any]) -> None:
        if "connected" in message:
            self._presence.connected = message["connected"]
            self._presence.confirmed_at = message["confirmed_at"]
        if "answer" in message and (asked := self._asked.get(message["answer"])) and not asked.done():
            asked.set_result(message)
        self._desk.take(message)
        if "table" in message:
            self._worker.limiter.slots = message["accounts"]
            received = table.from_json(orjson.dumps(message["table"]))
            self._worker.fleet.apply(received, message["slots"], message["queues"])
            await self._worker.fleet.settled()
            self._link.send({"acted_on": message["number"]})


async def run(link_socket: socket.socket, listener: socket.socket, cells: Cells, index: int) -> None:
    link = await Link.over(link_socket)
    first = await link.receive()
    if first is None:
        return
    settings = from_values(first["settings"])
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def ask_to_end() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ask_to_end)
    counts, presence, desk = Counts(), Presence(), ParentsDesk(link)
    fleet = Fleet(counts, asyncio.get_running_loop(), Row(cells, index), settings.workloads)
    usage_folder = Path(first["usage_folder"]) if first["usage_folder"] else None
    limiter = Limiter(Board(cells), index)
    worker = serving.make_worker(settings, SystemClock(), counts, fleet, desk, usage_folder, limiter)
    line = ParentLine(link, worker, desk, presence, stop)
    await line.take(first)
    with contextlib.suppress(asyncio.CancelledError):
        await serving.take_requests(
            worker,
            settings,
            listener,
            presence=presence,
            everybody=line.everybody,
            overview=line.overview,
            beside=line.run,
            stop=stop,
            ready=lambda: link.send({"ready": True}),
        )


def main() -> None:
    link, listener, memory, index, rows = map(int, sys.argv[1:])
    logs.configure()
    serving.prepare_process()
    cells = Cells(memory, rows)
    os.close(memory)
    uvloop.run(run(socket.socket(fileno=link), socket.socket(fileno=listener), cells, index))


if __name__ == "__main__":
    main()
