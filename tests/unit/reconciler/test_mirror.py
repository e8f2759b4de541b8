"""The copy in memory follows the store."""

import asyncio
import dataclasses

import pytest

from llmop.domain import errors, resources
from llmop.reconciler import mirror, queue
from llmop.store import interface
from llmop.testing.memory_store import MemoryStore

OWNER = resources.Resource(kind=resources.MODEL_DEPLOYMENT, namespace="default", name="a", uid="u-a")
KEY = queue.Key(kind=OWNER.kind, namespace="default", name="a")


def _revision(number: int) -> resources.Resource:
    return resources.Resource(
        kind=resources.REVISION,
        namespace="default",
        name=f"a-{number}",
        uid=f"u-a-{number}",
        owner=resources.Owner(kind=OWNER.kind, name="a", uid=OWNER.uid),
    )


async def test_it_begins_with_everything_and_goes_on_with_changes() -> None:
    store = MemoryStore()
    await store.commit([interface.Create(resource=OWNER)])
    copy = mirror.Mirror(store)
    first = await copy.refresh()
    assert (True, {KEY}) == (first.everything, first.keys)
    await store.commit([interface.Create(resource=_revision(2)), interface.Create(resource=_revision(1))])
    assert {KEY} == (await copy.refresh()).keys
    assert ["a-1", "a-2"] == [each.name for each in copy.children(OWNER.uid, resources.REVISION)]
    assert frozenset() == (await copy.refresh()).keys


