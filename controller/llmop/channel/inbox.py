"""Agents that do not reach the listener write files into the shared directory's inbox; here they are taken in.

The desk judges them as if they had come by HTTPS. Answers go the same way: the verdict on a claim and orders are files in the replica's
directory, orders are announced by a signal (docs/reference/agent-channel.md).

No clock of another machine is compared with ours: a message is as old as the look that first showed it. What lay there before we looked,
or before a gap in our looking, may be of any age; of it only facts are taken, claims and ends.

A message is removed after it was acted on, and its name is remembered until it is gone. After a crash in between it is seen again: by
the rule above a heartbeat is dropped then; a claim and an end say what was written down already.
"""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from llmop.channel import desk, letters, messages
from llmop.clock import Clock
from llmop.cluster import file_threads
from llmop.domain import errors
from llmop.files import whole

_log = structlog.get_logger()

POLL_S = 2.0
GAP_S = 20.0  # without a look for so long, what lies there may be old
KEPT_S = 600.0  # what nobody could judge for so long is dropped, and so is a draft
AGAIN_S = 10.0  # an order that is not acknowledged is announced again


class Inbox:
    """The inbox of one shared directory. `look` is called by one task at a time."""

    def __init__(self, root: Path, at: desk.Desk, clock: Clock, installation: str) -> None:
        self._root = root
        self._desk = at
        self._clock = clock
        self._installation = installation
        self._reading = file_threads.FileThreads("inbox")
        self._writing = file_threads.FileThreads("orders")
        self._looked_at: float | None = None  # monotonic, as all times here
        self._seen: dict[str, float] = {}  # since when a name is known
        self._old: set[str] = set()  # names that may be of any age
        self._done: set[str] = set()  # acted on, and still there
        self._began = clock.monotonic()
        self.problem = ""

    @property
    def is_deaf(self) -> bool:
        """Nothing could be read for so long that silence means nothing."""
        since = self._looked_at if self._looked_at is not None else self._began
        return self._clock.monotonic() - since > GAP_S

    async def look(self) -> None:
        """Takes in what lies there. Raises OSError when the directory does not let us."""
        began = self._clock.monotonic()
        found = await self._reading.run(
            letters.find, self._root / "inbox", self._installation, frozenset(self._done)
        )
        is_old = self._looked_at is None or began - self._looked_at > GAP_S
        self._looked_at = began
        self._remember(found, began, is_old=is_old)
        try:
            if found.letters and not await self._desk.is_current():
                return  # they are the next controller's
        except errors.LlmopError as error:
            self.problem = str(error)
            return
        spoiled: list[str] = []
        unread = ""
        for letter in found.letters:
            if letter.unread:
                # Without its name: the next look finds others, and the same problem is said once.
                unread = unread or f"messages cannot be read: {letter.unread}"
            try:
                is_over = await self._take(letter)
            except messages.BadField as error:
                spoiled.append(f"{letter.name}: {error}")
                is_over = True
            if is_over or began - self._seen[letter.name] > KEPT_S:
                self._done.add(letter.name)
        if spoiled:
            _log.warning(
                "files in the inbox that are no messages", count=len(spoiled), first=spoiled[0][:300]
            )
        stale = {name for name in found.drafts if began - self._seen[name] > KEPT_S}
        doomed = sorted(self._done | stale)
        stays = await self._reading.run(letters.remove, self._root / "inbox", doomed) if doomed else ""
        self.problem = stays or unread

    def _remember(self, found: letters.Found, began: float, *, is_old: bool) -> None:
        there = found.names | found.drafts
        new = there - self._seen.keys()
        self._seen = {name: since for name, since in self._seen.items() if name in there} | dict.fromkeys(
            new, began
        )
        self._old = (self._old & there) | (set(new) if is_old else set())
        self._done &= there

    async def _take(self, letter: letters.Letter) -> bool:
        """Whether it is over with this letter. Raises BadField."""
        if letter.unread:
            return False  # the next look may have more luck
        if letter.problem:
            raise messages.BadField(letter.problem)
        read = messages.letter_of(letter.content, letter.job_name)
        try:
            if read.kind == "claim":
                await self._claim(messages.claim_of(read.body), read.token, letter)
            else:
                await self._heartbeat(read, letter)
        except desk.Refused as refused:
            if refused.status == 503:
                return False
            _log.info("a message in the inbox was refused", job=letter.job_name, reason=str(refused))
        except (errors.LlmopError, OSError) as error:
            _log.warning("a message in the inbox has to wait", job=letter.job_name, error=str(error))
            return False
        return True

    async def _claim(self, asked: desk.Claim, token: str, letter: letters.Letter) -> None:
        reply = await self._desk.claim(asked, token)
        replica_name = await self._desk.name_of(asked.replica_uid)
        answer = {**reply, "period": self._desk.period_s}
        await self._write(replica_name, f"answer-{letter.nonce}.json", answer)

    async def _heartbeat(self, read: messages.Letter, letter: letters.Letter) -> None:
        age_s = self._clock.monotonic() - self._seen[letter.name]
        beat = messages.heartbeat_of(read.body, self._clock.now() - age_s)
        if letter.name in self._old and beat.end is None:
            await self._desk.wrote(beat, read.token)
            return
        await self._desk.heartbeat(dataclasses.replace(beat, by_file=True), read.token)

    async def order(self, replica_name: str, orders: list[dict[str, Any]]) -> None:
        """Lays orders where the agent of the replica reads them. Raises OSError."""
        await self._write(replica_name, "orders.json", orders)

    async def _write(self, replica_name: str, name: str, content: object) -> None:
        path = self._root / "replicas" / replica_name / name
        await self._writing.run(whole.write, path, json.dumps(content).encode(), 0o600)


