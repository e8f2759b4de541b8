"""Batches from their files to their results, with a real database and a gateway made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.workloads.workloads_rig import (
    FakeGateway,
    Killer,
    Life,
    StandingClock,
    jsonl,
    row,
    says,
)

from llmop.workloads.answers import Answer
from llmop.workloads.batch import Status, describe
from llmop.workloads.database import Place, Result
from llmop.workloads.engine import NO_KEY
from llmop.workloads.judgement import MOST_ATTEMPTS, Broken, Outcome, Unreachable
from llmop.workloads.shelf import Draft


class Lives:
    """Starts them on one folder, and ends what a test leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Life] = []

    async def begin(
        self, gateway: FakeGateway | None = None, clock: StandingClock | None = None, most: int = 8
    ) -> Life:
        life = Life(self._folder, gateway or FakeGateway(), clock, most=most)
        self._made.append(life)
        await life.begin()
        return life

    async def finish(self) -> None:
        for life in self._made:
            await life.finish()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmop.workloads.judgement._BACKOFF_S", 0.01)
    monkeypatch.setattr("llmop.workloads.judgement._UNREACHABLE_S", 0.05)
    monkeypatch.setattr("llmop.workloads.engine._KEY_AGAIN_S", 0.05)


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[Lives]:
    made = Lives(tmp_path)
    yield made
    await made.finish()


async def test_every_row_is_asked_once_and_answered_in_the_order_of_the_file(lives: Lives) -> None:
    life = await lives.begin()
    batch = await life.until_ended((await life.batch(jsonl(map(row, range(300))))).number)
    assert (Status.COMPLETED, 300, 300, 0) == (batch.status, batch.total, batch.completed, batch.failed)
    lines = life.lines(batch.output_file)
    assert [f"c{number}" for number in range(300)] == [line["custom_id"] for line in lines]
    assert {"status_code": 200, "request_id": "id-p7", "body": {"echo": "p7"}} == lines[7]["response"]
    assert len({line["id"] for line in lines}) == 300
    assert {1} == set(life.gateway.asked.values())
    assert "" == batch.error_file
    async with asyncio.timeout(10):
        while await life.database.sweep(batch.number):  # what the engine does at the end, and this helps it
            pass
    await life.finish()
    with contextlib.closing(sqlite3.connect(life.folder / "workloads.db")) as database:
        assert [(0,)] == database.execute("SELECT count(*) FROM rows, results").fetchall()
        assert [(0,)] == database.execute("PRAGMA freelist_count").fetchall()
    assert b"p299" not in (life.folder / "workloads.db").read_bytes()
    assert 4 <= life.gateway.most <= 8


async def test_what_the_gateway_refuses_is_a_result_and_stands_in_the_error_file(lives: Lives) -> None:
    async def answer(prompt: str) -> Outcome:
        return says(prompt, 404 if prompt in ("p1", "p3") else 200)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.until_ended((await life.batch(jsonl(map(row, range(5))))).number)
    assert (Status.COMPLETED, 3, 2) == (batch.status, batch.completed, batch.failed)
    assert ["c0", "c2", "c4"] == [line["custom_id"] for line in life.lines(batch.output_file)]
    errors = life.lines(batch.error_file)
    assert [("c1", 404), ("c3", 404)] == [
        (line["custom_id"], line["response"]["status_code"]) for line in errors
    ]
    assert {1} == set(life.gateway.asked.values())


@pytest.mark.parametrize("busy", [Answer(429, b"", "", 0.01), Answer(503, b"", "", 0.01)])
async def test_a_gateway_that_is_full_is_asked_again_and_fewer_at_once(lives: Lives, busy: Answer) -> None:
    capacity = 2

    async def answer(prompt: str) -> Outcome:
        if gateway.under_way > capacity:
            return busy
        await asyncio.sleep(0.001)
        return says(prompt)

    gateway = FakeGateway(answer)
    life = await lives.begin(gateway, most=64)
    batch = await life.until_ended((await life.batch(jsonl(map(row, range(100))))).number)
    assert (100, 0) == (batch.completed, batch.failed)
    assert gateway.most < 16
    assert sum(gateway.asked.values()) < 300


async def test_why_nothing_goes_on_is_said_in_the_gateways_words(lives: Lives) -> None:
    message = b'{"error":{"message":"no replica of the model is ready"}}'
    down = True

    async def answer(prompt: str) -> Outcome:
        return Answer(503, message, "", 0.01) if down else says(prompt)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(3))))
    await life.until(batch.number, lambda found: bool(life.engine.waiting(found)))
    assert "no replica of the model is ready" == life.engine.waiting(batch)
    down = False
    assert 3 == (await life.until_ended(batch.number)).completed
    assert "" == life.engine.waiting(batch)


