"""Whose request goes on to `llmop workloads`: that of the key that was checked, however many a head names."""

import asyncio
import logging
from pathlib import Path

import pytest

from llmop.gateway.forward import Forward, _headers
from llmop.gateway.heads import Headers, read_request_head


@pytest.mark.parametrize(
    "keys",
    [
        [(b"authorization", b"Bearer a")],
        [(b"x-api-key", b"a")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer a"), (b"x-api-key", b"b")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Basic x"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer "), (b"x-api-key", b"b")],
    ],
)
def test_the_owner_is_who_was_let_in(keys: Headers) -> None:
    checked = read_request_head([(b"host", b"g"), *keys], "1.1").key
    assert checked is not None
    sent = dict(_headers(keys, is_keyless=False))
    assert sent["authorization"] == f"Bearer {checked.decode()}"
    assert "authorization" not in dict(_headers(keys, is_keyless=True))


async def test_what_llmop_workloads_does_not_know_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    path = tmp_path / "workloads.sock"
    forward = Forward(path, 5.0)
    async with await asyncio.start_unix_server(answer, path):
        with caplog.at_level(logging.WARNING):
            read = [await forward.read("/virtual-models") for _ in range(3)]
        await forward.close()

    assert [None] * 3 == read
    assert 1 == caplog.text.count("404")