class Inboxes:
    """The inboxes of all clusters, each looked into by a task of its own: one that hangs holds up no other.

    `places` says where the shared directory of each cluster is; `signal(cluster, job name, job id)` tells a running job to read its
    orders and returns "" or why it was not told.
    """

    def __init__(
        self,
        at: desk.Desk,
        clock: Clock,
        installation: str,
        places: Callable[[], Mapping[str, str]],
        signal: Callable[[str, str, str], Awaitable[str]],
    ) -> None:
        self._desk = at
        self._clock = clock
        self._installation = installation
        self._places = places
        self._signal = signal
        self._inboxes: dict[str, Inbox] = {}  # by shared directory
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._delivering: set[asyncio.Task[None]] = set()
        self._delivered: dict[
            str, tuple[str, float, float]
        ] = {}  # job name -> order id, its end, when (monotonic)

    async def run(self) -> None:
        """Looks until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(POLL_S)
        finally:
            tasks = [*self._looking.values(), *self._delivering]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Starts a look into every inbox where none is under way."""
        places = self._places()
        wanted = set(places.values())
        self._inboxes = {where: self._at(where) for where in wanted}
        self._looking = {where: task for where, task in self._looking.items() if not task.done()}
        for where in wanted - self._looking.keys():
            task = asyncio.create_task(_look(where, self._inboxes[where]), name="inbox")
            self._looking[where] = task
        # Where nobody writes files, nobody is missed.
        written = {places[cluster] for cluster in self._desk.clusters_of_writers if cluster in places}
        self._desk.is_deaf = any(self._inboxes[where].is_deaf for where in written)

    def _at(self, where: str) -> Inbox:
        known = self._inboxes.get(where)
        return known or Inbox(Path(where), self._desk, self._clock, self._installation)

    # Orders

    def deliver(self, parcel: desk.Parcel) -> None:
        """Orders for an agent that writes files. The same order is not delivered again for a while."""
        now = self._clock.monotonic()
        self._delivered = {job: known for job, known in self._delivered.items() if now - known[2] < AGAIN_S}
        known = self._delivered.get(parcel.job_name)
        if known is not None and known[:2] == (parcel.order.id, parcel.order.deadline_at):
            return
        self._delivered[parcel.job_name] = (parcel.order.id, parcel.order.deadline_at, now)
        task = asyncio.get_running_loop().create_task(self._deliver(parcel), name="orders")
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    async def _deliver(self, parcel: desk.Parcel) -> None:
        """The file first: the signal says that there is one. Either may fail, for the agent also reads it with every message."""
        where = self._places().get(parcel.cluster)
        inbox = self._inboxes.get(where) if where is not None else None
        if inbox is None:
            return
        try:
            await inbox.order(parcel.replica_name, parcel.told)
            problem = await self._signal(parcel.cluster, parcel.job_name, parcel.job_id)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self._delivered.pop(parcel.job_name, None)  # the next pass, or the next message, tries again
            _log.warning("an order is not announced", replica=parcel.replica_name, problem=problem)


async def _look(where: str, inbox: Inbox) -> None:
    before = inbox.problem
    try:
        await inbox.look()
    except OSError as error:
        inbox.problem = error.strerror or str(error)
    except Exception:  # noqa: BLE001  (a fault of ours in one inbox must not stop the controller)
        _log.exception("looking into an inbox failed", directory=where)
    if inbox.problem and inbox.problem != before:
        _log.warning("the inbox cannot be used", directory=where, problem=inbox.problem)
