"""The parent of a gateway's worker processes. It takes no requests: it holds the line to the controller and the listening sockets, hands
every table to all workers, says whose turn it is of those that wait, adds up the workers' counts, and replaces workers that end.
"""

import asyncio
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import orjson

from llmop.domain.client import Limits
from llmop.domain.endpoint import EndpointState
from llmop.domain.errors import NeedsUser
from llmop.domain.scaling import Reported
from llmop.gateway import cells, sums, table
from llmop.gateway.app import Presence
from llmop.gateway.desk import SharedDesk, sum_up
from llmop.gateway.dispatch import Place
from llmop.gateway.faults import Faults
from llmop.gateway.limiter import Board
from llmop.gateway.link import TELL_PERIOD, Link
from llmop.gateway.metrics import Counts
from llmop.gateway.operations import Overviews, Source
from llmop.gateway.settings import GatewaySettings, to_values
from llmop.gateway.table import ReceivedTable, replaces

LOG = logging.getLogger(__name__)

_SILENCE = 30.0  # after which a worker is taken for stuck
_STEADY = 30.0  # a worker that lived longer is replaced at once
_LONGEST_PAUSE = 5.0


def pause(failures: int) -> float:
    """Seconds before a worker is started again that has ended early so many times in a row."""
    return min(_LONGEST_PAUSE, 0.1 * 2.0 ** (failures - 1)) if failures else 0.0


class _Member:
    """A worker process. `acted_on` is the number of the last table that it acts on."""

    def __init__(self, process: subprocess.Popen[bytes], link: Link, now: float) -> None:
        self.process = process
        self.link = link
        self.acted_on = 0
        self.heard_at = now
        self.told: sums.Told | None = None


