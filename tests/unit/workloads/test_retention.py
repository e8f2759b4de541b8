"""What keys leave behind goes some time after them, and never while it is not sure that they are gone."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.workloads.workloads_rig import StandingClock

from llmop.domain import resources
from llmop.domain.errors import NeedsUser
from llmop.workloads import owners as owning
from llmop.workloads.batch import Batch, Status
from llmop.workloads.database import Database, File, Place
from llmop.workloads.known import Virtual
from llmop.workloads.owners import Owners
from llmop.workloads.retention import Retention
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.values import Store

ALICE, BOB = 64 * "a", 64 * "b"
DAY = 86_400.0
KEEP_S = 30 * DAY
SURE = {"APIKey", "Assistant", "Tribunal"}


def key(owner: str, name: str = "k") -> resources.Resource:
    return resources.Resource(
        kind="APIKey", name=name, namespace="default", uid=name, spec={"keyHash": f"sha256:{owner}"}
    )


def assistant(*stores: str) -> resources.Resource:
    spec = {"model": "m", "vectorStores": list(stores)}
    return resources.Resource(kind="Assistant", name="docs", namespace="default", uid="as", spec=spec)


class House:
    """A database and vector stores on the disk, in which ALICE and BOB have a store each, and more files than go at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = StandingClock()
        self.database = Database(folder / "workloads.db")
        self.stores = EmbeddedStores(folder / "vectors.db", 2**30)
        self.virtual = Virtual(folder)
        self.owners = Owners(folder / "owners.json", self.clock)
        self.heard = set(SURE)
        self.freed = 0
        self.in_file: set[str] = set()
        self.retention = self.keeping(KEEP_S)

    def keeping(self, keep_s: float) -> Retention:
        return Retention(
            self.owners,
            self.database,
            self.stores,
            self.virtual,
            self.heard,
            self._removed,
            self._of_file,
            keep_s,
        )

    def _of_file(self) -> set[str]:
        if "damaged" in self.in_file:
            raise NeedsUser("InvalidKeysFile", "keys:1: expected something else")
        return self.in_file

    def _removed(self) -> None:
        self.freed += 1

    async def fill(self) -> None:
        for owner in (ALICE, BOB):
            names = [f"file-{owner[0]}{number}" for number in range(250)]
            await self.database.add_files([File(name, owner, "user_data", "x", 1, 1.0) for name in names])
            await self.stores.add(
                Store(
                    number=0,
                    id=f"vs_{owner[0]}",
                    owner=owner,
                    name="",
                    model="e",
                    created_at=1.0,
                    active_at=1.0,
                )
            )
            await self.batch(owner, Status.COMPLETED)
        await self.virtual.put("Assistant", [])

    async def batch(self, owner: str, status: Status) -> Batch:
        made = Batch(
            id=f"batch_{owner[0]}{status}", owner=owner, endpoint="/v1/x", window="24h", number=0, input_file="file-a0", created_at=1.0,
            expires_at=2.0, output_file="", error_file="", status=status,
        )  # fmt: skip
        return await self.database.add_batch(made)

    async def left(self, owner: str) -> tuple[int, int, int]:
        """Files, batches and stores."""
        files = await self.database.files(owner, purpose=None, after="", limit=1000, oldest_first=True)
        batches = await self.database.batches(owner, "", 100)
        return len(files), len(batches), len(await self.stores.owned(owner, "", 100, oldest_first=True))

    async def go(self, days: float = 31) -> None:
        self.clock.time += days * DAY
        await self.retention.look()


ALL = (250, 1, 1)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.fill()
    yield made
    await made.database.close()
    await made.stores.close()


async def test_what_a_key_leaves_goes_some_time_after_it_and_what_others_have_stays(house: House) -> None:
    await house.owners.put([key(ALICE), key(BOB)])
    await house.owners.put([key(BOB)])
    await house.go(days=29)
    assert ALL == await house.left(ALICE)
    await house.go(days=2)
    assert (0, 0, 0) == await house.left(ALICE)
    assert ALL == await house.left(BOB)
    assert house.freed  # contents are looked at
    while await house.database.forget_files(house.clock.now(), 0.0):
        pass
    assert [ALICE] == house.owners.due(KEEP_S)
    await house.go(days=0)
    assert [] == house.owners.due(KEEP_S)  # nothing is left that he could be remembered for


async def test_a_key_that_is_made_again_finds_what_it_had_whatever_it_is_called(house: House) -> None:
    await house.owners.put([key(ALICE), key(BOB)])
    await house.owners.put([key(BOB)])
    await house.go(days=29)
    await house.owners.put([key(ALICE, "other"), key(BOB)])
    await house.go(days=31)
    assert ALL == await house.left(ALICE)
    await house.owners.put([key(BOB)])
    await house.go(days=29)  # counted anew
    assert ALL == await house.left(ALICE)


@pytest.mark.parametrize("missing", ["APIKey", "Assistant"])
async def test_nothing_goes_while_the_controller_is_away_or_has_not_said_all(
    house: House, missing: str
) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    house.heard.discard(missing)
    await house.go()
    assert ALL == await house.left(ALICE)
    house.heard.add(missing)
    await house.go(days=0)
    assert (0, 0, 0) == await house.left(ALICE)


async def test_a_controller_that_goes_in_the_middle_ends_it(house: House) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    removed = house.stores.remove

    async def remove(store: Store) -> None:
        house.heard.clear()
        await removed(store)

    house.stores.remove = remove  # type: ignore[method-assign]
    await house.go()
    assert (250, 1, 0) == await house.left(ALICE)


async def test_who_was_never_seen_with_a_key_object_is_kept(house: House) -> None:
    """Keys of the gateway's file have none."""
    await house.owners.put([key(BOB)])
    await house.go(days=1000)
    assert ALL == await house.left(ALICE)


