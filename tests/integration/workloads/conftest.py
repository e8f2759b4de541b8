"""A gateway with a simulator behind it, and `llmop workloads` beside it as a process that a test may kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from tests.integration.gateway.rig import Rig, gateway_rig
from tests.rigs.fixtures import pgvector_rig
from tests.waiting import eventually

from llmop.gateway import keys

__all__ = ["pgvector_rig"]

SOURCE = Path(__file__).resolve().parents[3] / "controller"
PROGRAM = """
import sys
from pathlib import Path
from llmop.workloads.main import serve
from llmop.workloads.quota import Quota
from llmop.workloads.settings import WorkloadsSettings
folder, gateway, key, vectors = Path(sys.argv[1]), *sys.argv[2:5]
serve(WorkloadsSettings(directory=folder / "workloads", socket=folder / "workloads.sock", gateway=gateway,
    controller=f"unix://{folder}/control.sock", key=key, concurrency=32, keep_s=3e6, keep_gone_s=3e6, in_file=frozenset,
    quota=Quota(files=1000, bytes=2**32), vectors=vectors, vector_memory=2**30))
"""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a gateway process has."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for the paths of Unix sockets are limited to 107 bytes; private, as an installation's folder is."""
    with tempfile.TemporaryDirectory(prefix="llmop-workloads-") as path:
        yield Path(path)


@pytest.fixture
def vectors() -> str:
    """The address of a Postgres database for vector stores; "" = a file."""
    return ""


class Workloads:
    """`rig` is the gateway; its key is that of a client."""

    def __init__(self, folder: Path, rig: Rig, vectors: str = "") -> None:
        """`vectors` is the address of a Postgres database for vector stores."""
        self.folder = folder
        self.vectors = vectors
        self.rig = rig
        self.own_key = keys.create(folder / "keys", "workloads")
        self.prefix: tuple[str, ...] = ()  # of its command line
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.rig.address

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *, is_known: bool = True) -> None:
        """`is_known`: the gateway will take its key."""
        with (self.folder / "workloads.log").open("ab") as log:
            # Not asyncio's: that forks in full, and gRPC's threads in this process do not survive it.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [
                    *(*self.prefix, sys.executable, "-c", PROGRAM),
                    *(str(self.folder), self.url, self.own_key, self.vectors),
                ],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)},
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(60):
            while self._process.poll() is None:
                # Under both keys: the gateway reads its keys once a second.
                used = (self.rig.key, self.own_key) if is_known else (self.rig.key,)
                codes = {(await self.call("GET", "/v1/files", key=key)).status_code for key in used}
                if codes == {200}:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError((self.folder / "workloads.log").read_text())

    async def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait)

    async def upload(self, content: bytes, key: str | None = None) -> httpx.Response:
        """A file for a batch."""
        form = {"data": {"purpose": "batch"}, "files": {"file": ("rows.jsonl", content)}}
        return await self.call("POST", "/v1/files", key, **form)

    async def batch(self, content: bytes, key: str | None = None) -> str:
        """The id of a batch of chats that has begun with these rows."""
        file = (await self.upload(content, key)).json()["id"]
        wanted = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        name: str = (await self.call("POST", "/v1/batches", key, json=wanted)).json()["id"]
        return name

    async def until(
        self,
        name: str,
        wanted: Callable[[dict[str, Any]], object],
        key: str | None = None,
        *,
        patience_s: float = 60,
    ) -> dict[str, Any]:
        """The batch, as soon as it is shown so."""

        async def shown() -> dict[str, Any]:
            found: dict[str, Any] = (await self.call("GET", f"/v1/batches/{name}", key)).json()
            return found

        return await eventually(shown, wanted, patience_s=patience_s)

    async def completed(self, name: str, key: str | None = None) -> dict[str, Any]:
        return await self.until(name, lambda batch: batch["status"] == "completed", key)

    async def call(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """`key` None = that of the client."""
        headers = {"authorization": f"Bearer {key or self.rig.key}"} | options.pop("headers", {})
        async with self._client() as client:
            return await client.request(method, path, headers=headers, **options)

    @contextlib.asynccontextmanager
    async def told(
        self, model: str, messages: list[dict[str, str]], headers: Mapping[str, str] = {}
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream whose client wants to hear what it waits for."""
        sent = {"authorization": f"Bearer {self.rig.key}", "x-llmop-progress": "1", **headers}
        body = {"model": model, "messages": messages, "stream": True}
        async with (
            self._client() as client,
            client.stream("POST", "/v1/chat/completions", json=body, headers=sent) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield (line async for line in answer.aiter_lines() if line)

    def _client(self) -> httpx.AsyncClient:
        path_of_door = self.url.removeprefix("unix:")
        is_socket = path_of_door != self.url
        transport = httpx.AsyncHTTPTransport(uds=path_of_door) if is_socket else None
        base = "http://gateway" if is_socket else self.url
        return httpx.AsyncClient(base_url=base, transport=transport, timeout=60)


async def until(lines: AsyncIterator[str], word: str) -> AsyncIterator[str]:
    """Up to the first comment with it."""
    async for line in lines:
        yield line
        if line.startswith(":") and word in line:
            return


@pytest.fixture
async def workloads(folder: Path) -> AsyncIterator[Workloads]:
    async with gateway_rig(folder, workloads=folder / "workloads.sock") as rig:
        made = Workloads(folder, rig)
        await made.start()
        try:
            yield made
        finally:
            await made.kill()
