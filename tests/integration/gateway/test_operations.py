"""The overview for operators: for keys that may see it, and only while the controller answers."""

from __future__ import annotations

import asyncio

from tests.integration.gateway.rig import Answer, Rig
from tests.integration.gateway.test_client_keys import SECRET, bearer, key
from tests.integration.gateway.test_workers import Gateway, gateway  # noqa: F401  # a fixture
from tests.integration.gateway.upstreams import model
from tests.waiting import eventually

OTHER = "llmop-of-somebody-else"


async def grant(rig: Rig, *, operations: bool = True) -> None:
    other = key(secret=OTHER)
    other.name = "default/other"
    version = rig.control.publish([], [model("m")], keys=[key("m", operations=operations), other])
    await rig.control.acknowledged(version)


async def look(rig: Rig, headers: dict[str, str] | None = None) -> Answer:
    return await rig.ask("/v1/operations", b"", bearer() if headers is None else headers, method="GET")


async def test_a_key_with_the_right_gets_what_the_controller_says(rig: Rig) -> None:
    rig.control.overview = '{"now":1,"deployments":[{"name":"ü"}]}'
    await grant(rig)
    answer = await look(rig)

    assert (200, "application/json", "no-store") == (
        answer.status,
        answer.headers["content-type"],
        answer.headers["cache-control"],
    )
    assert rig.control.overview == answer.body.decode()


async def test_what_a_client_has_is_not_sent_again_until_it_changes(rig: Rig) -> None:
    rig.control.overview = '{"now":1,"deployments":[]}'
    await grant(rig)
    first = await look(rig)
    known = {**bearer(), "if-none-match": first.headers["etag"]}
    rig.control.overview = '{"now":2,"deployments":[]}'
    async with asyncio.timeout(20):
        while (again := await look(rig, known)).headers.get("x-llmop-now") != "2":
            assert (304, b"") == (again.status, again.body)
        whole = await look(rig)
        rig.control.overview = '{"now":3,"deployments":[1]}'
        while (other := await look(rig, known)).status == 304:
            pass

    assert rig.control.overview == other.body.decode()
    assert '{"now":2,"deployments":[]}' == whole.body.decode()


async def test_all_others_get_nothing_and_the_controller_is_not_asked(rig: Rig) -> None:
    await grant(rig)
    for headers in (bearer(OTHER), {}):  # without the right, and of the gateway's file
        refused = await look(rig, headers)
        assert (403, "operations_not_allowed") == (refused.status, refused.json()["error"]["code"])
    for headers in ({"authorization": ""}, bearer("llmop-unknown")):
        refused = await look(rig, headers)
        assert (401, "invalid_api_key") == (refused.status, refused.json()["error"]["code"])

    assert 0 == rig.control.overviews


async def test_a_right_that_is_taken_back_is_gone_on_open_connections_too(rig: Rig) -> None:
    await grant(rig)
    wire = await rig.wire()
    seen = []
    for operations in (True, False, True):
        await grant(rig, operations=operations)
        await wire.send(rig.request("/v1/operations", b"", bearer(), method="GET"))
        seen.append((await wire.answer()).status)

    assert [200, 403, 200] == seen


async def test_only_who_may_see_it_is_told_that_it_is_there(rig: Rig) -> None:
    await grant(rig)
    mine = (await rig.ask("/v1/models", b"", bearer(), method="GET")).json()
    others = (await rig.ask("/v1/models", b"", bearer(OTHER), method="GET")).json()

    assert {"operations": True} == mine["llmop"]
    assert {"object", "data"} == others.keys()
    assert mine["data"] == others["data"]


async def test_many_who_look_cost_the_controller_one_answer(rig: Rig) -> None:
    await grant(rig)
    answers = await asyncio.gather(*(look(rig) for _ in range(20)))

    assert {200} == {each.status for each in answers}
    assert rig.control.overviews < 20


async def test_without_a_controller_it_is_said_for_how_long_and_models_are_served(rig: Rig) -> None:
    await grant(rig)
    assert 200 == (await look(rig)).status
    await rig.control.stop()
    answer = await eventually(lambda: look(rig), lambda answer: answer.status != 200)

    assert (503, "controller_away", "5") == (
        answer.status,
        answer.json()["error"]["code"],
        answer.headers["retry-after"],
    )
    assert "the controller gives no overview, and did" in answer.json()["error"]["message"]
    assert 200 == (await rig.ask("/v1/models", b"", bearer(), method="GET")).status
    await rig.control.start()
    await eventually(lambda: look(rig), lambda answer: answer.status == 200)


async def test_a_gateway_that_started_without_a_controller_says_that_it_never_answered(rig: Rig) -> None:
    await grant(rig)
    await rig.stop()
    await rig.control.stop()
    await rig.start()

    assert "has not since this gateway began" in (await look(rig)).json()["error"]["message"]


async def test_workers_ask_for_it_by_their_parent(gateway: Gateway) -> None:  # noqa: F811  # the fixture
    gateway.control.overview = '{"now":1}'
    await gateway.control.acknowledged(gateway.control.publish([], [model("m")], keys=[key(operations=True)]))
    allowed, gateway.key = gateway.key, SECRET
    before = gateway.control.overviews
    statuses = [await gateway.status("/v1/operations", "GET") for _ in range(30)]

    assert {200} == set(statuses)
    assert 0 < gateway.control.overviews - before < 30
    gateway.key = allowed
    assert 403 == await gateway.status("/v1/operations", "GET")
    await gateway.control.stop()
    gateway.key = SECRET
    await eventually(lambda: gateway.status("/v1/operations", "GET"), lambda status: status == 503)