async def test_nobody_is_gone_while_a_key_cannot_be_read(house: House) -> None:
    await house.owners.put([key(ALICE), key(BOB)])
    await house.owners.put([dataclasses.replace(key(BOB), spec={"storedText": "{"})])
    await house.go()
    assert ALL == await house.left(ALICE)
    assert ALL == await house.left(BOB)


async def test_a_key_that_the_gateways_file_has_is_not_gone(house: House) -> None:
    await house.owners.put([key(ALICE)])
    house.in_file = {ALICE}
    await house.owners.put([])
    await house.go(days=100)
    assert ALL == await house.left(ALICE)
    house.in_file = {BOB, "damaged"}
    await house.owners.put([key(BOB)])
    with pytest.raises(NeedsUser):
        await house.go(days=100)
    assert ALL == await house.left(ALICE)


async def test_zero_keeps_it_for_ever(house: House) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    house.retention = house.keeping(0)
    await house.go(days=1000)
    assert ALL == await house.left(ALICE)


async def test_what_an_assistant_answers_from_stays(house: House) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    await house.virtual.put("Assistant", [assistant("vs_x", "vs_a")])
    await house.go()
    assert ALL == await house.left(ALICE)
    await house.virtual.put("Assistant", [])
    await house.go(days=0)
    assert (0, 0, 0) == await house.left(ALICE)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "taken"},  # an older tribunal answers under that name, for now
        {"spec": {"model": "m", "vectorStores": ["vs_a"], "topK": "many", "filters": 3}},
        {"spec": {"vectorStores": ["vs_a"]}},
        {"spec": {"model": "m", "vectorStores": ["vs_a", 17]}},
        {"spec": {"model": "m", "vectorStores": "vs_a"}},
        {"spec": {"storedText": '{"vectorStores": ["vs_a"]'}},
    ],
)
async def test_so_does_what_one_names_that_does_not_answer(house: House, changes: dict[str, object]) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    one = {"model": "m"}
    older = {"drafters": [one], "critics": [one], "judge": one}
    await house.virtual.put(
        "Tribunal", [resources.Resource(kind="Tribunal", name="taken", namespace="a", uid="t", spec=older)]
    )
    named = dataclasses.replace(assistant("vs_a"), created_at=9.0, **changes)  # type: ignore[arg-type]
    await house.virtual.put("Assistant", [named])
    await house.go()
    assert ALL == await house.left(ALICE)


async def test_a_batch_that_is_under_way_ends_first(house: House) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    running = await house.batch(ALICE, Status.IN_PROGRESS)
    await house.database.add_rows(running.number, [Place(1, 0, 1, "a", "m")])
    await house.go()
    assert (0, 1, 0) == await house.left(ALICE)
    assert [ALICE] == house.owners.due(KEEP_S)
    await house.database.move(running.number, lambda it: dataclasses.replace(it, status=Status.CANCELLED))
    while await house.database.sweep(running.number):
        pass
    await house.go(days=0)
    assert (0, 0, 0) == await house.left(ALICE)


async def test_it_is_counted_over_a_new_start(house: House) -> None:
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    house.clock.time += 20 * DAY
    house.owners = Owners(house.folder / "owners.json", house.clock)
    house.owners.load()
    house.retention = house.keeping(KEEP_S)
    await house.owners.put([])
    await house.go(days=11)
    assert (0, 0, 0) == await house.left(ALICE)


async def test_a_file_that_cannot_be_read_only_makes_it_later(house: House) -> None:
    for text in ("{", "[1]", '{"a": "x"}'):
        (house.folder / "owners.json").write_text(text)
        house.owners.load()
    await house.go()
    assert ALL == await house.left(ALICE)


async def test_what_could_not_be_written_is_written_the_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a key that came back on a full disk, and went again while nobody looked, would be gone since the first time."""
    await house.owners.put([key(ALICE)])
    await house.owners.put([])
    with monkeypatch.context() as full:
        full.setattr("llmop.files.whole.write", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
        with pytest.raises(OSError, match="no space"):
            await house.owners.put([key(ALICE)])
    house.clock.time += 40 * DAY
    await house.owners.put([key(ALICE)])
    house.owners = Owners(house.folder / "owners.json", house.clock)
    house.owners.load()
    house.retention = house.keeping(KEEP_S)
    await house.owners.put([])
    await house.go(days=1)
    assert ALL == await house.left(ALICE)


@pytest.mark.parametrize("years", [-50, 50])
async def test_where_the_clock_is_set_it_is_counted_anew_also_over_a_new_start(
    house: House, years: int
) -> None:
    """A machine may begin in 1970 and learn the time later."""
    await house.owners.put([key(ALICE), key(BOB)])
    house.clock.set_by = 365 * DAY * min(years, 0)
    await house.owners.put([key(BOB)])
    house.clock.set_by = 365 * DAY * max(years, 0)
    await house.go(days=1)
    house.owners = Owners(house.folder / "owners.json", house.clock)
    house.owners.load()
    house.retention = house.keeping(KEEP_S)
    await house.owners.put([key(BOB)])
    await house.go(days=28)
    assert ALL == await house.left(ALICE)
    await house.go(days=3)
    assert (0, 0, 0) == await house.left(ALICE)
    assert ALL == await house.left(BOB)


def test_a_time_that_lies_ahead_was_a_wrong_clocks() -> None:
    assert {ALICE: 5.0, BOB: None} == owning.settled({ALICE: 9.0, BOB: 3.0}, {BOB}, 5.0)
    assert {ALICE: 3.0} == owning.settled({ALICE: 3.0}, frozenset(), 5.0)