class Counted(MemoryStore):
    """Remembers after which revisions it was asked for changes."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        self.asked.append(after)
        return await super().changes(after, limit)


async def test_one_read_is_enough_unless_there_is_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PAGE", 3)
    store = Counted()
    copy = mirror.Mirror(store)
    await copy.refresh()
    for number in (1, 2):
        await store.commit([interface.Create(resource=_revision(number))])
    await copy.refresh()
    assert [0] == store.asked
    await copy.refresh()
    assert [0, 2] == store.asked
    for number in range(3, 7):
        await store.commit([interface.Create(resource=_revision(number))])
    await copy.refresh()
    assert [0, 2, 2, 5] == store.asked
    names = [each.name for each in copy.children(OWNER.uid, resources.REVISION)]
    assert [f"a-{number}" for number in range(1, 7)] == names


async def test_who_is_cancelled_in_the_middle_takes_nothing_away_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operator's client may go while its call brings the copy up to date."""
    monkeypatch.setattr(mirror, "PAGE", 1)
    store = Counted()
    copy = mirror.Mirror(store)
    await copy.refresh()
    await store.commit([interface.Create(resource=OWNER)])
    changes = store.changes

    async def then_hangs(after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        if after:
            await asyncio.Event().wait()
        return await changes(after, limit)

    with monkeypatch.context() as slow:
        slow.setattr(store, "changes", then_hangs)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(copy.refresh(), 0.05)
    assert copy.get(OWNER.kind, "default", "a") is not None
    assert {KEY} == (await copy.refresh()).keys


async def test_what_is_removed_is_gone_and_what_takes_its_name_is_another() -> None:
    store = MemoryStore()
    await store.commit([interface.Create(resource=OWNER), interface.Create(resource=_revision(1))])
    copy = mirror.Mirror(store)
    await copy.refresh()
    await store.commit([interface.Remove(kind=OWNER.kind, namespace="default", name="a", uid=OWNER.uid)])
    await store.commit([interface.Create(resource=dataclasses.replace(OWNER, uid="u-b"))])
    await copy.refresh()
    found = copy.get(OWNER.kind, "default", "a")
    assert found is not None
    assert "u-b" == found.uid


async def test_nothing_is_kept_of_owners_that_are_gone() -> None:
    store = MemoryStore()
    copy = mirror.Mirror(store)
    await store.commit([interface.Create(resource=_revision(1))])
    await copy.refresh()
    await store.commit(
        [interface.Remove(kind=resources.REVISION, namespace="default", name="a-1", uid="u-a-1")]
    )
    await copy.refresh()
    assert [] == copy.children(OWNER.uid, resources.REVISION)
    assert {} == copy._children


async def test_a_change_of_a_runtime_concerns_everybody() -> None:
    store = MemoryStore()
    copy = mirror.Mirror(store)
    await copy.refresh()
    await store.commit(
        [interface.Create(resource=resources.Resource(kind=resources.SERVING_RUNTIME, name="r", uid="u-r"))]
    )
    assert (await copy.refresh()).everything


async def test_a_reader_that_is_too_old_reads_everything_again() -> None:
    store = MemoryStore()
    copy = mirror.Mirror(store)
    await copy.refresh()
    await store.commit([interface.Create(resource=OWNER)])
    await store.commit([interface.Create(resource=_revision(1))])
    await store.compact(changes_before=3, tombstones_before=0, events_before=0)
    assert (await copy.refresh()).everything
    assert copy.get(OWNER.kind, "default", "a") is not None


async def test_after_a_failover_that_lost_commits_everything_is_read_again() -> None:
    store = MemoryStore()
    await store.commit([interface.Create(resource=OWNER)])
    fail_over = store.saved()
    await store.commit([interface.Create(resource=_revision(1))])
    copy = mirror.Mirror(store)
    await copy.refresh()
    fail_over()
    assert (await copy.refresh()).everything
    assert (1, []) == (copy.revision, copy.children(OWNER.uid, resources.REVISION))


class _Away(MemoryStore):
    is_away = False

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        if self.is_away:
            raise errors.Unavailable("away")
        return await super().changes(after, limit)


async def test_after_the_store_was_away_the_same_revision_may_be_another_one() -> None:
    store = _Away()
    await store.commit([interface.Create(resource=OWNER)])
    fail_over = store.saved()
    await store.commit([interface.Create(resource=_revision(1))])
    copy = mirror.Mirror(store)
    await copy.refresh()
    store.is_away = True
    with pytest.raises(errors.Unavailable):
        await copy.refresh()
    fail_over()
    await store.commit([interface.Create(resource=_revision(2))])
    store.is_away = False
    assert (await copy.refresh()).everything
    assert ["a-2"] == [each.name for each in copy.children(OWNER.uid, resources.REVISION)]


async def test_what_a_watch_brings_is_not_read_again() -> None:
    store = Counted()
    await store.commit([interface.Create(resource=OWNER)])
    copy = mirror.Mirror(store)
    await copy.refresh()
    first = await store.commit(
        [interface.Create(resource=_revision(1)), interface.Create(resource=_revision(2))]
    )
    assert {KEY} == (await copy.take(1, first.changes)).keys
    assert ["a-1", "a-2"] == [each.name for each in copy.children(OWNER.uid, resources.REVISION)]
    assert (first.revision, []) == (copy.revision, store.asked)
    second = await store.commit([interface.Create(resource=_revision(3))])
    await copy.refresh()
    assert frozenset() == (await copy.take(1, first.changes)).keys, "it is known"
    assert second.revision == copy.revision


async def test_a_doubtful_copy_reads_everything_instead() -> None:
    store = _Away()
    await store.commit([interface.Create(resource=OWNER)])
    copy = mirror.Mirror(store)
    await copy.refresh()
    store.is_away = True
    with pytest.raises(errors.Unavailable):
        await copy.refresh()
    store.is_away = False
    made = await store.commit([interface.Create(resource=_revision(1))])
    assert (await copy.take(1, made.changes)).everything
    assert ["a-1"] == [each.name for each in copy.children(OWNER.uid, resources.REVISION)]


async def test_a_watch_that_is_ahead_of_the_copy_leaves_no_gap() -> None:
    store = MemoryStore()
    await store.commit([interface.Create(resource=OWNER)])
    copy = mirror.Mirror(store)
    await copy.refresh()
    await store.commit([interface.Create(resource=_revision(1))])
    made = await store.commit([interface.Create(resource=_revision(2))])
    assert {KEY} == (await copy.take(2, made.changes)).keys
    assert ["a-1", "a-2"] == [each.name for each in copy.children(OWNER.uid, resources.REVISION)]


async def test_holders_of_a_model_name_are_found_by_it() -> None:
    store = MemoryStore()
    other = dataclasses.replace(OWNER, name="b", uid="u-b", spec={"model": {"name": "a"}})
    await store.commit([interface.Create(resource=each) for each in (OWNER, other)])
    copy = mirror.Mirror(store)
    await copy.refresh()
    assert {"u-a", "u-b"} == {each.uid for each in copy.of_model("a")}
    live = await store.get(*other.key)
    renamed = dataclasses.replace(live, spec={"model": {"name": "c"}})
    await store.commit([interface.Update(resource=renamed, expected_version=live.resource_version)])
    gone = interface.Remove(kind=OWNER.kind, namespace="default", name="a", uid="u-a")
    await store.commit([gone])
    await copy.refresh()
    assert [[], ["u-b"]] == [[each.uid for each in copy.of_model(name)] for name in ("a", "c")]
