"""Where the requests of one process wait: in the process itself, or with the parent of several."""

import asyncio
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from llmop.domain.scaling import Reported
from llmop.gateway.dispatch import Dispatcher, Dropped, Place
from llmop.gateway.faults import Faults
from llmop.gateway.fleet import Fleet
from llmop.gateway.link import Link
from llmop.gateway.metrics import Counts
from llmop.gateway.queue import Priority, Ticket
from llmop.gateway.table import ReceivedTable

TICK = 0.1  # seconds between two looks at deadlines and ramps, while somebody waits


class Waiter(Protocol):
    """A request that waits. Nothing is raised here: what goes wrong with it is no fault of the one that made room for it."""

    def released(self, uid: str) -> None:
        """It may go to this endpoint; `Desk.begun` is to be called then."""
        ...

    def dropped(self, why: Dropped, retry_after: int) -> None:
        """It is to be refused; `retry_after` is in seconds, for a deployment that has endpoints."""
        ...

    def fault(self) -> None:
        """Something that nobody foresaw was raised in the course of it; called where that is caught."""
        ...


class Desk(Protocol):
    """Waiters are told what became of them, also before `enter` returns."""

    def number(self) -> int:
        """Of a new ticket."""
        ...

    def enter(self, waiter: Waiter, deployment: str, ticket: Ticket, *, again: bool) -> None: ...

    def leave(self, ticket: Ticket) -> None: ...

    def begun(self, ticket: Ticket) -> None: ...

    def failed(self, deployment: str, uid: str) -> None: ...

    def reached(self, deployment: str, uid: str) -> None: ...

    def freed(self, deployment: str) -> None: ...

    def close(self) -> None:
        """The process ends: nobody waits any longer."""
        ...


class _Waiters:
    """Who waits in this process, by number of ticket."""

    def __init__(self) -> None:
        self._waiters: dict[Hashable, Waiter] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def number(self) -> int:
        return next(self._numbers)

    def _admit(self, waiter: Waiter, number: Hashable) -> bool:
        if self._closed:
            waiter.dropped(Dropped.SHUTTING_DOWN, 1)
            return False
        self._waiters[number] = waiter
        return True

    def _released(self, number: Hashable, uid: str) -> bool:
        """False where nobody waits under this number any more."""
        waiter = self._waiters.pop(number, None)
        if waiter is not None:
            waiter.released(uid)
        return waiter is not None

    def _dropped(self, number: Hashable, why: Dropped, retry_after: int) -> None:
        waiter = self._waiters.pop(number, None)
        if waiter is not None:
            waiter.dropped(why, retry_after)

    def _close(self) -> list[Hashable]:
        self._closed = True
        return list(self._waiters)


