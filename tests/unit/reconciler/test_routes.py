"""The versioned table of endpoints."""

import dataclasses

from llmop.domain import client, endpoint
from llmop.reconciler import routes
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

READY, DRAINING = endpoint.EndpointState.READY, endpoint.EndpointState.DRAINING


def _endpoint(uid: str, state: endpoint.EndpointState = READY) -> endpoint.Endpoint:
    return endpoint.Endpoint(
        replica=uid, uid=uid, host="h", port=1, api_key="k", state=state, deployment="default/a"
    )


class Book:
    """An open book of a controller that has been up for a while."""

    def __init__(self, epoch: int = 1) -> None:
        self.clock = FakeClock()
        self.told: list[str] = []
        self.book = routes.EndpointBook(epoch, self.clock.monotonic, self.told.append)
        self.book.expect(())
        self.clock.advance(10)

    def uids(self) -> list[str]:
        return [each.uid for each in self.book.table().endpoints]


def test_every_change_raises_the_version_and_nothing_else_does() -> None:
    book = Book().book
    versions = [book.table().version]
    for group in ((_endpoint("x"),), (_endpoint("x"),), ()):
        book.put("default/a", group, None)
        versions.append(book.table().version)
    assert [0, 1, 1, 2] == [version - versions[0] for version in versions]


def test_versions_rise_over_restarts() -> None:
    old, new = Book(epoch=1), Book(epoch=2)
    for _ in range(3):
        old.book.put("default/a", (_endpoint("x"),), None)
        old.book.put("default/a", (), None)
    assert new.book.table().version > old.book.table().version


def test_the_first_table_waits_for_every_deployment() -> None:
    book = routes.EndpointBook(1, FakeClock().monotonic, lambda _: None)
    book.expect(["default/a", "default/b", "default/c"])
    book.put("default/a", (_endpoint("x"),), None)
    book.put("default/b", (), None)
    assert 0 == book.table().version
    book.skip("default/c")
    assert ["x"] == [each.uid for each in book.table().endpoints]
    assert book.table().version > 1 << routes.TABLES_BITS


def test_a_draining_endpoint_is_left_alone_once_every_live_gateway_has_seen_that() -> None:
    given = Book()
    for name in ("g1", "g2"):
        given.book.acknowledge(name, given.book.table().version)
    given.book.put("default/a", (_endpoint("x", DRAINING),), None)
    assert frozenset() == given.book.drained()
    given.book.acknowledge("g1", given.book.table().version)
    assert frozenset() == given.book.drained()
    given.book.acknowledge("g2", given.book.table().version)
    assert frozenset({"x"}) == given.book.drained()
    assert "default/a" in given.told


def test_a_gateway_that_is_not_heard_any_more_delays_nobody() -> None:
    given = Book()
    given.book.acknowledge("g1", given.book.table().version)
    given.book.put("default/a", (_endpoint("x", DRAINING),), None)
    given.clock.advance(routes.GATEWAY_LIVE_S + 0.1)
    assert frozenset({"x"}) == given.book.drained()


def test_right_after_a_start_nobody_knows_which_gateways_live() -> None:
    clock = FakeClock()
    book = routes.EndpointBook(1, clock.monotonic, lambda _: None)
    book.expect(())
    book.put("default/a", (_endpoint("x", DRAINING),), None)
    assert frozenset() == book.drained()


def test_an_endpoint_is_routed_once_every_live_gateway_acts_on_it() -> None:
    given = Book()
    assert given.book.routed() is None, "no gateway is waited for"
    for name in ("g1", "g2"):
        given.book.acknowledge(name, given.book.table().version)
    given.book.put("default/a", (_endpoint("x"),), None)
    assert frozenset() == given.book.routed()
    given.book.acknowledge("g1", given.book.table().version)
    assert frozenset() == given.book.routed()
    given.book.acknowledge("g2", given.book.table().version)
    assert frozenset({"x"}) == given.book.routed()
    assert ["default/a", "default/a"] == given.told
    given.book.put("default/a", (_endpoint("x"), _endpoint("y")), None)
    assert frozenset({"x"}) == given.book.routed()
    given.clock.advance(routes.GATEWAY_LIVE_S + 0.1)
    assert given.book.routed() is None


def test_a_deployment_is_looked_at_again_only_for_what_is_new_to_a_gateway() -> None:
    given = Book()
    given.book.put("default/a", (_endpoint("x"),), None)
    given.book.put("default/b", (dataclasses.replace(_endpoint("y"), deployment="default/b"),), None)
    version = given.book.table().version
    given.book.acknowledge("g1", version)
    assert ["default/a", "default/b"] == given.told
    given.book.acknowledge("g1", version)
    given.book.put("default/b", (), None)
    given.book.acknowledge("g1", given.book.table().version)
    assert ["default/a", "default/b"] == given.told


def test_keys_are_published_when_they_change_and_not_before_the_first_table() -> None:
    key = client.ClientKey(name="default/a", digest="0" * 64)
    book = routes.EndpointBook(1, FakeClock().monotonic, lambda _: None)
    book.grant((key,))
    assert 0 == book.table().version
    book.expect(())
    first = book.table()
    assert (key,) == first.keys
    book.grant((key,))
    assert first == book.table()
    book.grant(())
    assert ((), first.version + 1) == (book.table().keys, book.table().version)


def test_a_gateway_with_a_table_from_elsewhere_has_acted_on_none_of_ours_and_moves_no_version() -> None:
    here = Book(epoch=2)
    here.book.put("default/a", (_endpoint("x"), _endpoint("y", DRAINING)), None)
    ours = here.book.table()
    told = list(here.told)
    for foreign in (ours.version + 1, (9 << routes.TABLES_BITS) + 5, (1 << 63) - 1):
        here.book.acknowledge("g", foreign)
        assert ours == here.book.table()
        assert told == here.told
        assert (frozenset(), frozenset()) == (here.book.drained(), here.book.routed())
        assert {"g": (0.0, foreign)} == here.book.gateways()
    here.book.acknowledge("g", ours.version)
    assert (frozenset("y"), frozenset("x")) == (here.book.drained(), here.book.routed())
    assert [*told, "default/a"] == here.told


def test_a_gateway_that_lies_about_its_version_keeps_no_other_from_what_is_published() -> None:
    here = Book(epoch=2)
    here.book.acknowledge("liar", (1 << 63) - 1)
    here.book.put("default/a", (_endpoint("x"),), None)
    assert ["x"] == here.uids()
    assert here.book.table().version < 3 << routes.TABLES_BITS
    here.clock.advance(routes.GATEWAY_LIVE_S + 1)  # it is stopped
    here.book.acknowledge("g", here.book.table().version)
    assert frozenset("x") == here.book.routed()


async def test_the_tables_of_a_controller_whose_database_was_put_back_are_newer_than_those_before() -> None:
    first, restored = MemoryStore(), MemoryStore()
    for number in range(3):
        lost = await first.take_over("before", 1_800_000_000.0 + number)
    before, after = Book(epoch=lost), Book(epoch=await restored.take_over("after", 1_800_000_060.0))
    for _ in range(100):
        before.book.put("default/a", (_endpoint("x"),), None)
        before.book.put("default/a", (), None)
    assert after.book.table().version > before.book.table().version
