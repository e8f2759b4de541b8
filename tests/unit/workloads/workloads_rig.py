"""An engine of batches on a real disk, with a gateway that a test scripts, and crashes where a test wants them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from llmop.clock import SystemClock
from llmop.workloads import batch as batches
from llmop.workloads.answers import Answer
from llmop.workloads.batch import ENDED, Batch
from llmop.workloads.database import Database, File
from llmop.workloads.engine import Engine, file_name, new_files
from llmop.workloads.judgement import Outcome
from llmop.workloads.shelf import Shelf

OWNER = "0123"
CHAT = "/v1/chat/completions"
KEEP_S = 30 * 86_400.0


class Crash(BaseException):
    """kill -9, as far as everything behind it is concerned."""


class StandingClock(SystemClock):
    """Time that goes on when a test says so."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.set_by = 0.0

    def now(self) -> float:
        return self.time + self.set_by

    def monotonic(self) -> float:
        return self.time


class FakeGateway:
    """`asked` counts the prompts that came."""

    def __init__(self, answer: Callable[[str], Awaitable[Outcome]] | None = None) -> None:
        self.asked: Counter[str] = Counter()
        self.most = self.under_way = 0
        self.owners: set[str | None] = set()
        self._answer = answer

    async def ask(
        self, url: str, body: dict[str, Any], key: str | None = None, owner: str | None = None
    ) -> Outcome:
        prompt = body["messages"][0]["content"]
        self.asked[prompt] += 1
        self.owners.add(owner)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return await self._answer(prompt) if self._answer is not None else says(prompt)
        finally:
            self.under_way -= 1


def says(prompt: str, status: int = 200) -> Answer:
    return Answer(status, json.dumps({"echo": prompt}).encode(), f"id-{prompt}")


class Killer:
    """Lets so many effects happen; at the next one the process is gone, before it or just after it."""

    def __init__(self, effects: int | None = None, *, after: bool = False) -> None:
        self._left = effects
        self._after = after

    def _is_time(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0

    def around(self, target: Any, names: Iterable[str]) -> None:
        for name in names:
            method = getattr(target, name)
            wrapped = self._async(method) if asyncio.iscoroutinefunction(method) else self._plain(method)
            setattr(target, name, wrapped)

    def _async(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            now = self._is_time()
            if now and not self._after:
                raise Crash
            result = await method(*args, **options)
            if now:
                raise Crash
            return result

        return call

    def _plain(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            now = self._is_time()
            if now and not self._after:
                raise Crash
            result = method(*args, **options)
            if now:
                raise Crash
            return result

        return call


_WRITES = ("move", "end", "forget_rows", "add_rows", "record", "sweep", "forget_files", "forget_batches")


class Life:
    """One life of the process on `folder`."""

    def __init__(
        self,
        folder: Path,
        gateway: FakeGateway,
        clock: SystemClock | None = None,
        killer: Killer | None = None,
        most: int = 8,
    ) -> None:
        self.folder = folder
        self.clock = clock or StandingClock()
        self.gateway = gateway
        self.database = Database(folder / "workloads.db")
        self.shelf = Shelf(folder / "files")
        self.engine = Engine(self.database, self.shelf, gateway, self.clock, most, KEEP_S)
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        if killer is not None:
            killer.around(self.database, _WRITES)
            killer.around(self.shelf, ["remove"])
            draft = self.shelf.draft

            def dangerous(name: str) -> Any:
                made = draft(name)
                killer.around(made, ["write", "keep"])
                return made

            self.shelf.draft = dangerous  # type: ignore[method-assign]

    async def begin(self) -> None:
        await self.engine.clear_up()
        self._task = asyncio.create_task(self.engine.run())

    async def finish(self) -> None:
        """Ends it however it is: nothing of it goes on."""
        if self._is_over:
            return
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.database.close()

    async def file(self, content: bytes, owner: str = OWNER) -> str:
        name = file_name(self.clock)
        draft = self.shelf.draft(name)
        draft.write(content)
        draft.keep()
        await self.database.add_files(
            [File(name, owner, "batch", "in.jsonl", len(content), self.clock.now())]
        )
        return name

    async def batch(self, content: bytes, window: str = "24h", owner: str = OWNER) -> Batch:
        name = await self.file(content, owner)
        seconds = batches.window_s(window)
        assert seconds is not None
        now = self.clock.now()
        made = await self.database.add_batch(
            Batch(
                number=0,
                id=f"batch_{self.clock.suffix(24)}",
                owner=owner,
                endpoint=CHAT,
                input_file=name,
                window=window,
                created_at=now,
                expires_at=now + seconds,
            )
        )
        self.engine.wake()
        return made

    async def cancel(self, batch: Batch) -> None:
        names, now = new_files(self.clock), self.clock.now()
        await self.database.move(
            batch.number, lambda found: batches.begin_end(found, batches.Status.CANCELLED, names, now)
        )
        self.engine.wake()

    async def until(self, number: int, true: Callable[[Batch], bool], seconds: float = 20) -> Batch:
        async with asyncio.timeout(seconds):
            while True:
                if self._task is not None and self._task.done():
                    await self._task
                batch = await self.database.batch_numbered(number)
                if true(batch):
                    return batch
                await asyncio.sleep(0.002)

    async def until_ended(self, number: int) -> Batch:
        return await self.until(number, lambda batch: batch.status in ENDED)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.shelf.path(name).read_bytes().splitlines()] if name else []


def row(number: int | str, **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"p{number}"}]}
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body} | changes


def jsonl(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)
