"""An assistant whose client was told what is waited for, and whose vector stores then fail."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message

from llmop.domain.assistant import Assistant
from llmop.domain.errors import Unavailable
from llmop.workloads import telling
from llmop.workloads.assistant import routes
from llmop.workloads.outlook import Outlook
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.values import Store

STORE = Store(number=1, id="vs_a", owner="o", name="", model="minilm", created_at=1.0, active_at=1.0)
ASSISTANT = Assistant(name="librarian", namespace="default", model="writer", vector_stores=("vs_a",))
LOADING = b'{"llmop": {"state": "loading", "starts_in_seconds": null, "ready_in_seconds": 9}}'


@pytest.mark.parametrize(
    "error, code",
    [
        (Unavailable("gone"), "vectors_away"),
        (sqlite3.OperationalError("full"), "store_failed"),
        (Refused(502, "embedding_failed", "no"), "embedding_failed"),
    ],
)
@pytest.mark.parametrize("is_told", [True, False])
async def test_the_error_is_an_event_where_the_stream_has_begun(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, is_told: bool
) -> None:
    monkeypatch.setattr(telling, "_LOOK_S", 0.01)
    sent: list[Message] = []
    told = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body", b"").startswith(b":"):
            told.set()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def find(name: str) -> Store:
        return STORE

    async def search(*_: Any, **__: Any) -> None:
        if is_told:
            await told.wait()
        raise error

    async def read(path: str) -> bytes:
        return LOADING

    service: Any = SimpleNamespace(
        clock=SimpleNamespace(suffix=lambda length: "x" * length, now=lambda: 1.0),
        stores=SimpleNamespace(find=find),
        search=SimpleNamespace(find=search),
    )
    outlook = Outlook(read, asyncio.get_running_loop().time)
    body = {"model": "librarian", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
    answer = await routes.answering(service)(ASSISTANT, json.dumps(body).encode(), outlook)
    async with asyncio.timeout(20):
        await answer({"type": "http"}, receive, send)

    head, *pieces = sent
    if is_told:
        assert 200 == head["status"]
        assert b": search minilm: loading, ready in ~9 s\n\n" == pieces[0]["body"]
        assert code == json.loads(pieces[-2]["body"].removeprefix(b"data: "))["error"]["code"]
        assert not pieces[-1].get("more_body")
    else:
        assert 500 <= head["status"]
        assert code == json.loads(pieces[0]["body"])["error"]["code"]
