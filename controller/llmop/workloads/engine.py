"""What runs batches. Everything it knows is in the database and on the shelf; it may be killed at any moment, and goes on."""

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import Coroutine
from typing import Any, BinaryIO

import orjson

from llmop.clock import Clock
from llmop.domain import os_errors
from llmop.workloads import batch as batches
from llmop.workloads import intake, outcome
from llmop.workloads.answers import Answer, answered, unanswered
from llmop.workloads.batch import Batch, Problem, Status, Step, next_step
from llmop.workloads.budget import Budget
from llmop.workloads.calls import Caller
from llmop.workloads.database import Database, Place, Result
from llmop.workloads.gate import Gate, Turn
from llmop.workloads.judgement import Again, GiveUp, Keep, Outcome, judge, owner_is_gone, refused_us
from llmop.workloads.recorder import Recorder
from llmop.workloads.shelf import Shelf

LOG = logging.getLogger(__name__)

_LOOK_S = 1.0  # at least so often is looked whether a batch's time is over
_AGAIN_S = 5.0
_TIDY_S = 60.0
_MOST_BATCHES = 64  # that are run at once; more of them get nothing done sooner
_PAGE = 64  # rows that are read from the database at once
_KEY_AGAIN_S = 10.0  # the gateway reads its keys once a second
_OWNER_AGAIN_S = 5.0
_OWNER_GONE_S = 60.0  # a gateway that has just begun may not have heard yet of a new key
NO_KEY = "the gateway does not take the key of llmop workloads"
NO_OWNER = "the key that the batch was made with was deleted or has expired"

Way = tuple[str, str]  # owner and model: what one owner may not ask for at the moment holds up nobody else


