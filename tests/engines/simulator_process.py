"""A simulator as a real process on a free loopback port.

    with simulator_process("--max-concurrent-requests", "1") as engine:
        httpx.get(f"{engine.url}/health")

The process is ended on leaving, whatever happened; `engine.output` is all it printed.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

SOURCE = Path(__file__).resolve().parents[2] / "controller"
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_POLL_SECONDS = 0.01


class SimulatorProcess:
    """A simulator that was started. `port` is known once it listens."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self.port = 0
        self._log = log
        self._last_output: str | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Standard output and error so far; after leaving the context, all of it."""
        if self._last_output is not None:
            return self._last_output
        return Path(self._log.name).read_text(encoding="utf-8")

    def end(self) -> None:
        """Kill it if it still lives, and keep what it said."""
        self.process.kill()
        self.process.wait()
        self._last_output = self.output

    def wait_until_ready(self, deadline: float = 60.0) -> None:
        """Return at the first 200 on /health. AssertionError, with the output, if it ends or takes too long (s)."""
        limit = time.monotonic() + deadline
        while not self._healthy():
            self._still_going(limit, "ready")

    def wait_until_says(self, text: str, deadline: float = 60.0) -> None:
        """Return once the output contains `text`; AssertionError as above."""
        limit = time.monotonic() + deadline
        while text not in self.output:
            self._still_going(limit, f"saying {text!r}")

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float = 60.0) -> int:
        """The exit status; AssertionError if it does not come in time (s)."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the simulator has not ended after {deadline} s:\n{self.output}") from None

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self._request("DELETE", path, **options)

    def metrics(self) -> str:
        return self._get("/metrics")

    def tokens(self) -> tuple[int, int]:
        """Prompt and answer tokens that it has counted as vLLM."""
        totals = [0, 0]
        for line in self.metrics().splitlines():
            for place, series in enumerate(("vllm:prompt_tokens_total", "vllm:generation_tokens_total")):
                if line.startswith(series):
                    totals[place] += int(float(line.rpartition(" ")[2]))
        return totals[0], totals[1]

    def metric(self, series: str) -> float:
        """The value of a series such as `tgi_queue_size`, labels included; 0 where it is absent."""
        for line in self.metrics().splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return 0.0

    def wait_for_metric(self, series: str, value: float, deadline: float = 60.0) -> None:
        """Return once a series has the value; AssertionError as above."""
        limit = time.monotonic() + deadline
        while self.metric(series) != value:
            self._still_going(limit, f"at {series} {value}")

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Whatever status it has, with the patience of a busy machine."""
        return httpx.request(method, self.url + path, **{"timeout": 60, "trust_env": False, **options})

    def _healthy(self) -> bool:
        if self.port == 0:
            found = _LISTENING.search(self.output)
            if found is None:
                return False
            self.port = int(found[1])
        try:
            self._get("/health")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _get(self, path: str) -> str:
        """http.client knows nothing of proxies. Raises OSError, HTTPException, also for any status but 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"{path}: {response.status} {text}")
        return text

    def _still_going(self, limit: float, what: str) -> None:
        if self.process.poll() is not None:
            raise AssertionError(
                f"the simulator ended with {self.process.returncode} before {what}:\n{self.output}"
            )
        if time.monotonic() > limit:
            raise AssertionError(f"the simulator is not {what} in time:\n{self.output}")
        time.sleep(_POLL_SECONDS)


@contextmanager
def started_simulator(
    *flags: str, environment: Mapping[str, str] | None = None, command: Sequence[str] | None = None
) -> Iterator[SimulatorProcess]:
    """Start one and do not wait for anything.

    The environment is clean but for PATH and what is given. `command` replaces `python -m llmop.simulator`.
    """
    start = list(command) if command is not None else [sys.executable, "-m", "llmop.simulator"]
    variables = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with tempfile.NamedTemporaryFile(prefix="simulator-", suffix=".log") as log:
        process = subprocess.Popen(
            [*start, "--port", "0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**variables, **(environment or {})},
        )
        simulator = SimulatorProcess(process, log)
        try:
            yield simulator
        finally:
            simulator.end()


@contextmanager
def simulator_process(
    *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[SimulatorProcess]:
    """Start one and wait until it is ready."""
    with started_simulator(*flags, environment=environment) as simulator:
        simulator.wait_until_ready()
        yield simulator
