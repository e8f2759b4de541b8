"""Stagers as the controller starts them: real processes, with one end of their standard input in our hand."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmop.artifacts.container import environment
from llmop.artifacts.order import Order

TIMEOUT = 60.0
_PROGRAM = ["-m", "llmop.artifacts.worker"]
_HASTY = """
import sys
from llmop.artifacts import worker
from llmop.files import lock
lock.VANISHED_S, worker.POLL_S = 1.0, 0.1
sys.exit(worker.main(sys.argv[1:]))
"""


class StagerProcess:
    """`within` is put in front of its command line; a `hasty` one calls others vanished after a second. Use it as a context manager:
    it does not outlive a test."""

    def __init__(
        self, order: Order, *, within: Sequence[str] = (), path: str = "", hasty: bool = False
    ) -> None:
        variables = environment(os.environ)
        self.lines: list[dict[str, Any]] = []
        self.words: list[str] = []
        self._heard: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [*within, sys.executable, "-I", *(["-c", _HASTY] if hasty else _PROGRAM), order.dump()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables | ({"PATH": path} if path else {}),
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._heard.put(raw.decode(errors="replace").strip())
        self._heard.put(None)

    def __enter__(self) -> StagerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def until(self, step: str) -> dict[str, Any]:
        """The first line that tells of this step. Fails when the stager ends without."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = next((each for each in self.lines if each.get("step") == step), None)
            if found is not None:
                return found
            assert self._take(deadline), f"it ended before {step}: {self.lines} {self.words}"

    def result(self) -> dict[str, Any]:
        """The last line, once it has ended: a digest or an error."""
        deadline = time.monotonic() + TIMEOUT
        while self._take(deadline):
            pass
        self.process.wait(TIMEOUT)
        assert self.lines, self.words
        return self.lines[-1]

    def _take(self, deadline: float) -> bool:
        line = self._heard.get(timeout=max(0.01, deadline - time.monotonic()))
        if line is None:
            return False
        if line.startswith("{"):
            self.lines.append(json.loads(line))
        else:
            self.words.append(line)
        return True


def run(order: Order, *, within: Sequence[str] = (), path: str = "") -> dict[str, Any]:
    """The last line of a stager that is left alone."""
    with StagerProcess(order, within=within, path=path) as stager:
        return stager.result()


def small_disk(folder: Path, size: str) -> list[str]:
    """Puts a file system of this size on `folder`, for the command behind it and its children only."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
