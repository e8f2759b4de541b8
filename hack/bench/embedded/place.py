"""A controller of its own, and a gateway, each a process as users run them, in a directory that goes away."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateways.processes import answers, free_port, started, until

from llmop.cli.client import Client, ServerError

_LLMOP = str(Path(sys.executable).with_name("llmop"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Controller:
    """A controller with this machine as its Cluster. `state` is its state directory."""

    state: Path
    pid: int

    @property
    def address(self) -> str:
        return f"unix://{self.state}/run/controller.sock"

    @property
    def shared(self) -> Path:
        return self.state / "shared"

    def client(self) -> Client:
        return Client(self.address, 30.0)


@contextlib.contextmanager
def controller(store: str = "") -> Iterator[Controller]:
    """`store` is SQLAlchemy's address; "" = SQLite in the state directory."""
    with contextlib.ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-"))) / "state"
        argv = [
            _LLMOP,
            "controller",
            "--local",
            "--state-dir",
            str(state),
            *(["--store", store] if store else []),
        ]
        log = state.parent / "controller.log"
        process = stack.enter_context(started(argv, log=log))
        made = Controller(state=state, pid=process.pid)
        client = made.client()
        stack.callback(client.close)

        def is_up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the controller has ended: {log.read_text()[-2000:]}")
            try:
                return bool(client.list("Cluster", "")[0])
            except ServerError:
                return False

        until(is_up, "the controller does not answer", seconds=40)
        yield made


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    port: int
    key: str


@contextlib.contextmanager
def gateway(of: Controller) -> Iterator[Gateway]:
    made = subprocess.run(
        [_LLMOP, "key", "create", "--state-dir", str(of.state), "bench"],
        check=True,
        capture_output=True,
        text=True,
    )
    port = free_port()
    argv = [_LLMOP, "gateway", "--state-dir", str(of.state), "--listen", f"127.0.0.1:{port}"]
    with started(argv, log=of.state.parent / "gateway.log"):
        until(lambda: answers(port), "the gateway does not listen", seconds=40)
        yield Gateway(port=port, key=made.stdout.strip())


def deployment(name: str, **spec: object) -> Mapping[str, object]:
    """A manifest of the simulator on this machine; no replicas unless `spec` says otherwise."""
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"runtime": "simulator", "resourceProfile": "cpu", "replicas": 0, **spec},
    }