class OwnDesk(_Waiters):
    """For a gateway of one process. Tables take effect here, for the fleet and for those that wait."""

    def __init__(
        self, counts: Counts, fleet: Fleet, loop: asyncio.AbstractEventLoop, hurry: asyncio.Event
    ) -> None:
        """`hurry` is set when the controller should hear at once of somebody who waits."""
        super().__init__()
        self._counts = counts
        self._fleet = fleet
        self._loop = loop
        self._faults = Faults(loop.time, counts)
        self._ticks = False
        self._dispatcher = Dispatcher(
            release=self._release, refuse=self._refuse, publish=self._publish, wake=hurry.set
        )

    # What the line to the controller calls

    @property
    def received(self) -> ReceivedTable | None:
        return self._fleet.received

    def apply(self, received: ReceivedTable) -> bool:
        if not self._fleet.apply(received):
            return False
        places = {
            deployment.name: Place(
                bounds=deployment.bounds,
                max_in_flight=deployment.max_in_flight,
                loads={upstream.endpoint.uid: upstream.load for upstream in deployment.upstreams},
            )
            for deployment in self._fleet.deployments.values()
        }
        self._dispatcher.apply(places, self._loop.time())
        return True

    async def settled(self) -> None:
        await self._fleet.settled()

    def loads(self) -> dict[str, Reported]:
        received = self._fleet.received
        return sum_up(
            self._dispatcher,
            ((name, load) for name, _, load in self._fleet.loads()),
            self._counts.generated(received.table.models if received is not None else ()),
        )

    def reported(self, loads: Mapping[str, Reported]) -> None:
        self._dispatcher.reported({name: load.unserved for name, load in loads.items()})

    # What exchanges call

    def enter(self, waiter: Waiter, deployment: str, ticket: Ticket, *, again: bool) -> None:
        if self._admit(waiter, ticket.number):
            self._dispatcher.enter(deployment, ticket, self._loop.time(), again=again)
            self._keep_time()

    def leave(self, ticket: Ticket) -> None:
        self._waiters.pop(ticket.number, None)
        with self._guard():
            self._dispatcher.leave(ticket.number, self._loop.time())

    def begun(self, ticket: Ticket) -> None:
        with self._guard():
            self._dispatcher.begun(ticket.number)

    def failed(self, deployment: str, uid: str) -> None:
        with self._guard():
            self._dispatcher.failed(deployment, uid, self._loop.time())

    def reached(self, deployment: str, uid: str) -> None:
        with self._guard():
            self._dispatcher.reached(deployment, uid, self._loop.time())

    def freed(self, deployment: str) -> None:
        with self._guard():
            self._dispatcher.freed(deployment, self._loop.time())

    def close(self) -> None:
        for number in self._close():
            self._dispatcher.leave(number, self._loop.time())
            self._dropped(number, Dropped.SHUTTING_DOWN, 1)

    def _guard(self) -> AbstractContextManager[None]:
        """Who tells of a change is not to blame for what the others make of it."""
        return self._faults.guard("the queue")

    def _release(self, ticket: Ticket, uid: str) -> None:
        self._released(ticket.number, uid)

    def _refuse(self, ticket: Ticket, why: Dropped, retry_after: int) -> None:
        self._dropped(ticket.number, why, retry_after)

    def _publish(self, deployment: str, number: int) -> None:
        self._fleet.waiters(deployment).number = number

    def _keep_time(self) -> None:
        if not self._ticks and not self._dispatcher.is_empty:
            self._ticks = True
            self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticks = False
        with self._guard():
            self._dispatcher.tick(self._loop.time())
        self._keep_time()


