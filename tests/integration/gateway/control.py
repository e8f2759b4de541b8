"""A controller as the gateway sees it: a real GatewayService on a Unix socket, whose table a test sets by hand."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from tests.waiting import PATIENCE_S, until

from llmop.api.v1 import gateway_pb2, gateway_pb2_grpc

INSTALLATION = "abc123"


class Control(gateway_pb2_grpc.GatewayServiceServicer):
    """`reports` and `usage` are all that came, in order."""

    def __init__(self, socket: Path) -> None:
        self.target = f"unix://{socket}"
        self.reports: list[gateway_pb2.ReportRequest] = []
        self.usage: list[gateway_pb2.ReportUsageRequest] = []
        self.overview = "{}"
        self.overviews = 0  # how often it was asked for
        self.period_ms = 200  # between two reports
        self.forgets_to_answer = 0  # so many batches are counted, and their gateway is not told
        self._table: gateway_pb2.EndpointTable | None = None
        self._version = 0
        self._news = asyncio.Event()
        self._reported = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)

    def publish(
        self,
        endpoints: list[gateway_pb2.Endpoint],
        models: list[gateway_pb2.Model],
        version: int | None = None,
        keys: list[gateway_pb2.ClientKey] | None = None,
    ) -> int:
        """Sends a new table to all watchers; gives its version."""
        self._version = self._version + 1 if version is None else version
        self._table = gateway_pb2.EndpointTable(
            version=self._version,
            installation=INSTALLATION,
            endpoints=endpoints,
            models=models,
            keys=None if keys is None else gateway_pb2.ClientKeys(keys=keys),
        )
        news, self._news = self._news, asyncio.Event()
        news.set()
        return self._version

    async def acknowledged(self, version: int) -> None:
        """Returns once a gateway reported that it acts on `version`."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(report.table_version >= version for report in self.reports):
                await self._reported.wait()

    async def report(self) -> gateway_pb2.ReportRequest:
        """The next report that comes."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reported.wait()
        return self.reports[-1]

    async def loads(self, wanted: Callable[[list[gateway_pb2.DeploymentLoad]], object]) -> None:
        """Returns once a report comes whose loads are wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while not wanted(list((await self.report()).loads)):
                pass

    # What a gateway calls

    async def WatchEndpoints(
        self, request: gateway_pb2.WatchEndpointsRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.EndpointTable]:
        while True:
            news = self._news
            if self._table is not None:
                yield self._table
            await news.wait()

    async def Report(self, request: gateway_pb2.ReportRequest, context: Any) -> gateway_pb2.ReportResponse:
        self.reports.append(request)
        reported, self._reported = self._reported, asyncio.Event()
        reported.set()
        return gateway_pb2.ReportResponse(period_ms=self.period_ms)

    async def ReportUsage(
        self, request: gateway_pb2.ReportUsageRequest, context: Any
    ) -> gateway_pb2.ReportUsageResponse:
        self.usage.append(request)
        if self.forgets_to_answer:
            self.forgets_to_answer -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return gateway_pb2.ReportUsageResponse()

    async def Overview(
        self, request: gateway_pb2.OverviewRequest, context: Any
    ) -> gateway_pb2.OverviewResponse:
        """As a controller does where the text begins with the time, and as one of an older version where it does not."""
        self.overviews += 1
        head, _, rest = self.overview.partition(",")
        if (found := re.fullmatch(r'\{"now":(\d+)', head)) is None:
            return gateway_pb2.OverviewResponse(overview_json=self.overview)
        etag = hashlib.sha256(rest.encode()).hexdigest()
        text = "" if request.etag == etag else self.overview
        return gateway_pb2.OverviewResponse(overview_json=text, etag=etag, now=int(found[1]))

    def used(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Requests, prompt and completion tokens by key and model, each batch counted once."""
        batches = {(each.spool, each.number): each for each in self.usage}
        sums: dict[tuple[str, str], tuple[int, int, int]] = {}
        for batch in batches.values():
            for row in batch.rows:
                before = sums.get((row.key, row.model), (0, 0, 0))
                new = (row.requests, row.prompt_tokens, row.completion_tokens)
                sums[row.key, row.model] = tuple(map(sum, zip(before, new, strict=True)))  # type: ignore[assignment]
        return sums

    async def until_used(self, key: str, model: str, requests: int) -> None:
        await until(lambda: self.used().get((key, model), (0,))[0] == requests)
