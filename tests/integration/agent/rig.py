"""One replica in a shared directory, the agents started for it, and ways to look at their processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.integration.agent.controller import Authority, Json

AGENT = Path(__file__).parents[3] / "controller/llmop/agent/agent.py"
ENGINE = Path(__file__).with_name("engine.py")
# The agent's own python may be set to the oldest one at hand; the engine always runs under the tests' python.
PYTHON = os.environ.get("LLMOP_AGENT_PYTHON", sys.executable)
Found = TypeVar("Found")
TOKEN, KEY = "token-of-the-replica", "key-of-the-engine"


def eventually(look: Callable[[], Found], *, seconds: float = 60, what: str = "it") -> Found:
    """The first true value that `look` returns within the time."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        found = look()
        if found:
            return found
        pause.wait(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def processes_with(text: str) -> list[int]:
    """Processes that have the text in their command line."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if text.encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
    return found


class Rig:
    """A shared directory with one replica in it, and the agents that a test starts for it."""

    def __init__(self, shared: Path, authority: Authority) -> None:
        self.shared = shared
        self.directory = shared / "replicas/llama-x7k2p"
        self.directory.mkdir(parents=True)
        self.faults = shared / "faults"
        self.faults.mkdir()
        self.agents: list[subprocess.Popen[bytes]] = []
        engine = [
            str(ENGINE),
            "--port",
            "{port}",
            "--host",
            "{host}",
            "--key-file",
            "{apiKeyFile}",
            "--faults",
        ]
        self.document: Json = {
            "version": 1,
            "installation": "k3v9qd",
            "replica": {
                "uid": "0b6c",
                "name": "llama-x7k2p",
                "namespace": "default",
                "jobName": "llmop-k3v9qd-llama",
            },
            "sharedDir": str(shared),
            "dir": str(self.directory),
            "token": TOKEN,
            "apiKey": KEY,
            "ca": authority.pem,
            "controllerWait": 10,
            "gpus": 0,
            "terminationGrace": 20,
            "rolloverMargin": 120,
            "engine": {
                "container": {"kind": "none"},
                "argv": [sys.executable, *engine, str(self.faults)],
                "env": {},
                "envFiles": [],
                "ports": ["http"],
                "cwd": "{scratch}",
                "requires": [],
                "health": {"path": "/health", "period": 0.1, "timeout": 5, "failureThreshold": 2},
                "warmup": {"method": "POST", "path": "/generate", "body": {"inputs": "Hello"}},
                "startupTimeout": 60,
                "maxRestarts": 1,
                "stop": {"signal": "TERM", "timeout": 2},
            },
        }

    @property
    def engine(self) -> Json:
        engine: Json = self.document["engine"]
        return engine

    def point_to(self, *urls: str) -> None:
        temporary = self.shared / "controllers.json.new"
        temporary.write_text(json.dumps({"version": 1, "urls": urls}))
        temporary.replace(self.shared / "controllers.json")

    def fault(self, name: str) -> Path:
        path = self.faults / name
        path.touch()
        return path

    def start(self, job: str = "17", **environment: str) -> subprocess.Popen[bytes]:
        config = self.directory / "replica.json"
        config.write_text(json.dumps(self.document))
        config.chmod(0o600)
        log = (self.directory / "job.log").open("ab")
        with log:
            agent = subprocess.Popen(
                [PYTHON, "-I", str(AGENT), "--config", str(config)],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.shared),
                    "SLURM_JOB_ID": job,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.agents.append(agent)
        return agent

    def end(self, agent: subprocess.Popen[bytes], seconds: float = 60) -> int:
        """The exit status of the agent."""
        return agent.wait(timeout=seconds)

    def record(self) -> Json:
        record: Json = json.loads((self.directory / "exit.json").read_text())
        return record

    def log(self) -> str:
        return (self.directory / "job.log").read_text()

    def engines(self) -> list[int]:
        """The engine's processes: they, and nothing else, name the fault directory."""
        return processes_with(str(self.faults))

    def ask(self, port: int, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        connection.close()  # the response keeps its own hold on the socket
        return response

    def close(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.send_signal(signal.SIGKILL)
            agent.wait()
        eventually(lambda: not self.engines(), what="the end of every engine process")
