"""The loops that send: one cell after the other against one address, in one thread."""

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import math
from array import array
from collections.abc import Callable, Coroutine, Iterator, Sequence
from time import monotonic, process_time

from llmop.cli.bench import loads, measures
from llmop.cli.bench.dialects import Dialect
from llmop.cli.bench.prompts import Prompts
from llmop.cli.bench.wire import Exchange, Pool, Tally

_TICK_S = 0.02
_AFTER_ERROR_S = 0.1  # a stream of a closed loop rests so long: a server that refuses is not asked a thousand times a second
_SHOWN_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Seconds of warm-up and of the window; a closed loop ends sooner after `requests` (0 = none). `most_open` bounds open loops.

    `path_of` gives the path for a model; `dialect`, `ignore_eos` and `seed` shape requests.
    """

    dialect: Dialect
    path_of: Callable[[str], str]
    warm_up_s: float
    seconds: float
    requests: int
    most_open: int
    ignore_eos: bool
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How a cell is getting on; `left_s` until nothing more is sent, None where a trace decides."""

    done: int
    failed: int
    open: int
    left_s: float | None


class _Run:
    """One cell under way."""

    def __init__(self, pool: Pool, settings: Settings, cell: loads.Cell, prompts: Prompts) -> None:
        self.samples: list[measures.Sample] = []
        self.begins_at = monotonic()
        is_trace = cell.mode is loads.Mode.TRACE
        self.opens_at = self.begins_at + (0.0 if is_trace else settings.warm_up_s)
        self.sends_until = self.opens_at + settings.seconds
        self.tally = Tally(self.opens_at, math.inf if is_trace else self.sends_until)
        self.open = self.most_open = self.held_back = 0
        self.lags = array("d")
        self.cpu: list[tuple[float, float]] = []  # (when, CPU seconds of this process)
        self._pool = pool
        self._settings = settings
        self._cell = cell
        self._path = settings.path_of(cell.model)
        self._prompts = prompts
        self._connections = pool.opened
        self._slots = asyncio.Semaphore(settings.most_open)
        self._loop = asyncio.get_running_loop()

    # Sending

    async def closed(self) -> None:
        """So many streams; they begin spread over the warm-up, because those that begin together go in step."""
        count = int(self._cell.level)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                begin = self.begins_at + (self.opens_at - self.begins_at) * number / count
                group.create_task(self._stream(begin))

    async def _stream(self, begins_at: float) -> None:
        assert self._cell.lengths is not None
        await _until(begins_at)
        while not self._is_enough(now := monotonic()):
            sample = await self._ask(now, self._cell.lengths)
            if sample.error:
                await asyncio.sleep(_AFTER_ERROR_S)

    def _is_enough(self, now: float) -> bool:
        most = self._settings.requests
        return now >= self.sends_until or (most > 0 and len(self.samples) >= most)

    async def open_loop(self, arrivals: Iterator[loads.Arrival]) -> None:
        """Each when it is due. Where too many are open the next ones wait, and their time runs."""
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                due_at = self.begins_at + arrival.at
                await _until(due_at)
                if self._slots.locked():
                    self.held_back += 1
                await self._slots.acquire()
                group.create_task(self._arrived(due_at, arrival.lengths))

    async def _arrived(self, due_at: float, lengths: loads.Lengths) -> None:
        try:
            await self._ask(due_at, lengths)
        finally:
            self._slots.release()

    async def _ask(self, due_at: float, lengths: loads.Lengths) -> measures.Sample:
        sample = measures.Sample(due_at=due_at)
        counts = due_at >= self.opens_at
        if counts:
            self.samples.append(sample)
        settings = self._settings
        body = settings.dialect.body(
            self._cell.model, self._prompts.make(lengths.prompt), lengths, settings.ignore_eos
        )
        exchange = Exchange(self._loop, sample, self.tally, settings.dialect.hear, counts=counts)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._pool.ask(self._pool.request(self._path, body), exchange, sample)
        finally:
            self.open -= 1
        return sample

    # The client itself

    async def watch_itself(self) -> None:
        """How late its timers are, and its CPU time, within the window."""
        await _until(self.opens_at)
        self.cpu.append((monotonic(), process_time()))
        while monotonic() < self.tally.closes_at:
            due = monotonic() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.lags.append(monotonic() - due)
        self.cpu.append((monotonic(), process_time()))

    def client(self) -> measures.Client:
        if len(self.cpu) == 1:
            self.cpu.append((monotonic(), process_time()))
        (began, used), (ended, used_then) = self.cpu or [(0.0, 0.0), (0.0, 0.0)]
        return measures.Client(
            cpu_share=(used_then - used) / (ended - began) if ended > began else 0.0,
            lag_s=measures.percentile(sorted(self.lags), 99) if self.lags else 0.0,
            connections=self._pool.opened - self._connections,
            held_back=self.held_back,
            most_open=self.most_open,
        )

    def progress(self) -> Progress:
        failed = sum(bool(each.error) for each in self.samples)
        done = sum(each.ended_at > 0 for each in self.samples)
        left = None if math.isinf(self.sends_until) else max(0.0, self.sends_until - monotonic())
        return Progress(done=done - failed, failed=failed, open=self.open, left_s=left)

    def figures(self, *, is_interrupted: bool, notes: Sequence[str]) -> measures.Figures | None:
        """None when the window had not begun, or nothing has come in it."""
        finished = [each for each in self.samples if each.ended_at]
        ends_at = min(self.tally.closes_at, max((each.ended_at for each in finished), default=0.0))
        if is_interrupted:
            ends_at = min(self.tally.closes_at, monotonic())
        elif not self._settings.requests:
            ends_at = max(ends_at, self.tally.closes_at) if math.isfinite(self.tally.closes_at) else ends_at
        if ends_at <= self.opens_at or not finished:
            return None
        return measures.figures(
            self._cell,
            finished,
            self.tally.gaps,
            seconds=ends_at - self.opens_at,
            pieces=self.tally.pieces,
            answers=self.tally.answers,
            client=self.client(),
            is_interrupted=is_interrupted,
            notes=notes,
        )


