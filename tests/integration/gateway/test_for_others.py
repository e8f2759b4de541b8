"""Rows of batches, which `llmop workloads` asks in the name of the key that made the batch."""

from __future__ import annotations

import hashlib

import pytest
from tests.integration.gateway.rig import Answer, Rig
from tests.integration.gateway.test_client_keys import SECRET, bearer, key
from tests.integration.gateway.upstreams import Call, model, polite

from llmop.api.v1 import gateway_pb2
from llmop.gateway import keys

OWNER = hashlib.sha256(SECRET.encode()).hexdigest()


async def counting(call: Call) -> None:
    await call.answer(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}')


class Workloads:
    """`llmop workloads`, as the gateway sees it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.key = keys.create(rig.settings.keys_file, keys.OF_WORKLOADS)

    async def known(self) -> None:
        await self._rig.until_known(self.key)

    def headers(self, owner: str | None = OWNER) -> dict[str, str]:
        return bearer(self.key) | ({} if owner is None else {"x-llmop-for": owner})

    async def ask(self, owner: str | None = OWNER, name: str = "m") -> Answer:
        return await self._rig.ask(
            body=b'{"model":"%b","messages":[]}' % name.encode(), headers=self.headers(owner)
        )


async def publish(rig: Rig, *granted: gateway_pb2.ClientKey) -> None:
    if not rig.engines:
        await rig.engine(counting)
    models = [model("m"), model("other")]
    await rig.control.acknowledged(
        rig.control.publish([rig.engines[0].endpoint()], models, keys=list(granted))
    )


@pytest.fixture
async def workloads(rig: Rig) -> Workloads:
    made = Workloads(rig)
    await made.known()
    return made


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, "" if answer.status == 200 else answer.json()["error"]["code"]


async def test_rows_are_their_owners_requests(rig: Rig, workloads: Workloads) -> None:
    """Its usage, its models, its limits; and the engine hears of none of it."""
    await publish(rig, key("m", requests_per_minute=2))
    said = [outcome(await workloads.ask(name=name)) for name in ("m", "other", "m", "m")]
    assert [(200, ""), (404, "model_not_found"), (200, ""), (429, "rate_limit_exceeded")] == said
    assert "default/team may use 2 requests per minute" in (await workloads.ask()).json()["error"]["message"]
    assert (200, "") == outcome(await workloads.ask(None))
    await rig.control.until_used("default/team", "m", 2)
    await rig.control.until_used(keys.OF_WORKLOADS, "m", 1)
    assert {("default/team", "m"): (2, 6, 4), (keys.OF_WORKLOADS, "m"): (1, 3, 2)} == rig.control.used()
    assert {None} == {call.header("x-llmop-for") for call in rig.engines[0].calls}


async def test_nobody_else_may_ask_for_others(rig: Rig, workloads: Workloads) -> None:
    await publish(rig, key())
    for secret in (rig.key, SECRET):
        answer = await rig.ask(headers=bearer(secret) | {"x-llmop-for": OWNER})
        assert (403, "not_for_others") == outcome(answer)
    answer = await rig.ask(headers=bearer("llmop-nobody") | {"x-llmop-for": OWNER})
    assert (401, "invalid_api_key") == outcome(answer)
    assert [] == rig.engines[0].calls


async def test_without_its_owner_a_row_is_refused_on_open_connections_too(
    rig: Rig, workloads: Workloads
) -> None:
    await publish(rig, key())
    wire = await rig.wire()
    for _ in range(3):
        await wire.send(rig.request(headers=workloads.headers()))
        assert 200 == (await wire.answer()).status
    await publish(rig)
    await wire.send(rig.request(headers=workloads.headers()))
    assert (403, "owner_gone") == outcome(await wire.answer())
    for nonsense in ("", "x" * 64, "ab", "é"):
        assert (403, "owner_gone") == outcome(await workloads.ask(nonsense))
    assert 3 == len(rig.engines[0].calls)


async def test_a_gateway_without_a_table_knows_of_no_owner_that_is_gone(
    rig: Rig, workloads: Workloads
) -> None:
    assert (503, "no_table") == outcome(await workloads.ask())
    await rig.serve(polite)
    assert (403, "owner_gone") == outcome(await workloads.ask())
