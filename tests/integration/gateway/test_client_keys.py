"""Keys that the controller grants: what they may use, how soon they end, and that they outlive the controller."""

from __future__ import annotations

import pytest
from tests.integration.gateway.rig import Rig, Wire
from tests.integration.gateway.upstreams import Gate, model, polite, waits
from tests.waiting import eventually

from llmop.api.v1 import gateway_pb2
from llmop.clock import SystemClock
from llmop.domain.client import digest

SECRET = "llmop-of-the-team"
BODY = b'{"model":"%s","messages":[]}'


def key(*models: str, secret: str = SECRET, name: str = "default/team", **more: int) -> gateway_pb2.ClientKey:
    return gateway_pb2.ClientKey(name=name, digest=digest(secret.encode()), models=models, **more)


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def two_models(rig: Rig, *keys: gateway_pb2.ClientKey) -> int:
    if not rig.engines:
        await rig.engine(polite)
    version = rig.control.publish([rig.engines[0].endpoint()], [model("m"), model("org/n")], keys=list(keys))
    await rig.control.acknowledged(version)
    return version


async def listed(rig: Rig, headers: dict[str, str]) -> list[str]:
    answer = await rig.ask("/v1/models", b"", headers, method="GET")
    return [each["id"] for each in answer.json()["data"]]


async def test_a_key_sees_and_uses_its_models_alone(rig: Rig) -> None:
    await two_models(rig, key("org/n"))
    assert 200 == (await rig.ask(body=BODY % b"org/n", headers=bearer())).status
    refused = await rig.ask(body=BODY % b"m", headers=bearer())
    nowhere = await rig.ask(body=BODY % b"x", headers=bearer())
    assert (404, "model_not_found") == (refused.status, refused.json()["error"]["code"])
    # Nothing tells a model that others may use from one that nobody has.
    assert refused.body.replace(b"'m'", b"'x'") == nowhere.body
    assert ["org/n"] == await listed(rig, bearer())
    assert 404 == (await rig.ask("/v1/models/m", b"", bearer(), method="GET")).status
    assert ["m", "org/n"] == await listed(rig, {})


async def test_the_only_model_of_a_key_needs_no_name_in_a_dialect_without_names(rig: Rig) -> None:
    await two_models(rig, key("m"))
    assert 200 == (await rig.ask("/generate", b'{"inputs":"x"}', bearer())).status
    assert 400 == (await rig.ask("/generate", b'{"inputs":"x"}')).status


async def test_a_key_that_is_taken_back_opens_nothing_more_on_an_open_connection_either(rig: Rig) -> None:
    await two_models(rig, key())
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request(headers=bearer()))
        assert 200 == (await wire.answer()).status
    await two_models(rig)
    await wire.send(rig.request(headers=bearer()))
    assert 401 == (await wire.answer()).status


async def test_a_key_that_gets_other_models_uses_those_on_an_open_connection(rig: Rig) -> None:
    await two_models(rig, key("m"))
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request(headers=bearer()))
        assert 200 == (await wire.answer()).status
    await two_models(rig, key("org/n"))
    await wire.send(rig.request(headers=bearer()))
    assert 404 == (await wire.answer()).status


async def test_a_key_expires(rig: Rig) -> None:
    wire = await rig.wire()

    async def status() -> int:
        await wire.send(rig.request(headers=bearer()))
        return (await wire.answer()).status

    for left in (2, 8, 32):  # on a busy machine a short time may be over before the first request
        await two_models(rig, key(expires_at=int(SystemClock().now()) + left))
        if await status() == 200:
            break
    await eventually(status, lambda seen: seen == 401, patience_s=60)


async def test_who_waits_is_refused_at_its_release_where_its_key_was_taken_back(rig: Rig) -> None:
    gate = Gate()
    engine = await rig.engine(gate)

    async def publish(*granted: gateway_pb2.ClientKey) -> None:
        served = [model(name, max_in_flight=1, queue=waits()) for name in ("m", "n")]
        version = rig.control.publish([engine.endpoint()], served, keys=list(granted))
        await rig.control.acknowledged(version)

    async def ask(headers: dict[str, str], body: bytes = BODY % b"m") -> Wire:
        wire = await rig.wire()
        await wire.send(rig.request(body=body, headers=headers))
        return wire

    stream = BODY.replace(b"}", b',"stream":true}') % b"m"
    await publish(key(), key(secret="two", name="default/two"), key(secret="three", name="default/three"))
    first = await ask({})
    await engine.until(lambda engine: len(engine.calls) == 1)
    revoked = await ask(bearer())
    narrowed = await ask(bearer("two"))
    begun = await ask(bearer() | {"x-llmop-progress": "1"}, stream)
    kept = await ask(bearer("three"))
    await rig.until_metric('llmop_gateway_queued{model="m",priority="default"}', 4)
    await publish(key("n", secret="two", name="default/two"), key(secret="three", name="default/three"))
    gate.let(10)
    assert [200, 401, 404, 200] == [(await wire.answer()).status for wire in (first, revoked, narrowed, kept)]
    told = await begun.answer()
    assert (200, True) == (told.status, told.whole)
    assert b'"code":"invalid_api_key"' in told.body
    assert 2 == len(engine.calls)


@pytest.mark.parametrize("behind", ["chat", "operations"])
async def test_who_waits_behind_its_own_answer_is_refused_where_its_key_was_taken_back(
    rig: Rig, behind: str
) -> None:
    gate = Gate()
    engine = await rig.engine(gate)

    async def publish(*granted: gateway_pb2.ClientKey) -> None:
        version = rig.control.publish([engine.endpoint()], [model("m")], keys=list(granted))
        await rig.control.acknowledged(version)

    await publish(key(operations=True))
    wire = await rig.wire()
    chat = rig.request(headers=bearer())
    operations = rig.request("/v1/operations", b"", bearer(), method="GET")
    await wire.send(chat + {"chat": chat, "operations": operations}[behind])
    await engine.until(lambda engine: len(engine.calls) == 1)
    await publish()
    gate.let(10)

    assert [200, 401] == [(await wire.answer()).status for _ in range(2)]
    assert (1, 0) == (len(engine.calls), rig.control.overviews)


async def test_keys_are_kept_for_a_start_without_a_controller(rig: Rig) -> None:
    await two_models(rig, key("m"))
    await rig.stop()
    await rig.control.stop()
    await rig.start()
    assert ["m"] == await listed(rig, bearer())
    assert SECRET not in (rig.state_dir / "endpoints.json").read_text()


@pytest.mark.parametrize(
    ("priority", "wished", "band"),
    [
        ("SYSTEM", "", "system"),
        ("INTERACTIVE", "", "interactive"),
        ("INTERACTIVE", "default", "default"),
        ("INTERACTIVE", "bulk", "bulk"),
        ("BULK", "default", "bulk"),
    ],
)
async def test_a_request_waits_in_the_band_of_its_key_unless_it_lets_others_pass(
    rig: Rig, priority: str, wished: str, band: str
) -> None:
    number = gateway_pb2.ClientKey.Priority.Value(f"PRIORITY_{priority}")
    version = rig.control.publish([], [model("m", queue=waits())], keys=[key(priority=number)])
    await rig.control.acknowledged(version)
    wire = await rig.wire()
    await wire.send(rig.request(headers=bearer() | ({"x-llmop-priority": wished} if wished else {})))
    await rig.until_metric(f'llmop_gateway_queued{{model="m",priority="{band}"}}', 1)
