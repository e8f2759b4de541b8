"""Where requests wait: what becomes of one that the parent process cannot take."""

import asyncio
import dataclasses
from typing import Any, cast

from llmop.gateway.desk import ParentsDesk, SharedDesk
from llmop.gateway.dispatch import Dropped
from llmop.gateway.faults import Faults
from llmop.gateway.link import Link
from llmop.gateway.metrics import Counts
from llmop.gateway.queue import Priority, Ticket


@dataclasses.dataclass
class Waiter:
    became: list[str] = dataclasses.field(default_factory=list)

    def released(self, uid: str) -> None:
        self.became.append(f"released to {uid}")

    def dropped(self, why: Dropped, retry_after: int) -> None:
        self.became.append(f"dropped: {why}, {retry_after}")

    def fault(self) -> None:
        self.became.append("told of a fault")


@dataclasses.dataclass
class Line:
    """From one end to the other, without a socket."""

    sent: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def test_a_request_that_the_parent_cannot_take_does_not_wait_for_ever() -> None:
    line, counts, told = Line(), Counts(), []
    loop = asyncio.get_running_loop()
    desk = ParentsDesk(cast("Link", line))
    shared = SharedDesk(
        loop,
        asyncio.Event(),
        send=lambda worker, message: told.append((worker, message)),
        publish=lambda deployment, number: None,
        faults=Faults(loop.time, counts),
    )
    waiter = Waiter()
    ticket = Ticket(desk.number(), owner="a", priority=Priority.DEFAULT, size=1, arrived_at=0.0)
    desk.enter(waiter, "default/d", ticket, again=False)
    shared.take(3, line.sent[0] | {"priority": "nothing that there is"})
    assert [(3, {"fault": ticket.number})] == told
    assert 1 == counts.faults
    desk.take(told[0][1])
    desk.take(told[0][1])
    assert ["told of a fault"] == waiter.became


async def test_a_fault_in_one_workers_message_leaves_the_others_alone() -> None:
    counts, told = Counts(), []
    loop = asyncio.get_running_loop()
    shared = SharedDesk(
        loop,
        asyncio.Event(),
        send=lambda worker, message: told.append((worker, message)),
        publish=lambda deployment, number: None,
        faults=Faults(loop.time, counts),
    )
    shared.take(0, {"failed": "u"})  # no word of the deployment
    shared.take(1, {"leave": 7})
    assert ([], 1) == (told, counts.faults)
