"""llmop on a laptop: `llmop up` of a person with a home directory of their own. Replicas are local processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.e2e.traffic import Traffic
from tests.rigs.processes import tail, wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


class Laptop:
    """A person's account: a home directory of their own, `llmop up` in it, and llmctl, which finds it by itself."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.log = home / "up.log"
        self._up: subprocess.Popen[bytes] | None = None
        self.environment = {
            "HOME": str(home),
            "PATH": f"{BIN}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
        }

    def up(self, *more: str) -> None:
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                [BIN / "llmop", "up", "--state-dir", str(self.state), "--listen", "127.0.0.1:0", *more],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        up = self._up
        self.wait(
            "llmop to be up or to fail",
            lambda: "llmop is up" in self.log.read_text() or up.poll() is not None,
            timeout=60,
        )
        assert up.poll() is None, self.report()

    def end(self, number: int = signal.SIGINT, *, timeout: float = 60) -> int:
        """The exit code of `llmop up` after a signal."""
        assert self._up is not None
        self._up.send_signal(number)
        code = self._up.wait(timeout)
        self._up = None
        return code

    def clean(self) -> None:
        """Whatever a test did: nothing of it stays. Ours is what runs with this home directory."""
        if self._up is not None:
            self._up.kill()
            self._up.wait()
        for _ in range(3):
            for pid, _command in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            threading.Event().wait(0.1)

    def processes(self) -> list[tuple[int, str]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if command and str(self.home).encode() in command + (entry / "environ").read_bytes():
                    found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
        return found

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """An llmctl, however it ends."""
        return subprocess.run(
            [BIN / "llmctl", *argv],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def llmctl(self, *argv: str, text: str = "", code: int = 0) -> str:
        done = self.run(*argv, text=text)
        assert code == done.returncode, (
            f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}\n{self.report()}"
        )
        return done.stdout

    def answers(self) -> bool:
        """Whether the controller does."""
        return self.run("get", "clusters").returncode == 0

    def apply(self, *documents: dict[str, Any]) -> None:
        self.llmctl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def wait_ready(self, name: str) -> None:
        self.llmctl("wait", f"md/{name}", "--for=condition=Ready", "--timeout=100s")

    def objects(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.llmctl("get", kind, "-o", "json"))["items"]
        return found

    @property
    def gateway(self) -> tuple[int, str]:
        """Port and key, as the context file says."""
        (context,) = yaml.safe_load((self.home / ".config/llmop/contexts.yaml").read_text())["contexts"]
        return int(context["gateway"].rpartition(":")[2]), Path(context["keyFile"]).read_text().strip()

    def kept(self) -> list[dict[str, Any]]:
        """The endpoints in the table that the gateway has on its disk."""
        tables = [json.loads(path.read_text())["table"] for path in self.state.rglob("endpoints.json")]
        return [endpoint for table in tables for endpoint in table["endpoints"]]

    def open(self, path: str, body: object = None, *, key: str = "", **headers: str) -> Any:
        """The answer of the gateway, to be closed; a body is posted. `key` "" = that of the context. HTTPError for a bad status."""
        port, own = self.gateway
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {key or own}", "Content-Type": "application/json", **headers},
        )
        return urllib.request.urlopen(request, timeout=240)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.open(path, body) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def status(self, path: str, body: object = None, *, key: str = "") -> int:
        try:
            with self.open(path, body, key=key) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def is_listed(self, model: str) -> bool:
        """Whether the gateway knows a model of this name."""
        with self.open("/v1/models") as response:
            return model in {each["id"] for each in json.load(response)["data"]}

    def metric(self, name: str) -> float:
        """The sum of a metric of the gateway over its series."""
        with self.open("/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))

    def comments(self, model: str) -> list[str]:
        """What a stream says before its first event."""
        body = {"model": model, "prompt": "Hello", "max_tokens": 2, "stream": True}
        said: list[str] = []
        with self.open("/v1/completions", body, **{"x-llmop-progress": "1"}) as response:
            for line in response:
                if line.startswith(b"data:") or len(said) > 8:  # one comes at least every ten seconds
                    return said
                if line.strip():
                    said.append(line.decode().strip())
        return said

    @contextlib.contextmanager
    def flowing(self, model: str) -> Iterator[Traffic]:
        traffic = Traffic(*self.gateway, model)
        traffic.start()
        try:
            yield traffic
        finally:
            traffic.stop()
        print(f"       {traffic}")
        assert [] == traffic.failures[:10], self.report()

    def wait(self, what: str, probe: Any, *, timeout: float) -> Any:
        try:
            return wait_for(what, probe, timeout=timeout)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.report()}") from error

    def report(self) -> str:
        logs = [
            self.log,
            *sorted(self.state.glob("logs/*.log")),
            *sorted(self.state.glob("shared/replicas/*/*.log")),
        ]
        return "\n".join(f"--- {path}\n{tail(path, 20)}" for path in logs)
