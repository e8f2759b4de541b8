"""A process beside a test's event loop. Not asyncio's: that forks in full under uvloop, and gRPC's threads in this process do not survive it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "controller"


class Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        while (code := self._process.poll()) is None:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
        return code


async def start(program: str, *arguments: str) -> Child:
    """A Python program with the product's source."""
    return Child(
        await asyncio.to_thread(
            subprocess.Popen, [sys.executable, "-c", program, *arguments], env=environment()
        )
    )


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
