"""What the client of a stream is told while nothing of its answer comes."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from llmop.workloads.outlook import Outlook
from llmop.workloads.streams import Stream

T = TypeVar("T")

_LOOK_S = 1.0
_REMINDER_S = 10.0  # a stream that says nothing for longer may look dead to what stands between


class Teller:
    """Writes comments, which clients that do not look for them skip. `waiting` is who is waited for: a member, and the model that it asks."""

    def __init__(self, stream: Stream, outlook: Outlook | None, quiet: str) -> None:
        """`outlook` None = the client does not want to hear what is waited for. Then, and where nothing is known of that, a stream that has
        begun gets the word `quiet` now and then.
        """
        self.waiting: dict[str, str] = {}
        self._stream = stream
        self._outlook = outlook
        self._quiet = quiet
        self._told = ""
        self._told_at = 0.0

    async def over(self, work: Awaitable[T]) -> T:
        """What comes of the work; the client is told while it lasts. Cancelled, it takes the work back."""
        task = asyncio.ensure_future(work)
        self._told_at = asyncio.get_running_loop().time()
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=_LOOK_S)
                if not task.done():
                    await self._look(task)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _look(self, task: "asyncio.Future[T]") -> None:
        """What has come of the work does not wait for a gateway that is slow to say what it waits for."""
        words = asyncio.ensure_future(self._words())
        try:
            await asyncio.wait((task, words), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._tell(words.result())
        finally:
            words.cancel()

    async def _tell(self, words: str) -> None:
        now = asyncio.get_running_loop().time()
        if words == self._told and now - self._told_at < _REMINDER_S:
            return
        self._told, self._told_at = words, now
        if words or self._stream.has_begun:
            await self._stream.write(f": {words or self._quiet}\n\n".encode())

    async def _words(self) -> str:
        """Like "critic-1, critic-2 qwen: pending, starts in ~40 s; judge llama: loading"; "" where none of them waits, as far as is known."""
        if self._outlook is None:
            return ""
        members: dict[str, list[str]] = {}
        for member, model in self.waiting.items():
            members.setdefault(model, []).append(member)
        found = [
            (names, model, words)
            for model, names in members.items()
            if (words := await self._outlook.of(model))
        ]
        return "; ".join(f"{', '.join(names)} {model}: {words}" for names, model, words in found)