async def test_a_gateway_that_is_away_or_takes_no_key_costs_no_row_its_answer(lives: Lives) -> None:
    troubles: list[Outcome] = [Unreachable("refused"), Answer(401, b"", "", None)]

    async def answer(prompt: str) -> Outcome:
        return troubles.pop() if troubles else says(prompt)

    life = await lives.begin(FakeGateway(answer), most=1)
    batch = await life.batch(jsonl([row(1)]))
    await life.until(batch.number, lambda found: life.engine.waiting(found) == NO_KEY)
    await life.until(batch.number, lambda found: "refused" in life.engine.waiting(found))
    assert 1 == (await life.until_ended(batch.number)).completed


async def test_a_row_that_breaks_every_replica_ends_and_the_others_are_answered(lives: Lives) -> None:
    async def answer(prompt: str) -> Outcome:
        return Broken("connection reset") if prompt == "p1" else says(prompt)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(3))))
    ended = await life.until(batch.number, lambda found: found.status is Status.COMPLETED, seconds=60)
    assert (2, 1) == (ended.completed, ended.failed)
    assert MOST_ATTEMPTS == life.gateway.asked["p1"]
    (error,) = life.lines(ended.error_file)
    assert "request_failed" == error["error"]["code"]
    assert error["response"] is None


async def test_a_bad_file_fails_with_everything_that_is_wrong_and_runs_nothing(lives: Lives) -> None:
    life = await lives.begin()
    good = jsonl([row(0)])
    bad = [
        b"{broken\n",
        jsonl([row(2, url="/v1/embeddings")]),
        jsonl([row(0)]),
        jsonl([row(4, custom_id=7)]),
        b'{"custom_id":"' + b"x" * (5 * 1024 * 1024) + b'"}\n',
        b"\n",
        jsonl([row(6, body={"model": "m", "stream": True, "messages": []})]),
        b"[1]",
    ]
    batch = await life.until_ended((await life.batch(good + b"".join(bad))).number)
    assert Status.FAILED == batch.status
    found = [(problem.line, problem.code) for problem in batch.problems]
    assert [
        (2, "invalid_json_line"),
        (3, "mismatched_url"),
        (4, "duplicate_custom_id"),
        (5, "invalid_custom_id"),
        (6, "line_too_long"),
        (8, "unsupported_parameter"),
        (9, "invalid_json_line"),
    ] == found
    assert "stands on line 1" in batch.problems[2].message
    assert not life.gateway.asked
    empty = await life.until_ended((await life.batch(b"\n")).number)
    assert ["empty_file"] == [problem.code for problem in empty.problems]


async def test_a_cancelled_batch_keeps_what_it_has_and_names_the_rest(lives: Lives) -> None:
    forever = asyncio.Event()

    async def answer(prompt: str) -> Outcome:
        if int(prompt[1:]) >= 5:
            await forever.wait()
        return says(prompt)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(50))))
    await life.until(batch.number, lambda found: found.completed == 5)
    await life.cancel(batch)
    ended = await life.until_ended(batch.number)
    assert (Status.CANCELLED, 50, 5, 45) == (ended.status, ended.total, ended.completed, ended.failed)
    answered = [line["custom_id"] for line in life.lines(ended.output_file)]
    left = life.lines(ended.error_file)
    assert {"batch_cancelled"} == {line["error"]["code"] for line in left}
    assert sorted(f"c{number}" for number in range(50)) == sorted(
        answered + [line["custom_id"] for line in left]
    )
    assert 0 == life.gateway.under_way
    late = Result(batch.number, 40, False, b"{}")
    await life.database.record([late])
    assert [] == await life.database.results(batch.number, failed=False, after=0, limit=10)


async def test_cancelled_batches_take_no_places_away_from_the_others(lives: Lives) -> None:
    """A row may be cancelled at any moment, also before its task has begun."""
    stays = asyncio.Event()

    async def answer(prompt: str) -> Outcome:
        await (stays.wait() if prompt == "pstays" else asyncio.sleep(0.0005))
        return says(prompt)

    life = await lives.begin(FakeGateway(answer), most=4)
    staying = await life.batch(jsonl([row("stays")]))
    await life.until(staying.number, lambda _: life.gateway.asked["pstays"] == 1)
    for number in range(30):
        batch = await life.batch(jsonl(row(f"{number}-{each}") for each in range(60)))
        await life.until(batch.number, lambda found: found.completed > number)  # noqa: B023
        await life.cancel(batch)
        await life.until_ended(batch.number)
    last = await life.until_ended((await life.batch(jsonl(map(row, range(50))))).number)
    assert 50 == last.completed
    stays.set()
    assert 1 == (await life.until_ended(staying.number)).completed