class Crew:
    def __init__(
        self,
        settings: GatewaySettings,
        sockets: list[socket.socket],
        presence: Presence,
        hurry: asyncio.Event,
        usage_folder: Path | None,
    ) -> None:
        """The sockets stay the caller's; they stay open while workers come and go, so no waiting client is lost. `hurry` is set when the
        controller should hear at once of somebody who waits. Workers write down usage in `usage_folder`, if there is one.
        """
        self._usage_folder = usage_folder
        self._settings = settings
        self._sockets = sockets
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._members: dict[int, _Member] = {}
        self._slots = cells.Slots()
        self._rows = settings.workers + 1
        self._memory = cells.make(self._rows)
        self._cells = cells.Cells(self._memory, self._rows)
        self._board = Board(self._cells)
        self._account_slots = cells.Slots()
        self._row = cells.Row(self._cells, settings.workers)
        self._queues: dict[str, int] = {}  # the slot of each deployment
        self._endpoint_slots: list[int] = []
        self._own = Counts()  # of this process, where only faults are counted
        self._desk = SharedDesk(
            self._loop,
            hurry,
            send=self._say,
            publish=self._publish,
            faults=Faults(self._loop.time, self._own),
        )
        self._number = 0  # of the last table
        self._message: dict[str, Any] | None = None
        self._past: sums.Told | None = None  # what the dead have counted
        self._restarts = 0
        self._changed = asyncio.Event()
        self._stopping = False
        self._operators: asyncio.Queue[tuple[Link, int]] = asyncio.Queue()  # who asks for the overview
        self.received: ReceivedTable | None = None

    # What the line to the controller calls

    def apply(self, received: ReceivedTable) -> bool:
        if not replaces(received, self.received):
            LOG.warning("table version %d ignored: a newer one is in force", received.table.version)
            return False
        self.received = received
        self._number += 1
        endpoints = [f"{one.uid} {one.host} {one.port} {one.api_key}" for one in received.table.endpoints]
        deployments = list(dict.fromkeys(one.deployment for one in received.table.models))
        acted_on = min((member.acted_on for member in self._members.values()), default=0)
        slots = self._slots.assign(
            [*endpoints, *deployments], self._number, acted_on, lambda slot: self._cells.total(slot) > 0
        )
        slots, queues = slots[: len(endpoints)], slots[len(endpoints) :]
        for name in self._queues.keys() - set(deployments):
            self._publish(name, 0)
        self._endpoint_slots = slots
        self._queues = dict(zip(deployments, queues, strict=True))
        content = orjson.loads(table.to_json(received))
        self._message = {
            "table": content,
            "slots": slots,
            "queues": self._queues,
            "accounts": self._accounts_of(received, acted_on),
            "number": self._number,
        }
        for member in self._members.values():
            member.link.send(self._message)
        # After the workers: whom they release they find in their table.
        self._desk.dispatcher.apply(self._places(received, slots), self._loop.time())
        return True

    def _places(self, received: ReceivedTable, slots: list[int]) -> dict[str, Place]:
        loads: dict[str, dict[str, Callable[[], int]]] = {}
        for endpoint, slot in zip(received.table.endpoints, slots, strict=True):
            if endpoint.state is not EndpointState.DRAINING:
                load = functools.partial(self._load, slot)
                loads.setdefault(endpoint.deployment, {})[endpoint.uid] = load
        return {
            model.deployment: Place(
                bounds=model.queue,
                max_in_flight=model.max_in_flight,
                loads=loads.get(model.deployment, {}),
            )
            for model in received.table.models
        }

    def _load(self, slot: int) -> int:
        return 0 if slot == cells.NO_SLOT else self._cells.total(slot)

    def loads(self) -> dict[str, Reported]:
        """Tokens are those that the workers have told of, a second ago at most."""
        received = self.received
        if received is None:
            return {}
        told = self._others(None)
        counts = Counts() if told is None else sums.hear(told)
        at = zip(received.table.endpoints, self._endpoint_slots, strict=True)
        return sum_up(
            self._desk.dispatcher,
            ((one.deployment, self._load(slot)) for one, slot in at),
            counts.generated(received.table.models),
        )

    def reported(self, loads: Mapping[str, Reported]) -> None:
        self._desk.dispatcher.reported({name: load.unserved for name, load in loads.items()})

    # What the desk calls

    def _say(self, worker: int, message: dict[str, Any]) -> None:
        member = self._members.get(worker)
        if member is not None:
            member.link.send(message)

    def _publish(self, deployment: str, number: int) -> None:
        slot = self._queues.get(deployment, cells.NO_SLOT)
        if slot != cells.NO_SLOT:
            self._row.put(slot, number)

    def _accounts_of(self, received: ReceivedTable, acted_on: int) -> dict[str, int]:
        """The places of those keys that have limits."""
        limited = [key.name for key in received.table.keys if key.limits != Limits()]
        slots = self._account_slots.assign(
            limited, self._number, acted_on, lambda slot: self._board.in_flight(slot) > 0
        )
        return dict(zip(limited, slots, strict=True))

    async def settled(self) -> None:
        while any(member.acted_on < self._number for member in self._members.values()):
            await self._changed.wait()

    # Running

    async def run(
        self,
        *,
        overview: Source,
        beside: Callable[[], Coroutine[Any, Any, None]],
        stop: asyncio.Event,
        ready: Callable[[], None],
    ) -> None:
        """Until `stop` is set and every worker has finished its answers; when cancelled, they do not finish them. `overview` is asked for
        all workers. Raises NeedsUser where a worker ends before it has taken requests.
        """
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(beside()),
                    group.create_task(self._tell_operators(Overviews(overview, self._loop.time))),
                    group.create_task(self._tell()),
                    group.create_task(self._desk.run()),
                ]
                started = [asyncio.Event() for _ in range(self._settings.workers)]
                keepers = [
                    group.create_task(self._keep(index, started[index]))
                    for index in range(self._settings.workers)
                ]
                for event in started:
                    await event.wait()
                ready()
                await stop.wait()
                self._stopping = True
                for sock in self._sockets:
                    sock.close()
                self._signal(signal.SIGTERM)
                await asyncio.wait(keepers)
                for helper in helpers:
                    helper.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._signal(signal.SIGKILL)
            self._cells.close()
            os.close(self._memory)

    def _signal(self, number: signal.Signals) -> None:
        for member in self._members.values():
            member.process.send_signal(number)

    async def _keep(self, index: int, started: asyncio.Event) -> None:
        failures = 0
        while not self._stopping:
            born = self._loop.time()
            status = await self._live(index, started)
            if self._stopping:
                return
            if not started.is_set():
                raise NeedsUser(
                    "StartFailed", f"a worker process ended with status {status} before it took requests"
                )
            failures = 0 if self._loop.time() - born > _STEADY else failures + 1
            self._restarts += 1
            LOG.error("worker %d ended with status %s, starting another", index, status)
            await asyncio.sleep(pause(failures))

    async def _live(self, index: int, started: asyncio.Event) -> int:
        """One life of a worker; gives its exit status."""
        near, far = socket.socketpair()
        listening = self._sockets[index % len(self._sockets)]
        with far:
            process = _start((far.fileno(), listening.fileno(), self._memory), index, self._rows)
        member = self._members[index] = _Member(process, await Link.over(near), self._loop.time())
        try:
            first = {
                "settings": to_values(self._settings),
                "usage_folder": str(self._usage_folder or ""),
            } | self._presence_values()
            member.link.send(first | (self._message or {}))
            if self._stopping:
                process.send_signal(signal.SIGTERM)
            await self._listen(index, member, started)
            return await asyncio.to_thread(process.wait)
        finally:
            process.kill()
            process.wait()
            member.link.close()
            del self._members[index]
            self._cells.clear(index)
            self._desk.bury(index)
            self._board.clear(index)
            if member.told is not None:
                dead = sums.of_the_dead(member.told)
                self._past = dead if self._past is None else sums.add(self._past, dead)
            self._announce()

    async def _listen(self, index: int, member: _Member, started: asyncio.Event) -> None:
        while (message := await member.link.receive()) is not None:
            member.heard_at = self._loop.time()
            if "ready" in message:
                started.set()
            if "counts" in message:
                member.told = message["counts"]
            if "acted_on" in message:
                member.acted_on = message["acted_on"]
                self._announce()
            self._desk.take(index, message)
            if "ask" in message and message["what"] == "counts":
                member.link.send({"answer": message["ask"], "counts": self._others(member)})
            elif "ask" in message:
                self._operators.put_nowait((member.link, message["ask"]))

    async def _tell_operators(self, overviews: Overviews) -> None:
        while True:
            link, number = await self._operators.get()
            link.send({"answer": number, "overview": [*await overviews.get()]})

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _others(self, asking: _Member | None) -> sums.Told | None:
        """What all others count and have counted; None = all of them."""
        told = [one.told for one in self._members.values() if one is not asking and one.told is not None]
        if self._past is not None:
            told.append(self._past)
        total: sums.Told | None = None
        for one in told:
            total = one if total is None else sums.add(total, one)
        if total is None:
            return None
        return total | {"restarts": self._restarts, "faults": total["faults"] + self._own.faults}

    def _presence_values(self) -> dict[str, Any]:
        return {"connected": self._presence.connected, "confirmed_at": self._presence.confirmed_at}

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_PERIOD)
            now = self._loop.time()
            for member in self._members.values():
                member.link.send(self._presence_values())
                if now - member.heard_at > _SILENCE:
                    LOG.error("worker %d says nothing any more, ending it", member.process.pid)
                    member.process.kill()


def _start(descriptors: tuple[int, int, int], index: int, rows: int) -> subprocess.Popen[bytes]:
    """Not in the loop's way, which forks: gRPC's threads are not made for that."""
    numbers = map(str, (*descriptors, index, rows))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmop.gateway.worker_process", *numbers],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,  # Ctrl-C is the parent's to pass on
    )
