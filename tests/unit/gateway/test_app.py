"""What the few routes beside the hot path answer."""

import asyncio
import types
from typing import Any, cast

import httpx
import orjson

from llmop.domain.client import ClientKey
from llmop.domain.endpoint import EndpointTable, RoutedModel
from llmop.gateway.app import Presence, make_app
from llmop.gateway.fleet import Fleet
from llmop.gateway.forward import Forward
from llmop.gateway.metrics import Counts
from llmop.gateway.operations import Overview
from llmop.gateway.table import ReceivedTable
from llmop.gateway.worker import Worker
from llmop.testing.clock import FakeClock

KEY = ClientKey(name="default/me", digest="0" * 64)
PLAIN = RoutedModel(name="m", deployment="default/d", protocols=("openai",), created_at=0.0)
PANEL = RoutedModel(
    name="panel", deployment="tribunal:default/panel", protocols=("openai",), created_at=0.0, virtual=True
)


def table(version: int, *models: RoutedModel) -> ReceivedTable:
    return ReceivedTable(
        installation="i",
        received_at=0.0,
        table=EndpointTable(version=version, endpoints=(), models=models),
    )


class Workloads:
    """A new table comes while it is asked."""

    def __init__(self, fleet: Fleet, following: ReceivedTable) -> None:
        self.fleet = fleet
        self.following = following

    async def read(self, _: str) -> bytes:
        self.fleet.apply(self.following)
        return orjson.dumps({"panel": {"models": ["m"], "missing_stores": []}})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing is forwarded")


async def test_a_model_that_goes_while_llmop_workloads_is_asked_spoils_no_list() -> None:
    loop = asyncio.get_running_loop()
    fleet = Fleet(Counts(), loop)
    fleet.apply(table(1, PLAIN, PANEL))
    worker = types.SimpleNamespace(fleet=fleet, loop=loop, clock=FakeClock(), request_id=lambda: b"r1")
    forward = cast("Forward", Workloads(fleet, table(2, PANEL)))

    async def counts() -> Counts:
        return Counts()

    async def overview() -> Overview:
        return Overview()

    app = make_app(cast("Worker", worker), Presence(), counts, overview, forward)

    async def with_key(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"state": {"key": KEY}}, receive, send)

    transport = httpx.ASGITransport(app=with_key)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        listed = (await client.get("/v1/models")).json()["data"]

    assert ["m", "panel"] == [each["id"] for each in listed]
