"""Simulated agents: what runs inside the jobs of the virtual Slurm, and talks to the desk as the real one does.

The contract is docs/reference/agent-channel.md: the claim by a link, heartbeats, orders, signals, exit records.
"""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from llmop.channel import desk
from llmop.clock import Clock
from llmop.domain import errors, replica
from llmop.testing.virtual_slurm.jobs import VirtualJob
from llmop.testing.virtual_slurm.state import Signal

CONTROLLER_WAIT_S = 30.0
TERM_BUDGET_S = 25.0
ROLLOVER_MARGIN_S = 120.0
FAIL_VARIABLE = "FAIL"  # engines with this variable end with its value as the exit code

QUEUES = (0, 0, 0, 2)  # requests that wait in an engine
CACHES = (0.1, 0.2, 0.3, 0.95)  # how full an engine is, for as long as it lives

_Phase = replica.AgentPhase
_EXIT_REASONS = {
    64: replica.EndReason.BAD_SPEC,
    69: replica.EndReason.NODE_UNUSABLE,
    70: replica.EndReason.ENGINE_CRASHED,
    73: replica.EndReason.STORAGE,
    75: replica.EndReason.TEMPORARY,
    78: replica.EndReason.MISSING_ARTIFACT,
    124: replica.EndReason.STARTUP_TIMEOUT,
}
EXIT_CODES = tuple(_EXIT_REASONS)


@dataclasses.dataclass(slots=True, eq=False)
class Engine:
    """An engine that listens, or did; `proven_at` is when it first answered a generation."""

    uid: str
    job_name: str
    job_id: str
    host: str
    port: int
    node: str
    started_at: float
    proven_at: float | None = None
    gone_at: float | None = None
    is_draining: bool = False
    heard_at: float | None = None  # when a controller took in the last heartbeat, if that said "ready"
    writes_files: bool = False  # at least once it did not reach the controller
    frozen_since: float | None = None
    woken_at: float = float("-inf")


Letter = Callable[
    [desk.Desk, bool], Awaitable[None]
]  # what a file does to a desk; True: it may be of any age


class Surroundings(Protocol):
    """What an agent has around it."""

    claims: dict[str, tuple[str, int]]  # the links, by job name
    engines: list[Engine]

    @property
    def clock(self) -> Clock: ...

    def at(self, when: float, action: Callable[[], Awaitable[None] | None]) -> None:
        """Runs the action when it is time."""
        ...

    def note(self, text: str) -> None: ...

    def reach(self, node: str) -> desk.Desk | None:
        """The controller's desk as seen from a node; None when nobody answers."""
        ...

    def is_walled(self, node: str) -> bool:
        """Nothing of this node reaches the controller but files."""
        ...

    def post(self, letter: Letter) -> None:
        """Writes a file, which a controller finds some time later."""
        ...

    def config_of(self, job: VirtualJob) -> dict[str, object]:
        """The replica.json of a job."""
        ...

    def finish(self, job: VirtualJob, exit_code: int) -> None:
        """Its process ends."""
        ...

    def write_end(self, job: VirtualJob, end: replica.End) -> None:
        """exit.json."""
        ...

    def loses_message(self, node: str) -> bool:
        """This message of a node goes wrong."""
        ...