async def test_a_batch_whose_time_is_over_expires_with_what_it_has(lives: Lives) -> None:
    async def answer(prompt: str) -> Outcome:
        if prompt != "p0":
            await asyncio.Event().wait()
        return says(prompt)

    clock = StandingClock()
    life = await lives.begin(FakeGateway(answer), clock)
    batch = await life.batch(jsonl(map(row, range(20))), window="1h")
    await life.until(batch.number, lambda found: found.completed == 1)
    clock.time += 3601
    life.engine.wake()
    ended = await life.until_ended(batch.number)
    assert (Status.EXPIRED, 1, 19) == (ended.status, ended.completed, ended.failed)
    assert {"batch_expired"} == {line["error"]["code"] for line in life.lines(ended.error_file)}


async def test_a_file_that_is_deleted_is_read_to_the_end_and_then_gone(lives: Lives) -> None:
    go = asyncio.Event()

    async def answer(prompt: str) -> Outcome:
        await go.wait()
        return says(prompt)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(30))))
    await life.until(batch.number, lambda found: found.status is Status.IN_PROGRESS)
    assert await life.database.delete_file(batch.owner, batch.input_file)
    assert await life.database.file(batch.owner, batch.input_file) is None
    await life.engine.tidy()
    assert life.shelf.path(batch.input_file).exists()
    go.set()
    assert 30 == (await life.until_ended(batch.number)).completed
    await life.engine.tidy()
    assert not life.shelf.path(batch.input_file).exists()


async def test_a_file_that_is_deleted_counts_as_long_as_a_batch_reads_it(lives: Lives) -> None:
    """Else a key keeps what it likes on the disk: upload, begin a batch, delete, and again."""
    go = asyncio.Event()

    async def answer(prompt: str) -> Outcome:
        await go.wait()
        return says(prompt)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(30))))
    before = await life.database.usage(batch.owner)
    assert before.files == 1
    assert await life.database.delete_file(batch.owner, batch.input_file)
    assert await life.database.usage(batch.owner) == before
    go.set()
    ended = await life.until_ended(batch.number)
    assert ended.output_file is not None
    assert await life.database.usage(batch.owner) == (0, life.shelf.path(ended.output_file).stat().st_size)


async def test_a_content_that_somebody_took_away_ends_the_batch_in_words(lives: Lives) -> None:
    async def answer(prompt: str) -> Outcome:
        return Answer(503, b"", "", 0.01)

    life = await lives.begin(FakeGateway(answer))
    batch = await life.batch(jsonl(map(row, range(3))))
    await life.until(batch.number, lambda found: life.gateway.asked.total() > 3)
    await life.finish()
    life.shelf.path(batch.input_file).unlink()
    again = await lives.begin()
    ended = await again.until_ended(batch.number)
    assert (Status.FAILED, ["input_file_gone"]) == (ended.status, [each.code for each in ended.problems])
    assert ["batch_failed"] * 3 == [line["error"]["code"] for line in again.lines(ended.error_file)]


async def test_one_model_that_is_down_holds_up_no_other(lives: Lives) -> None:
    async def answer(prompt: str) -> Outcome:
        return Answer(503, b"", "", 60.0) if prompt.startswith("pdown") else says(prompt)

    life = await lives.begin(FakeGateway(answer))
    down = [row(f"down{number}") for number in range(20)]
    for each in down:
        each["body"]["model"] = "other"
    batch = await life.batch(jsonl([*down, *map(row, range(50))]))
    found = await life.until(batch.number, lambda found: found.completed == 50)
    assert Status.IN_PROGRESS == found.status