async def run(
    pool: Pool,
    settings: Settings,
    cell: loads.Cell,
    *,
    trace: Sequence[loads.Arrival] = (),
    notes: Sequence[str] = (),
    interrupted: asyncio.Event,
    show: Callable[[Progress], None],
) -> measures.Figures | None:
    """Measures one cell; what came so far when `interrupted` is set. None when nothing came.

    `show` is called every second; it must not take long.
    """
    # A look for cycles among a million objects takes longer than what is measured.
    gc.collect()
    gc.freeze()
    gc.disable()
    longest = cell.lengths.prompt if cell.lengths else max(each.lengths.prompt for each in trace)
    # A cell of its own seed, so that no cache answers for what an earlier one has asked.
    this = _Run(pool, settings, cell, Prompts(f"{settings.seed}/{cell.model}/{cell.words}", longest))
    work = asyncio.ensure_future(_work(this, settings, cell, trace))
    own = asyncio.ensure_future(this.watch_itself())
    stop = asyncio.ensure_future(interrupted.wait())
    try:
        while not work.done() and not stop.done():
            await asyncio.wait({work, stop}, timeout=_SHOWN_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            show(this.progress())
        is_interrupted = not work.done()
        if not is_interrupted:
            work.result()
        return this.figures(is_interrupted=is_interrupted, notes=notes)
    finally:
        for task in (work, own, stop):
            task.cancel()
        for task in (work, own, stop):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        gc.enable()
        gc.unfreeze()


def _work(
    this: _Run, settings: Settings, cell: loads.Cell, trace: Sequence[loads.Arrival]
) -> Coroutine[None, None, None]:
    if cell.mode is loads.Mode.CLOSED:
        return this.closed()
    if cell.mode is loads.Mode.TRACE:
        return this.open_loop(iter(trace))
    arrivals = loads.arrivals(cell, settings.warm_up_s + settings.seconds, settings.seed)
    return this.open_loop(itertools.islice(arrivals, loads.MOST_ARRIVALS))


async def probe(pool: Pool, settings: Settings, model: str) -> measures.Sample:
    """One short request, to see whether there is anything to measure. It also warms up the model."""
    lengths = loads.Lengths(prompt=4, output=2)
    sample = measures.Sample(due_at=monotonic())
    body = settings.dialect.body(model, Prompts(f"{settings.seed}/probe", 4).make(4), lengths, False)
    tally = Tally(math.inf, math.inf)
    exchange = Exchange(asyncio.get_running_loop(), sample, tally, settings.dialect.hear, counts=False)
    await pool.ask(pool.request(settings.path_of(model), body), exchange, sample)
    return sample


async def _until(at: float) -> None:
    """Not early; timers are good to a millisecond."""
    await asyncio.sleep(max(0.0, at - monotonic()))
    while at > monotonic():  # noqa: ASYNC110  (uvloop's timers come up to half a millisecond early)
        await asyncio.sleep(0)
