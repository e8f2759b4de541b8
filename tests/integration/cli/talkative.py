"""A server of one's own making for llmctl bench: it streams words when it is told to, and writes down when it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":" word"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Call:
    """One request that came; `number` counts from 0, llmctl's own probe included."""

    def __init__(self, number: int, body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.body = body
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, words: int = 2) -> None:
        """All at once."""
        self.send(HEAD)
        self.chunk(WORD * words + USAGE % words + DONE)
        self.send(b"0\r\n\r\n")


Behaviour = Callable[[Call], Awaitable[None]]


class Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self.asked_at: list[float] = []  # by the clock of time.monotonic()
        self.connections = 0
        self.open = self.most_open = 0
        self.url = ""
        self._behaviour = behaviour

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*ends):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(size))
                self.asked_at.append(time.monotonic())
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    await self._behaviour(Call(len(self.asked_at) - 1, body, writer))
                finally:
                    self.open -= 1
                if writer.is_closing():
                    break
                await writer.drain()


@contextlib.contextmanager
def talking(behaviour: Behaviour, path: Path | None = None) -> Iterator[Server]:
    """The server in a thread, on a free port of loopback or on a Unix socket."""
    server = Server(behaviour)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        if path is not None:
            server.url = f"unix:{path}"
            return await asyncio.start_unix_server(server._serve, path)
        made = await asyncio.start_server(server._serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}"
        return made

    async def stop(made: asyncio.Server) -> None:
        made.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # sockets are closed by the loop

    made = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stop(made), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