async def test_a_full_disk_is_waited_for_and_nothing_is_asked_twice(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await lives.begin()
    record = life.database.record
    full = 3

    async def fails(results: list[Result]) -> None:
        nonlocal full
        if full:
            full -= 1
            raise sqlite3.OperationalError("database or disk is full")
        await record(results)

    monkeypatch.setattr("llmop.workloads.recorder._AGAIN_S", 0.01)
    monkeypatch.setattr(life.database, "record", fails)
    batch = await life.batch(jsonl(map(row, range(40))))
    ended = await life.until_ended(batch.number)
    assert (40, 0) == (ended.completed, full)
    assert {1} == set(life.gateway.asked.values())


async def test_a_full_disk_at_the_end_is_said_and_waited_for(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await lives.begin()
    draft = life.shelf.draft
    is_full = True

    def full(name: str) -> Draft:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device", str(life.shelf.path(name)))
        return draft(name)

    monkeypatch.setattr("llmop.workloads.engine._AGAIN_S", 0.01)
    batch = await life.batch(jsonl(map(row, range(4))))
    monkeypatch.setattr(life.shelf, "draft", full)
    await life.until(batch.number, lambda found: "make room on its disk" in life.engine.waiting(found))
    shown = describe(await life.database.batch_numbered(batch.number), "x")
    assert ("finalizing", None) == (shown["status"], shown["output_file_id"])
    is_full = False
    ended = await life.until_ended(batch.number)
    assert (Status.COMPLETED, 4) == (ended.status, len(life.lines(ended.output_file)))
    assert {1} == set(life.gateway.asked.values())


async def test_a_batch_that_is_cancelled_while_its_file_is_read_has_nothing(lives: Lives) -> None:
    life = await lives.begin()
    reading, go_on = asyncio.Event(), asyncio.Event()
    add_rows = life.database.add_rows

    async def slow(number: int, places: list[Place]) -> list[tuple[Place, int]]:
        reading.set()
        await go_on.wait()
        return await add_rows(number, places)

    life.database.add_rows = slow  # type: ignore[method-assign,assignment]
    batch = await life.batch(jsonl(map(row, range(4))))
    await reading.wait()
    await life.cancel(batch)
    go_on.set()
    ended = await life.until_ended(batch.number)
    assert (Status.CANCELLED, 0, "", "") == (ended.status, ended.total, ended.output_file, ended.error_file)
    assert not life.gateway.asked
    async with asyncio.timeout(10):
        while await life.database.unswept():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


async def test_keys_take_turns_and_no_more_than_some_batches_run_at_once(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmop.workloads.engine._MOST_BATCHES", 2)
    go, stays = asyncio.Event(), asyncio.Event()

    async def answer(prompt: str) -> Outcome:
        await (stays if prompt == "pa1" else go).wait()
        return says(prompt)

    life = await lives.begin(FakeGateway(answer))
    made = [await life.batch(jsonl([row(f"a{number}")]), owner="a") for number in range(3)]
    await life.until(made[1].number, lambda found: life.gateway.asked.total() == 2)
    other = await life.batch(jsonl([row("b")]), owner="b")
    assert {"pa0", "pa1"} == life.gateway.asked.keys()
    go.set()
    for batch in (made[0], other, made[2], made[1]):
        if batch is made[1]:
            stays.set()
        assert 1 == (await life.until_ended(batch.number)).completed
    turns = list(life.gateway.asked)
    assert turns.index("pb") < turns.index("pa2")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_effect_it_goes_on_and_every_row_has_one_result(
    tmp_path: Path, after: bool
) -> None:
    """The process dies at its first effect, then at its second one, and so on, until one life is long enough. No answer is written twice
    and none is missing, whatever was asked twice."""
    content = jsonl(map(row, range(40)))

    async def answer(prompt: str) -> Outcome:
        return says(prompt, 400 if prompt.endswith("3") else 200)

    effects = lives_lived = 0
    while True:
        folder = tmp_path / str(effects)
        folder.mkdir()
        first = Life(folder, FakeGateway(answer))
        batch = await first.batch(content)
        await first.finish()
        crashed = 0
        # A second crash, where the first one was, hits the recovery as well.
        for killer in (Killer(effects, after=after), Killer(effects, after=after), None):
            life = Life(folder, FakeGateway(answer), killer=killer)
            try:
                await life.begin()
                ended = await life.until_ended(batch.number)
                await life.engine.tidy()
                break
            except BaseExceptionGroup as errors:
                assert "Crash" in repr(errors)
                crashed += 1
            except BaseException as error:
                if type(error).__name__ != "Crash":
                    raise
                crashed += 1
            finally:
                await life.finish()
                lives_lived += 1
        check = Life(folder, FakeGateway(answer))
        await check.begin()
        ended = await check.until_ended(batch.number)
        output, errors_ = check.lines(ended.output_file), check.lines(ended.error_file)
        assert Status.COMPLETED == ended.status
        assert [f"c{n}" for n in range(40) if n % 10 != 3] == [line["custom_id"] for line in output]
        assert ["c3", "c13", "c23", "c33"] == [line["custom_id"] for line in errors_]
        assert (36, 4) == (ended.completed, ended.failed)
        listed = await check.database.files(batch.owner, purpose=None, after="", limit=9, oldest_first=True)
        assert sorted(check.shelf.names()) == sorted(file.id for file in listed)
        assert 3 == len(listed)
        await check.finish()
        if not crashed:
            break
        effects += 1
    assert effects > 8
    print(f"{effects} places to die, {lives_lived} lives")