class CannotGoOn(Exception):
    """The batch has to end here."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _file_gone(why: str) -> CannotGoOn:
    """The content of an input file is not there any more, or not as it was."""
    return CannotGoOn("input_file_gone", f"the input file cannot be read any more: {why}")


class Engine:
    def __init__(
        self, database: Database, shelf: Shelf, caller: Caller, clock: Clock, most: int, keep_s: float
    ) -> None:
        """`most` requests at once go to a model for one owner; a batch that has ended is kept for `keep_s` seconds."""
        self._database = database
        self._shelf = shelf
        self._caller = caller
        self._clock = clock
        self._most = most
        self._keep_s = keep_s
        self._recorder = Recorder(database)
        self._budget = Budget()
        self._gates: dict[Way, Gate] = {}
        self._news = asyncio.Event()
        self._tidy_due = asyncio.Event()
        self._changed: dict[int, asyncio.Event] = {}  # of the batches that are being seen to
        self._problems: dict[int, str] = {}
        self._ways: dict[int, list[Way]] = {}
        # Owners that the gateway does not know, in seconds of the loop
        self._gone_since: dict[str, float] = {}

    def wake(self) -> None:
        """A batch was made or changed."""
        self._news.set()
        for changed in self._changed.values():
            changed.set()

    def tidy_soon(self) -> None:
        """A file was deleted."""
        self._tidy_due.set()

    def waiting(self, batch: Batch) -> str:
        """Why nothing goes on with a batch at the moment, in words that stay the same as long as the reason does."""
        gates = [self._gates[way] for way in self._ways.get(batch.number, ()) if way in self._gates]
        held_up = gates[0].waiting if gates and all(gate.waiting for gate in gates) else ""
        return self._problems.get(batch.number, "") or self._recorder.waiting or held_up

    async def clear_up(self) -> None:
        """Removes contents that an earlier process was killed over. To be called before anything else is done here. Raises OSError,
        sqlite3.Error; it writes nothing, so that a full disk is no reason not to start.
        """
        self._shelf.remove(set(self._shelf.names()) - await self._database.contents())

    async def _sweep(self, number: int) -> None:
        while await self._database.sweep(number):
            pass

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self._tidy_again_and_again())
            while True:
                self._news.clear()
                for number, is_ending in await self._unfinished():
                    has_room = is_ending or len(self._changed) < _MOST_BATCHES
                    if has_room and number not in self._changed:
                        self._changed[number] = asyncio.Event()
                        group.create_task(self._see_to(number))
                await self._news.wait()

    async def _unfinished(self) -> list[tuple[int, bool]]:
        while True:
            try:
                return await self._database.unfinished()
            except sqlite3.Error as error:
                LOG.error("batches cannot be read: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _see_to(self, number: int) -> None:
        """Takes a batch to its end. Whatever stands in the way (a full disk, say) is tried again, and is no other batch's trouble."""
        try:
            while True:
                words = ""
                try:
                    if await self._go_on(number):
                        return
                except* (OSError, sqlite3.Error) as errors:
                    error = _first(errors)
                    words = os_errors.sentence(error) if isinstance(error, OSError) else str(error)
                    if self._problems.get(number) != words:
                        LOG.error("batch %d does not go on: %s", number, words)
                except* Exception as errors:  # a fault of ours
                    words = f"a fault of llmop: {_first(errors)!r}"
                    if self._problems.get(number) != words:
                        LOG.exception("batch %d does not go on", number)
                self._problems[number] = words
                if words:
                    await asyncio.sleep(_AGAIN_S)
        finally:
            self._forget(number)
            self._news.set()

    def _forget(self, number: int) -> None:
        self._changed.pop(number, None)
        self._problems.pop(number, None)
        self._ways.pop(number, None)
        used = {way for ways in self._ways.values() for way in ways}
        for way in self._gates.keys() - used:
            del self._gates[way]
        for owner in self._gone_since.keys() - {owner for owner, _ in used}:
            del self._gone_since[owner]

    async def _go_on(self, number: int) -> bool:
        """One step of a batch; whether it has ended."""
        self._changed[number].clear()
        batch = await self._database.batch_numbered(number)
        now = self._clock.now()
        match next_step(batch, now):
            case Step.VALIDATE:
                await self._validate(batch)
            case Step.EXECUTE:
                try:
                    await self._until_changed(batch, self._execute(batch))
                except* CannotGoOn as errors:
                    error = _first(errors)
                    assert isinstance(error, CannotGoOn)
                    await self._begin_end(batch, Status.FAILED, Problem(code=error.code, message=str(error)))
            case Step.EXPIRE:
                await self._begin_end(batch, Status.EXPIRED)
            case Step.FINISH:
                await self._begin_end(batch, Status.COMPLETED)
            case Step.WRITE:
                files, completed, failed = await outcome.write(
                    batch, self._database, self._shelf, now, self._keep_s
                )
                await self._database.end(batches.end(batch, completed, failed, self._clock.now()), files)
            case Step.NOTHING:
                await self._sweep(number)
                return True
        return False

    async def _validate(self, batch: Batch) -> None:
        try:
            found = await intake.read(batch, self._database, self._shelf)
            problems = found.shown
        except FileNotFoundError:
            problems = (Problem(code="input_file_gone", message="the input file is not there any more"),)
        now = self._clock.now()

        def change(as_it_is: Batch) -> Batch | None:
            if as_it_is.status is not Status.VALIDATING:  # cancelled meanwhile
                return None
            if problems:
                return batches.reject(as_it_is, problems, now)
            return batches.begin(as_it_is, found.total, now)

        await self._database.move(batch.number, change)

    async def _begin_end(self, batch: Batch, ending: Status, problem: Problem | None = None) -> None:
        names, now = new_files(self._clock), self._clock.now()

        def change(as_it_is: Batch) -> Batch | None:
            if as_it_is.status is not Status.IN_PROGRESS:
                return None
            return batches.begin_end(as_it_is, ending, names, now, problem)

        await self._database.move(batch.number, change)

    async def _until_changed(self, batch: Batch, work: Coroutine[Any, Any, None]) -> None:
        """Does the work, or gives it up when the batch was changed or its time is over."""
        changed = self._changed[batch.number]
        task = asyncio.create_task(work)
        waiter = asyncio.create_task(changed.wait())
        try:
            while not task.done() and next_step(batch, self._clock.now()) is Step.EXECUTE:
                left = max(0.0, batch.expires_at - self._clock.now())
                await asyncio.wait(
                    [task, waiter], timeout=min(_LOOK_S, left), return_when=asyncio.FIRST_COMPLETED
                )
                if changed.is_set() and not task.done():
                    changed.clear()
                    waiter = asyncio.create_task(changed.wait())
                    batch = await self._database.batch_numbered(batch.number)
            if task.done():
                await task
        finally:
            for each in (task, waiter):
                each.cancel()
            await asyncio.gather(task, waiter, return_exceptions=True)

    # Rows

    async def _execute(self, batch: Batch) -> None:
        """Until every row is recorded."""
        try:
            file = self._shelf.open(batch.input_file)
        except FileNotFoundError as error:
            raise _file_gone("it is not there") from error
        with file:
            models = await self._database.models(batch.number)
            self._ways[batch.number] = [(batch.owner, model) for model in models]
            async with asyncio.TaskGroup() as group:
                for model in models:
                    group.create_task(self._execute_rows(batch, model, file))

    async def _execute_rows(self, batch: Batch, model: str, file: BinaryIO) -> None:
        """All rows for one model. One that waits for its turn takes no memory for what it asks."""
        gate = self._gates.setdefault((batch.owner, model), Gate(self._most))
        room = asyncio.Semaphore(self._most)
        after = 0
        async with asyncio.TaskGroup() as group:
            while places := await self._database.open_rows(batch.number, model, after, _PAGE):
                after = places[-1].line
                for place in places:
                    await room.acquire()
                    turn = await gate.enter()
                    row = group.create_task(self._execute_row(batch, place, file, gate, turn))
                    # One that is cancelled before it has begun does not come to leave by itself.
                    row.add_done_callback(functools.partial(_left, room, gate, turn))

    async def _execute_row(self, batch: Batch, place: Place, file: BinaryIO, gate: Gate, turn: Turn) -> None:
        name = outcome.row_name(batch, place.line)
        failures = 0
        while isinstance(verdict := await self._attempt(batch, place, file, gate, turn, failures), Again):
            if not verdict.slow:
                failures += 1
                await asyncio.sleep(verdict.after_s)
            turn = await gate.enter(first=True)
        if isinstance(verdict, Keep):
            failed = not 200 <= verdict.answer.status < 300
            content = answered(name, place.custom_id, verdict.answer)
        else:
            failed = True
            content = unanswered(name, place.custom_id, verdict.code, verdict.message)
        await self._recorder.record(Result(batch.number, place.line, failed, content))

    async def _attempt(
        self, batch: Batch, place: Place, file: BinaryIO, gate: Gate, turn: Turn, failures: int
    ) -> Keep | GiveUp | Again:
        """Inside the gate, which is left. Raises CannotGoOn."""
        try:
            async with self._budget.of(place.length):
                found = await self._caller.ask(batch.endpoint, _body(file, place), owner=batch.owner)
            verdict = self._judge(batch.owner, found, failures)
        except BaseException:
            gate.leave(turn)
            raise
        if isinstance(verdict, Again) and verdict.slow:
            gate.leave_refused(turn, verdict.after_s, verdict.why)
        elif isinstance(verdict, Keep) and verdict.answer.status < 500:
            gate.leave_well(turn)
        else:
            gate.leave(turn)
        return verdict

    def _judge(self, owner: str, found: Outcome, failures: int) -> Keep | GiveUp | Again:
        """Raises CannotGoOn where the owner is gone, and not only for a moment."""
        if owner_is_gone(found):
            now = asyncio.get_running_loop().time()
            if now - self._gone_since.setdefault(owner, now) >= _OWNER_GONE_S:
                raise CannotGoOn("owner_gone", NO_OWNER)
            return Again(_OWNER_AGAIN_S, True, NO_OWNER)
        if refused_us(found):
            return Again(_KEY_AGAIN_S, True, NO_KEY)
        if isinstance(found, Answer) and found.status not in (429, 503):
            self._gone_since.pop(owner, None)
        return judge(found, failures)

    # What nobody needs

    async def tidy(self) -> None:
        """Removes batches that ended long ago, and contents whose file was deleted or has expired, as soon as no batch reads them. In small
        steps, between which others come to the database.
        """
        now = self._clock.now()
        before = now - self._keep_s
        while await self._database.forget_batches(before):
            pass
        while gone := await self._database.forget_files(now, before):
            await asyncio.to_thread(self._shelf.remove, gone)

    async def _tidy_again_and_again(self) -> None:
        left_over: list[int] | None = None  # batches whose rows an earlier process was killed over
        while True:
            try:
                if left_over is None:
                    left_over = await self._database.unswept()
                while left_over:
                    await self._sweep(left_over[-1])
                    left_over.pop()
                await self.tidy()
            except (OSError, sqlite3.Error) as error:
                LOG.error("what nobody needs could not be removed: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIDY_S):
                    await self._tidy_due.wait()
            self._tidy_due.clear()


def new_files(clock: Clock) -> tuple[str, str]:
    """Names for an output file and an error file."""
    return file_name(clock), file_name(clock)


def file_name(clock: Clock) -> str:
    return f"file-{clock.suffix(24)}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _left(room: asyncio.Semaphore, gate: Gate, turn: Turn, _: asyncio.Task[None]) -> None:
    gate.leave(turn)
    room.release()


def _body(file: BinaryIO, place: Place) -> dict[str, Any]:
    """What the row on this line asks for. Raises CannotGoOn."""
    file.seek(place.start)
    try:
        value = orjson.loads(file.read(place.length))
        if value["custom_id"] != place.custom_id:
            raise _file_gone(f"line {place.line} is not what it was")
        body: dict[str, Any] = value["body"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise _file_gone(f"line {place.line} is not what it was") from error
    return body