class ParentsDesk(_Waiters):
    """For a worker process: its parent decides, and says so over their line."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def enter(self, waiter: Waiter, deployment: str, ticket: Ticket, *, again: bool) -> None:
        if self._admit(waiter, ticket.number):
            patience = None if math.isinf(ticket.patience) else ticket.patience
            self._link.send(
                {
                    "enter": ticket.number,
                    "deployment": deployment,
                    "owner": ticket.owner,
                    "priority": int(ticket.priority),
                    "size": ticket.size,
                    "arrived_at": ticket.arrived_at,
                    "patience": patience,
                    "again": again,
                }
            )

    def leave(self, ticket: Ticket) -> None:
        self._waiters.pop(ticket.number, None)
        self._link.send({"leave": ticket.number})

    def begun(self, ticket: Ticket) -> None:
        self._link.send({"begun": ticket.number})

    def failed(self, deployment: str, uid: str) -> None:
        self._link.send({"failed": uid, "deployment": deployment})

    def reached(self, deployment: str, uid: str) -> None:
        self._link.send({"reached": uid, "deployment": deployment})

    def freed(self, deployment: str) -> None:
        self._link.send({"freed": deployment})

    def close(self) -> None:
        for number in self._close():
            self._link.send({"leave": number})
            self._dropped(number, Dropped.SHUTTING_DOWN, 1)

    def take(self, message: dict[str, Any]) -> None:
        """What the parent says."""
        if "release" in message and not self._released(message["release"], message["uid"]):
            self._link.send({"leave": message["release"]})
        if "refuse" in message:
            self._dropped(message["refuse"], Dropped(message["why"]), message["retry_after"])
        if "fault" in message and (waiter := self._waiters.pop(message["fault"], None)) is not None:
            waiter.fault()


class SharedDesk:
    """The parent's: the requests of all its workers wait here, by number of worker and ticket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hurry: asyncio.Event,
        *,
        send: Callable[[int, dict[str, Any]], None],
        publish: Callable[[str, int], None],
        faults: Faults,
    ) -> None:
        """`send` is for the worker of that number, `publish` lets all of them see how many wait for a deployment."""
        self._loop = loop
        self._send = send
        self._faults = faults
        self._tickets: dict[int, set[int]] = {}
        self.dispatcher = Dispatcher(
            release=self._release, refuse=self._refuse, publish=publish, wake=hurry.set
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            with self._faults.guard("the queue"):
                if not self.dispatcher.is_empty:
                    self.dispatcher.tick(self._loop.time())

    def take(self, worker: int, message: dict[str, Any]) -> None:
        """What a worker says."""
        taken = False
        with self._faults.guard("the queue"):
            self._take(worker, message)
            taken = True
        if not taken and "enter" in message:  # it must not wait for ever
            self._send(worker, {"fault": message["enter"]})
            with self._faults.guard("the queue"):
                self._take(worker, {"leave": message["enter"]})

    def _take(self, worker: int, message: dict[str, Any]) -> None:
        now = self._loop.time()
        if "enter" in message:
            number = message["enter"]
            patience = message["patience"]
            ticket = Ticket(
                (worker, number),
                owner=message["owner"],
                priority=Priority(message["priority"]),
                size=message["size"],
                arrived_at=message["arrived_at"],
                patience=math.inf if patience is None else patience,
            )
            self._tickets.setdefault(worker, set()).add(number)
            self.dispatcher.enter(message["deployment"], ticket, now, again=message["again"])
        if "leave" in message:
            self._forget(worker, message["leave"])
            self.dispatcher.leave((worker, message["leave"]), now)
        if "begun" in message:
            self._forget(worker, message["begun"])
            self.dispatcher.begun((worker, message["begun"]))
        if "failed" in message:
            self.dispatcher.failed(message["deployment"], message["failed"], now)
        if "reached" in message:
            self.dispatcher.reached(message["deployment"], message["reached"], now)
        if "freed" in message:
            self.dispatcher.freed(message["freed"], now)

    def bury(self, worker: int) -> None:
        """The worker is dead, and its clients with it."""
        for number in self._tickets.pop(worker, ()):
            self.dispatcher.leave((worker, number), self._loop.time())

    def _forget(self, worker: int, number: int) -> None:
        self._tickets.get(worker, set()).discard(number)

    def _release(self, ticket: Ticket, uid: str) -> None:
        worker, number = _parts(ticket)
        self._send(worker, {"release": number, "uid": uid})

    def _refuse(self, ticket: Ticket, why: Dropped, retry_after: int) -> None:
        worker, number = _parts(ticket)
        self._forget(worker, number)
        self._send(worker, {"refuse": number, "why": why, "retry_after": retry_after})


def _parts(ticket: Ticket) -> tuple[int, int]:
    """Worker and number, as `SharedDesk` puts them together."""
    return cast("tuple[int, int]", ticket.number)


def sum_up(
    dispatcher: Dispatcher, loads: Iterable[tuple[str, int]], generated: Mapping[str, int]
) -> dict[str, Reported]:
    """By deployment; `loads` are deployments and the requests at one of their endpoints, `generated` their tokens."""
    in_flight = dict.fromkeys(dispatcher.queued(), 0)
    for deployment, load in loads:
        in_flight[deployment] = in_flight.get(deployment, 0) + load
    queued, unserved = dispatcher.queued(), dispatcher.unserved()
    return {
        name: Reported(
            in_flight=number,
            queued=queued.get(name, 0),
            unserved=unserved.get(name, 0),
            generated_tokens=generated.get(name, 0),
        )
        for name, number in in_flight.items()
    }
