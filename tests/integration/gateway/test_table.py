"""The endpoint table: applied, acknowledged, kept on disk, kept in force while the controller is away."""

from __future__ import annotations

import asyncio
import stat

from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import Call, model, polite

from llmop.api.v1 import gateway_pb2


async def test_a_draining_endpoint_has_no_idle_connection_left_when_its_version_is_acknowledged(
    rig: Rig,
) -> None:
    one, two = await rig.serve(polite, polite)
    await asyncio.gather(*(rig.ask() for _ in range(20)))
    await one.until(lambda engine: engine.connections > 0)
    version = rig.control.publish(
        [one.endpoint(gateway_pb2.Endpoint.STATE_DRAINING), two.endpoint()], [model("m")]
    )
    await rig.control.acknowledged(version)
    await one.until(lambda engine: engine.connections == 0)
    answers = await asyncio.gather(*(rig.ask() for _ in range(20)))
    assert {"r2"} == {answer.headers["x-llmop-replica"] for answer in answers}


async def test_a_request_on_a_draining_endpoint_is_finished_and_its_connection_closed(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def waiting(call: Call) -> None:
        await go_on.wait()
        await call.answer()

    (engine,) = await rig.serve(waiting)
    asked = asyncio.create_task(rig.ask())
    await engine.until(lambda engine: len(engine.calls) == 1)
    version = rig.control.publish([engine.endpoint(gateway_pb2.Endpoint.STATE_DRAINING)], [model("m")])
    await rig.control.acknowledged(version)
    assert "no_endpoint" == (await rig.ask()).headers["x-llmop-dropped-reason"]
    go_on.set()
    assert 200 == (await asked).status
    await engine.until(lambda engine: engine.connections == 0)


async def test_suspect_endpoints_are_still_routed(rig: Rig) -> None:
    engine = await rig.engine(polite)
    version = rig.control.publish([engine.endpoint(gateway_pb2.Endpoint.STATE_SUSPECT)], [model("m")])
    await rig.control.acknowledged(version)
    assert 200 == (await rig.ask()).status


async def test_it_says_by_name_that_it_lives_though_nothing_changes(rig: Rig) -> None:
    before = len(rig.control.reports)
    while len(rig.control.reports) < before + 2:
        await rig.control.report()
    assert {"gateway-1"} == {report.gateway for report in rig.control.reports}


async def test_it_serves_on_while_the_controller_is_away_and_listens_again_when_it_is_back(rig: Rig) -> None:
    one, two = await rig.engine(polite), await rig.engine(polite)
    await rig.control.acknowledged(rig.control.publish([one.endpoint()], [model("m")]))
    await rig.control.stop()
    assert 200 == (await rig.ask()).status
    await rig.until_metric("llmop_gateway_controller_connected", 0.0)
    await rig.control.start()
    await rig.control.acknowledged(rig.control.publish([two.endpoint()], [model("m")]))
    assert "r2" == (await rig.ask()).headers["x-llmop-replica"]


async def test_it_serves_after_a_restart_without_a_controller(rig: Rig) -> None:
    await rig.serve(polite)
    await rig.control.stop()
    await rig.stop()
    assert 0o600 == stat.S_IMODE((rig.state_dir / "endpoints.json").stat().st_mode)
    await rig.start()
    assert 200 == (await rig.ask()).status
    health = (await rig.ask("/healthz", b"", method="GET")).json()
    assert ("ok", "away") == (health["status"], health["controller"])


async def test_a_damaged_table_on_disk_does_not_keep_it_from_starting(rig: Rig) -> None:
    await rig.control.stop()
    await rig.stop()
    (rig.state_dir / "endpoints.json").write_text("{")
    await rig.start()
    assert 503 == (await rig.ask("/healthz", b"", method="GET")).status
    # Nobody can say yet that a model does not exist.
    for path, method in (
        ("/v1/chat/completions", "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/m", "GET"),
    ):
        answer = await rig.ask(path, method=method)
        assert (503, "no_table") == (answer.status, answer.json()["error"]["code"])
        assert ("1", "no_table") == (answer.headers["retry-after"], answer.headers["x-llmop-dropped-reason"])
    await rig.control.start()
    await rig.serve(polite)
    assert 200 == (await rig.ask()).status


async def test_a_late_older_table_is_ignored(rig: Rig) -> None:
    one, two = await rig.engine(polite), await rig.engine(polite)
    rig.control.publish([one.endpoint()], [model("m")], version=10)
    await rig.control.acknowledged(10)
    rig.control.publish([two.endpoint()], [model("m")], version=9)
    before = len(rig.control.reports)
    while len(rig.control.reports) < before + 3:
        await rig.control.report()
    assert "r1" == (await rig.ask()).headers["x-llmop-replica"]
    assert 10 == rig.control.reports[-1].table_version
