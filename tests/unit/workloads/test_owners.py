"""Batches whose owner may not go on, and batches that ended long ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.workloads.workloads_rig import (
    CHAT,
    KEEP_S,
    FakeGateway,
    Life,
    StandingClock,
    jsonl,
    row,
)

from llmop.workloads.answers import Answer
from llmop.workloads.batch import Status
from llmop.workloads.database import File
from llmop.workloads.engine import NO_OWNER
from llmop.workloads.judgement import Outcome

GONE = Answer(403, b'{"error":{"code":"owner_gone","message":"deleted"}}')


class OwnedGateway(FakeGateway):
    """`of` says what an owner's rows get; without a word there they are answered."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str | None, Outcome] = {}

    async def ask(
        self, url: str, body: dict[str, object], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        said = await super().ask(url, body, key, owner)
        return self.of.get(owner, said)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmop.workloads.engine._OWNER_AGAIN_S", 0.01)
    monkeypatch.setattr("llmop.workloads.engine._OWNER_GONE_S", 0.2)


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    made = Life(tmp_path, OwnedGateway(), StandingClock())
    await made.begin()
    yield made
    await made.finish()


def of(life: Life) -> dict[str | None, Outcome]:
    assert isinstance(life.gateway, OwnedGateway)
    return life.gateway.of


async def test_rows_are_asked_for_their_owner(life: Life) -> None:
    for owner in ("a", "b"):
        await life.until_ended((await life.batch(jsonl([row(1)]), owner=owner)).number)
    assert {"a", "b"} == life.gateway.owners


async def test_a_batch_whose_key_is_gone_ends_and_says_so(life: Life) -> None:
    of(life)["a"] = GONE
    batch = await life.batch(jsonl(map(row, range(10))), owner="a")
    await life.until(batch.number, lambda found: life.engine.waiting(found) == NO_OWNER)
    ended = await life.until_ended(batch.number)
    assert (Status.FAILED, 0, 10) == (ended.status, ended.completed, ended.failed)
    assert [("owner_gone", NO_OWNER)] == [(each.code, each.message) for each in ended.problems]
    assert ["batch_failed"] * 10 == [line["error"]["code"] for line in life.lines(ended.error_file)]


async def test_what_was_done_before_the_key_went_is_kept(life: Life) -> None:
    def is_there() -> bool:
        return life.gateway.asked.total() >= 5

    batch = await life.batch(jsonl(map(row, range(2000))), owner="a")
    await life.until(batch.number, lambda found: is_there())
    of(life)["a"] = GONE
    ended = await life.until_ended(batch.number)
    assert Status.FAILED == ended.status
    assert (ended.completed, ended.failed) == (len(life.lines(ended.output_file)), 2000 - ended.completed)
    assert ended.completed >= 1


async def test_a_gateway_that_has_not_heard_of_a_key_yet_ends_nothing(life: Life) -> None:
    of(life)["a"] = GONE
    batch = await life.batch(jsonl(map(row, range(10))), owner="a")
    await life.until(batch.number, lambda found: life.engine.waiting(found) == NO_OWNER)
    del of(life)["a"]
    assert 10 == (await life.until_ended(batch.number)).completed


async def test_a_403_of_an_engine_is_a_result_like_any_other(life: Life) -> None:
    of(life)["a"] = Answer(403, b'{"error":{"code":"forbidden","message":"no"}}')
    ended = await life.until_ended((await life.batch(jsonl([row(1)]), owner="a")).number)
    assert (Status.COMPLETED, 1) == (ended.status, ended.failed)


async def test_one_owner_at_its_limit_holds_up_no_other_at_the_same_model(life: Life) -> None:
    limit = Answer(429, b'{"error":{"message":"the key a may use 1 requests per minute"}}', "", 3600.0)
    of(life)["a"] = limit
    held_up = await life.batch(jsonl(map(row, range(20))), owner="a")
    await life.until(held_up.number, lambda found: "may use 1" in life.engine.waiting(found))
    assert (
        50
        == (
            await life.until_ended((await life.batch(jsonl(map(row, range(50))), owner="b")).number)
        ).completed
    )
    assert Status.IN_PROGRESS == (await life.database.batch_numbered(held_up.number)).status


# How long they are kept


async def swept(life: Life) -> None:
    async with asyncio.timeout(10):
        while await life.database.unswept():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


async def test_what_ended_long_ago_goes_with_its_files_and_nothing_else(life: Life) -> None:
    clock = life.clock
    assert isinstance(clock, StandingClock)

    old = await life.until_ended((await life.batch(jsonl(map(row, range(3))), owner="a")).number)
    unused = await life.file(jsonl([row(1)]))
    document = File("file-doc", "a", "assistants", "a.txt", 1, clock.now())
    await life.database.add_files([document])
    clock.time += KEEP_S / 2
    young = await life.until_ended((await life.batch(jsonl([row(9)]), owner="a")).number)
    # The same file again: it is kept as long as a batch names it.
    await life.database.add_batch(
        young.__class__(
            number=0,
            id="batch_again",
            owner="a",
            endpoint=CHAT,
            input_file=old.input_file,
            window="1h",
            created_at=clock.now(),
            expires_at=clock.now() + 3600,
        )
    )
    life.engine.wake()
    again = await life.until_ended(young.number + 1)
    await swept(life)
    await life.engine.tidy()
    assert await life.database.batch("a", old.id) == old
    file = await life.database.file("a", old.output_file)
    assert file is not None
    assert file.expires_at == clock.now() + KEEP_S / 2
    clock.time += KEEP_S / 2
    await life.engine.tidy()
    assert await life.database.batch("a", old.id) is None
    left = {young.input_file, young.output_file, old.input_file, again.output_file}
    assert left == set(life.shelf.names())
    known = await life.database.files("a", purpose=None, after="", limit=99, oldest_first=True)
    assert left | {document.id} == {each.id for each in known}
    assert await life.database.file("0123", unused) is None
    clock.time += KEEP_S / 2
    await life.engine.tidy()
    assert [] == life.shelf.names()
    assert [] == await life.database.batches("a", "", 10)


async def test_a_batch_that_waits_for_months_is_no_old_one(life: Life) -> None:
    clock = life.clock
    assert isinstance(clock, StandingClock)
    of(life)["a"] = Answer(503, b"", "", 3600.0)
    batch = await life.batch(jsonl([row(1)]), owner="a", window="30d")
    await life.until(batch.number, lambda _: life.gateway.asked.total() == 1)
    clock.time += KEEP_S - 1
    await life.engine.tidy()
    assert Status.IN_PROGRESS == (await life.database.batch_numbered(batch.number)).status
    assert [batch.input_file] == life.shelf.names()


async def test_many_old_ones_go_in_steps(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmop.workloads.database._FORGOTTEN_AT_ONCE", 2)
    clock = life.clock
    assert isinstance(clock, StandingClock)
    made = [await life.batch(jsonl([row(number)]), owner="a") for number in range(7)]
    for batch in made:
        await life.until_ended(batch.number)
    await swept(life)
    clock.time += KEEP_S
    steps = 0
    while await life.database.forget_batches(clock.now() - KEEP_S):
        steps += 1
    assert 4 == steps
    await life.engine.tidy()
    assert [] == life.shelf.names()
