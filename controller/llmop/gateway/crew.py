"""The parent of a gateway's worker processes. It takes no requests: it holds the line to the controller and the listening sockets, hands
every table to all workers, adds up their counts, and replaces workers that end.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from llmop.domain.errors import NeedsUser
from llmop.gateway import cells, sums, table
from llmop.gateway.app import Presence
from llmop.gateway.link import TELL_PERIOD, Link
from llmop.gateway.metrics import Counts
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
    def __init__(self, settings: GatewaySettings, sockets: list[socket.socket], presence: Presence) -> None:
        """The sockets stay the caller's; they stay open while workers come and go, so no waiting client is lost."""
        self._settings = settings
        self._sockets = sockets
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._members: dict[int, _Member] = {}
        self._slots = cells.Slots()
        self._memory = cells.make(settings.workers)
        self._cells = cells.Cells(self._memory, settings.workers)
        self._number = 0  # of the last table
        self._message: dict[str, Any] | None = None
        self._past: sums.Told | None = None  # what the dead have counted
        self._restarts = 0
        self._changed = asyncio.Event()
        self._stopping = False
        self.received: ReceivedTable | None = None

    # What the line to the controller calls

    def apply(self, received: ReceivedTable) -> bool:
        if not replaces(received, self.received):
            LOG.warning("table version %d ignored: a newer one is in force", received.table.version)
            return False
        self.received = received
        self._number += 1
        names = [f"{one.uid} {one.host} {one.port} {one.api_key}" for one in received.table.endpoints]
        acted_on = min((member.acted_on for member in self._members.values()), default=0)
        slots = self._slots.assign(names, self._number, acted_on, lambda slot: self._cells.total(slot) > 0)
        content = orjson.loads(table.to_json(received))
        self._message = {"table": content, "slots": slots, "number": self._number}
        for member in self._members.values():
            member.link.send(self._message)
        return True

    async def settled(self) -> None:
        while any(member.acted_on < self._number for member in self._members.values()):
            await self._changed.wait()

    def counts(self) -> Counts:
        """What all workers count, as of a second ago at most."""
        total = self._others(None)
        return Counts() if total is None else sums.hear(total)

    # Running

    async def run(
        self,
        *,
        beside: Callable[[], Coroutine[Any, Any, None]],
        stop: asyncio.Event,
        ready: Callable[[], None],
    ) -> None:
        """Until `stop` is set and every worker has finished its answers; when cancelled, they do not finish them. Raises NeedsUser where
        a worker ends before it has taken requests.
        """
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(beside()), group.create_task(self._tell())]
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
            process = _start((far.fileno(), listening.fileno(), self._memory), index, self._settings.workers)
        member = self._members[index] = _Member(process, await Link.over(near), self._loop.time())
        try:
            first = {"settings": to_values(self._settings)} | self._presence_values()
            member.link.send(first | (self._message or {}))
            if self._stopping:
                process.send_signal(signal.SIGTERM)
            await self._listen(member, started)
            return await asyncio.to_thread(process.wait)
        finally:
            process.kill()
            process.wait()
            member.link.close()
            del self._members[index]
            self._cells.clear(index)
            if member.told is not None:
                dead = sums.of_the_dead(member.told)
                self._past = dead if self._past is None else sums.add(self._past, dead)
            self._announce()

    async def _listen(self, member: _Member, started: asyncio.Event) -> None:
        while (message := await member.link.receive()) is not None:
            member.heard_at = self._loop.time()
            if "ready" in message:
                started.set()
            if "counts" in message:
                member.told = message["counts"]
            if "acted_on" in message:
                member.acted_on = message["acted_on"]
                self._announce()
            if "ask" in message:
                member.link.send({"answer": message["ask"], "counts": self._others(member)})

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
        return None if total is None else total | {"restarts": self._restarts}

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


def _start(descriptors: tuple[int, int, int], index: int, workers: int) -> subprocess.Popen[bytes]:
    """Not in the loop's way, which forks: gRPC's threads are not made for that."""
    numbers = map(str, (*descriptors, index, workers))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmop.gateway.worker_process", *numbers],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,  # Ctrl-C is the parent's to pass on
    )
