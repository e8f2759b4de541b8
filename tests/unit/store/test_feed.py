"""The feed reads the log about once for all watchers, and keeps little of it."""

import asyncio

import pytest

from llmop.domain import errors, resources
from llmop.store import feed, interface


class Log:
    """A change log with one change per revision that counts how often it is read."""

    def __init__(self) -> None:
        self.newest = 0
        self.reads = 0
        self.line = "c"  # what the objects are called; another one after a failover
        self.is_away = False

    async def revision(self) -> int:
        return self.newest

    async def page(self, after: int, limit: int) -> tuple[tuple[interface.Change, ...], int]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise errors.Unavailable("away")
        newest = self.newest
        if after > newest:
            raise errors.Expired(after, 1)
        last = min(newest, after + limit)
        return tuple(change(number, self.line) for number in range(after + 1, last + 1)), newest


def change(revision: int, line: str) -> interface.Change:
    resource = resources.Resource(kind="Cluster", name=f"{line}{revision}")
    return interface.Change(revision=revision, type=interface.ChangeType.ADDED, resource=resource)


async def test_a_hundred_watchers_cost_about_one_read_per_wake_up() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    watches = [shared.watch(0) for _ in range(100)]
    reading = [asyncio.ensure_future(anext(watch)) for watch in watches]
    for _ in range(300):
        await asyncio.sleep(0)
    before = log.reads
    log.newest = 1
    shared.wake()
    assert {1} == {seen.revision for seen in await asyncio.gather(*reading)}
    assert log.reads - before <= 2, "not a hundred"


async def test_a_watcher_far_behind_and_one_at_the_front_both_get_everything_in_order() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    log.newest = 3 * feed.PAGE
    front = shared.watch(log.newest)
    waiting = asyncio.ensure_future(anext(front))
    await asyncio.sleep(0)
    log.newest += 3 * feed.PAGE
    shared.wake()
    behind = shared.watch(0)
    seen = [(await anext(behind)).revision for _ in range(log.newest)]
    assert list(range(1, log.newest + 1)) == seen
    at_front = [(await waiting).revision] + [(await anext(front)).revision for _ in range(3 * feed.PAGE - 1)]
    assert list(range(3 * feed.PAGE + 1, 6 * feed.PAGE + 1)) == at_front
    assert len(shared._recent) <= feed.PAGE


async def test_changes_that_nobody_announced_are_found_by_looking() -> None:
    log = Log()
    watch = feed.Feed(log.revision, log.page).watch(0)
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(20):
        await asyncio.sleep(0)
    log.newest = 1
    assert 1 == (await waiting).revision


async def test_when_the_store_has_lost_commits_who_saw_them_is_told_and_who_lists_again_goes_on() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    log.newest = 5
    ahead = asyncio.ensure_future(anext(shared.watch(5)))
    await spin()
    log.newest = 3
    shared.wake()
    with pytest.raises(errors.Expired):
        await ahead
    again = asyncio.ensure_future(anext(shared.watch(3)))
    await spin()
    reads = log.reads
    await spin()
    assert reads == log.reads, "it waits for news"
    log.newest = 4
    shared.wake()
    assert 4 == (await again).revision


async def test_what_was_read_before_the_store_was_away_is_read_again() -> None:
    """Another server may answer, which has made other commits under the same numbers."""
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    waiting = asyncio.ensure_future(anext(shared.watch(0)))
    await spin()
    log.newest = 3
    shared.wake()
    await waiting
    log.is_away = True
    shared.wake()
    with pytest.raises(errors.Unavailable):
        await anext(shared.watch(2))
    log.is_away, log.line = False, "other"
    assert "other3" == (await anext(shared.watch(2))).resource.name


async def spin() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_what_a_commit_made_right_after_what_is_known_is_not_read() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    watch = shared.watch(0)
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(20):
        await asyncio.sleep(0)
    before = log.reads
    log.newest = 1
    shared.take(1, (change(1, "c"),))
    assert 1 == (await waiting).revision
    log.newest = 2  # a commit of which the log says nothing
    shared.take(2, ())
    log.newest = 3
    shared.take(3, (change(3, "c"),))
    assert 3 == (await anext(watch)).revision
    assert before == log.reads
    late = shared.watch(1)
    assert 3 == (await anext(late)).revision


async def test_a_commit_after_one_that_nobody_has_seen_makes_everybody_read() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    watch = shared.watch(0)
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(20):
        await asyncio.sleep(0)
    log.newest = 2  # 1 is another controller's
    shared.take(2, (change(2, "c"),))
    assert [1, 2] == [(await waiting).revision, (await anext(watch)).revision]


async def test_a_commit_that_ends_while_the_log_is_read_is_seen_once() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    watch = shared.watch(0)
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(20):
        await asyncio.sleep(0)
    log.newest = 1
    shared.wake()
    await asyncio.sleep(0)  # the watcher reads
    log.newest = 2
    shared.take(2, (change(2, "c"),))
    log.newest = 3
    shared.take(3, (change(3, "c"),))
    assert [1, 2, 3] == [(await waiting).revision, *[(await anext(watch)).revision for _ in range(2)]]


async def test_after_a_commit_of_which_nobody_knows_the_log_is_read_again() -> None:
    log = Log()
    shared = feed.Feed(log.revision, log.page)
    log.newest = 5
    watch = shared.watch(4)
    assert 5 == (await anext(watch)).revision
    log.newest = 3  # whoever answers now has never seen 4 and 5
    shared.doubt()
    with pytest.raises(errors.Expired):
        await anext(watch)
