"""What a table means for the choice of an endpoint."""

import asyncio
import dataclasses
import os

import pytest

from llmop.domain.endpoint import Endpoint, EndpointState, EndpointTable, RoutedModel
from llmop.gateway import cells, routing
from llmop.gateway.cells import Cells, Row
from llmop.gateway.fleet import Fleet, Upstream
from llmop.gateway.metrics import Counts
from llmop.gateway.table import ReceivedTable

MODEL = RoutedModel(name="m", deployment="default/d", protocols=("tgi",), created_at=0.0)
FIRST = Endpoint(
    replica="r1", uid="u1", host="n1", port=1, api_key="k", state=EndpointState.READY, deployment="default/d"
)
SECOND = dataclasses.replace(FIRST, replica="r2", uid="u2", host="n2")


def table(version: int, *endpoints: Endpoint) -> ReceivedTable:
    return ReceivedTable(
        installation="i",
        received_at=0.0,
        table=EndpointTable(version=version, endpoints=endpoints, models=(MODEL,)),
    )


@pytest.fixture
async def fleet() -> Fleet:
    return Fleet(Counts(), asyncio.get_running_loop())


def no_chance() -> float:
    return 0.0


def choose(fleet: Fleet, tried: tuple[Upstream, ...] = (), now: float = 0.0) -> Upstream | None:
    return fleet.routes["m"].deployment.choose(tried, now, no_chance)


def name(upstream: Upstream | None) -> str | None:
    return None if upstream is None else upstream.endpoint.replica


async def test_draining_endpoints_get_nothing_new(fleet: Fleet) -> None:
    fleet.apply(table(1, dataclasses.replace(FIRST, state=EndpointState.DRAINING), SECOND))
    assert "r2" == name(choose(fleet))
    fleet.apply(table(2, dataclasses.replace(FIRST, state=EndpointState.DRAINING)))
    assert choose(fleet) is None


async def test_a_request_between_two_attempts_finds_no_endpoint_of_a_model_that_is_gone(fleet: Fleet) -> None:
    fleet.apply(table(1, FIRST, SECOND))
    route = fleet.routes["m"]
    draining = dataclasses.replace(FIRST, state=EndpointState.DRAINING)
    without = dataclasses.replace(table(2).table, models=(), endpoints=(draining,))
    fleet.apply(dataclasses.replace(table(2), table=without))
    assert "m" not in fleet.routes
    assert route.deployment.choose((), 0.0, no_chance) is None
    assert not route.deployment.is_full(())


async def test_load_and_health_outlive_a_new_table(fleet: Fleet) -> None:
    fleet.apply(table(1, FIRST, SECOND))
    chosen = choose(fleet)
    assert chosen is not None
    chosen.in_flight = 3
    fleet.apply(table(2, dataclasses.replace(FIRST, state=EndpointState.SUSPECT), SECOND))
    assert ("r1", "r2") == (name(chosen), name(choose(fleet)))


async def test_an_engine_that_came_back_on_another_port_starts_afresh(fleet: Fleet) -> None:
    fleet.apply(table(1, FIRST))
    old = choose(fleet)
    fleet.apply(table(2, dataclasses.replace(FIRST, port=2)))
    assert old is not None
    assert old is not choose(fleet)
    assert old.pool.draining


async def test_what_was_tried_is_not_tried_again(fleet: Fleet) -> None:
    fleet.apply(table(1, FIRST, SECOND))
    first = choose(fleet)
    assert first is not None
    second = choose(fleet, (first,))
    assert second is not None
    assert {"r1", "r2"} == {name(first), name(second)}
    assert choose(fleet, (first, second)) is None


async def test_an_ejected_endpoint_gets_one_probe_after_its_pause(fleet: Fleet) -> None:
    fleet.apply(table(1, FIRST, SECOND))
    first = choose(fleet)
    assert first is not None
    first.breaker = routing.Breaker(failures=3, ejections=1, ejected_until=5.0)
    fleet.routes["m"].deployment.look_again()
    assert ["r2", "r2"] == [name(choose(fleet, now=4.0)) for _ in range(2)]
    assert ["r1", "r2", "r2"] == [name(choose(fleet, now=6.0)) for _ in range(3)]
    first.breaker = routing.CLOSED
    fleet.routes["m"].deployment.look_again()
    assert "r1" == name(choose(fleet, now=6.0))


async def test_an_endpoint_that_cannot_stand_in_a_head_is_not_routed(fleet: Fleet) -> None:
    fleet.apply(table(1, dataclasses.replace(FIRST, api_key="a\r\nx-evil: 1"), SECOND))
    assert ["r2"] == [upstream.endpoint.replica for upstream in fleet.deployments["default/d"].upstreams]


async def test_processes_that_share_memory_choose_by_what_all_have_in_flight() -> None:
    memory = cells.make(2)
    loop = asyncio.get_running_loop()
    one, other = (Fleet(Counts(), loop, Row(Cells(memory, 2), worker)) for worker in range(2))
    os.close(memory)
    for fleet in (one, other):
        assert fleet.apply(table(1, FIRST, SECOND), [5, 9])
    chosen = choose(one)
    assert chosen is not None
    chosen.begin()
    assert "r1" == name(chosen)
    assert "r2" == name(choose(other))
    chosen.end()
    assert "r1" == name(choose(other))


def bounded(version: int, most: int, *endpoints: Endpoint) -> ReceivedTable:
    received = table(version, *endpoints)
    models = (dataclasses.replace(MODEL, max_in_flight=most),)
    return dataclasses.replace(received, table=dataclasses.replace(received.table, models=models))


async def test_full_endpoints_are_not_chosen(fleet: Fleet) -> None:
    for number, endpoints in enumerate(((FIRST,), (FIRST, SECOND))):
        fleet.apply(bounded(number + 1, 2, *endpoints))
        deployment = fleet.routes["m"].deployment
        for upstream in deployment.upstreams:
            upstream.in_flight = 2
        assert choose(fleet) is None
        assert deployment.is_full(())
        deployment.upstreams[-1].in_flight = 1
        assert choose(fleet) is deployment.upstreams[-1]
        assert not deployment.is_full(tuple(deployment.upstreams))


async def test_the_endpoint_that_was_named_is_taken_unless_it_failed_already(fleet: Fleet) -> None:
    fleet.apply(bounded(1, 2, FIRST, SECOND))
    deployment = fleet.routes["m"].deployment
    first, second = deployment.upstreams
    assert deployment.named("u1", (), 0.0, no_chance) is first
    assert deployment.named("u1", (first,), 0.0, no_chance) is second
    second.in_flight = 2
    assert deployment.named("u1", (first,), 0.0, no_chance) is first
    assert deployment.named("u3", (), 0.0, no_chance) is None


async def test_who_waits_is_known_over_tables(fleet: Fleet) -> None:
    fleet.apply(table(1))
    fleet.waiters("default/d").number = 3
    fleet.apply(table(2, FIRST))
    assert fleet.routes["m"].deployment.waiters.number == 3


async def test_how_many_wait_is_read_where_the_parent_has_written_it() -> None:
    descriptor = cells.make(3)
    shared = Cells(descriptor, 3)
    fleet = Fleet(Counts(), asyncio.get_running_loop(), Row(shared, 0))
    fleet.apply(table(1, FIRST), [0], {"default/d": 1})
    Row(shared, 2).put(1, 5)
    assert fleet.routes["m"].deployment.waiters.number == 5
    os.close(descriptor)
