"""Where agents report: claims, heartbeats, orders. The logic without HTTP."""

import asyncio
import dataclasses
import hmac
from collections.abc import Callable
from typing import Any

from llmop.clock import Clock
from llmop.domain import errors, replica, resources
from llmop.planner import claim
from llmop.store import interface

PERIOD_S = 5.0
REPLICAS_PER_SECOND = 40.0


class Refused(Exception):
    """The agent is told no: `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A job asks whether it is the replica; `holder` is (job id, restart count) of the link on disk."""

    replica_uid: str
    job_name: str
    job_id: str
    restart_count: int
    holder: tuple[str, int] | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """`deadline_at` is clock time; agents are told seconds from now, because their clocks may differ."""

    id: str
    reason: str
    deadline_at: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """An order on its way to an agent that does not reach us; `told` are the words for it."""

    cluster: str
    replica_name: str
    job_name: str
    job_id: str
    order: Order
    told: list[dict[str, Any]]


@dataclasses.dataclass(slots=True)
class _Waiting:
    """Wakes held replies of one replica."""

    event: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Desk:
    """One per reconciling controller. Heartbeats live here, in memory; claims go to the store, guarded.

    `heard(ledger)` is called after a claim was recorded or a heartbeat changed something that people or plans see.
    `is_over(cluster, job name, job id)` says whether a job is known to have ended. `deliver` brings orders to agents that write
    files; `is_deaf` is set while these could not be heard.
    """

    def __init__(
        self,
        store: interface.Store,
        clock: Clock,
        epoch: int,
        heard: Callable[[str, str], None],
        is_over: Callable[[str, str, str], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._heard = heard
        self._is_over = is_over
        self._ledgers: dict[str, interface.Ledger] = {}
        self._orders: dict[str, Order] = {}
        self._acknowledged: dict[str, Order] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._is_closed = False
        self.heartbeats: dict[str, replica.Heartbeat] = {}
        self.writers: set[str] = set()  # replicas whose agents write files, as far as they were heard last
        self.deliver: Callable[[Parcel], None] = lambda _parcel: None
        self.is_deaf = False

    def close(self) -> None:
        """The listener ends: held replies go out now."""
        self._is_closed = True
        for waiting in self._waiting.values():
            waiting.event.set()

    @property
    def period_s(self) -> float:
        """5 s up to 200 replicas, then so long that 40 heartbeats come in a second."""
        return max(PERIOD_S, len(self.heartbeats) / REPLICAS_PER_SECOND)

    async def _known(self, uid: str, token: str) -> interface.Ledger:
        ledger = self._ledgers.get(uid)
        if ledger is None:
            found = await self._store.ledgers([uid])
            if not found:
                raise Refused(401, "no such replica, or a wrong token")
            ledger = self._ledgers[uid] = found[0]
        if not hmac.compare_digest(ledger.secrets.agent_token.encode(), token.encode()):
            raise Refused(401, "no such replica, or a wrong token")
        return ledger

    async def _fresh(self, uid: str) -> interface.Ledger:
        found = await self._store.ledgers([uid])
        if not found:
            raise Refused(401, "no such replica, or a wrong token")
        self._ledgers[uid] = found[0]
        return found[0]

    @property
    def clusters_of_writers(self) -> frozenset[str]:
        return frozenset(
            known.cluster for uid in self.writers if (known := self._ledgers.get(uid)) is not None
        )

    async def is_current(self) -> bool:
        """Whether no other controller has taken over. Raises Unavailable."""
        return await self._store.epoch() == self._epoch

    async def name_of(self, uid: str) -> str:
        """The name of a replica that has just spoken. Raises Refused when it is gone."""
        return (self._ledgers.get(uid) or await self._fresh(uid)).replica_name

    async def claim(self, asked: Claim, token: str) -> dict[str, Any]:
        """The reply to a claim. Raises Refused, and Deposed or Unavailable of the store."""
        ledger = await self._known(asked.replica_uid, token)
        for _ in range(3):
            ledger = await self._fresh(asked.replica_uid)
            if ledger.submission.job_name != asked.job_name:
                raise Refused(403, f"the token is not that of job {asked.job_name}")
            holds_link = asked.holder == (asked.job_id, asked.restart_count)
            holder_is_over = not holds_link and self._is_gone(asked, ledger)
            decision = claim.decide(
                ledger.submission,
                is_tombstone=ledger.tombstoned_at is not None,
                is_draining=await self._is_draining(ledger),
                job_id=asked.job_id,
                restart_count=asked.restart_count,
                holds_link=holds_link,
                holder_is_over=holder_is_over,
                now=self._clock.now(),
            )
            if decision.record is None:
                return {"verdict": str(decision.verdict), "takeOver": decision.take_over}
            write = interface.RecordSubmission(
                replica_uid=asked.replica_uid,
                states=replica.UNRESOLVED | {replica.SubmissionState.SUBMITTED},
                submission=decision.record,
                job_id_is=ledger.submission.job_id if ledger.submission.job_id is not None else asked.job_id,
            )
            committed = await self._store.commit([write], epoch=self._epoch)
            if committed.applied[0]:
                await self._fresh(asked.replica_uid)
                self._heard(ledger.namespace, ledger.replica_name)
                return {"verdict": str(decision.verdict), "takeOver": decision.take_over}
        raise Refused(503, "the replica changed hands while it was claimed; ask again")

    async def _is_draining(self, ledger: interface.Ledger) -> bool:
        try:
            stored = await self._store.get(resources.REPLICA, ledger.namespace, ledger.replica_name)
        except errors.NotFound:
            return True
        return stored.uid != ledger.replica_uid or bool(stored.spec.get("drain"))

    def _is_gone(self, asked: Claim, ledger: interface.Ledger) -> bool:
        """Does nobody live behind the link? Not behind that of an earlier start of the same job: Slurm has put it back into the queue."""
        if asked.holder is None:
            return False
        job_id, restart_count = asked.holder
        if job_id == asked.job_id:
            return restart_count < asked.restart_count
        return self._is_over(ledger.cluster, asked.job_name, job_id)

    async def heartbeat(self, beat: replica.Heartbeat, token: str) -> None:
        """Takes in a heartbeat. Raises Refused(409) when its job does not hold the replica, Refused(503) while nobody knows.

        Phase draining acknowledges the open order.
        """
        ledger = await self._known(beat.replica_uid, token)
        if ledger.submission.job_id != beat.job_id or ledger.tombstoned_at is not None:
            ledger = await self._fresh(beat.replica_uid)
        submission = ledger.submission
        if ledger.tombstoned_at is not None or submission.job_id != beat.job_id:
            if ledger.tombstoned_at is None and _is_open(submission):
                # It started by its link alone while no controller was there. It serves on until the queue shows whose the replica is.
                raise Refused(503, "it is not known yet which job holds the replica")
            raise Refused(409, "this job does not hold the replica")
        if beat.restart_count < (submission.claimed_restart or 0):
            raise Refused(409, "a later start of this job holds the replica")
        before = self.heartbeats.get(beat.replica_uid)
        if before is not None and before.job_id == beat.job_id:
            if before.restart_count > beat.restart_count:
                raise Refused(409, "a later start of this job holds the replica")
            if before.restart_count == beat.restart_count and beat.seq < before.seq:
                return
        self.heartbeats[beat.replica_uid] = beat
        (self.writers.add if beat.by_file else self.writers.discard)(beat.replica_uid)
        order = self._orders.get(beat.replica_uid)
        if order is not None and beat.phase in (replica.AgentPhase.DRAINING, replica.AgentPhase.ENDED):
            self._acknowledged[beat.replica_uid] = order
        self._send(beat.replica_uid)
        if (
            before is None
            or _shown(before) != _shown(beat)
            or beat.received_at - before.received_at > 2 * self.period_s
        ):
            self._heard(ledger.namespace, ledger.replica_name)

    async def wrote(self, beat: replica.Heartbeat, token: str) -> None:
        """A file of unknown age: it tells which way the agent goes, and nothing else. Raises Refused."""
        ledger = await self._known(beat.replica_uid, token)
        if ledger.tombstoned_at is not None or ledger.submission.job_id != beat.job_id:
            return
        if beat.replica_uid not in self.heartbeats:
            self.writers.add(beat.replica_uid)
            self._send(beat.replica_uid)

    async def orders(self, uid: str, wait_s: float) -> list[dict[str, Any]]:
        """The orders of a replica; the reply is held back for up to `wait_s` seconds while there is none that it does not know."""
        if self._orders.get(uid) == self._acknowledged.get(uid) and wait_s > 0 and not self._is_closed:
            waiting = self._waiting.setdefault(uid, _Waiting())
            waiting.event.clear()
            try:
                await asyncio.wait_for(waiting.event.wait(), wait_s)
            except TimeoutError:
                pass
        order = self._orders.get(uid)
        return [self._told(order)] if order is not None else []

    def _told(self, order: Order) -> dict[str, Any]:
        deadline_s = max(0.0, order.deadline_at - self._clock.now())
        return {"id": order.id, "type": "drain", "reason": order.reason, "deadline": deadline_s}

    def _send(self, uid: str) -> None:
        """The open order of a replica whose agent writes files, on its way."""
        order, ledger = self._orders.get(uid), self._ledgers.get(uid)
        if order is None or ledger is None or uid not in self.writers or self._acknowledged.get(uid) == order:
            return
        beat = self.heartbeats.get(uid)
        parcel = Parcel(
            cluster=ledger.cluster,
            replica_name=ledger.replica_name,
            job_name=ledger.submission.job_name,
            job_id=beat.job_id if beat is not None else ledger.submission.job_id or "",
            order=order,
            told=[self._told(order)],
        )
        self.deliver(parcel)

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        """Pushes the order to drain at once. One that is there already changes only if it becomes due earlier."""
        given = self._orders.get(uid)
        if given is not None and given.deadline_at <= deadline_at:
            self._send(uid)
            return
        self._orders[uid] = Order(id=order_id, reason=reason, deadline_at=deadline_at)
        waiting = self._waiting.get(uid)
        if waiting is not None:
            waiting.event.set()
        self._send(uid)

    def clock_stepped(self, seconds: float) -> None:
        """Somebody has set the wall clock (forward, when positive): what was heard keeps its age."""
        for uid, beat in self.heartbeats.items():
            self.heartbeats[uid] = dataclasses.replace(beat, received_at=beat.received_at + seconds)

    def ended(self, uid: str) -> None:
        """The end of the replica is recorded: that its agent is silent says nothing any more.

        Its orders stay: an agent that was only believed to be gone may come back.
        """
        self.heartbeats.pop(uid, None)
        self.writers.discard(uid)

    def forget(self, uid: str) -> None:
        """The replica is gone."""
        self._ledgers.pop(uid, None)
        self._orders.pop(uid, None)
        self._acknowledged.pop(uid, None)
        self.heartbeats.pop(uid, None)
        self.writers.discard(uid)
        waiting = self._waiting.pop(uid, None)
        if waiting is not None:
            # Its held reply goes out: nothing would wake it any more.
            waiting.event.set()


def _is_open(submission: replica.Submission) -> bool:
    """No job of the replica has claimed it, so one that started by its link may still turn out to be the holder."""
    return submission.state in replica.UNRESOLVED or (
        submission.state is replica.SubmissionState.SUBMITTED and submission.claimed_restart is None
    )


def _shown(beat: replica.Heartbeat) -> tuple[object, ...]:
    """What plans and people see of a heartbeat; its time and its counters move without consequence."""
    return (
        beat.job_id,
        beat.restart_count,
        beat.phase,
        beat.host,
        beat.port,
        beat.node,
        beat.engine_restarts,
        beat.detail,
        beat.end,
    )