class Agent:
    """The process of one start of one job."""

    def __init__(self, around: Surroundings, job: VirtualJob, source: random.Random) -> None:
        config = around.config_of(job)
        identity = config["replica"]
        assert isinstance(identity, dict)
        engine = config["engine"]
        assert isinstance(engine, dict)
        self.uid = str(identity["uid"])
        self.job = job
        self.job_id = str(job.id)
        self.restart = job.restarts
        self.node = job.node
        self.engine: Engine | None = None
        self.phase = _Phase.STARTING
        self.is_alive = True
        self._around = around
        self._token = str(config["token"])
        self._fail_code = int(engine["env"].get(FAIL_VARIABLE, 0))
        self._source = source
        # Draws of its own: what an engine says changes nothing else that happens.
        self._engine_source = random.Random(f"{self.uid}/{self.restart}/engine")
        self._cache = self._engine_source.choice(CACHES)
        self._frozen = False
        self._holds_on = False
        self._waiting: list[Callable[[], Awaitable[None] | None]] = []
        self._end_at: float | None = None
        self._end_reason = replica.EndReason.DRAINED
        self._beat_number = 0
        self._seq = 0
        self._has_asked = False
        self._answer: tuple[str, bool] | None = None  # to the claim, by file
        self._later(source.uniform(0.1, 3.0), self._begin)

    def _later(self, delay_s: float, action: Callable[[], Awaitable[None] | None]) -> None:
        def run() -> Awaitable[None] | None:
            if not self.is_alive:
                return None
            if self._frozen:
                self._waiting.append(action)
                return None
            return action()

        self._around.at(self._around.clock.now() + delay_s, run)

    # The claim

    def _mine(self) -> tuple[str, int]:
        return (self.job_id, self.restart)

    def _begin(self) -> Awaitable[None]:
        self._around.claims.setdefault(self.job.name, self._mine())
        return self._ask(self._around.clock.now() + CONTROLLER_WAIT_S, 0.1)

    async def _ask(self, deadline_at: float, pause_s: float) -> None:
        verdict = await self._verdict() or self._answer
        if not self.is_alive:
            return
        if verdict is None and self._around.clock.now() + pause_s < deadline_at:
            self._later(pause_s, lambda: self._ask(deadline_at, min(2.0, pause_s * 2)))
            return
        if verdict == ("run", True):
            self._around.claims[self.job.name] = self._mine()
        is_mine = self._around.claims[self.job.name] == self._mine()
        if not is_mine or (verdict is not None and verdict[0] == "superseded"):
            self._around.note(f"job {self.job_id}: superseded")
            self._exit(0)
            return
        if verdict is None:
            self._around.note(f"job {self.job_id}: no controller, the link decides")
        self._load()

    async def _verdict(self) -> tuple[str, bool] | None:
        at = self._around.reach(self.node)
        if at is None and self._around.is_walled(self.node) and not self._has_asked:
            self._has_asked = True
            self._around.post(self._ask_by_file)
        if at is None or self._around.loses_message(self.node):
            return None
        return await self._claim(at)

    async def _ask_by_file(self, at: desk.Desk, _is_old: bool) -> None:
        """A claim is true at any age; the answer is a file, and read as long as somebody waits for it."""
        self._answer = await self._claim(at)

    async def _claim(self, at: desk.Desk) -> tuple[str, bool] | None:
        asked = desk.Claim(
            replica_uid=self.uid,
            job_name=self.job.name,
            job_id=self.job_id,
            restart_count=self.restart,
            holder=self._around.claims[self.job.name],
        )
        try:
            reply = await at.claim(asked, self._token)
        except desk.Refused as refused:
            return ("superseded", False) if refused.status == 409 else None
        except errors.LlmopError:
            return None
        return (str(reply["verdict"]), bool(reply["takeOver"]))

    # The engine

    def _load(self) -> None:
        now = self._around.clock.now()
        port = 10_000 + len(self._around.engines)
        self.engine = Engine(
            uid=self.uid,
            job_name=self.job.name,
            job_id=self.job_id,
            host=f"host-{self.node}",
            port=port,
            node=self.node,
            started_at=now,
        )
        self._around.engines.append(self.engine)
        self.phase = _Phase.LOADING
        self._start_beating()
        if self._fail_code:
            self._later(self._source.uniform(1, 30), lambda: self.crash(self._fail_code))
            return
        self._later(self._source.uniform(5, 120), self._prove)

    def _prove(self) -> None:
        if self.phase is not _Phase.LOADING or self.engine is None:
            return
        self.engine.proven_at = self.engine.proven_at or self._around.clock.now()
        self._show(_Phase.READY)

    def stumble(self, seconds: float) -> None:
        """The engine fails its probes for a while."""
        if self.phase is _Phase.READY:
            self._show(_Phase.UNHEALTHY)
            self._later(seconds, self._recover)

    def _recover(self) -> None:
        if self.phase is _Phase.UNHEALTHY:
            self._show(_Phase.READY)

    def crash(self, exit_code: int, *, silently: bool = False) -> None:
        """The replica ends by itself; `silently`: without a record."""
        if not self.is_alive:
            return
        reason = _EXIT_REASONS.get(exit_code, replica.EndReason.FAILED)
        if not silently:
            self._around.write_end(
                self.job, replica.End(reason=reason, at=self._around.clock.now(), exit_code=exit_code)
            )
        self._exit(exit_code)

    # Heartbeats and orders

    def _show(self, phase: _Phase) -> None:
        self.phase = phase
        self._start_beating()

    def _start_beating(self) -> None:
        """At once, and then every period."""
        self._beat_number += 1
        number = self._beat_number
        self._later(0.01, lambda: self._beat(number))

    async def _beat(self, number: int) -> None:
        if number != self._beat_number:
            return
        period_s = 5.0
        at = self._around.reach(self.node)
        if at is not None:
            period_s = at.period_s
            if not self._around.loses_message(self.node):
                await self._report(at)
        elif self._around.is_walled(self.node):
            self._write()
        if self.is_alive and number == self._beat_number:
            self._later(period_s, lambda: self._beat(number))

    def _message(self, end: replica.End | None) -> replica.Heartbeat:
        engine = self.engine
        has_endpoint = engine is not None and engine.proven_at is not None
        self._seq += 1
        return replica.Heartbeat(
            replica_uid=self.uid,
            seq=self._seq,
            job_id=self.job_id,
            restart_count=self.restart,
            phase=_Phase.ENDED if end is not None else self.phase,
            received_at=self._around.clock.now(),
            node=self.node,
            host=engine.host if engine is not None and has_endpoint else "",
            port=engine.port if engine is not None and has_endpoint else 0,
            load=self._said() if self.phase is _Phase.READY else None,
            ending=self._end_reason if end is None and self.phase is _Phase.DRAINING else None,
            end=end,
        )

    def _said(self) -> replica.EngineLoad | None:
        """What the engine says of its own load, now and then nothing."""
        if self._engine_source.random() < 0.05:
            return None
        return replica.EngineLoad(
            queue_depth=self._engine_source.choice(QUEUES),
            kv_cache_usage=self._cache,
            age_s=self._engine_source.uniform(0, 5),
        )

    def _write(self, end: replica.End | None = None) -> None:
        """A heartbeat as a file."""
        message, engine = self._message(end), self.engine
        if engine is not None:
            engine.writes_files = True

        async def arrive(at: desk.Desk, is_old: bool) -> None:
            beat = dataclasses.replace(message, received_at=self._around.clock.now(), by_file=True)
            try:
                if is_old and end is None:
                    await at.wrote(beat, self._token)
                    return
                await at.heartbeat(beat, self._token)
            except errors.LlmopError:
                return
            except desk.Refused:
                return
            if engine is not None and at.heartbeats.get(self.uid) is beat:
                engine.heard_at = self._around.clock.now() if beat.phase is _Phase.READY else None

        self._around.post(arrive)

    async def _report(self, at: desk.Desk, end: replica.End | None = None) -> None:
        engine, beat = self.engine, self._message(end)
        try:
            await at.heartbeat(beat, self._token)
            if engine is not None:
                engine.heard_at = self._around.clock.now() if self.phase is _Phase.READY else None
            orders = await at.orders(self.uid, 0)
        except desk.Refused as refused:
            if refused.status == 409 and end is None:
                self._drain(replica.EndReason.SUPERSEDED, 0.0, "superseded")
            return
        except errors.LlmopError:
            return
        for order in orders:
            self._drain(replica.EndReason.DRAINED, float(order["deadline"]), str(order["reason"]))

    def read_orders(self, told: list[dict[str, object]]) -> None:
        """The orders file is there, and USR1 came."""
        for order in told:
            self._later(
                0.0,
                lambda order=order: self._drain(  # type: ignore[misc]
                    replica.EndReason.DRAINED, float(str(order["deadline"])), str(order["reason"])
                ),
            )

    def hear(self) -> None:
        """An order was given: the open heartbeat is answered at once."""
        self._start_beating()

    # The end

    def _drain(self, reason: replica.EndReason, deadline_s: float, why: str) -> None:
        if not self.is_alive:
            return
        now = self._around.clock.now()
        # Connections end some time before the deadline, or are cut there.
        end_at = now + min(deadline_s, self._source.expovariate(1 / 30)) + self._source.uniform(0.5, 3)
        if self._end_at is not None and self._end_at <= end_at:
            return
        if self._end_at is None:
            self._around.note(f"job {self.job_id}: drains, {why}")
            self._end_reason = reason
            self._holds_on = self._source.random() < 0.05  # it drains, and reports, until it is cancelled
        self._end_at = end_at
        if self.engine is not None:
            self.engine.is_draining = True
        if self.phase is not _Phase.DRAINING:
            self._show(_Phase.DRAINING)
        self._later(end_at - now, self._finish_draining)

    def _finish_draining(self) -> Awaitable[None] | None:
        if self._holds_on or self._end_at is None or self._around.clock.now() < self._end_at - 1e-6:
            return None
        return self._say_goodbye(
            replica.End(reason=self._end_reason, at=self._around.clock.now(), exit_code=0, node=self.node)
        )

    async def _say_goodbye(self, end: replica.End) -> None:
        self._around.write_end(self.job, end)
        if self.engine is not None:
            self.engine.gone_at = self._around.clock.now()
        at = self._around.reach(self.node)
        if at is not None and not self._around.loses_message(self.node):
            await self._report(at, end)
        elif at is None and self._around.is_walled(self.node):
            self._write(end)
        self._exit(0)

    def _exit(self, code: int) -> None:
        self._around.finish(self.job, code)

    # What Slurm does to it

    def signal(self, signal: Signal) -> None:
        now = self._around.clock.now()
        if signal is Signal.STOP:
            self._frozen = True
            if self.engine is not None:
                self.engine.frozen_since = now
        elif signal is Signal.CONT:
            self._frozen = False
            if self.engine is not None:
                self.engine.frozen_since, self.engine.woken_at = None, now
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                self._later(self._source.uniform(0, 0.5), action)
        elif signal is Signal.TERM:
            if self._source.random() < 0.2:
                return  # it stands still and is killed
            self._later(0.0, lambda: self._drain(replica.EndReason.TERMINATED, TERM_BUDGET_S - 5, "TERM"))
        elif signal is Signal.USR1:
            ends_at = self.job.ends_at
            left_s = 120.0 if ends_at is None else max(0.0, ends_at - ROLLOVER_MARGIN_S - now)
            self._later(0.0, lambda: self._drain(replica.EndReason.DRAINED, left_s, "the job's end is near"))

    def gone(self) -> None:
        """The process is no more."""
        self.is_alive = False
        if self.engine is not None and self.engine.gone_at is None:
            self.engine.gone_at = self._around.clock.now()
